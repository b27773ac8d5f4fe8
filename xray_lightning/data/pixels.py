"""Images decoded once into a uint8 memory map that all runs share."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from PIL import Image

from xray_lightning.artifacts import is_whole_array
from xray_lightning.console import progress
from xray_lightning.data.catalog import Radiograph
from xray_lightning.errors import XRayError

log = logging.getLogger(__name__)
LISTED = 20  # broken files that a message names
DECODER_VERSION = 1  # part of the cache's name: raise it when decoding changes


def decode(file: Path, size: int) -> np.ndarray:
    """One grey image, (size, size) uint8, whatever the file's colour mode, stretched to a square.

    16-bit grey is scaled from its full range, transparency shows black, resizing is antialiased. Raises
    OSError, ValueError or SyntaxError, as Pillow does, for a file that is not a whole image.
    """
    with Image.open(file) as image:
        return np.asarray(_grey(image).resize((size, size), Image.Resampling.BILINEAR))


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255
        values = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), layers).convert("L")
    return image.convert("L")


def fingerprint(rows: Sequence[Radiograph], size: int) -> str:
    """Names a cache: the same contents in the same order, decoded the same way, and nothing else."""
    digest = hashlib.blake2b(f"{DECODER_VERSION}:{size}".encode(), digest_size=12)
    for row in rows:
        digest.update(f"\n{row.digest}".encode())
    return digest.hexdigest()


def load_pixels(root: Path, rows: Sequence[Radiograph], size: int, cache_dir: Path) -> np.ndarray:
    """The decoded images as a read-only memory map, (N, size, size) uint8, in the order of `rows`.

    Decodes what no run has decoded before; a second process that wants the same waits for the first. Raises
    XRayError that lists the files which are no images.
    """
    path = cache_dir / f"{fingerprint(rows, size)}.npy"
    shape = (len(rows), size, size)
    if not is_whole_array(path, np.uint8, shape):
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not is_whole_array(path, np.uint8, shape):
                    _build(root, rows, size, path)
        except OSError as error:
            raise XRayError(
                f"The decoded images cannot be written to {cache_dir} ({error.strerror or error}). "
                "Choose another folder with paths.cache=<folder> or the variable XRAY_CACHE."
            ) from error
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _build(root: Path, rows: Sequence[Radiograph], size: int, path: Path) -> None:
    unfinished = path.with_suffix(".part")
    pixels = open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=(len(rows), size, size))
    bad: list[str] = []

    def fill(index: int) -> None:
        try:
            pixels[index] = decode(root / rows[index].path, size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            bad.append(f"{rows[index].path} ({error})")

    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes outside Python's lock
        for _ in progress(pool.map(fill, range(len(rows))), f"Decoding {root.name}", total=len(rows)):
            pass
    if bad:
        unfinished.unlink()
        more = [f"… and {len(bad) - LISTED} more"] * (len(bad) > LISTED)
        shown = "\n  ".join(sorted(bad)[:LISTED] + more)
        raise XRayError(
            f"{len(bad)} of {len(rows)} files in {root} are not whole images:\n  {shown}\nReplace or remove them."
        )
    pixels.flush()
    unfinished.replace(path)
    log.info("Decoded %d images of %s at %d pixels into %s", len(rows), root.name, size, path)
