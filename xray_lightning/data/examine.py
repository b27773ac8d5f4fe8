"""Each file read once: its digest, its header, a thumbnail, and what is wrong with it."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xray_lightning.data.decode import (
    DRAFT,
    THUMB,
    BadImage,
    Resize,
    Unread,
    draft,
    fit,
    grey,
    open_image,
    read_bytes,
    thumbnail,
)

RACY = 100_000_000  # ns: a file changed so shortly ago may change again without a new time stamp


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file while its `stamp` stays as it is; `problem` is empty for a whole image."""

    stamp: str  # length and times, by which a change shows
    size: int  # bytes
    digest: str
    format: str
    mode: str
    width: int
    height: int
    problem: str


def stamp(file: Path) -> str:
    """Changes whenever the file does: ctime cannot be set back, as mtime can. Empty where there is no file."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def examine(file: Path, size: int | None, resize: Resize) -> tuple[Facts, np.ndarray, np.ndarray | None]:
    """Facts, thumbnail (32, 32) uint8 and, given a `size`, the image as `decode` gives it, None of a bad file.

    The thumbnail is stretched and the same whatever `size` is, so that what is found by it does not depend on it.
    """
    before = stamp(file)
    if _is_racy(before):
        before = ""
    thumb = np.zeros((THUMB, THUMB), dtype=np.uint8)
    content, header = b"", ("", "", 0, 0)
    try:
        content = read_bytes(file)
        image = open_image(content, file.suffix)
        header = (str(image.format), image.mode, image.width, image.height)
        whole = grey(draft(image, DRAFT))
        thumb = thumbnail(whole)
        pixels = None
        if size is not None:
            if size > DRAFT:  # may want more than the thumbnail's decoding kept
                whole = grey(draft(open_image(content, file.suffix), size))
            pixels = fit(whole, size, resize)
        return Facts(before, len(content), digest_of(content), *header, problem=""), thumb, pixels
    except BadImage as problem:
        before = "" if isinstance(problem, Unread) else before  # may be read another time with the same stamp
        digest = digest_of(content) if content else ""
        return Facts(before, len(content), digest, *header, problem=str(problem)), thumb, None


def _is_racy(stamped: str) -> bool:
    return bool(stamped) and time.time_ns() - int(stamped.rsplit(":", 1)[1]) < RACY
