"""Which rows a batch holds, in which order, and in which process."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.data import batches as module
from xray_lightning.data.batches import BatchLoader, RowSampler, share
from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.examine import digest_of
from xray_lightning.data.pixels import ImageFiles, PixelPlan, load_pixels

ROWS = np.array([3, 5, 8, 9, 12, 20, 21, 22, 30, 31, 40])


def loader(sampler: RowSampler, batch_size: int = 4, **place: int) -> BatchLoader:
    """Over images whose every pixel is their row number, with the row number as label."""
    numbers = np.arange(50)
    images = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (50, 1, 6, 6)).copy()
    return BatchLoader(images, numbers, sampler, batch_size, **place)


def drawn(batches: BatchLoader) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def orders(**settings: object) -> list[list[int]]:
    sampler = RowSampler(ROWS, **settings)
    result = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        result.append(drawn(loader(sampler)))
    return result


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 3]), (11, [11]), (64, [11]), (1, [1] * 11)])
def test_shapes_dtypes_and_number_of_batches(batch_size: int, sizes: list[int]) -> None:
    batches = loader(RowSampler(ROWS, seed=0), batch_size)
    found = list(batches)
    assert len(batches) == len(found)
    assert [tuple(images.shape) for images, _ in found] == [(n, 1, 6, 6) for n in sizes]
    assert [tuple(labels.shape) for _, labels in found] == [(n,) for n in sizes]
    assert {(images.dtype, labels.dtype) for images, labels in found} == {(torch.uint8, torch.int64)}


def test_images_and_labels_belong_together() -> None:
    for images, labels in loader(RowSampler(ROWS, seed=1)):
        assert torch.equal(images[:, 0, 0, 0].long(), labels)


def test_a_batch_does_not_share_memory_with_the_images() -> None:
    batches = loader(RowSampler(ROWS))
    for images, _ in batches:
        images.zero_()
    assert all(torch.equal(images[:, 0, 0, 0].long(), labels) for images, labels in batches)


def test_inputs_of_any_shape_and_dtype_pass() -> None:
    features = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float16)
    inputs, _ = next(iter(BatchLoader(features, np.arange(50), RowSampler(ROWS), 4)))
    assert inputs.dtype == torch.float16
    assert np.array_equal(inputs.numpy(), features[ROWS[:4]])


def test_views_of_an_image_have_its_label() -> None:
    inputs, labels = np.arange(12), np.array([7, 8, 9, 6])
    (found, numbers), *_ = BatchLoader(inputs, labels, RowSampler(np.array([0, 3, 4, 7, 9, 11])), 6)
    assert found.tolist() == [0, 3, 4, 7, 9, 11]
    assert numbers.tolist() == [7, 6, 7, 6, 8, 6]


@pytest.mark.parametrize(("inputs", "labels"), [(12, 5), (3, 4)])
def test_inputs_must_be_whole_views_of_the_labelled_images(inputs: int, labels: int) -> None:
    with pytest.raises(ValueError, match=f"^{inputs} inputs are not a whole number of views of {labels} images"):
        BatchLoader(np.zeros(inputs), np.zeros(labels, np.int64), RowSampler(np.arange(1)), 4)


def test_every_row_comes_once_an_epoch() -> None:
    for order in orders(seed=7):
        assert sorted(order) == ROWS.tolist()


def test_without_a_seed_the_order_is_that_of_the_rows_in_every_epoch() -> None:
    assert orders() == [ROWS.tolist()] * 3


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = orders(seed=3)
    np.random.seed(99)
    torch.manual_seed(99)
    assert orders(seed=3) == first
    assert len({tuple(order) for order in first + orders(seed=4)}) == 6


def test_an_epoch_can_be_returned_to() -> None:
    sampler = RowSampler(ROWS, seed=3)
    sampler.set_epoch(2)
    later = drawn(loader(sampler))
    sampler.set_epoch(0)
    assert drawn(loader(sampler)) != later
    sampler.set_epoch(2)
    assert drawn(loader(sampler)) == later


def test_reading_an_epoch_twice_gives_the_same_order() -> None:
    batches = loader(RowSampler(ROWS, seed=3))
    assert drawn(batches) == drawn(batches)


def test_weights_set_how_often_a_row_is_drawn() -> None:
    rows, weights = np.arange(4), np.array([0.0, 1.0, 1.0, 2.0])
    sampler = RowSampler(np.tile(rows, 500), seed=0, weights=np.tile(weights, 500))
    order = drawn(loader(sampler))
    shares = np.bincount(order, minlength=4) / len(order)
    assert len(order) == 2000
    assert shares == pytest.approx([0, 0.25, 0.25, 0.5], abs=0.04)


def test_weighted_draws_differ_by_epoch_and_repeat_by_seed() -> None:
    weights = np.linspace(1, 2, len(ROWS))
    assert orders(seed=0, weights=weights) == orders(seed=0, weights=weights)
    assert len({tuple(order) for order in orders(seed=0, weights=weights)}) == 3


def test_each_row_is_drawn_in_one_of_its_versions() -> None:
    rows, apart, versions = np.arange(3, 63), 100, 4
    sampler = RowSampler(rows, seed=0, versions=versions, apart=apart)
    drawn_by_epoch = []
    for epoch in range(50):
        sampler.set_epoch(epoch)
        drawn_by_epoch.append(sampler.order())
        np.testing.assert_array_equal(np.sort(drawn_by_epoch[-1] % apart), rows)
        assert set(drawn_by_epoch[-1]) <= set(sampler.everything())
    shares = np.bincount(np.concatenate(drawn_by_epoch) // apart, minlength=versions) / (50 * len(rows))
    assert shares == pytest.approx([0.25] * 4, abs=0.03)
    assert set(np.concatenate(drawn_by_epoch)) == set(sampler.everything())


def test_versions_leave_the_order_of_the_rows_as_it_is() -> None:
    one, several = RowSampler(ROWS, seed=3), RowSampler(ROWS, seed=3, versions=2, apart=1000)
    np.testing.assert_array_equal(one.order(), several.order() % 1000)
    np.testing.assert_array_equal(one.everything(), ROWS)


@given(size=st.integers(0, 40), world=st.integers(1, 9))
def test_processes_share_a_batch_in_pairs_of_mirror_images(size: int, world: int) -> None:
    parts = [share(size, rank, world).tolist() for rank in range(world)]
    assert sorted(chain(*parts)) == list(range(size))
    for part in parts:
        assert [size - 1 - position for position in reversed(part)] == part  # mixup reverses what a process holds
    assert max(map(len, parts)) - min(map(len, parts)) <= 2


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("weights", [None, np.linspace(1, 2, len(ROWS))])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 11])
def test_processes_share_the_batches_of_one(world: int, weights: np.ndarray | None, seed: int | None) -> None:
    def batches(rank: int, world: int) -> list[set[int]]:
        sampler = RowSampler(ROWS, seed=seed, weights=weights)
        sampler.set_epoch(2)
        part = loader(sampler, rank=rank, world=world)
        found = [set(labels.tolist()) for _, labels in part]
        assert len(part) == len(found)
        return found

    shared = zip(*(batches(rank, world) for rank in range(world)), strict=True)
    assert [set().union(*parts) for parts in shared] == batches(0, 1)
    assert [len(share(3, rank, 2)) for rank in range(2)] == [2, 1]  # of the last batch, of which nothing is left out


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    """A read-only map of 64 images of 64 KiB, (64, 1, 256, 256)."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (64, 256, 256), dtype=np.uint8))
    return np.load(tmp_path / "a.npy", mmap_mode="r")[:, None]


