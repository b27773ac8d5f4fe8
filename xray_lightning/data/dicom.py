"""DICOM radiographs -> 8-bit grey images, as viewers show them. The only place where pydicom meets what users bring."""

import logging
import subprocess
import sys
import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from xray_lightning.data.codestream import frame_size
from xray_lightning.data.decode import MOST_PIXELS, BadImage

DEFLATED = b"1.2.840.10008.1.2.1.99"
META = 4096  # bytes in which a file says how the rest is written
GREY = {"MONOCHROME1": True, "MONOCHROME2": False}  # whether the lowest value is shown white
FAR = 1e12  # beyond the values of any window
CHEST = ("CHEST", "THORAX", "LUNG")
WITH_PILLOW = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, JPEG2000Lossless)
WITH_GDCM = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
IN_A_PROCESS = "import io, sys, numpy, pydicom; read = pydicom.dcmread(io.BytesIO(sys.stdin.buffer.read())); "
IN_A_PROCESS += "numpy.save(sys.stdout.buffer, read.pixel_array)"
DECODED = (*WITH_PILLOW, *WITH_GDCM, RLELossless)
SECONDS = 60  # that a process of its own may take for a film
# attributes of which many files have the name and no value: as good as not there, but not to pydicom
OPTIONAL = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingValue")

# what pydicom would tell of a file is told here
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def is_dicom(content: bytes) -> bool:
    return content[128:132] == b"DICM"


def read_dicom(content: bytes) -> tuple[Image.Image, list[str]]:
    """The one frame of a file, grey with 8 bits, dense parts light; and what a reader should know of it.

    Stored values of up to 16 bits, signed or not, pass the modality LUT (or rescale slope and intercept), then the
    first VOI LUT or window. Without either, 8-bit values that were not rescaled stay as they are, and others are spread
    from the least to the largest that occurs, padding left out: most detectors use a part of their range alone.
    MONOCHROME1 is inverted.
    Raises BadImage. Source: DICOM PS3.3 C.7.6.3, C.11.1, C.11.2.
    """
    if DEFLATED in content[:META]:
        raise BadImage("is a deflated DICOM file, which may unpack to any size: save it uncompressed")
    try:
        dataset = pydicom.dcmread(BytesIO(content))
        inverted = _checked(dataset)
        for key in OPTIONAL:
            if dataset.get(key) in (None, ""):
                dataset.pop(key, None)
        stored = _stored(dataset, content)
        values = apply_modality_lut(stored, dataset).astype(np.float64)
        low, high, shown = _window(values, dataset) or _range(values, stored, dataset)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # of a damaged file pydicom and its decoders raise whatever they stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadImage(f"is a DICOM file that cannot be decoded ({reason})") from error
    if shown.ndim != 2:  # as of NumberOfFrames=0, or of a frame that is not what the attributes say
        raise BadImage(
            f"is a DICOM file whose image is of shape {'x'.join(map(str, shown.shape))}: save one grey frame"
        )
    grey = np.rint((shown - low) / (high - low or 1) * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if inverted else grey), _notes(dataset)


def _checked(dataset: Dataset) -> bool:
    """Whether the lowest value is white. Raises BadImage for all but one grey frame of a size that it keeps to."""
    shape = (dataset.get("Rows"), dataset.get("Columns"))
    if "PixelData" not in dataset or not all(shape):
        raise BadImage("is a DICOM file without an image")
    kind = str(dataset.get("PhotometricInterpretation", "no interpretation"))
    if kind not in GREY or dataset.get("SamplesPerPixel", 1) != 1:
        raise BadImage(f"is a DICOM image of {kind}, no radiograph: MONOCHROME1 and MONOCHROME2 are read")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadImage(f"has {frames} frames: save one of them")
    if not 1 <= int(dataset.BitsAllocated) <= 16:
        raise BadImage(f"has {dataset.BitsAllocated} bits a pixel: up to 16 are read")
    syntax, bits = dataset.file_meta.TransferSyntaxUID, dataset.get("BitsStored")
    if syntax.is_encapsulated and (syntax not in DECODED or (syntax == JPEGExtended12Bit and bits != 8)):
        raise BadImage(f"is compressed as {syntax.name} ({bits} bits), which is not read: save it uncompressed")
    if bits and not syntax.is_encapsulated and dataset.get("HighBit", bits - 1) != bits - 1:
        raise BadImage(f"has its {bits} bits at an unusual place, the highest at {dataset.HighBit}: save it anew")
    sizes = [shape]
    if syntax.is_encapsulated:
        sizes += [
            size for frame in generate_frames(dataset.PixelData, number_of_frames=1) if (size := frame_size(frame))
        ]
    if max(rows * columns for rows, columns in sizes) > MOST_PIXELS:
        raise BadImage(f"would unpack to more than {MOST_PIXELS} pixels, which is no radiograph")
    return GREY[kind]


