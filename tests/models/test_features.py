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
from xray_lightning.models.features import CHUNK, FeatureStore

ROWS, WIDTH = 3 * CHUNK + 5, 2
EXPECTED = np.arange(ROWS, dtype=np.float16)[:, None] * np.array([[1, -1]])


class Embedding:
    """Writes down the chunks it was asked for, by their first row, and may break at one of them."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.breaks_at = breaks_at

    def __call__(self, part: slice) -> Tensor:
        if part.start == self.breaks_at:
            raise KeyboardInterrupt
        self.asked.append(part.start)
        return torch.arange(part.start, part.stop)[:, None] * torch.tensor([[1.0, -1.0]])


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., FeatureStore]:
    return lambda key="key": FeatureStore(tmp_path / "features", key, rows=ROWS, width=WIDTH)


def test_every_row_gets_its_own_features(store: Callable[..., FeatureStore]) -> None:
    features = store().filled(np.arange(ROWS), Embedding(), "Computing")
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, EXPECTED)
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


def test_an_interrupted_computation_goes_on_where_it_stopped(store: Callable[..., FeatureStore]) -> None:
    broken, after, again = Embedding(breaks_at=2 * CHUNK), Embedding(), Embedding()
    with pytest.raises(KeyboardInterrupt):
        store().filled(np.arange(ROWS), broken, "Computing")
    features = store().filled(np.arange(ROWS), after, "Computing")
    assert broken.asked == [0, CHUNK]
    assert after.asked == [2 * CHUNK, 3 * CHUNK]
    np.testing.assert_array_equal(features[:, 0], EXPECTED[:, 0])
    store().filled(np.arange(ROWS), again, "Computing")
    assert again.asked == []


def test_only_chunks_of_the_rows_asked_for_are_computed(store: Callable[..., FeatureStore]) -> None:
    first, second = Embedding(), Embedding()
    store().filled(np.array([ROWS - 1, CHUNK, CHUNK + 1, ROWS - 1]), first, "Computing")
    assert first.asked == [CHUNK, 3 * CHUNK]
    store().filled(np.array([0, CHUNK]), second, "Computing")
    assert second.asked == [0]
    nothing = Embedding()
    store().filled(np.array([], dtype=np.int64), nothing, "Computing")
    assert nothing.asked == []


def test_the_order_of_asking_changes_nothing(tmp_path: Path) -> None:
    whole = FeatureStore(tmp_path / "a", "key", rows=ROWS, width=WIDTH)
    parts = FeatureStore(tmp_path / "b", "key", rows=ROWS, width=WIDTH)
    for rows in (np.array([ROWS - 1]), np.array([CHUNK]), np.arange(ROWS)[::-1]):
        in_parts = parts.filled(rows, Embedding(), "Computing")
    np.testing.assert_array_equal(whole.filled(np.arange(ROWS), Embedding(), "Computing"), in_parts)


def test_another_key_is_another_file(store: Callable[..., FeatureStore]) -> None:
    mine, other = store("key"), store("other key")
    assert not {mine.path, mine.marks} & {other.path, other.marks}
    assert store("key").path == mine.path
    mine.filled(np.arange(ROWS), Embedding(), "Computing")
    embedding = Embedding()
    other.filled(np.arange(CHUNK), embedding, "Computing")
    assert embedding.asked == [0]


def test_lost_marks_mean_computing_again(store: Callable[..., FeatureStore]) -> None:
    store().filled(np.arange(ROWS), Embedding(), "Computing")
    store().marks.unlink()
    embedding = Embedding()
    store().filled(np.array([0]), embedding, "Computing")
    assert embedding.asked == [0]


@pytest.mark.parametrize("damaged", ["path", "marks"])
@pytest.mark.parametrize("size", [0, 40, 140])
def test_a_damaged_file_means_computing_again(store: Callable[..., FeatureStore], damaged: str, size: int) -> None:
    store().filled(np.arange(ROWS), Embedding(), "Computing")
    file: Path = getattr(store(), damaged)
    file.write_bytes(file.read_bytes()[:size])
    features = store().filled(np.arange(ROWS), Embedding(), "Computing")
    np.testing.assert_array_equal(features[:, 0], EXPECTED[:, 0])


def test_a_folder_that_cannot_be_written_to_is_named_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FeatureStore(tmp_path / "file" / "features", "key", rows=ROWS, width=WIDTH)
    with pytest.raises(XRayError) as caught:
        store.filled(np.arange(ROWS), Embedding(), "Computing")
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
            store().filled(np.arange(ROWS), embedding, "Computing")
    assert embedding.asked == [] and not store().path.exists()
    assert not list(store().folder.glob("*.part")) and not list(store().folder.glob(".*.part"))
    np.testing.assert_array_equal(store().filled(np.arange(ROWS), embedding, "Computing")[:, 0], EXPECTED[:, 0])


def test_beside_the_features_lies_what_they_are(store: Callable[..., FeatureStore]) -> None:
    store().filled(np.array([0]), Embedding(), "Computing")
    about = read_json(store().path.with_suffix(".json")) or {}
    assert (about["rows"], about["width"]) == (ROWS, WIDTH)


def test_threads_that_want_the_same_features_compute_them_once(store: Callable[..., FeatureStore]) -> None:
    start, embedding = Barrier(3), Embedding()

    def fill(_: int) -> np.ndarray:
        start.wait()
        return store().filled(np.arange(ROWS), embedding, "Computing")

    with ThreadPoolExecutor(3) as pool:
        for features in pool.map(fill, range(3)):
            np.testing.assert_array_equal(features[:, 0], EXPECTED[:, 0])
    assert embedding.asked == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]


def test_a_process_that_is_killed_leaves_only_what_is_right(store: Callable[..., FeatureStore]) -> None:
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        import numpy as np, torch
        from xray_lightning.models import features

        features.FLUSH = 0

        def embed(part):
            if part.start == {2 * CHUNK}:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.arange(part.start, part.stop)[:, None] * torch.tensor([[1.0, -1.0]])
        store = features.FeatureStore(Path(sys.argv[1]), "key", rows={ROWS}, width={WIDTH})
        store.filled(np.arange({ROWS}), embed, "Computing")
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(store().folder)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    embedding = Embedding()
    features = store().filled(np.arange(ROWS), embedding, "Computing")
    assert embedding.asked == [2 * CHUNK, 3 * CHUNK]
    np.testing.assert_array_equal(features, EXPECTED)
