"""Which files a name, a folder or a pattern means."""

from pathlib import Path

import pytest

from xray_lightning.errors import XRayError
from xray_lightning.found import found_files


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Images in two folders, hidden ones, another file, and links that lead around in circles."""
    for name in ("x.png", "b/y.png", ".h/z.png", ".q.png", "w.txt"):
        file = tmp_path / "films" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for number in range(5):  # of which glob.glob would follow every sequence of 40
        (tmp_path / "films" / f"loop{number}").symlink_to(".")
    return tmp_path / "films"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["b/y.png", "x.png"]),
        ("x.png", ["x.png"]),
        ("*.png", ["x.png"]),
        ("**", ["b/y.png", "w.txt", "x.png"]),
        ("**/*.png", ["b/y.png", "x.png"]),
        ("[xy].png", ["x.png"]),
        ("?/y.png", ["b/y.png"]),
    ],
)
def test_hidden_files_and_links_in_circles_are_left_out(films: Path, pattern: str, found: list[str]) -> None:
    assert [f.relative_to(films).as_posix() for f in found_files(films / pattern)] == found


@pytest.mark.parametrize("pattern", ["nothing", "*.gif", "[", "**x", "b/nothing/*.png", "loop?"])
def test_what_names_no_file_is_refused(films: Path, pattern: str) -> None:
    with pytest.raises(XRayError, match="input"):
        found_files(films / pattern)
