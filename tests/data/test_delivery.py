"""However batches reach the device they are the same. What is read, copied and left behind differs."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from threading import Event, get_ident

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from xray_lightning.data import batches as batches_module
from xray_lightning.data import delivery as module
from xray_lightning.data.batches import BatchLoader, RowReader, RowSampler, shares
from xray_lightning.data.delivery import AHEAD, Batch, deliver, free_memory, mapped, on_device, resident, streamed

CPU, META = torch.device("cpu"), torch.device("meta")  # meta tensors have shapes and no values
DEVICES = [CPU, *[torch.device("cuda:0")] * torch.cuda.is_available()]
ROWS = np.array([40, 3, 5, 8, 9, 12, 20, 21, 22, 30, 31])
NEEDED = int(len(ROWS) * (6 * 6 + 8) / module.RESIDENT_SHARE)  # bytes free, for images and labels of ROWS to stay


class Images:
    """Looks like 50 images, whose every pixel is their row number, and remembers which rows were read and where."""

    def __init__(self, error: BaseException | None = None, seconds: float = 0) -> None:
        self.reads: list[np.ndarray] = []
        self.threads: set[int] = set()
        self.full = Event()  # set when as much was read as may be before the second batch is asked for
        self.error = error
        self.seconds = seconds

    def __len__(self) -> int:
        return 50

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.threads.add(get_ident())
        self.reads.append(rows)
        if len(self.reads) == 1 + 2 * AHEAD:
            self.full.set()
        if self.error is not None and 20 in rows:
            raise self.error
        time.sleep(self.seconds)
        return np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), 1, 6, 6)).copy()

    @property
    def reader(self) -> RowReader:
        return RowReader(self, np.arange(50))


class Operations(TorchDispatchMode):
    """Remembers the names of what torch does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def same(found: list[Batch], expected: list[Batch]) -> bool:
    return len(found) == len(expected) and all(
        one.dtype == other.dtype and torch.equal(one.cpu(), other)
        for pair in zip(found, expected, strict=True)
        for one, other in zip(*pair, strict=True)
    )


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@st.composite
def samplers(draw: st.DrawFn) -> RowSampler:
    rows = np.array(draw(st.lists(st.integers(0, 59), max_size=25)), dtype=np.int64)
    seed = draw(st.none() | st.integers(0, 9))
    weights = np.linspace(1, 3, len(rows)) if seed is not None and len(rows) and draw(st.booleans()) else None
    return RowSampler(rows, seed=seed, weights=weights)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(
    sampler=samplers(),
    views=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([np.uint8, np.float16, np.float32]),
    shape=st.sampled_from([(), (5,), (1, 3, 3)]),
    size=st.integers(1, 9),
    place=st.integers(1, 3).flatmap(lambda world: st.tuples(st.integers(0, world - 1), st.just(world))),
    piece=st.integers(1, 200),
)
def test_all_ways_give_the_same_batches(
    device: torch.device,
    sampler: RowSampler,
    views: int,
    dtype: type,
    shape: tuple[int, ...],
    size: int,
    place: tuple[int, int],
    piece: int,
) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (60, *shape)).astype(dtype)
    reader = RowReader(inputs, np.arange(100, 100 + 60 // views))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_BYTES", piece)
        from_device = resident(reader, np.unique(sampler.rows), device)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        order = shares(sampler.order(), size, *place)
        expected = list(mapped(reader, order))
        assert [labels.tolist() for _, labels in expected] == [(rows % (60 // views) + 100).tolist() for rows in order]
        assert same(list(from_device(order)), expected)
        assert same(list(streamed(reader, device, order)), expected)


def loader(images: Images, free: int, monkeypatch: pytest.MonkeyPatch) -> BatchLoader:
    """For a device that says that so many bytes are free."""
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    return BatchLoader(images, np.arange(50), RowSampler(ROWS, seed=0), 4, META)


@pytest.mark.parametrize(("spare", "stays"), [(10**9, True), (0, True), (-1, False), (-NEEDED, False)])
def test_rows_stay_on_the_device_where_they_fit(monkeypatch: pytest.MonkeyPatch, spare: int, stays: bool) -> None:
    images = Images()
    batches = loader(images, NEEDED + spare, monkeypatch)
    first, before = list(batches), len(images.reads)
    for epoch in (first, list(batches)):
        assert [(tuple(inputs.shape), inputs.dtype, inputs.device) for inputs, _ in epoch] == [
            ((size, 1, 6, 6), torch.uint8, META) for size in (4, 4, 3)
        ]
        assert [(tuple(labels.shape), labels.dtype, labels.device) for _, labels in epoch] == [
            ((size,), torch.int64, META) for size in (4, 4, 3)
        ]
    assert (len(images.reads) == before) is stays


def test_an_epoch_of_rows_that_stay_copies_their_order_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = loader(Images(), NEEDED, monkeypatch)
    next(iter(batches))
    with Operations() as done:
        list(batches)
    assert done.names.count("_to_copy") == 1
    assert set(done.names) == {"lift_fresh", "_to_copy", "split_with_sizes", "index_select"}  # the first is from_numpy


@pytest.mark.parametrize("free", [0, NEEDED])
def test_nothing_is_done_before_the_first_batch_is_asked_for(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    images = Images()
    batches = loader(images, free, monkeypatch)
    epoch = iter(batches)
    batches.sampler.set_epoch(1)
    assert not images.reads and not readers()
    next(epoch)
    assert images.reads


def test_on_the_cpu_batches_are_read_as_they_are_asked_for() -> None:
    images = Images()
    batches = deliver(images.reader, ROWS, CPU)(np.split(ROWS, [4, 8]))
    for count in range(1, 4):
        next(batches)
        assert len(images.reads) == count
    assert images.threads == {get_ident()}


def test_only_a_cuda_device_can_be_asked_for_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (device.index, 99))
    assert [free_memory(torch.device(name)) for name in ("cuda:7", "mps", "xpu:1")] == [7, 0, 0]


@pytest.mark.parametrize(("limit", "rows"), [(1, 1), (36, 1), (100, 2), (10**6, 11)])
def test_rows_are_put_on_the_device_in_order_and_in_small_pieces(
    monkeypatch: pytest.MonkeyPatch, limit: int, rows: int
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", limit)
    images = Images()
    resident(images.reader, np.sort(ROWS), CPU)
    first, *pieces = images.reads
    assert first.tolist() == [3]
    assert np.concatenate(pieces).tolist() == sorted(ROWS)
    assert max(map(len, pieces)) == rows


def streaming(images: Images) -> Iterator[Batch]:
    """Twelve batches of four."""
    return streamed(images.reader, CPU, np.split(np.arange(48), 12))


def test_streamed_batches_are_read_ahead_by_another_thread() -> None:
    images = Images()
    batches = streaming(images)
    next(batches)
    assert images.full.wait(10)
    assert images.threads and get_ident() not in images.threads


def test_streamed_batches_are_copied_before_those_in_front_are_handed_out() -> None:
    with Operations() as done:
        next(streamed(Images().reader, META, np.split(np.arange(48), 12)))
    assert done.names == ["_to_copy"] * 2 * (AHEAD + 1)


def test_no_more_batches_are_read_ahead_than_may() -> None:
    images = Images()
    for taken, _ in enumerate(streaming(images), 1):
        time.sleep(0.005)
        assert len(images.reads) <= taken + 2 * AHEAD
    assert len(images.reads) == 12


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_while_reading_arrives_as_it_is_and_ends_the_thread(error: BaseException) -> None:
    with pytest.raises(type(error)) as found:
        list(streaming(Images(error)))
    assert found.value is error
    assert not readers()


@pytest.mark.parametrize("taken", [1, 5])
def test_a_loop_that_is_left_ends_the_thread(taken: int) -> None:
    images = Images(seconds=0.002)
    batches = streaming(images)
    for _ in range(taken):
        next(batches)
    assert len(readers()) == 1
    del batches
    assert not readers()
    assert len(images.reads) <= taken + 2 * AHEAD


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_loop_ends_the_thread(error: type[BaseException]) -> None:
    batches = streaming(Images())
    next(batches)
    with pytest.raises(error) as found:
        batches.throw(error)  # type: ignore[attr-defined]
    assert found.tb is not None and not readers()  # though the traceback holds what the generator was at


class Listener(LightningModule):
    """Learns nothing, but keeps the labels of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.heard: list[list[int]] = []

    def training_step(self, batch: Batch) -> torch.Tensor:
        inputs, labels = batch
        assert torch.equal(inputs[:, 0, 0, 0], labels)
        self.heard.append(labels.tolist())
        return self.weight * inputs.float().mean()

    def validation_step(self, batch: Batch) -> None:
        self.training_step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_gets_the_same_batches_and_lets_go_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def heard() -> list[list[int]]:
        images = Images()
        loaders = [BatchLoader(images, np.arange(50), RowSampler(ROWS, seed=seed), 4) for seed in (0, None)]
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(accelerator="cpu", max_epochs=3, limit_train_batches=2, **quiet)
        model = Listener()
        trainer.fit(model, *loaders)
        assert not readers()
        gone = [weakref.ref(batches) for batches in loaders]
        model.trainer = None
        del loaders, trainer
        gc.collect()
        assert [ref() for ref in gone] == [None, None]
        return model.heard

    expected = heard()
    for free in (0, 10**9):
        monkeypatch.setattr(module, "free_memory", lambda device, free=free: free)
        monkeypatch.setattr(batches_module, "deliver", on_device)
        assert heard() == expected
