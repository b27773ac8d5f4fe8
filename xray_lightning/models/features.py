"""Features of a frozen backbone, computed once for each image and kept on disk."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from xray_lightning.artifacts import is_whole_array, locked, write_json, write_zeros
from xray_lightning.console import progress
from xray_lightning.data.pixels import Images
from xray_lightning.errors import cache_errors

log = logging.getLogger(__name__)
CHUNK = 64  # images computed together; fixed, so that a feature does not depend on which others were asked for
FLUSH = 2.0  # seconds of work that an interruption may cost


@dataclass(frozen=True)
class ImageSource:
    """What features are computed from, and where they are kept."""

    images: Images
    fingerprint: str  # names the content of `images`
    cache_dir: Path
    autocast: torch.dtype | None  # the precision to compute in; None: float32


class FeatureStore:
    """A (rows, width) float16 memory map that fills on demand, chunk by chunk.

    `key` names all that the features depend on. A chunk is marked when it is on disk, so an interrupted
    computation goes on where it stopped, and a second process waits and finds the work done.
    """

    def __init__(self, folder: Path, key: str, *, rows: int, width: int, chunk: int = CHUNK) -> None:
        name = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
        self.folder = folder
        self.path = folder / f"{name}.npy"
        self.marks = folder / f"{name}.done.npy"
        self.shape = (rows, width)
        self.chunk = chunk

    def filled(self, rows: np.ndarray, embed: Callable[[slice], Tensor], title: str) -> np.ndarray:
        """The read-only map, in which at least `rows` are computed.

        `embed` turns the images of a slice into features (B, width), on any device; `title` names the work on
        the progress bar. Raises XRayError where the folder cannot be written to.
        """
        if not self._has(rows):
            with cache_errors(self.folder), locked(self.path):
                self._fill(rows, embed, title)
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def _has(self, rows: np.ndarray) -> bool:
        if not self._whole():
            return False
        return bool(np.load(self.marks, allow_pickle=False)[np.unique(rows // self.chunk)].all())

    def _whole(self) -> bool:
        chunks = -(-self.shape[0] // self.chunk)
        return is_whole_array(self.path, np.float16, self.shape) and is_whole_array(self.marks, np.bool_, (chunks,))

    def _fill(self, rows: np.ndarray, embed: Callable[[slice], Tensor], title: str) -> None:
        features, done = self._open()
        chunks = [int(c) for c in np.unique(rows // self.chunk) if not done[c]]
        finished: list[int] = []
        flushed = time.monotonic()

        def flush() -> None:
            features.flush()
            done[finished] = True  # only now: a mark says that the features are on disk
            done.flush()
            finished.clear()

        def write(chunk: int, computed: Tensor) -> None:
            features[self._part(chunk)] = computed.half().cpu().numpy()
            finished.append(chunk)

        ahead: list[tuple[int, Tensor]] = []  # a GPU computes the next chunk while the last one is written
        try:
            for chunk in progress(chunks, title, total=len(chunks)):
                computed = embed(self._part(chunk))
                ahead.append((chunk, computed))
                while len(ahead) > computed.is_cuda:
                    write(*ahead.pop(0))
                if time.monotonic() - flushed > FLUSH:
                    flush()
                    flushed = time.monotonic()
        finally:
            while ahead:
                write(*ahead.pop(0))
            flush()
        if chunks:
            log.info("Computed features of %d images into %s", min(len(chunks) * self.chunk, len(features)), self.path)

    def _part(self, chunk: int) -> slice:
        return slice(chunk * self.chunk, min((chunk + 1) * self.chunk, self.shape[0]))

    def _open(self) -> tuple[np.memmap, np.memmap]:
        if not self._whole():
            write_zeros(self.marks, (-(-self.shape[0] // self.chunk),), np.bool_)
            write_zeros(self.path, self.shape, np.float16)
            about = {"rows": self.shape[0], "width": self.shape[1]}
            write_json(
                self.path.with_suffix(".json"), about | {"written": datetime.now().isoformat(timespec="seconds")}
            )
        return open_memmap(self.path, mode="r+"), open_memmap(self.marks, mode="r+")


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
