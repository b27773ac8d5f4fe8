"""A file that somebody brings for a prediction -> a grey image, read as training reads its own."""

from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from PIL import Image

from xray_lightning.data.decode import FORMATS, draft, grey, open_image
from xray_lightning.data.dicom import is_dicom, read_dicom

SUFFIXES = (*FORMATS, ".dcm", ".dicom")
COLOUR = 12.0  # mean distance of a pixel's channels, of 255, that compression does not make of grey
LONGEST = 2.0  # the longer side over the shorter one
SAMPLE = 64  # pixels a side that colours are looked for in


@dataclass(frozen=True)
class Incoming:
    """A grey image with 8 bits, at least as large as was asked for, and what is odd about it."""

    image: Image.Image
    warnings: list[str] = field(default_factory=list)
    is_dicom: bool = False


def read_image(name: str, content: bytes, size: int) -> Incoming:
    """The image in a file's `content`, for a network that takes `size` pixels a side.

    PNG, JPEG, TIFF, BMP and WebP have the very pixels that training would have read. DICOM is known by its content.
    Raises BadImage, whose message completes the sentence `<file> …`.
    """
    if is_dicom(content):
        image, warnings = read_dicom(content)
        return Incoming(image, warnings + _shape_warnings(image.size), is_dicom=True)
    suffix = PurePath(name).suffix
    opened = open_image(content, suffix)
    warnings = _shape_warnings(opened.size)
    if opened.mode not in ("1", "L", "LA") and not opened.mode.startswith("I") and _is_colour(content, suffix):
        warnings.append("it is a colour picture; radiographs are grey")
    return Incoming(grey(draft(opened, size)), warnings)


def _shape_warnings(size: tuple[int, int]) -> list[str]:
    longer, shorter = max(size), min(size)
    if longer <= LONGEST * shorter:
        return []
    return [f"its sides are {size[0]} and {size[1]} pixels, which is longer than any chest film"]


def _is_colour(content: bytes, suffix: str) -> bool:
    """By a small version of its own, since reading the image as grey leaves its colours out."""
    image = open_image(content, suffix)
    image.draft("RGB", (SAMPLE, SAMPLE))
    try:
        small = np.asarray(image.convert("RGB").resize((SAMPLE, SAMPLE)), dtype=np.float32)
    except (OSError, ValueError, SyntaxError):  # a damaged image, which `grey` will say better
        return False
    return float(np.ptp(small, axis=2).mean()) > COLOUR