def _stored(dataset: Dataset, content: bytes) -> np.ndarray:
    """The values (rows, columns) that the file holds, uncompressed. Raises BadImage for a damaged frame."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return dataset.pixel_array
    try:
        if syntax in WITH_GDCM:
            return _stored_apart(content)
        if syntax in WITH_PILLOW:  # pydicom would ask GDCM, too, about what Pillow refuses
            dataset.pixel_array_options(decoding_plugin="pillow")
        return dataset.pixel_array
    except MemoryError:
        raise
    except Exception as error:  # see read_dicom
        raise BadImage("is a DICOM file whose compressed image is damaged") from error


def _stored_apart(content: bytes) -> np.ndarray:
    """As `_stored`, in a process of its own: a damaged frame may end the process in which GDCM decodes it."""
    words = [sys.executable, "-c", IN_A_PROCESS]
    done = subprocess.run(words, input=content, capture_output=True, timeout=SECONDS, check=True)
    return np.load(BytesIO(done.stdout), allow_pickle=False)


def _window(values: np.ndarray, dataset: Dataset) -> tuple[float, float, np.ndarray] | None:
    """The file's own choice of what black and white mean: both, and the values that it makes of `values`."""
    if lookup := dataset.get("VOILUTSequence"):
        entries, first = (int(number) for number in lookup[0].LUTDescriptor[:2])
        table = apply_voi_lut(np.arange(first, first + (entries or 2**16)), dataset, index=0)  # all that it can give
        return float(table.min()), float(table.max()), apply_voi_lut(values.astype(np.int64), dataset, index=0)
    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return None
    low, high = apply_voi_lut(np.array([-FAR, FAR]), dataset, index=0)  # what lies beyond the window on either side
    return float(low), float(high), apply_voi_lut(values, dataset, index=0)


def _range(values: np.ndarray, stored: np.ndarray, dataset: Dataset) -> tuple[float, float, np.ndarray]:
    if dataset.BitsStored == 8 and stored.dtype.kind == "u" and np.array_equal(values, stored):
        return 0.0, 255.0, values
    padding: Any = dataset.get("PixelPaddingValue")
    real = values if padding is None else values[stored != int(padding)]
    return (float(real.min()), float(real.max()), values) if real.size else (0.0, 1.0, values)


def _notes(dataset: Dataset) -> list[str]:
    notes = []
    keys = ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio")
    down, across = next((pair for key in keys if len(pair := _numbers(dataset, key)) == 2), (1.0, 1.0))
    if abs(down - across) > 0.01 * across:
        notes.append("its pixels are not square, which is not corrected")
    modality = str(dataset.get("Modality") or "")
    if modality not in ("", "CR", "DX", "RG", "OT", "SC"):
        notes.append(f"its modality is {modality}, no projection radiograph")
    part = str(dataset.get("BodyPartExamined") or "").upper()
    if part and not any(name in part for name in CHEST):
        notes.append(f"its body part is {part}, not CHEST")
    return notes


def _numbers(dataset: Dataset, key: str) -> list[float]:
    """Of an attribute that the image does not depend on; none where it is missing or malformed."""
    try:
        return [float(value) for value in dataset.get(key) or ()]
    except (TypeError, ValueError):
        return []
