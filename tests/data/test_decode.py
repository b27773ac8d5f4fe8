"""Every kind of file becomes one grey image or is refused with what is wrong with it."""

import errno
import os
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_lightning.data.decode import (
    DRAFT,
    FORMATS,
    MOST_PIXELS,
    THUMB,
    BadImage,
    Resize,
    decode,
    draft,
    fit,
    grey,
    open_image,
    read_bytes,
    thumbnail,
)

DARK, LIGHT = 51, 204


def halves(dark: int = DARK, light: int = LIGHT, width: int = 40, height: int = 40) -> np.ndarray:
    """Dark on the left, light on the right."""
    values = np.full((height, width), dark, dtype=np.uint8)
    values[:, width // 2 :] = light
    return values


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


@cache
def film(width: int, height: int) -> np.ndarray:
    """Broad shadows, edges like ribs, and grain."""
    y, x = np.mgrid[:height, :width]
    shadows = 128 + 60 * np.sin(x / 97) * np.cos(y / 71) + 30 * ((x // 40 + y // 40) % 2)
    return (shadows + np.random.default_rng(0).normal(0, 6, x.shape)).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, form: str, **options: object) -> bytes:
    file = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def without_draft(content: bytes, suffix: str, size: int, resize: Resize = "stretch") -> np.ndarray:
    return fit(grey(open_image(content, suffix)), size, resize)


def levels(image: np.ndarray) -> tuple[int, int]:
    """The grey levels at the left and right edges, which have to be even."""
    left, right = image[:, :3], image[:, -3:]
    assert np.ptp(left) <= 2 and np.ptp(right) <= 2
    return int(np.median(left)), int(np.median(right))


def with_alpha(values: np.ndarray, alpha: int) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(values), Image.new("L", values.shape[::-1], alpha)])


def palette() -> Image.Image:
    """Indices 0 and 1, whose colours alone tell dark from light."""
    image = Image.new("P", (40, 40))
    image.paste(1, (20, 0, 40, 40))
    image.putpalette([DARK] * 3 + [LIGHT] * 3)
    return image


GREY = Image.fromarray(halves())
RGB = GREY.convert("RGB")
KINDS: dict[str, Callable[[Path], None]] = {
    "grey.png": lambda file: GREY.save(file),
    "grey.jpeg": lambda file: GREY.save(file, quality=95),
    "grey.bmp": lambda file: GREY.save(file),
    "grey.webp": lambda file: GREY.save(file, lossless=True),
    "rgb.png": lambda file: RGB.save(file),
    "rgb.jpg": lambda file: RGB.save(file, quality=95),
    "RGB.JPG": lambda file: RGB.save(file, "JPEG", quality=95),
    "rgb_progressive.jpeg": lambda file: RGB.save(file, quality=95, progressive=True),
    "two_pictures.jpg": lambda file: RGB.save(file, "MPO", save_all=True, append_images=[RGB], quality=95),
    "rgb.tiff": lambda file: RGB.save(file, compression="tiff_lzw"),
    "rgba.png": lambda file: GREY.convert("RGBA").save(file),
    "la.png": lambda file: with_alpha(halves(), 255).save(file),
    "palette.png": lambda file: palette().save(file),
    "palette.bmp": lambda file: palette().save(file),
    "palette_opaque_transparency.png": lambda file: palette().save(file, transparency=b"\xff\xff"),
    "sixteen_bit.png": lambda file: Image.fromarray(halves().astype(np.uint16) * 257).save(file),
    "sixteen_bit.tif": lambda file: Image.fromarray(halves().astype(np.uint16) * 257).save(file),
    "cmyk.jpeg": lambda file: RGB.convert("CMYK").save(file, quality=95),
}


