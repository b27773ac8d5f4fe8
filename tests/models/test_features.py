"""The feature store: computed once, resumed after an interruption, never mixed up."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from xray_lightning.artifacts import RowsFile, read_json
from xray_lightning.errors import XRayError
from xray_lightning.models.features import FeatureStore

BATCH = 64
ROWS, WIDTH = 3 * BATCH + 5, 2
EXPECTED = np.arange(ROWS, dtype=np.float16)[:, None] * np.array([[1, -1]])


class Embedding:
    """Writes down what it was asked for, each batch by its first row, and may break at one of them."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.rows: list[int] = []
        self.breaks_at = breaks_at

    def __call__(self, rows: np.ndarray) -> Tensor:
        if rows[0] == self.breaks_at:
            raise KeyboardInterrupt
        assert len(rows) <= BATCH
        self.asked.append(int(rows[0]))
        self.rows += rows.tolist()
        return torch.from_numpy(rows)[:, None] * torch.tensor([[1.0, -1.0]])


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., FeatureStore]:
    return lambda key="key": FeatureStore(tmp_path / "features", key, rows=ROWS, width=WIDTH, how="float32")


def test_every_row_gets_its_own_features(store: Callable[..., FeatureStore]) -> None:
    features = store().filled(np.arange(ROWS), Embedding(), BATCH, "Computing")
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, EXPECTED)
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


def test_an_interrupted_computation_goes_on_where_it_stopped(store: Callable[..., FeatureStore]) -> None:
    broken, after, again = Embedding(breaks_at=2 * BATCH), Embedding(), Embedding()
    with pytest.raises(KeyboardInterrupt):
        store().filled(np.arange(ROWS), broken, BATCH, "Computing")
    features = store().filled(np.arange(ROWS), after, BATCH, "Computing")
    assert broken.asked == [0, BATCH]
    assert after.asked == [2 * BATCH, 3 * BATCH]
    np.testing.assert_array_equal(features[:, 0], EXPECTED[:, 0])
    store().filled(np.arange(ROWS), again, BATCH, "Computing")
    assert again.asked == []


def test_only_the_rows_asked_for_are_computed_and_each_once(store: Callable[..., FeatureStore]) -> None:
    first, second, nothing = Embedding(), Embedding(), Embedding()
    store().filled(np.array([ROWS - 1, BATCH, 3, ROWS - 1]), first, BATCH, "Computing")
    assert first.rows == [3, BATCH, ROWS - 1]
    features = store().filled(np.array([0, BATCH, 4]), second, BATCH, "Computing")
    assert second.rows == [0, 4]
    np.testing.assert_array_equal(features[[0, 3, 4, BATCH, ROWS - 1]], EXPECTED[[0, 3, 4, BATCH, ROWS - 1]])
    store().filled(np.array([], dtype=np.int64), nothing, BATCH, "Computing")
    assert nothing.asked == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_features_that_float16_cannot_hold_are_refused_and_not_kept(
    store: Callable[..., FeatureStore], value: float
) -> None:
    with pytest.raises(XRayError, match=r"no numbers, or larger than 65504.*model\.weights"):
        store().filled(np.arange(3), lambda rows: torch.full((len(rows), WIDTH), value), BATCH, "Computing")
    embedding = Embedding()
    store().filled(np.arange(3), embedding, BATCH, "Computing")
    assert embedding.rows == [0, 1, 2]


def test_the_order_of_asking_changes_nothing(tmp_path: Path) -> None:
    whole = FeatureStore(tmp_path / "a", "key", rows=ROWS, width=WIDTH)
    parts = FeatureStore(tmp_path / "b", "key", rows=ROWS, width=WIDTH)
    for rows in (np.array([ROWS - 1]), np.array([BATCH]), np.arange(ROWS)[::-1]):
        in_parts = parts.filled(rows, Embedding(), BATCH, "Computing")
    np.testing.assert_array_equal(whole.filled(np.arange(ROWS), Embedding(), BATCH, "Computing"), in_parts)


