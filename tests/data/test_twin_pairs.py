"""Twins of a data set: found once, remembered by the contents compared."""

from pathlib import Path

import numpy as np
import pytest

from xray_lightning.data import twins
from xray_lightning.data.examine import THUMB
from xray_lightning.data.twins import Pair, find_twins
from xray_lightning.errors import XRayError

DIGESTS = ["e", "c", "a", "d", "b"]


@pytest.fixture
def thumbs() -> np.ndarray:
    """Of five files, where c, a and b show one film."""
    images = np.random.default_rng(0).integers(20, 236, (5, THUMB, THUMB), dtype=np.uint8)
    images[2] = images[1] + 5
    images[4] = images[1] // 2
    return images


@pytest.fixture
def found(thumbs: np.ndarray, tmp_path: Path) -> list[Pair]:
    """What is found, and remembered in `tmp_path`."""
    return find_twins(DIGESTS, thumbs, tmp_path)


@pytest.fixture
def no_comparing(found: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on whoever compares fails."""

    def fail(thumbs: np.ndarray) -> np.ndarray:
        raise AssertionError("compared again")

    monkeypatch.setattr(twins, "details", fail)


def test_what_is_all_alike_is_joined_by_as_few_pairs_as_can_be(found: list[Pair]) -> None:
    assert [pair[:2] for pair in found] == [("a", "b"), ("a", "c")]
    assert [pair[2] for pair in found] == pytest.approx([1, 1], abs=0.01)


@pytest.mark.usefixtures("no_comparing")
def test_pairs_are_remembered(found: list[Pair], thumbs: np.ndarray, tmp_path: Path) -> None:
    assert find_twins(DIGESTS, thumbs, tmp_path) == found


@pytest.mark.usefixtures("no_comparing")
def test_the_memory_knows_the_same_files_in_another_order_or_twice(
    found: list[Pair], thumbs: np.ndarray, tmp_path: Path
) -> None:
    order = [3, 1, 4, 0, 2, 1]
    assert find_twins([DIGESTS[i] for i in order], thumbs[order], tmp_path) == found


@pytest.mark.usefixtures("no_comparing")
@pytest.mark.parametrize("change", ["fewer", "more", "others"])
def test_the_memory_is_of_these_files_alone(thumbs: np.ndarray, tmp_path: Path, change: str) -> None:
    digests = {"fewer": DIGESTS[:4], "more": [*DIGESTS, "f"], "others": [*DIGESTS[:4], "f"]}[change]
    with pytest.raises(AssertionError, match="compared again"):
        find_twins(digests, np.resize(thumbs, (len(digests), THUMB, THUMB)), tmp_path)


def test_pairs_do_not_depend_on_the_order_of_files(found: list[Pair], thumbs: np.ndarray, tmp_path: Path) -> None:
    order = [3, 1, 4, 0, 2]
    assert find_twins([DIGESTS[i] for i in order], thumbs[order], tmp_path / "other") == found


def test_an_identical_file_is_no_twin_of_itself(thumbs: np.ndarray, tmp_path: Path) -> None:
    assert find_twins(["a", "a", "b"], thumbs[[0, 0, 3]], tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html></html>\n", id="page"),
        pytest.param(b"x" * 200_000, id="long"),
        pytest.param(b"\xff\x00\x01\x80", id="binary"),
        pytest.param(b"digest,twin,likeness\na,b\n", id="column missing"),
        pytest.param(b"digest,twin,likeness\na,b,alike\n", id="no number"),
    ],
)
def test_a_damaged_memory_is_made_anew(found: list[Pair], thumbs: np.ndarray, tmp_path: Path, content: bytes) -> None:
    (file,) = tmp_path.rglob("*.twins.csv")
    whole = file.read_bytes()
    file.write_bytes(content)
    assert find_twins(DIGESTS, thumbs, tmp_path) == found
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_named(thumbs: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    file.write_text("no folder")
    with pytest.raises(XRayError, match=rf"cache cannot be written to {file}"):
        find_twins(DIGESTS, thumbs, file)


@pytest.mark.parametrize("constant", ["DECODER_VERSION", "TWIN_VERSION", "THRESHOLD", "BLUR"])
def test_what_other_rules_found_is_not_taken(
    found: list[Pair], thumbs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    assert found
    monkeypatch.setattr(twins, constant, getattr(twins, constant) + 0.01)
    before = set(tmp_path.rglob("*.twins.csv"))
    find_twins(DIGESTS, thumbs, tmp_path)
    assert len(set(tmp_path.rglob("*.twins.csv")) - before) == 1