@pytest.mark.parametrize("size", [16, 40, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_mode_gives_its_grey_values(tmp_path: Path, kind: str, size: int) -> None:
    KINDS[kind](tmp_path / kind)
    image = decode(tmp_path / kind, size)
    assert image.shape == (size, size) and image.dtype == np.uint8
    assert levels(image) == (pytest.approx(DARK, abs=2), pytest.approx(LIGHT, abs=2))


def test_one_bit_images_become_black_and_white_with_greys_between(tmp_path: Path) -> None:
    Image.fromarray(halves(0, 255, width=41)).convert("1").save(tmp_path / "a.png")
    image = decode(tmp_path / "a.png", 8)
    assert levels(image) == (0, 255)
    assert any(0 < level < 255 for level in image[0])


def test_sixteen_bits_are_scaled_from_their_full_range(tmp_path: Path) -> None:
    values = np.zeros((40, 40), dtype=np.uint16)
    values[:, 20:] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    assert levels(decode(tmp_path / "a.png", 20)) == (0, 255)
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (64, 1))).save(tmp_path / "b.png")
    assert np.abs(decode(tmp_path / "b.png", 64).astype(float) - ramp / 257).max() <= 1


def test_colours_become_their_luminance(tmp_path: Path) -> None:
    for colour, level in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        Image.new("RGB", (10, 10), colour).save(tmp_path / "a.png")
        assert levels(decode(tmp_path / "a.png", 10)) == (level, level)


def test_what_is_transparent_shows_black(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(np.dstack([halves(200, 200)] * 3 + [halves(0, 255)])).save(file)
    assert levels(decode(file, 16)) == (0, 200)
    palette().save(file, transparency=1)
    assert levels(decode(file, 16)) == (DARK, 0)
    palette().save(file, transparency=b"\x00\xff")
    assert levels(decode(file, 16)) == (0, LIGHT)
    GREY.save(file, transparency=LIGHT)
    assert levels(decode(file, 16)) == (DARK, 0)
    with_alpha(halves(100, 200), 128).save(file)
    assert levels(decode(file, 16)) == (pytest.approx(50, abs=1), pytest.approx(100, abs=1))


def test_images_are_stretched_to_a_square(tmp_path: Path) -> None:
    Image.fromarray(halves(width=90, height=30)).save(tmp_path / "a.png")
    image = decode(tmp_path / "a.png", 20)
    assert image.shape == (20, 20)
    assert (image[:, :8] == DARK).all() and (image[:, 12:] == LIGHT).all()


@pytest.mark.parametrize("turn", [np.asarray, np.transpose])
def test_padding_keeps_every_pixel_and_the_aspect_ratio(
    tmp_path: Path, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    values, expected = noise(20, 10), np.zeros((20, 20), dtype=np.uint8)
    expected[5:15] = values
    Image.fromarray(turn(values)).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 20, "pad"), turn(expected))
    Image.fromarray(turn(np.full((30, 60), LIGHT, dtype=np.uint8))).save(tmp_path / "b.png")
    expected[5:15] = LIGHT
    assert np.array_equal(decode(tmp_path / "b.png", 20, "pad"), turn(expected))


@pytest.mark.parametrize("turn", [np.asarray, np.transpose])
def test_cropping_keeps_the_centre_as_it_is(tmp_path: Path, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    values = noise(20, 10)
    Image.fromarray(turn(values)).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 10, "crop"), turn(values[:, 5:15]))
    stripes = halves(0, 255, 60, 30)
    stripes[:, 15:45] = LIGHT
    Image.fromarray(turn(stripes)).save(tmp_path / "b.png")
    assert (decode(tmp_path / "b.png", 10, "crop")[2:-2, 2:-2] == LIGHT).all()


def test_a_square_image_is_the_same_however_it_is_fitted(tmp_path: Path) -> None:
    Image.fromarray(noise(33, 33)).save(tmp_path / "a.png")
    for size in (16, 33, 50):
        stretched = decode(tmp_path / "a.png", size)
        assert np.array_equal(decode(tmp_path / "a.png", size, "pad"), stretched)
        assert np.array_equal(decode(tmp_path / "a.png", size, "crop"), stretched)