def test_another_key_is_another_file(store: Callable[..., FeatureStore]) -> None:
    mine, other = store("key"), store("other key")
    assert not {mine.path, mine.marks} & {other.path, other.marks}
    assert store("key").path == mine.path
    mine.filled(np.arange(ROWS), Embedding(), BATCH, "Computing")
    embedding = Embedding()
    other.filled(np.arange(BATCH), embedding, BATCH, "Computing")
    assert embedding.asked == [0]


def test_lost_marks_mean_computing_again(store: Callable[..., FeatureStore]) -> None:
    store().filled(np.arange(ROWS), Embedding(), BATCH, "Computing")
    store().marks.unlink()
    embedding = Embedding()
    store().filled(np.array([0]), embedding, BATCH, "Computing")
    assert embedding.asked == [0]


@pytest.mark.parametrize("damaged", ["path", "marks"])
@pytest.mark.parametrize("size", [0, 40, 140])
def test_a_damaged_file_means_computing_again(store: Callable[..., FeatureStore], damaged: str, size: int) -> None:
    store().filled(np.arange(ROWS), Embedding(), BATCH, "Computing")
    file: Path = getattr(store(), damaged)
    file.write_bytes(file.read_bytes()[:size])
    features = store().filled(np.arange(ROWS), Embedding(), BATCH, "Computing")
    np.testing.assert_array_equal(features[:, 0], EXPECTED[:, 0])


def test_a_folder_that_cannot_be_written_to_is_named_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file" / "features", "key", rows=ROWS, width=WIDTH)
    with pytest.raises(XRayError) as caught:
        store.filled(np.arange(ROWS), Embedding(), BATCH, "Computing")
    for part in (str(tmp_path / "file" / "features"), "paths.cache=", "XRAY_CACHE", "cache=off"):
        assert part in str(caught.value)


def test_a_full_disk_is_reported_before_anything_is_computed(
    store: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: RowsFile, row: np.ndarray) -> None:
        if row.shape == (WIDTH,):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(file, row)

    whole, embedding = RowsFile.append, Embedding()
    with monkeypatch.context() as patch:
        patch.setattr(RowsFile, "append", full)
        with pytest.raises(XRayError, match=r"No space left.*clear=all"):
            store().filled(np.arange(ROWS), embedding, BATCH, "Computing")
    assert embedding.asked == [] and not store().path.exists()
    assert not list(store().folder.glob("*.part")) and not list(store().folder.glob(".*.part"))
    np.testing.assert_array_equal(store().filled(np.arange(ROWS), embedding, BATCH, "Computing")[:, 0], EXPECTED[:, 0])


def test_beside_the_features_lies_what_they_are(store: Callable[..., FeatureStore]) -> None:
    store().filled(np.array([0]), Embedding(), BATCH, "Computing")
    about = read_json(store().path.with_suffix(".json")) or {}
    assert (about["rows"], about["width"], about["how"]) == (ROWS, WIDTH, "float32")


def test_threads_that_want_the_same_features_compute_them_once(store: Callable[..., FeatureStore]) -> None:
    start, embedding = Barrier(3), Embedding()

    def fill(_: int) -> np.ndarray:
        start.wait()
        return store().filled(np.arange(ROWS), embedding, BATCH, "Computing")

    with ThreadPoolExecutor(3) as pool:
        for features in pool.map(fill, range(3)):
            np.testing.assert_array_equal(features[:, 0], EXPECTED[:, 0])
    assert embedding.asked == [0, BATCH, 2 * BATCH, 3 * BATCH]


def test_a_process_that_is_killed_leaves_only_what_is_right(store: Callable[..., FeatureStore]) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        import numpy as np, torch
        from xray_lightning.models import features

        features.FLUSH = 0

        def embed(rows):
            if rows[0] == {2 * BATCH}:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.from_numpy(rows)[:, None] * torch.tensor([[1.0, -1.0]])
        store = features.FeatureStore(Path(sys.argv[1]), "key", rows={ROWS}, width={WIDTH})
        store.filled(np.arange({ROWS}), embed, {BATCH}, "Computing")
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(store().folder)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    embedding = Embedding()
    features = store().filled(np.arange(ROWS), embedding, BATCH, "Computing")
    assert embedding.asked == [2 * BATCH, 3 * BATCH]
    np.testing.assert_array_equal(features, EXPECTED)
