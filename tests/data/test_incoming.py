"""Files that people bring: read as training reads its own, with a word on what is odd."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_lightning.data.decode import BadImage, decode, fit
from xray_lightning.data.incoming import read_image

RNG = np.random.default_rng(0)


def saved(pixels: np.ndarray, kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("shape", [(700, 600), (90, 120), (600, 700, 3)])
def test_pixels_are_those_of_training(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    content = saved(RNG.integers(0, 256, shape, dtype=np.uint8), kind)
    file = tmp_path / f"film.{kind}"
    file.write_bytes(content)
    assert np.array_equal(fit(read_image(file.name, content, 64).image, 64), decode(file, 64))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_colour_pictures_are_warned_of_and_grey_ones_saved_in_colour_are_not(kind: str) -> None:
    grey = np.repeat(RNG.integers(0, 256, (64, 64, 1), dtype=np.uint8), 3, axis=2)
    colour = grey.copy()
    colour[..., 0] = 255 - colour[..., 0]
    assert read_image(f"a.{kind}", saved(grey, kind), 32).warnings == []
    assert "colour" in read_image(f"a.{kind}", saved(colour, kind), 32).warnings[0]


def test_long_pictures_are_warned_of() -> None:
    assert read_image("a.png", saved(np.zeros((100, 190), np.uint8), "png"), 32).warnings == []
    assert "longer" in read_image("a.png", saved(np.zeros((100, 210), np.uint8), "png"), 32).warnings[0]


@pytest.mark.parametrize("content", [b"", b"abc", saved(RNG.integers(0, 256, (99, 99), dtype=np.uint8), "png")[:-2000]])
def test_broken_files_are_refused(content: bytes) -> None:
    with pytest.raises(BadImage):
        read_image("a.png", content, 32)
