"""Every kind of file becomes one grey image, decoded once and never half."""

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from xray_lightning.data import pixels
from xray_lightning.data.catalog import Layout, Radiograph, scan
from xray_lightning.data.pixels import decode, load_pixels
from xray_lightning.errors import XRayError

LAYOUT = Layout(folders={"A": ["a"], "B": ["b"]})
DARK, LIGHT = 51, 204
NAMES = [f"{folder}/{n}.png" for folder in "ab" for n in range(6)]

FolderWriter = Callable[..., Path]


def halves(dark: int = DARK, light: int = LIGHT, width: int = 40, height: int = 40) -> np.ndarray:
    """Dark on the left, light on the right."""
    values = np.full((height, width), dark, dtype=np.uint8)
    values[:, width // 2 :] = light
    return values


def levels(grey: np.ndarray) -> tuple[int, int]:
    """The grey levels at the left and right edges, which have to be even."""
    left, right = grey[:, :3], grey[:, -3:]
    assert np.ptp(left) <= 2 and np.ptp(right) <= 2
    return int(np.median(left)), int(np.median(right))


def with_alpha(grey: np.ndarray, alpha: int) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(grey), Image.new("L", grey.shape[::-1], alpha)])


def palette() -> Image.Image:
    """Indices 0 and 1, whose colours alone tell dark from light."""
    image = Image.new("P", (40, 40))
    image.paste(1, (20, 0, 40, 40))
    image.putpalette([DARK] * 3 + [LIGHT] * 3)
    return image


KINDS: dict[str, Callable[[Path], None]] = {
    "grey.png": lambda file: Image.fromarray(halves()).save(file),
    "grey.jpeg": lambda file: Image.fromarray(halves()).save(file, quality=95),
    "rgb.png": lambda file: Image.fromarray(halves()).convert("RGB").save(file),
    "rgb.jpeg": lambda file: Image.fromarray(halves()).convert("RGB").save(file, quality=95),
    "rgba.png": lambda file: Image.fromarray(halves()).convert("RGBA").save(file),
    "la.png": lambda file: with_alpha(halves(), 255).save(file),
    "palette.png": lambda file: palette().save(file),
    "palette_opaque_transparency.png": lambda file: palette().save(file, transparency=b"\xff\xff"),
    "sixteen_bit.png": lambda file: Image.fromarray(halves().astype(np.uint16) * 257).save(file),
    "cmyk.jpeg": lambda file: Image.fromarray(halves()).convert("RGB").convert("CMYK").save(file, quality=95),
}


@pytest.mark.parametrize("size", [16, 40, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_mode_gives_its_grey_values(tmp_path: Path, kind: str, size: int) -> None:
    KINDS[kind](tmp_path / kind)
    grey = decode(tmp_path / kind, size)
    assert grey.shape == (size, size) and grey.dtype == np.uint8
    assert levels(grey) == (pytest.approx(DARK, abs=2), pytest.approx(LIGHT, abs=2))


def test_one_bit_images_become_black_and_white_with_greys_between(tmp_path: Path) -> None:
    Image.fromarray(halves(0, 255, width=41)).convert("1").save(tmp_path / "a.png")
    grey = decode(tmp_path / "a.png", 8)
    assert levels(grey) == (0, 255)
    assert any(0 < level < 255 for level in grey[0])


def test_sixteen_bits_are_scaled_from_their_full_range(tmp_path: Path) -> None:
    values = np.zeros((40, 40), dtype=np.uint16)
    values[:, 20:] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    assert levels(decode(tmp_path / "a.png", 20)) == (0, 255)
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (64, 1))).save(tmp_path / "b.png")
    assert np.abs(decode(tmp_path / "b.png", 64).astype(float) - ramp / 257).max() <= 1


def test_colours_become_their_luminance(tmp_path: Path) -> None:
    for colour, grey in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        Image.new("RGB", (10, 10), colour).save(tmp_path / "a.png")
        assert levels(decode(tmp_path / "a.png", 10)) == (grey, grey)


