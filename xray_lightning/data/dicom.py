"""DICOM radiographs -> 8-bit grey images, as viewers show them. The only place where pydicom meets what users bring."""

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from xray_lightning.data.codestream import frame_size
from xray_lightning.data.decode import MOST_PIXELS, BadImage

DEFLATED = b"1.2.840.10008.1.2.1.99"
META = 4096  # bytes in which a file says how the rest is written
GREY = {"MONOCHROME1": True, "MONOCHROME2": False}  # whether the lowest value is shown white
FAR = 1e12  # beyond the values of any window

warnings.filterwarnings("ignore", module=r"pydicom\b")  # what it would tell of a file is told here


def is_dicom(content: bytes) -> bool:
    return content[128:132] == b"DICM"


def read_dicom(content: bytes) -> tuple[Image.Image, list[str]]:
    """The one frame of a file, grey with 8 bits, dense parts light; and what a reader should know of it.

    Stored values of up to 16 bits, signed or not, pass the modality LUT (or rescale slope and intercept), then the
    first VOI LUT or window. Without either, 8-bit values stay as they are, and others are spread from the least to
    the largest that occurs, padding left out: most detectors use a part of their range alone. MONOCHROME1 is inverted.
    Raises BadImage. Source: DICOM PS3.3 C.7.6.3, C.11.1, C.11.2.
    """
    if DEFLATED in content[:META]:
        raise BadImage("is a deflated DICOM file, which may unpack to any size: save it uncompressed")
    try:
        dataset = pydicom.dcmread(BytesIO(content))
        inverted = _checked(dataset)
        stored = dataset.pixel_array
        values = apply_modality_lut(stored, dataset).astype(np.float64)
        low, high, shown = _window(values, dataset) or _range(values, stored, dataset)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # of a damaged file pydicom and its decoders raise whatever they stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadImage(f"is a DICOM file that cannot be decoded ({reason})") from error
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
    sizes = [shape]
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        sizes += [
            size for frame in generate_frames(dataset.PixelData, number_of_frames=1) if (size := frame_size(frame))
        ]
    if max(rows * columns for rows, columns in sizes) > MOST_PIXELS:
        raise BadImage(f"would unpack to more than {MOST_PIXELS} pixels, which is no radiograph")
    return GREY[kind]


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
    plain = "ModalityLUTSequence" not in dataset and "RescaleSlope" not in dataset
    if plain and stored.dtype == np.uint8 and dataset.BitsStored == 8:
        return 0.0, 255.0, values
    padding: Any = dataset.get("PixelPaddingValue")
    real = values if padding is None else values[stored != int(padding)]
    return (float(real.min()), float(real.max()), values) if real.size else (0.0, 1.0, values)


def _notes(dataset: Dataset) -> list[str]:
    notes = []
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or dataset.get("PixelAspectRatio")
    if spacing and len(spacing) == 2 and abs(float(spacing[0]) - float(spacing[1])) > 0.01 * float(spacing[1]):
        notes.append("its pixels are not square, which is not corrected")
    modality = str(dataset.get("Modality") or "")
    if modality not in ("", "CR", "DX", "RG", "OT", "SC"):
        notes.append(f"its modality is {modality}, no projection radiograph")
    if dataset.get("BodyPartExamined") and str(dataset.BodyPartExamined).upper() not in ("CHEST", "THORAX", "LUNG"):
        notes.append(f"its body part is {dataset.BodyPartExamined}, not CHEST")
    return notes