def test_downscaling_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((120, 120), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    inner = decode(tmp_path / "a.png", 15)[:, 1:-1]
    assert inner.min() > 110 and inner.max() < 145


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_scaled_jpeg_is_nearly_what_full_decoding_gives(tmp_path: Path, mode: str, resize: Resize) -> None:
    content = encoded(Image.fromarray(film(1600, 1200)).convert("RGB").convert(mode), "JPEG", quality=90)
    (tmp_path / "a.jpeg").write_bytes(content)
    difference = np.abs(decode(tmp_path / "a.jpeg", 224, resize) - without_draft(content, ".jpeg", 224, resize) * 1.0)
    assert difference.mean() < 0.75 and difference.max() <= 8
    assert difference.any()  # otherwise it was not scaled, and this says nothing


@pytest.mark.parametrize(
    ("width", "height", "size", "kept"),
    [
        (1600, 1200, 16, (400, 300)),
        (1600, 1200, 300, (400, 300)),
        (1600, 1200, 301, (800, 600)),
        (1600, 1200, 600, (800, 600)),
        (1600, 1200, 601, (1600, 1200)),
        (1200, 1601, 64, (300, 401)),
        (2 * DRAFT, 3 * DRAFT, 1, (DRAFT, 3 * DRAFT // 2)),
        (2 * DRAFT - 1, 3 * DRAFT, 1, (2 * DRAFT - 1, 3 * DRAFT)),
        (4000, DRAFT, 8, (4000, DRAFT)),
        (40, 30, 64, (40, 30)),
    ],
)
def test_a_scaled_jpeg_keeps_the_pixels_that_are_wanted(
    width: int, height: int, size: int, kept: tuple[int, int]
) -> None:
    image = draft(open_image(encoded(Image.new("L", (width, height), 90), "JPEG"), ".jpeg"), size)
    assert image.size == kept == grey(image).size


def test_a_jpeg_that_is_not_scaled_is_decoded_as_ever(tmp_path: Path) -> None:
    small = encoded(noise(2 * DRAFT - 1, 300), "JPEG")
    large = encoded(noise(700, 600), "JPEG")
    for content, sizes in ((small, (16, 224, 300)), (large, (301, 400))):
        (tmp_path / "a.jpeg").write_bytes(content)
        for size in sizes:
            assert np.array_equal(decode(tmp_path / "a.jpeg", size), without_draft(content, ".jpeg", size))


def test_formats_other_than_jpeg_are_never_scaled_while_decoding(tmp_path: Path) -> None:
    for suffix, form in ((".png", "PNG"), (".bmp", "BMP"), (".tif", "TIFF"), (".webp", "WEBP")):
        content = encoded(film(530, 520), form)
        (tmp_path / f"a{suffix}").write_bytes(content)
        assert np.array_equal(decode(tmp_path / f"a{suffix}", 32), without_draft(content, suffix, 32))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (32, 32), (40, 300), (1024, 900), (2000, 500)])
def test_a_thumbnail_is_nearly_the_image_stretched(width: int, height: int) -> None:
    image = Image.fromarray(film(width, height))
    small = thumbnail(image)
    assert small.shape == (THUMB, THUMB) and small.dtype == np.uint8
    difference = np.abs(small - fit(image, THUMB) * 1.0)
    assert difference.mean() < 1.5 and difference.max() <= 12


PNG, JPEG = encoded(noise(40, 40), "PNG"), encoded(noise(40, 40), "JPEG")
PAGE = b"\n <!DOCTYPE html><html><body>403 Forbidden</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BAD = {
    "empty.png": (b"", "is empty"),
    "half.png": (PNG[: len(PNG) // 2], "truncated"),
    "nearly_whole.png": (PNG[:-30], "truncated"),
    "half.jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "nearly_whole.jpeg": (JPEG[:-2], "truncated"),
    "half.bmp": (encoded(noise(40, 40), "BMP")[:900], "truncated"),
    "half.tif": (encoded(noise(40, 40), "TIFF")[:900], "truncated"),
    "half.webp": (encoded(noise(40, 40), "WEBP")[:500], "is damaged"),
    "start.png": (PNG[:20], "is truncated"),
    "other_bits.png": (PNG[:-40] + bytes(28) + PNG[-12:], "is damaged"),
    "text.jpg": (b"Not found", "is no image"),
    "page.png": (PAGE, "a web page"),
    "page.jpeg": (b"<?xml version='1.0'?><Error/>", "a web page"),
    "pointer.jpeg": (POINTER, "git lfs pull"),
    "film.jpeg": (bytes(128) + b"DICM" + bytes(400), "DICOM"),
    "misnamed.jpeg": (PNG, "is a PNG image under the name of another format"),
    "misnamed.png": (JPEG, "is a JPEG image under the name of another format"),
    "animation.png": (encoded(noise(40, 40), "GIF"), "no image"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadImage, match=message):
        decode(tmp_path / name, 16)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_is_read_to_its_end_though_scaled(mode: str, progressive: bool) -> None:
    content = encoded(Image.fromarray(film(1200, 1100)).convert(mode), "JPEG", progressive=progressive)
    for end in (len(content) // 2, len(content) * 95 // 100, len(content) - 2):
        with pytest.raises(BadImage, match="truncated"):
            grey(draft(open_image(content[:end], ".jpeg"), 64))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the package says, but pytest forgets
@pytest.mark.parametrize("factor", [1.2, 5])
def test_a_file_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path: Path, factor: float) -> None:
    header = bytearray(encoded(Image.new("1", (1, 1)), "BMP"))
    header[18:26] = np.array([10_000, MOST_PIXELS * factor / 10_000], dtype="<i4").tobytes()
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(BadImage, match=r"would unpack to .* pixels, which is no radiograph"):
        decode(tmp_path / "bomb.bmp", 16)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "circle.png").symlink_to("other_circle.png")
    (tmp_path / "other_circle.png").symlink_to("circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        "folder.png": "no plain file",
        "pipe.png": "no plain file",
        "gone.png": "no plain file",
        "dangling.png": "leads nowhere",
        "circle.png": "leads nowhere",
    }.items():
        with pytest.raises(BadImage, match=message):
            decode(tmp_path / name, 16)


def test_a_link_to_an_image_is_that_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("a.png")
    assert np.array_equal(decode(tmp_path / "link.png", 8), decode(tmp_path / "a.png", 8))


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), file)

    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(BadImage, match=r"cannot be read \(Input/output error\)"):
        read_bytes(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(BadImage, match="Permission denied"):
        read_bytes(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("Image.open", MemoryError),
        ("Image.open", KeyboardInterrupt),
        ("ImageFile.ImageFile.load", MemoryError),
        ("ImageFile.ImageFile.load", KeyboardInterrupt),
        ("Image.Image.resize", MemoryError),
    ],
)
def test_what_is_not_the_files_fault_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(f"PIL.{step}", broken)
    with pytest.raises(error):
        decode(tmp_path / "a.png", 16)