def test_what_is_transparent_shows_black(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    rgba = np.dstack([halves(200, 200)] * 3 + [halves(0, 255)])
    Image.fromarray(rgba).save(file)
    assert levels(decode(file, 16)) == (0, 200)
    palette().save(file, transparency=1)
    assert levels(decode(file, 16)) == (DARK, 0)
    palette().save(file, transparency=b"\x00\xff")
    assert levels(decode(file, 16)) == (0, LIGHT)
    Image.fromarray(halves()).save(file, transparency=LIGHT)
    assert levels(decode(file, 16)) == (DARK, 0)
    with_alpha(halves(100, 200), 128).save(file)
    assert levels(decode(file, 16)) == (pytest.approx(50, abs=1), pytest.approx(100, abs=1))


def test_images_are_stretched_to_a_square(tmp_path: Path) -> None:
    Image.fromarray(halves(width=90, height=30)).save(tmp_path / "a.png")
    grey = decode(tmp_path / "a.png", 20)
    assert grey.shape == (20, 20)
    assert levels(grey) == (DARK, LIGHT)
    assert (grey[:, 2:8] == DARK).all() and (grey[:, 12:18] == LIGHT).all()


def test_downscaling_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((120, 120), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    inner = decode(tmp_path / "a.png", 15)[:, 1:-1]
    assert inner.min() > 110 and inner.max() < 145


@pytest.fixture
def folder(tmp_path: Path, write_files: FolderWriter) -> Path:
    return write_files(tmp_path / "images", NAMES)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pixels"


def catalog(folder: Path) -> list[Radiograph]:
    return scan(folder, LAYOUT, ["A", "B"])


def count_decoding(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> list[Path]:
    calls: list[Path] = []

    def counted(file: Path, size: int) -> np.ndarray:
        calls.append(file)
        time.sleep(seconds)
        return decode(file, size)

    monkeypatch.setattr(pixels, "decode", counted)
    return calls


def test_images_come_in_the_order_of_the_rows(folder: Path, cache: Path) -> None:
    rows = catalog(folder)[::-1]
    array = load_pixels(folder, rows, 8, cache)
    assert array.shape == (12, 8, 8) and array.dtype == np.uint8
    for image, row in zip(array, rows, strict=True):
        assert np.array_equal(image, decode(folder / row.path, 8))


def test_decoded_images_cannot_be_changed_by_mistake(folder: Path, cache: Path) -> None:
    array = load_pixels(folder, catalog(folder), 8, cache)
    with pytest.raises(ValueError):
        array[0] = 0


def test_a_second_load_needs_no_image_file(folder: Path, cache: Path) -> None:
    rows = catalog(folder)
    first = np.array(load_pixels(folder, rows, 8, cache))
    for row in rows:
        (folder / row.path).unlink()
    assert np.array_equal(load_pixels(folder, rows, 8, cache), first)


def test_a_moved_data_set_is_not_decoded_again(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_pixels(folder, catalog(folder), 8, cache)
    calls = count_decoding(monkeypatch)
    moved = folder.rename(folder.parent / "elsewhere")
    load_pixels(moved, catalog(moved), 8, cache)
    assert not calls


def test_changed_contents_are_decoded_anew(folder: Path, cache: Path, write_image: Callable[..., Path]) -> None:
    before = np.array(load_pixels(folder, catalog(folder), 8, cache))
    write_image(folder / NAMES[3], content="another")
    after = load_pixels(folder, catalog(folder), 8, cache)
    assert [n for n in range(12) if not np.array_equal(before[n], after[n])] == [3]


def test_another_size_or_choice_of_rows_is_another_cache(folder: Path, cache: Path) -> None:
    rows = catalog(folder)
    assert load_pixels(folder, rows, 8, cache).shape == (12, 8, 8)
    assert load_pixels(folder, rows, 16, cache).shape == (12, 16, 16)
    assert load_pixels(folder, rows[:5], 8, cache).shape == (5, 8, 8)
    assert load_pixels(folder, rows, 8, cache).shape == (12, 8, 8)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing_that_is_loaded_later(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    rows = catalog(folder)
    calls = count()

    def interrupted(file: Path, size: int) -> np.ndarray:
        if next(calls) >= 6:
            raise error
        return decode(file, size)

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "decode", interrupted)
        with pytest.raises(error):
            load_pixels(folder, rows, 8, cache)
    assert not list(cache.glob("*.npy"))
    expected = np.stack([decode(folder / row.path, 8) for row in rows])
    assert np.array_equal(load_pixels(folder, rows, 8, cache), expected)


def test_all_broken_files_are_listed_at_once_and_nothing_is_cached(folder: Path, cache: Path) -> None:
    whole = (folder / NAMES[0]).read_bytes()
    broken = {
        "a/truncated.png": whole[: len(whole) // 2],
        "a/no_bytes.png": b"",
        "b/page.png": b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
        "b/header_only.png": whole[:20],
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    Image.fromarray(halves()).save(folder / "b" / "photo.jpeg")
    photo = (folder / "b" / "photo.jpeg").read_bytes()
    (folder / "b" / "photo.jpeg").write_bytes(photo[: len(photo) // 2])
    with pytest.raises(XRayError) as error:
        load_pixels(folder, catalog(folder), 8, cache)
    message = str(error.value)
    assert message.startswith("5 of 17 files") and str(folder) in message
    for name in [*broken, "b/photo.jpeg"]:
        assert name in message
    assert not any(name in message for name in NAMES)
    assert not list(cache.glob("*.npy"))
    for name in [*broken, "b/photo.jpeg"]:
        (folder / name).unlink()
    assert len(load_pixels(folder, catalog(folder), 8, cache)) == 12


def test_a_cache_folder_that_cannot_be_made_is_reported_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", tmp_path / "taken" / "pixels"):
        with pytest.raises(XRayError) as error:
            load_pixels(folder, catalog(folder), 8, place)
        for word in (str(place), "paths.cache", "XRAY_CACHE"):
            assert word in str(error.value)


def test_threads_that_want_the_same_images_decode_them_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = catalog(folder)
    calls = count_decoding(monkeypatch, seconds=0.01)
    start = Barrier(3)

    def load(_: int) -> np.ndarray:
        start.wait()
        return load_pixels(folder, rows, 8, cache)

    with ThreadPoolExecutor(3) as pool:
        arrays = list(pool.map(load, range(3)))
    assert sorted(calls) == [folder / row.path for row in rows]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)


def test_processes_that_want_the_same_images_decode_them_once(folder: Path, cache: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from xray_lightning.data import pixels
        from xray_lightning.data.catalog import Layout, scan

        whole, calls = pixels.decode, []
        def slow(file, size):
            calls.append(file)
            time.sleep(0.05)
            return whole(file, size)
        pixels.decode = slow
        folder, cache = map(Path, sys.argv[1:])
        rows = scan(folder, Layout(folders={"A": ["a"], "B": ["b"]}), ["A", "B"])
        print(len(calls), len(pixels.load_pixels(folder, rows, 8, cache)), len(calls))
    """)
    command = [sys.executable, "-c", script, str(folder), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert [output[:2] for output in outputs] == [["0", "12"]] * 2
    assert sorted(int(output[2]) for output in outputs) == [0, 12]
