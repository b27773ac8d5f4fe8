"""Features of a frozen backbone, computed once for each image and kept on disk."""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from xray_lightning.artifacts import is_whole_array, locked, write_json, write_zeros
from xray_lightning.console import progress
from xray_lightning.data.pixels import Images
from xray_lightning.errors import XRayError, cache_errors

log = logging.getLogger(__name__)
FLUSH = 2.0  # seconds between two times at which what is computed is put on disk and marked


@dataclass(frozen=True)
class ImageSource:
    """What features are computed from, and where they are kept."""

    images: Images
    fingerprint: str  # names the content of `images`
    cache_dir: Path
    autocast: torch.dtype | None  # the precision to compute in; None: float32
    root: str = ""  # of the images' files, for people


class FeatureStore:
    """A (rows, width) float16 memory map that fills on demand, row by row.

    `key` names all that the features depend on. A row is marked when it is on disk, so an interrupted
    computation goes on where it stopped, and a second process waits and finds the work done. `about` is kept
    beside the file, for people.
    """

    def __init__(self, folder: Path, key: str, *, rows: int, width: int, **about: Any) -> None:
        name = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
        self.folder = folder
        self.path = folder / f"{name}.npy"
        self.marks = folder / f"{name}.done.npy"
        self.shape = (rows, width)
        self.about = about

    def filled(self, rows: np.ndarray, embed: Callable[[np.ndarray], Tensor], batch: int, title: str) -> np.ndarray:
        """The read-only map, in which at least `rows` are computed.

        `embed` turns some of the rows, at most `batch`, into their features (B, width), on any device. `title`
        names the work on the progress bar. Raises XRayError where the folder cannot be written to, and for features
        that are no numbers or too large for float16.
        """
        if not self._has(rows):
            with cache_errors(self.folder), locked(self.path):
                self._fill(rows, embed, batch, title)
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def _has(self, rows: np.ndarray) -> bool:
        return self._whole() and bool(np.load(self.marks, allow_pickle=False)[rows].all())

    def _whole(self) -> bool:
        marks = is_whole_array(self.marks, np.bool_, self.shape[:1])
        return marks and is_whole_array(self.path, np.float16, self.shape)

    def _fill(self, rows: np.ndarray, embed: Callable[[np.ndarray], Tensor], batch: int, title: str) -> None:
        features, done = self._open()
        missing = np.unique(rows)
        missing = missing[~done[missing]]
        ahead: deque[Computed] = deque()  # a GPU computes the next batch while the last one is written
        finished: list[np.ndarray] = []
        flushed = time.monotonic()

        def write(waiting: int) -> None:
            while len(ahead) > waiting:
                computed = ahead.popleft()
                features[computed.rows] = computed.values()
                finished.append(computed.rows)

        def flush() -> None:
            features.flush()
            for some in finished:
                done[some] = True  # only now: a mark says that the features are on disk
            done.flush()
            finished.clear()

        batches = [missing[start : start + batch] for start in range(0, len(missing), batch)]
        try:
            for some in progress(batches, title, total=len(batches)):
                ahead.append(Computed(some, embed(some)))
                write(waiting=1 if ahead[-1].copied else 0)
                if time.monotonic() - flushed > FLUSH:
                    flush()
                    flushed = time.monotonic()
        finally:
            write(waiting=0)
            flush()
        log.info("Computed features of %d images into %s", len(missing), self.path)

    def _open(self) -> tuple[np.memmap, np.memmap]:
        if not self._whole():
            write_zeros(self.marks, self.shape[:1], np.bool_)
            write_zeros(self.path, self.shape, np.float16)
            about = {"rows": self.shape[0], "width": self.shape[1]} | self.about
            write_json(
                self.path.with_suffix(".json"), about | {"written": datetime.now().isoformat(timespec="seconds")}
            )
        return open_memmap(self.path, mode="r+"), open_memmap(self.marks, mode="r+")


class Computed:
    """Features of `rows` on their way to the CPU, which begins at once."""

    def __init__(self, rows: np.ndarray, features: Tensor) -> None:
        self.rows = rows
        self._features = features.half().to("cpu", non_blocking=True)  # from a GPU to pinned memory
        self.copied = torch.cuda.current_stream().record_event() if features.is_cuda else None

    def values(self) -> np.ndarray:
        """(B, width) float16, once they have arrived. Raises XRayError for what float16 cannot hold."""
        if self.copied is not None:
            self.copied.synchronize()
        if not self._features.isfinite().all():
            raise XRayError(
                "The backbone gives features that are no numbers, or larger than 65504. Its weights are damaged or "
                "not made for this network: check model.weights."
            )
        return self._features.numpy()


class Views:
    """Looks like one array, (views * N, width): each view's features of all N images, one view after the other."""

    def __init__(self, views: Sequence[np.ndarray]) -> None:
        self.views = views
        self.ndim = views[0].ndim
        self.shape = (sum(map(len, views)), *views[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        view, row = np.divmod(rows, len(self.views[0]))
        chosen = np.empty((len(rows), *self.shape[1:]), dtype=self.views[0].dtype)
        for number in np.unique(view):
            chosen[view == number] = self.views[number][row[view == number]]
        return chosen