def file_of(array: np.ndarray) -> Path:
    assert isinstance(array, np.memmap) and array.filename is not None
    return Path(array.filename)


@pytest.mark.parametrize("limit", [1, 300_000])
def test_giving_memory_back_changes_no_batch(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    def epoch() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(BatchLoader(mapped, np.arange(64), RowSampler(np.arange(64), seed=1), 3))

    whole = epoch()
    monkeypatch.setattr(module, "MAPPED_BYTES", limit)
    for _ in range(2):
        for (images, labels), (expected, numbers) in zip(epoch(), whole, strict=True):
            assert torch.equal(images, expected) and torch.equal(labels, numbers)
    assert np.array_equal(mapped, np.load(file_of(mapped))[:, None])


def resident(file: Path) -> int:
    """Bytes of a mapped file that this process holds in memory."""
    parts = Path("/proc/self/smaps").read_text().split(str(file))[1:]
    return sum(int(part.split("Rss:")[1].split()[0]) * 1024 for part in parts)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_memory_of_a_map_is_given_back_while_it_is_read(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = BatchLoader(mapped, np.arange(64), RowSampler(np.arange(64), seed=1), 4)
    file = file_of(mapped)
    for _ in batches:
        pass
    assert resident(file) >= mapped.nbytes
    monkeypatch.setattr(module, "MAPPED_BYTES", 1)
    assert all(resident(file) < mapped.nbytes // 4 for _ in batches)


def test_arrays_in_memory_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = orders(seed=3)
    monkeypatch.setattr(module, "MAPPED_BYTES", 0)
    assert orders(seed=3) == before


def test_images_from_their_files_come_in_the_same_batches(
    tmp_path: Path, write_image: Callable[..., Path], make_row: Callable[..., Radiograph]
) -> None:
    names = [f"{n}.png" for n in range(7)]
    rows = [make_row(name, digest=digest_of(write_image(tmp_path / name).read_bytes())) for name in names]
    plan = PixelPlan(tmp_path, 8, "stretch", tmp_path / "cache")
    found = [
        list(BatchLoader(images, np.arange(7), RowSampler(np.arange(7), seed=2), 3))
        for images in (load_pixels(plan, rows)[:, None], ImageFiles(plan, rows))
    ]
    for (images, labels), (others, numbers) in zip(*found, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, numbers)
