"""DICOM radiographs: the grey values that a viewer shows, and clear refusals. All files are written here."""

from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, generate_uid

from xray_lightning.data import dicom
from xray_lightning.data.codestream import frame_size
from xray_lightning.data.decode import BadImage
from xray_lightning.data.dicom import is_dicom, read_dicom

FILM = (np.add.outer(np.arange(40) * 3, np.arange(30) * 4) % 256).astype(np.uint8)


def written(
    pixels: np.ndarray, kind: str = "MONOCHROME2", bits: int | None = None, frame: bytes = b"", **more: Any
) -> bytes:
    """A file with these stored values, or with a compressed `frame` of them."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    syntax = more.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = "CR", 1, kind
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = encapsulate([frame]) if frame else pixels.tobytes()
    for key, value in more.items():
        setattr(dataset, key, value)
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def grey(content: bytes) -> np.ndarray:
    return np.asarray(read_dicom(content)[0])


def test_both_photometric_interpretations_of_one_image_look_the_same() -> None:
    assert is_dicom(written(FILM))
    light = grey(written(FILM, "MONOCHROME2"))
    dark = grey(written(255 - FILM, "MONOCHROME1"))
    assert np.array_equal(light, FILM) and np.array_equal(dark, light)


@pytest.mark.parametrize("dtype, bits", [(np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)])
def test_without_a_window_values_are_spread_over_their_own_range(dtype: type, bits: int) -> None:
    stored = (FILM.astype(np.int32) * 7 - (500 if dtype is np.int16 else 0)).astype(dtype)
    low, high = int(stored.min()), int(stored.max())
    expected = np.rint((stored.astype(float) - low) / (high - low) * 255)
    assert np.array_equal(grey(written(stored, bits=bits)), expected)


def test_padding_does_not_set_the_range() -> None:
    stored = FILM.astype(np.uint16) + 100
    stored[:3] = 4095
    found = grey(written(stored, bits=12, PixelPaddingValue=4095))
    assert found[3:].max() == 255 and found[3:].min() == 0


def test_a_window_is_applied_to_rescaled_values() -> None:
    stored = FILM.astype(np.uint16) * 16
    values = stored * 2.0 - 1000
    center, width = 1500, 3000
    content = written(
        stored, bits=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[center, 9], WindowWidth=[width, 9]
    )
    # PS3.3 C.11.2.1.2.1, of the first window
    expected = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    assert np.abs(grey(content) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("as_words", [False, True])
def test_a_lookup_table_is_applied(as_words: bool) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    if as_words:
        item.add_new("LUTData", "OW", np.arange(255, -1, -1, dtype=np.uint16).tobytes())
    else:
        item.add_new("LUTData", "US", list(range(255, -1, -1)))
    assert np.array_equal(grey(written(FILM, VOILUTSequence=[item])), 255 - FILM)


@pytest.mark.parametrize("kind, syntax", [("JPEG2000", JPEG2000Lossless), ("JPEG", JPEGBaseline8Bit)])
def test_compressed_frames_are_read(kind: str, syntax: str) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    frame = BytesIO()
    Image.fromarray(smooth).save(frame, kind, **({} if kind == "JPEG" else {"no_jp2": True}))
    assert frame_size(frame.getvalue()) == smooth.shape
    found = grey(written(smooth, frame=frame.getvalue(), syntax=syntax))
    assert np.abs(found.astype(int) - smooth).max() <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_lossless_frames_of_12_bits_are_read_exactly(
    name: str, dtype: type, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = (np.kron(FILM, np.ones((2, 2))) * 16 - (2048 if dtype is np.int16 else 0)).astype(dtype)
    content = compressed(written(stored, bits=12), name, tmp_path)
    assert np.array_equal(grey(content), grey(written(stored, bits=12)))
    caplog.set_level(0)
    with pytest.raises(BadImage, match="damaged"):
        read_dicom(damaged(content))
    assert not caplog.records, "pydicom logs tracebacks, which would show on the terminal"


def damaged(content: bytes) -> bytes:
    """With two thirds of its frame."""
    dataset = pydicom.dcmread(BytesIO(content))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) * 2 // 3]])
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def compressed(content: bytes, syntax: str, folder: Path) -> bytes:
    (folder / "plain.dcm").write_bytes(content)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(folder / "compressed.dcm"))
    assert writer.Write()
    return (folder / "compressed.dcm").read_bytes()


def test_a_decoder_that_crashes_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = compressed(written(FILM), "JPEGLosslessProcess14_1", tmp_path)
    monkeypatch.setattr(dicom, "IN_A_PROCESS", "import os; os.abort()")
    with pytest.raises(BadImage, match="damaged"):
        read_dicom(content)


@pytest.mark.parametrize("more", [{"RescaleSlope": 1, "RescaleIntercept": 0}, {"RescaleSlope": None}])
def test_8_bits_stay_as_they_are_where_a_rescale_changes_nothing(more: dict[str, Any]) -> None:
    assert np.array_equal(grey(written(FILM // 2, **more)), FILM // 2)
    assert np.array_equal(grey(written((FILM // 2).astype(np.uint16), bits=8, **more)), FILM // 2)


@pytest.mark.parametrize("stored", [FILM, FILM.astype(np.uint16) * 16])
def test_attributes_without_a_value_are_not_there(stored: np.ndarray) -> None:
    bits = 8 if stored.dtype == np.uint8 else 12
    empty = {"RescaleSlope": None, "RescaleIntercept": None, "WindowCenter": None, "WindowWidth": None}
    empty |= {"VOILUTSequence": [], "ModalityLUTSequence": [], "PixelPaddingValue": None, "VOILUTFunction": ""}
    assert np.array_equal(grey(written(stored, bits=bits, **empty)), grey(written(stored, bits=bits)))


def test_a_malformed_spacing_is_no_reason_to_refuse_a_film() -> None:
    content = written(FILM, PixelSpacing=[0.125, 0.125])
    assert read_dicom(content.replace(b"0.125\\0.125", b"wrong\\wrong"))[1] == []


def test_a_frame_larger_than_it_should_be_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = BytesIO()
    Image.fromarray(np.zeros((300, 400), np.uint8)).save(frame, "JPEG")
    monkeypatch.setattr(dicom, "MOST_PIXELS", 40 * 30)
    with pytest.raises(BadImage, match="no radiograph"):
        read_dicom(written(FILM, frame=frame.getvalue(), syntax=JPEGBaseline8Bit))


@pytest.mark.parametrize(
    "content, told",
    [
        (written(FILM, NumberOfFrames=3), "3 frames"),
        (written(FILM, "RGB", SamplesPerPixel=3, PlanarConfiguration=0), "RGB"),
        (written(FILM.astype(np.uint32)), "32 bits"),
        (written(FILM.astype(np.uint16), bits=12, HighBit=15), "unusual place"),
        (written(FILM.astype(np.uint16), bits=12, frame=b"\xff\xd8", syntax=JPEGExtended12Bit), "12 bits"),
        (written(FILM, frame=b"\xff\x4f", syntax=pydicom.uid.HTJ2K), "High-Throughput"),
        (written(FILM)[:-400], "cannot be decoded"),
        (written(FILM)[:150], "DICOM file"),
        (written(FILM, syntax=pydicom.uid.DeflatedExplicitVRLittleEndian), "deflated"),
    ],
)
def test_what_is_no_single_grey_film_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(BadImage, match=told):
        read_dicom(content)


def test_what_is_odd_about_a_film_is_told() -> None:
    assert read_dicom(written(FILM, BodyPartExamined="CHEST", PixelSpacing=[0.1, 0.1]))[1] == []
    assert read_dicom(written(FILM, BodyPartExamined="CHEST PA"))[1] == []
    odd = read_dicom(written(FILM, BodyPartExamined="HAND", PixelSpacing=[0.1, 0.2], Modality="CT"))[1]
    assert ["HAND" in " ".join(odd), "square" in " ".join(odd), "CT" in " ".join(odd)] == [True] * 3
