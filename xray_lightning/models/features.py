"""Features of a frozen backbone, computed once for each image and kept on disk."""

import hashlib
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from xray_lightning.artifacts import is_whole_array, locked, write_json, write_zeros
from xray_lightning.console import progress
from xray_lightning.data.pixels import Images
from xray_lightning.errors import cache_errors

log = logging.getLogger(__name__)
CHUNK = 64  # images computed together; fixed, so that a feature does not depend on which others were asked for


class FeatureStore:
    """A (rows, width) float16 memory map that fills on demand, chunk by chunk.

    `key` names all that the features depend on. A chunk is marked when it is on disk, so an interrupted
    computation goes on where it stopped, and a second process waits and finds the work done.
    """

    def __init__(self, folder: Path, key: str, *, rows: int, width: int) -> None:
        name = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
        self.folder = folder
        self.path = folder / f"{name}.npy"
        self.marks = folder / f"{name}.done.npy"
        self.shape = (rows, width)

    def filled(self, pixels: Images, rows: np.ndarray, embed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The read-only map, in which at least `rows` are computed: `embed` turns images into features.

        Raises XRayError where the folder cannot be written to.
        """
        if not self._has(rows):
            with cache_errors(self.folder), locked(self.path):
                self._fill(pixels, rows, embed)
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def _has(self, rows: np.ndarray) -> bool:
        chunks = -(-self.shape[0] // CHUNK)
        if not (is_whole_array(self.path, np.float16, self.shape) and is_whole_array(self.marks, np.bool_, (chunks,))):
            return False
        return bool(np.load(self.marks, allow_pickle=False)[np.unique(rows // CHUNK)].all())

    def _fill(self, pixels: Images, rows: np.ndarray, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        features, done = self._open()
        chunks = [int(c) for c in np.unique(rows // CHUNK) if not done[c]]
        for chunk in progress(chunks, "Computing backbone features", total=len(chunks)):
            part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            features[part] = embed(np.array(pixels[part]))
            features.flush()
            done[chunk] = True
            done.flush()
        if chunks:
            log.info("Computed features of %d images into %s", min(len(chunks) * CHUNK, len(pixels)), self.path)

    def _open(self) -> tuple[np.memmap, np.memmap]:
        chunks = -(-self.shape[0] // CHUNK)
        if not (is_whole_array(self.path, np.float16, self.shape) and is_whole_array(self.marks, np.bool_, (chunks,))):
            write_zeros(self.marks, (chunks,), np.bool_)
            write_zeros(self.path, self.shape, np.float16)
            about = {"rows": self.shape[0], "width": self.shape[1]}
            write_json(
                self.path.with_suffix(".json"), about | {"written": datetime.now().isoformat(timespec="seconds")}
            )
        return open_memmap(self.path, mode="r+"), open_memmap(self.marks, mode="r+")