WHOLE = [
    (f".{form.lower()}", content)
    for form in ("PNG", "JPEG")
    for content in (
        encoded(noise(24, 20), form),
        encoded(Image.fromarray(noise(24, 20)).convert("RGB"), form),
        encoded(Image.new("L", (600, 520), 90), form),
    )
]
SUFFIXES = st.sampled_from(sorted(FORMATS))


def decodes_or_is_refused(content: bytes, suffix: str, resize: Resize = "stretch") -> None:
    try:
        image = without_draft(content, suffix, 8, resize)
        scaled = fit(grey(draft(open_image(content, suffix), 8)), 8, resize)
    except BadImage as problem:
        assert str(problem)
    else:
        assert image.shape == scaled.shape == (8, 8) and image.dtype == scaled.dtype == np.uint8


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=300), suffix=SUFFIXES)
def test_no_bytes_whatever_are_more_than_a_bad_image(content: bytes, suffix: str) -> None:
    decodes_or_is_refused(content, suffix)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=100)
@given(
    whole=st.sampled_from(WHOLE),
    lost=st.just(0) | st.integers(0, 700),
    flipped=st.lists(st.integers(0, 8 * 700), max_size=6),
    resize=st.sampled_from(["stretch", "pad", "crop"]),
)
def test_no_damage_to_an_image_is_more_than_a_bad_image(
    whole: tuple[str, bytes], lost: int, flipped: list[int], resize: Resize
) -> None:
    suffix, content = whole
    damaged = bytearray(content[: max(len(content) - lost, 0)])
    for bit in flipped if damaged else ():
        damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    decodes_or_is_refused(bytes(damaged), suffix, resize)
