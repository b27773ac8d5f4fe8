"""Images decoded once into a uint8 memory map that all runs share, or from their files each time."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from xray_lightning.artifacts import RowsFile, is_whole_array, locked, read_json, write_json
from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.decode import DECODER_VERSION, BadImage, Resize, draft, fit, grey, open_image, read_bytes
from xray_lightning.data.examine import digest_of
from xray_lightning.data.parallel import in_order, workers
from xray_lightning.errors import XRayError, cache_errors

log = logging.getLogger(__name__)


def root_key(root: Path) -> str:
    """Names what is kept of a folder, wherever the program is started from."""
    return hashlib.blake2b(str(root.resolve()).encode(errors="surrogateescape"), digest_size=12).hexdigest()


def _digests_of(path: Path) -> list[str]:
    """What the file beside a cache says that it holds; nothing where that is not as `finish` writes it."""
    digests = (read_json(path.with_suffix(".json")) or {}).get("digests")
    told = isinstance(digests, list) and all(isinstance(digest, str) and digest.isascii() for digest in digests)
    return digests if isinstance(digests, list) and told else []


@dataclass(frozen=True)
class PixelPlan:
    """Where decoded images go and how they are made: (`size`, `size`) uint8, fitted by `resize`."""

    root: Path
    size: int  # pixels a side
    resize: Resize
    folder: Path  # of the cache

    def fingerprint(self, digests: Sequence[str]) -> str:
        """Names a cache: the same contents in the same order, decoded the same way, and nothing else."""
        name = hashlib.blake2b(f"{DECODER_VERSION}:{self.size}:{self.resize}".encode(), digest_size=12)
        for digest in digests:
            name.update(f"\n{digest}".encode())
        return name.hexdigest()

    def path(self, digests: Sequence[str]) -> Path:
        return self.folder / f"{self.fingerprint(digests)}.npy"

    def decoded(self) -> dict[str, np.ndarray]:
        """Images that the cache has already, by digest: some files more or less cost only themselves."""
        found: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.npy")):
            digests = _digests_of(path)
            same = digests and self.fingerprint(digests) == path.stem
            if same and is_whole_array(path, np.uint8, (len(digests), self.size, self.size)):
                found.update(zip(digests, np.load(path, mmap_mode="r", allow_pickle=False), strict=True))
        return found

    def open(self) -> RowsFile:
        """A file that takes images until it is known what it must be called. The caller holds a lock on `root`."""
        return RowsFile(self.folder / f".{root_key(self.root)}.part", (self.size, self.size), np.uint8)

    def finish(self, rows: RowsFile, digests: Sequence[str]) -> None:
        """Names the file by the digests of its images, and says beside it what it holds."""
        path = self.path(digests)
        rows.finish(path)
        about = {"root": str(self.root.resolve()), "images": len(digests), "size": self.size, "resize": self.resize}
        about["written"] = datetime.now().isoformat(timespec="seconds")
        write_json(path.with_suffix(".json"), about | {"digests": list(digests)})
        log.info("Decoded %d images of %s at %d pixels into %s", len(digests), self.root.name, self.size, path)


def load_pixels(plan: PixelPlan, rows: Sequence[Radiograph]) -> np.ndarray:
    """The decoded images as a read-only memory map, (N, size, size) uint8, in the order of `rows`.

    Decodes what no run has decoded before; a second process that wants the same waits for the first. Raises
    XRayError for a file that changed since its digest was taken and for a folder that cannot be written to.
    """
    digests = [row.digest for row in rows]
    path = plan.path(digests)
    shape = (len(rows), plan.size, plan.size)
    if not is_whole_array(path, np.uint8, shape):
        with cache_errors(plan.folder), locked(path):
            if not is_whole_array(path, np.uint8, shape):
                _build(plan, rows, RowsFile(path.with_suffix(".part"), shape[1:], np.uint8))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _build(plan: PixelPlan, rows: Sequence[Radiograph], file: RowsFile) -> None:
    try:
        have = plan.decoded()

        def image_of(row: Radiograph) -> np.ndarray:
            return have[row.digest] if row.digest in have else _decoded(plan, row)

        for image in in_order(image_of, rows, f"Decoding {plan.root.name}"):
            file.append(image)
        plan.finish(file, [row.digest for row in rows])
    except BaseException:
        file.discard()
        raise


def _decoded(plan: PixelPlan, row: Radiograph) -> np.ndarray:
    file = plan.root / row.path
    try:
        content = read_bytes(file)
        if digest_of(content) != row.digest:
            raise BadImage("has changed")
        return fit(grey(draft(open_image(content, file.suffix), plan.size)), plan.size, plan.resize)
    except BadImage as problem:
        raise XRayError(
            f"{file} {problem}, though it was a whole image when this run began. Nothing was kept. Run it again."
        ) from problem


class ImageFiles:
    """Looks like an array (N, 1, size, size) uint8, but decodes the files whenever it is indexed."""

    def __init__(self, plan: PixelPlan, rows: Sequence[Radiograph]) -> None:
        self.plan = plan
        self.rows = rows
        self.shape = (len(rows), 1, plan.size, plan.size)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(len(self.rows))[chosen]
        with workers() as pool:
            images = list(pool.map(lambda number: _decoded(self.plan, self.rows[number]), numbers))
        return np.array(images, dtype=np.uint8).reshape(len(images), *self.shape[1:])


class Images(Protocol):
    """(N, 1, size, size) uint8, or (N, width) features of them: an array, or what can be indexed like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ndim(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...
