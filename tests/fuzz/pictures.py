"""Cases of image files: damaged, odd, mislabelled, or of no image at all; predicted, served and trained on."""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

from xray_lightning.config import build
from xray_lightning.inputs import set_up
from xray_lightning.predict import predict

from .mangle import damaged
from .oracle import Case
from .world import World

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16")
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
SUFFIXES = (*FORMATS, ".dcm", ".PNG", ".gif", "", ".txt")
STARTS = (
    b"", b"\0", b"GIF89a", b"<!doctype html><html>", b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF\0\0\0\0WEBP", b"BM", b"\0" * 128 + b"DICM", bytes(range(256)) * 9,
)  # fmt: skip
SIZES = ((1, 1), (1, 40), (40, 1), (2, 2), (3, 5), (24, 24), (300, 20), (64, 64))


def picture(rng: Random) -> bytes:
    """A whole image of some format, mode and size."""
    size, mode = rng.choice(SIZES), rng.choice(MODES)
    grey = Image.effect_noise(size, 50).convert("L") if min(size) > 1 else Image.new("L", size, rng.randrange(256))
    image = grey
    for step in {"PA": ("LA", "PA"), "LAB": (), "HSV": ("RGB", "HSV")}.get(mode, (mode,)):
        image = image.convert(step)
    frames: dict[str, Any] = {"save_all": True, "append_images": [image] * 2} if rng.randrange(6) == 0 else {}
    name = rng.choice([*FORMATS.values(), "GIF", "PPM", "ICO", "TGA"])
    if name in ("PNG", "GIF") and rng.randrange(4) == 0:
        frames["transparency"] = rng.randrange(4)
    if name == "TIFF":
        frames["compression"] = rng.choice(["raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
    for attempt in (image, grey.convert("RGB"), grey):
        with BytesIO() as file:
            try:
                attempt.save(file, name, **frames)
            except Exception:  # not every format has every mode
                frames = {}
                continue
            return file.getvalue()
    return b""


def huge(rng: Random) -> bytes:
    """A small file whose header promises many pixels."""
    width, height = rng.choice(
        [(2**31 - 1, 2**31 - 1), (100_000, 100_000), (65_535, 65_535), (0, 0), (50_000, 1), (9_400, 9_400)]
    )
    if rng.randrange(2):
        content = zlib.compress(b"\0" * 1000)
        header = struct.pack(
            ">IIBBBBB", width, height, rng.choice([1, 8, 16, 7]), rng.choice([0, 2, 3, 4, 6, 9]), 0, 0, rng.randrange(2)
        )
        parts = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
        chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    with BytesIO() as file:
        Image.new("L", (8, 8)).save(file, "BMP")
        content = bytearray(file.getvalue())
    content[18:26] = struct.pack("<ii", min(width, 2**31 - 1), rng.choice([1, -1]) * min(height, 2**31 - 1))
    return bytes(content)


def dicom(rng: Random) -> bytes:
    """A DICOM film with odd attributes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    syntax = rng.choice([ExplicitVRLittleEndian] * 3 + [ImplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000Lossless])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(
        entropy_srcs=[str(rng.random())]
    )
    kind = rng.choice([np.uint8, np.uint16, np.int16])
    film = (np.arange(24 * 30).reshape(24, 30) * rng.choice([1, 7])).astype(kind)
    known: dict[str, Any] = {
        "Modality": "CR", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 24, "Columns": 30,
        "BitsAllocated": film.itemsize * 8, "BitsStored": film.itemsize * 8, "HighBit": film.itemsize * 8 - 1,
        "PixelRepresentation": int(kind is np.int16),
    }  # fmt: skip
    odd: dict[str, tuple[Any, ...]] = {
        "Rows": (0, 1, 65535, None, 23), "Columns": (0, 1, 65535, None), "BitsAllocated": (0, 1, 8, 12, 32, 64),
        "BitsStored": (0, 1, 7, 40), "HighBit": (0, 99), "PixelRepresentation": (1, 7),
        "SamplesPerPixel": (0, 3, 500),
        "PhotometricInterpretation": ("", "RGB", "MONOCHROME1", "PALETTE COLOR", None),
        "NumberOfFrames": (0, 1, -1, 2, 10**9), "WindowCenter": ("", "nan", "0", ["1", "2"], "1e300", "-5"),
        "WindowWidth": ("", "0", "-1", ["1"], "1e-300", "5"), "RescaleSlope": ("0", "nan", "-1", "1e300", "inf"),
        "RescaleIntercept": ("0", "nan", "-1e300"), "PixelPaddingValue": (0, 65535),
        "PixelSpacing": (["0", "0"], ["1", "2"], ["a"], []), "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "X"),
        "Modality": ("CT", "", None), "BodyPartExamined": ("FOOT", ""),
    }  # fmt: skip
    for _ in range(rng.choice([0, 1, 2, 3])):
        key = rng.choice(sorted(odd))
        known[key] = rng.choice(odd[key])
    for key, value in known.items():
        try:
            setattr(dataset, key, value)
        except Exception:  # pydicom refuses to hold it
            continue
    dataset.PixelData = film.tobytes() if not syntax.is_encapsulated else pydicom.encaps.encapsulate([picture(rng)])
    with BytesIO() as file:
        try:
            pydicom.dcmwrite(file, dataset, enforce_file_format=True)
        except Exception:  # nor to write it
            return b"\0" * 128 + b"DICM" + bytes(rng.randrange(256) for _ in range(40))
        return file.getvalue()


def text(rng: Random) -> bytes:
    return rng.choice(STARTS)


def content(rng: Random) -> bytes:
    make: Callable[[Random], bytes] = rng.choice([picture, picture, picture, dicom, dicom, huge, text])
    made = make(rng)
    return damaged(made, rng) if rng.randrange(2) else made


def name(rng: Random) -> bytes:
    """Of a file: any bytes but a slash and a zero."""
    stem = rng.choice(
        [
            "a",
            "a b",
            "-a",
            "a\nb",
            "é",
            "𝔛",
            "%s",
            "{x}",
            "[a]",
            "*",
            "$(x)",
            "'\"",
            "<b>",
            "a" * 200,
            "\x1b[31m",
            "person1_virus_1",
        ]
    )
    return rng.choice([os.fsencode(stem), b"\xff\xfe", b"a\x80"]) + rng.choice(SUFFIXES).encode()


def predicted(rng: Random, world: World) -> Case:
    folder = world.fresh()
    films = folder / "films"
    films.mkdir()
    for _ in range(rng.choice([1, 1, 2, 4])):
        with open(os.path.join(os.fsencode(films), name(rng)), "wb") as file:
            file.write(content(rng))
    given = [f"ckpt={world.checkpoints[0]}", f"input={films}", f"overlay={rng.choice(['true', 'false', 'false'])}"]
    cfg = world.configured(folder, "predict", *given)
    told = ", ".join(f"{os.fsencode(f.name)!r} ({f.stat().st_size})" for f in films.iterdir())
    return Case(f"predict {told}", lambda: predict(cfg), [films])


def trained_on(rng: Random, world: World) -> Case:
    """Bad files in a data set, which is looked through, decoded and indexed."""
    folder = world.fresh()
    root = folder / "set"
    told = []
    for label in ("A", "B"):
        (root / label).mkdir(parents=True)
        for number, source in enumerate(rng.sample(world.images, 8)):
            (root / label / f"{label}{number}{source.suffix}").write_bytes(source.read_bytes())
    for _ in range(rng.choice([1, 2, 3])):
        called, made = name(rng), content(rng)
        with open(os.path.join(os.fsencode(root / rng.choice("AB")), called), "wb") as file:
            file.write(made)
        told.append(f"{called!r} ({len(made)})")
    words = [
        "dataset=folder",
        f"dataset.root={root}",
        f"paths.cache={folder / 'cache'}",
        f"cache={rng.choice(['on', 'off'])}",
    ]
    words += [
        f"dataset.on_bad_image={rng.choice(['skip', 'stop'])}",
        f"dataset.resize={rng.choice(['stretch', 'pad', 'crop'])}",
    ]
    words += [f"dataset.image_size={rng.choice([16, 17, 300])}", "dataset.test_fraction=0.2"]
    cfg = world.configured(folder, "train", *words)

    def look() -> None:
        data = build(cfg.dataset)
        set_up(data)
        data.images[:]

    return Case(f"train on {', '.join(told)} {words[4]}", look, [root])
