"""Bytes of a file -> one grey image. The only place where Pillow meets what users bring."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Resize = Literal["stretch", "pad", "crop"]
FORMATS = {  # by the suffix of a file's name, in lower case
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
PILLOW_FORMATS = sorted(set(FORMATS.values()))
MOST_PIXELS = 89_478_485  # Pillow's own limit for a warning; a chest film has 4 to 16 million
LARGEST_SIDE = 4096  # pixels that images are fitted to
DRAFT = 256  # pixels a side that a scaled JPEG keeps at least: one decoding serves all sizes up to it
DECODER_VERSION = 2  # part of the caches' names: raise it when any function here gives other values
MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "I;16",
    "I;16B",
    "I;16L",
    "I;16N",
)
THUMB = 32  # pixels a side
BLACK = 0

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS refuses them


class BadImage(Exception):
    """A file that is not a whole image; the message completes the sentence `<file> …`."""


class Unread(BadImage):
    """A file that could not be read this time."""


def read_bytes(file: Path) -> bytes:
    """The content of a plain file. Raises BadImage for a link that leads nowhere, a folder, a pipe and the like."""
    try:
        if not file.is_file():  # opening a pipe would wait forever
            raise BadImage("leads nowhere" if file.is_symlink() else "is no plain file")
        return file.read_bytes()
    except OSError as error:
        raise Unread(f"cannot be read ({error.strerror or error})") from error


def open_image(content: bytes, suffix: str) -> Image.Image:
    """The image with its header read, not decoded yet. Raises BadImage where the content is not what `suffix` says."""
    if not content:
        raise BadImage("is empty")
    try:
        image = Image.open(BytesIO(content), formats=PILLOW_FORMATS)
    except UnidentifiedImageError as error:
        raise BadImage(f"is {_described(content)}") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"would unpack to more than {2 * MOST_PIXELS} pixels, which is no radiograph") from error
    except MemoryError:
        raise
    except Exception as error:  # of a damaged header Pillow raises whatever it stumbles over
        raise BadImage(_damage(error)) from error
    named = FORMATS.get(suffix.lower())
    if named != ("JPEG" if image.format == "MPO" else image.format):
        raise BadImage(f"is a {image.format} image under the name of another format: rename it")
    if image.width * image.height > MOST_PIXELS:
        raise BadImage(f"would unpack to {image.width}x{image.height} pixels, which is no radiograph")
    return image


def _described(content: bytes) -> str:
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, no image"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, no image: fetch it with git lfs pull"
    if content[128:132] == b"DICM":
        return "a DICOM file, no image of the format it is named for"
    return "no image, or damaged at its start"


def draft(image: Image.Image, size: int) -> Image.Image:
    """Lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, where neither side falls below max(size, DRAFT).

    libjpeg leaves out the high frequencies of each 8x8 block, which an antialiased resize would remove too.
    """
    side = max(size, DRAFT)
    image.draft("L", (side, side))
    return image


def grey(image: Image.Image) -> Image.Image:
    """8-bit grey of any mode: 16 bits are scaled from their full range, transparency shows black."""
    try:
        if image.mode not in MODES:
            raise BadImage(f"has values of mode {image.mode}, whose range is not known: save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255
            values = np.asarray(image).astype(np.float32) / 257
            return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            layers = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "black"), layers).convert("L")
        image.load()
        return image if image.mode == "L" else image.convert("L")
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # see open_image
        raise BadImage(_damage(error)) from error


def _damage(error: Exception) -> str:
    truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return "is truncated" if truncated else f"is damaged ({error})"


def fit(image: Image.Image, size: int, resize: Resize = "stretch") -> np.ndarray:
    """(size, size) uint8, antialiased: stretched to a square, padded with black, or cropped to its centre."""
    square = (size, size)
    if resize == "pad":
        image = ImageOps.pad(image, square, Image.Resampling.BILINEAR, BLACK)
    elif resize == "crop":
        image = ImageOps.fit(image, square, Image.Resampling.BILINEAR)
    elif image.size != square:
        image = image.resize(square, Image.Resampling.BILINEAR)
    return np.asarray(image)


def thumbnail(image: Image.Image) -> np.ndarray:
    """(THUMB, THUMB) uint8, stretched. Its first, coarse step makes it three times as fast as `fit`."""
    return np.asarray(image.resize((THUMB, THUMB), Image.Resampling.BILINEAR, reducing_gap=2.0))


def decode(file: Path, size: int, resize: Resize = "stretch") -> np.ndarray:
    """One file as a grey image, (size, size) uint8. Raises BadImage for a file that is not a whole image."""
    return fit(grey(draft(open_image(read_bytes(file), file.suffix), size)), size, resize)
