"""What one reading of a file tells: facts, a thumbnail and pixels that belong together."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xray_lightning.data import examine as module
from xray_lightning.data.decode import DRAFT, THUMB, Resize, decode, thumbnail
from xray_lightning.data.examine import Facts, digest_of, examine, stamp

NEVER = 10**18  # ns: no file is as new as that

FITS: tuple[Resize, ...] = ("stretch", "pad", "crop")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 40), dtype=np.uint8)
LARGE = np.kron(RNG.integers(0, 256, (36, 48), dtype=np.uint8), np.ones((25, 25), dtype=np.uint8))  # 1200 x 900
IMAGES: dict[str, tuple[Image.Image, dict[str, Any], tuple[str, str, int, int]]] = {
    "grey.png": (Image.fromarray(GREY), {}, ("PNG", "L", 40, 30)),
    "deep.png": (Image.fromarray(GREY.astype(np.uint16) * 257), {}, ("PNG", "I;16", 40, 30)),
    "palette.png": (Image.fromarray(GREY).convert("P"), {}, ("PNG", "P", 40, 30)),
    "clear.png": (Image.fromarray(GREY).convert("RGBA"), {}, ("PNG", "RGBA", 40, 30)),
    "GREY.JPG": (Image.fromarray(GREY), {"format": "JPEG"}, ("JPEG", "L", 40, 30)),
    "colour.jpeg": (Image.fromarray(GREY).convert("RGB"), {}, ("JPEG", "RGB", 40, 30)),
    "print.jpeg": (Image.fromarray(GREY).convert("CMYK"), {}, ("JPEG", "CMYK", 40, 30)),
    "pair.jpg": (
        Image.fromarray(GREY),
        {"format": "MPO", "save_all": True, "append_images": [Image.fromarray(GREY)]},
        ("MPO", "L", 40, 30),
    ),
    "grey.bmp": (Image.fromarray(GREY), {}, ("BMP", "L", 40, 30)),
    "grey.tiff": (Image.fromarray(GREY), {}, ("TIFF", "L", 40, 30)),
    "grey.webp": (Image.fromarray(GREY), {}, ("WEBP", "RGB", 40, 30)),
    "large.png": (Image.fromarray(LARGE), {"compress_level": 1}, ("PNG", "L", 1200, 900)),
    "large.jpeg": (Image.fromarray(LARGE).convert("RGB"), {}, ("JPEG", "RGB", 1200, 900)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All IMAGES; not to be changed."""
    folder = tmp_path_factory.mktemp("images")
    for name, (image, options, _) in IMAGES.items():
        image.save(folder / name, **options)
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("name", IMAGES)
def test_facts_are_those_of_the_file_and_its_header(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RACY", -NEVER)
    content = (folder / name).read_bytes()
    form, mode, width, height = IMAGES[name][2]
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    expected = Facts(stamp(folder / name), len(content), digest, form, mode, width, height, problem="")
    assert examine(folder / name, None, "stretch")[0] == expected
    assert examine(folder / name, 2 * DRAFT, "crop")[0] == expected


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("size", [16, DRAFT, DRAFT + 1, 450, 1300])
def test_pixels_are_those_that_decoding_gives(folder: Path, name: str, size: int) -> None:
    for resize in FITS if size == 450 else FITS[:1]:
        _, _, pixels = examine(folder / name, size, resize)
        assert pixels is not None and np.array_equal(pixels, decode(folder / name, size, resize))


@pytest.mark.parametrize("name", IMAGES)
def test_the_thumbnail_does_not_depend_on_the_size(folder: Path, name: str) -> None:
    _, expected, nothing = examine(folder / name, None, "stretch")
    assert nothing is None
    assert expected.shape == (THUMB, THUMB) and expected.dtype == np.uint8 and expected.any()
    for size, resize in zip((8, THUMB, DRAFT, DRAFT + 1, 900), (*FITS, *FITS), strict=False):
        assert np.array_equal(examine(folder / name, size, resize)[1], expected)


def test_thumbnails_of_one_film_are_alike_and_of_two_are_not(folder: Path) -> None:
    png, jpeg, other = (
        examine(folder / name, None, "stretch")[1].astype(float) for name in ("large.png", "large.jpeg", "grey.png")
    )
    assert np.abs(png - jpeg).mean() < 3
    assert np.abs(png - other).mean() > 10


def test_copies_have_one_digest_and_other_contents_another(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.png").write_bytes((folder / "grey.png").read_bytes())
    digests = [examine(f, None, "stretch")[0].digest for f in (folder / "grey.png", tmp_path / "copy.png")]
    assert digests[0] == digests[1] != examine(folder / "deep.png", None, "stretch")[0].digest


def test_a_bad_file_has_a_problem_and_the_facts_that_could_be_had(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "whole.png")
    half = (tmp_path / "whole.png").read_bytes()[:600]
    (tmp_path / "half.png").write_bytes(half)
    (tmp_path / "page.png").write_bytes(b"<html></html>")
    (tmp_path / "empty.png").touch()
    for name, content, header in (
        ("half.png", half, ("PNG", "L", 40, 30)),
        ("page.png", b"<html></html>", ("", "", 0, 0)),
        ("empty.png", b"", ("", "", 0, 0)),
        ("gone.png", b"", ("", "", 0, 0)),
    ):
        facts, thumb, pixels = examine(tmp_path / name, 16, "stretch")
        assert facts.problem and pixels is None and not thumb.any() and thumb.shape == (THUMB, THUMB)
        assert facts.size == len(content) and facts.digest == (digest_of(content) if content else "")
        assert (facts.format, facts.mode, facts.width, facts.height) == header


def test_a_file_cut_anywhere_has_a_problem_whatever_the_size(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "large.jpeg").read_bytes()
    for length in (len(whole) // 3, len(whole) - 2):
        (tmp_path / "cut.jpeg").write_bytes(whole[:length])
        for size in (None, 16, 600):
            assert "truncated" in examine(tmp_path / "cut.jpeg", size, "stretch")[0].problem


def test_the_stamp_stays_while_a_file_is_only_read(file: Path) -> None:
    before = stamp(file)
    decode(file, 8)
    assert before == stamp(file) != ""
    assert stamp(file.with_name("nothing.png")) == ""


def test_the_stamp_changes_with_the_content_even_where_its_time_is_set_back(file: Path) -> None:
    seen, status, content = {stamp(file)}, file.stat(), file.read_bytes()
    time.sleep(0.02)  # the kernel's clock ticks every few milliseconds
    file.write_bytes(content[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.add(stamp(file))
    time.sleep(0.02)
    other = file.with_name("other.png")
    other.write_bytes(content)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, file)
    seen.add(stamp(file))
    assert len(seen) == 3
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_a_file_written_just_now_has_no_stamp_to_rely_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RACY", 3600 * 10**9)
    assert examine(file, None, "stretch")[0].stamp == ""
    monkeypatch.setattr(module, "RACY", -NEVER)
    assert examine(file, None, "stretch")[0].stamp == stamp(file)


def test_a_file_that_changes_while_it_is_read_does_not_look_known(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        content = path.read_bytes()
        path.write_bytes(content + b"more")
        return content

    monkeypatch.setattr(module, "RACY", -NEVER)
    monkeypatch.setattr(module, "read_bytes", read)
    facts, thumb, _ = examine(file, None, "stretch")
    assert facts.stamp != stamp(file) and not facts.problem
    assert np.array_equal(thumb, thumbnail(Image.fromarray(GREY)))
