"""Attributes that tell the class without a look at the lungs, checked against scikit-learn."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.examine import THUMB
from xray_lightning.data.shortcuts import (
    HINTS,
    OF_THE_FILE,
    OF_THE_FILM,
    TELLS,
    Shortcut,
    attributes,
    exposure,
    find_shortcuts,
)

CLASSES = ("ill", "well", "worse")


def image(n: int, label: int, group: str = "", **facts: Any) -> Radiograph:
    own = {"format": "PNG", "mode": "L", "width": 12, "height": 12, "size": 100, "digest": f"{n}"} | facts
    return Radiograph(f"{n}.png", label, CLASSES[label], "", "", "", "", group=group or f"group {n}", **own)


def flat(count: int) -> np.ndarray:
    return np.full((count, THUMB, THUMB), 128, dtype=np.uint8)


def found(rows: Sequence[Radiograph], classes: Sequence[str] = CLASSES, thumbs: np.ndarray | None = None) -> Any:
    """The shortcuts by attribute; without thumbnails all films are alike."""
    thumbs = flat(len(rows)) if thumbs is None else thumbs
    return {s.attribute: s for s in find_shortcuts(rows, thumbs, classes)}


def half(row: Radiograph) -> int:
    return hashlib.blake2b(row.group.encode()).digest()[0] % 2


def weights(row: Radiograph, rows: Sequence[Radiograph], classes: int) -> np.ndarray:
    """How likely each class is guessed for one image, from the formats in the other half."""
    seen = [other for other in rows if half(other) != half(row)]
    of_class = [[other.format == row.format for other in seen if other.label == label] for label in range(classes)]
    frequency = np.array([np.mean(same) if same else 0.0 for same in of_class])
    best = np.isclose(frequency, frequency.max())
    return best / best.sum()


def youden(confusion: np.ndarray, label: int) -> float:
    """Of a matrix (actual, guessed): the recall of one class less its false alarms, by definition."""
    actual = np.arange(len(confusion)) == label
    right = confusion[actual, label].sum() / max(confusion[actual].sum(), 1)
    return right - confusion[~actual, label].sum() / max(confusion[~actual].sum(), 1)


@pytest.fixture
def formats() -> list[Radiograph]:
    """300 images of three classes, of which the format tells the first well and the second in part."""
    rng = np.random.default_rng(0)
    shares = {0: (0.85, 0.1, 0.05), 1: (0.2, 0.6, 0.2), 2: (0.15, 0.25, 0.6)}
    labels = rng.choice(3, 300, p=(0.2, 0.5, 0.3)).tolist()
    return [
        image(n, label, f"patient {n // 2}", format=rng.choice(["PNG", "JPEG", "TIFF"], p=shares[label]).item())
        for n, label in enumerate(labels)
    ]


def test_agrees_with_scikit_learn(formats: list[Radiograph]) -> None:
    guessed = [weights(row, formats, 3) for row in formats]
    assert all(guess.max() == 1 for guess in guessed)  # no ties: each guess is one class
    actual, guess = [row.label for row in formats], np.argmax(guessed, axis=1)
    assert {half(row) for row in formats} == {0, 1}
    shortcut = found(formats)["format"]
    assert shortcut.balanced_accuracy == pytest.approx(balanced_accuracy_score(actual, guess), abs=1e-12)
    confusion = confusion_matrix(actual, guess)
    assert list(shortcut.index.values()) == pytest.approx([youden(confusion, n) for n in range(3)], abs=1e-12)
    assert list(shortcut.index) == list(CLASSES)
    assert shortcut.told() == ["ill"] and shortcut.hinted() == ["well", "worse"]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["PNG", "JPEG", "BMP"]), st.integers(0, 12)),
        min_size=1,
        max_size=40,
    )
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_agrees_with_scikit_learn_for_any_catalog(drawn: list[tuple[int, str, int]]) -> None:
    """With ties, classes of one image and classes that are nowhere, or in one half alone."""
    rows = [image(n, label, f"{group}", format=kind) for n, (label, kind, group) in enumerate(drawn)]
    shortcuts = found(rows)
    assert set(shortcuts) == ({"format"} if len({row.format for row in rows}) > 1 else set())
    for shortcut in shortcuts.values():
        actual = np.repeat([row.label for row in rows], 3)
        guess = np.tile(range(3), len(rows))
        weight = np.concatenate([weights(row, rows, 3) for row in rows])
        expected = balanced_accuracy_score(actual, guess, sample_weight=weight)
        confusion = confusion_matrix(actual, guess, sample_weight=weight, labels=range(3))
        assert shortcut.balanced_accuracy == pytest.approx(expected)
        assert list(shortcut.index.values()) == pytest.approx([youden(confusion, n) for n in range(3)])
        assert all(-1 <= value <= 1 for value in shortcut.index.values())


@pytest.mark.parametrize("images", [2, 5, 60])
@pytest.mark.parametrize(
    ("attribute", "facts"),
    [
        ("format", {"format": "JPEG"}),
        ("mode", {"mode": "RGB"}),
        ("exact size", {"width": 13}),
        ("width", {"width": 300}),
        ("width", {"width": 10}),
        ("height", {"height": 300}),
        ("aspect ratio", {"width": 24, "height": 25}),
        ("file size", {"size": 101}),
    ],
)
def test_what_one_class_alone_has_tells_it(attribute: str, facts: dict[str, Any], images: int) -> None:
    """However rare the class is among 1000 images."""
    rows = [image(n, int(n < images), **facts if n < images else {}) for n in range(1000)]
    assert len({half(row) for row in rows[:images]}) == 2
    shortcut = found(rows, CLASSES[:2])[attribute]
    assert shortcut.balanced_accuracy == 1 and shortcut.index == {"ill": 1, "well": 1}
    assert shortcut.told() == ["ill", "well"] and shortcut.hinted() == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 3))
def test_random_attributes_tell_nothing(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        image(n, n % classes, format=rng.choice(["PNG", "JPEG"]).item(), size=int(rng.integers(1, 100_000)),
              width=int(rng.normal(1500, 300)), height=int(rng.choice([224, 256, 299])))
        for n in range(150 * classes)
    ]  # fmt: skip
    thumbs = rng.integers(0, 256, (len(rows), THUMB, THUMB), dtype=np.uint8)
    shortcuts = found(rows, CLASSES[:classes], thumbs)
    assert set(shortcuts) == {*OF_THE_FILE, *OF_THE_FILM} - {"mode"}
    assert {name: s.told() for name, s in shortcuts.items() if s.told()} == {}
    assert all(abs(s.balanced_accuracy - 1 / classes) < 0.2 for s in shortcuts.values())


def test_values_seen_once_tell_nothing() -> None:
    rows = [image(n, n % 2, width=1000 + n, height=2000 - n) for n in range(200)]
    shortcut = found(rows, CLASSES[:2])["exact size"]
    assert shortcut.balanced_accuracy == 0.5 and shortcut.index == {"ill": 0, "well": 0}


def test_what_tells_a_patient_tells_no_class() -> None:
    """Each patient's five images have a size of their own: learned from one half, it is unknown in the other."""
    rows = [image(n, n // 5 % 2, f"patient {n // 5}", width=1000 + n // 5) for n in range(200)]
    shortcut = found(rows, CLASSES[:2])["exact size"]
    assert shortcut.balanced_accuracy == 0.5 and shortcut.index == {"ill": 0, "well": 0}


def test_the_order_of_images_does_not_matter(formats: list[Radiograph]) -> None:
    rng = np.random.default_rng(1)
    thumbs = rng.integers(0, 256, (len(formats), THUMB, THUMB), dtype=np.uint8)
    order = rng.permutation(len(formats))
    shuffled = found([formats[i] for i in order], thumbs=thumbs[order])
    for name, shortcut in found(formats, thumbs=thumbs).items():
        assert shuffled[name].balanced_accuracy == pytest.approx(shortcut.balanced_accuracy)
        assert shuffled[name].index == pytest.approx(shortcut.index)


def test_a_single_group_leaves_nothing_to_check_on() -> None:
    rows = [image(n, n % 2, "one patient", format=("PNG", "JPEG")[n % 2]) for n in range(20)]
    shortcut = found(rows, CLASSES[:2])["format"]
    assert shortcut.balanced_accuracy == 0.5 and shortcut.told() == shortcut.hinted() == []


def test_files_that_are_all_alike_have_no_shortcut() -> None:
    assert found([image(n, n % 2) for n in range(20)]) == {}
    assert found([image(0, 0)]) == {}


def test_the_limits_belong_to_what_is_told_and_hinted() -> None:
    shortcut = Shortcut("format", 0.5, {"a": TELLS, "b": TELLS - 1e-9, "c": HINTS, "d": HINTS - 1e-9, "e": -1.0})
    assert (shortcut.told(), shortcut.hinted()) == (["a"], ["b", "c"])


def test_exposure_of_known_films() -> None:
    grey, framed, halved = flat(3)
    framed[:] = 255
    framed[1:-1, 1:-1] = 0
    halved[:, :16], halved[:, 16:] = 0, 255
    statistics = exposure(np.stack([grey, framed, halved]))
    assert list(statistics) == ["brightness", "contrast", "border"]
    ring = 124 / 1024  # share of a thumbnail
    assert statistics["brightness"] == pytest.approx([128, 255 * ring, 127.5])
    assert statistics["contrast"] == pytest.approx([0, 255 * np.sqrt(ring * (1 - ring)), 127.5])
    assert statistics["border"] == pytest.approx([128, 255, 127.5])


def test_a_frame_round_the_films_of_one_class_tells_it() -> None:
    rng = np.random.default_rng(0)
    thumbs = rng.integers(100, 156, (100, THUMB, THUMB), dtype=np.uint8)
    thumbs[:50, [0, -1]] = thumbs[:50, :, [0, -1]] = 0
    shortcuts = found([image(n, int(n >= 50)) for n in range(100)], CLASSES[:2], thumbs)
    assert shortcuts["border"].index["ill"] > 0.8


def test_numbers_are_binned_and_a_common_value_has_its_own_bin() -> None:
    rows = [image(n, 0, width=224 if n < 90 else 210 + n, size=n) for n in range(100)]
    values = attributes(rows, flat(100))
    assert set(values["width"][:90]).isdisjoint(values["width"][90:])
    assert 16 <= len(set(values["file size"].tolist())) <= 31
    assert all(codes.min() >= 0 and codes.dtype.kind == "i" for codes in values.values())
