"""Splits that leak or lack a class are refused, and what is wrong with them is told in one message."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from xray_lightning.data.catalog import Entry
from xray_lightning.data.collection import collect, refuse_empty_sides, refuse_leaks
from xray_lightning.data.splits import TEST, TRAIN, UNUSED, VAL, leaks
from xray_lightning.errors import XRayError

Leak = tuple[dict[tuple[str, str], int], list[str]]
WHAT = "1 of 2 test images have a patient, a copy or a twin in train"
FULL = {"well": 5, "ill": 2}


@pytest.fixture
def leak(tmp_path: Path, write_image: Callable[..., Path]) -> Leak:
    """What leaks, and the sides, where a copy of a training image is in test."""
    names = ["a.png", "b.png", "c.png", "copy of a.png"]
    for name in names:
        write_image(tmp_path / name, content=name[-5])
    entries = [Entry(name, 0, "ill") for name in names]
    sides = [TRAIN, VAL, TEST, TEST]
    return leaks(collect(tmp_path, entries, tmp_path / "cache").rows, sides), sides


def test_a_split_that_leaks_is_refused(leak: Leak, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(XRayError, match=WHAT) as error:
        refuse_leaks(*leak, expected=False, told=False)
    assert "dataset.on_leak=warn" in str(error.value)
    assert not caplog.records


@pytest.mark.parametrize(("expected", "told"), [(True, False), (False, True), (True, True)])
def test_who_wants_the_leak_is_warned(leak: Leak, caplog: pytest.LogCaptureFixture, expected: bool, told: bool) -> None:
    refuse_leaks(*leak, expected=expected, told=told)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and WHAT in record.getMessage()


def test_a_split_without_leaks_passes_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    refuse_leaks({}, [TRAIN, VAL, TEST, UNUSED], expected=False, told=False)
    assert not caplog.records


def test_all_leaks_are_told_together() -> None:
    found = {(TRAIN, VAL): 2, (TRAIN, TEST): 1, (VAL, TEST): 3}
    sides = [TRAIN, *[VAL] * 5, *[TEST] * 6]
    with pytest.raises(XRayError) as error:
        refuse_leaks(found, sides, expected=False, told=False)
    for text in ("2 of 5 validation images", "1 of 6 test images", "3 of 6 test images", "twin in val"):
        assert text in str(error.value)


@pytest.mark.parametrize("side", [TRAIN, VAL, TEST])
def test_a_side_without_a_class_is_refused(side: str) -> None:
    counts = {TRAIN: FULL, VAL: FULL, TEST: FULL, UNUSED: {"well": 0, "ill": 0}}
    refuse_empty_sides(Path("films"), counts)
    with pytest.raises(XRayError, match=rf"films: no {side} image of ill\."):
        refuse_empty_sides(Path("films"), counts | {side: {"well": 1, "ill": 0}})


def test_all_classes_that_a_side_lacks_are_named() -> None:
    counts = {TRAIN: FULL, VAL: {"well": 0, "ill": 0}, TEST: FULL}
    with pytest.raises(XRayError, match="no val image of well, ill"):
        refuse_empty_sides(Path("films"), counts)
