"""What a checkpoint remembers of images, and how it knows them again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.collection import Collection
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.seen import memory, seen
from xray_lightning.data.splits import TEST, TRAIN, UNUSED, VAL
from xray_lightning.data.twins import THRESHOLD, details

MakeRow = Callable[..., Radiograph]
SIDES = [TRAIN, TRAIN, VAL, TEST, UNUSED, TRAIN]


def films(count: int, seed: int) -> np.ndarray:
    """Unlike thumbnails (count, 32, 32) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32)).astype(np.uint8)


@pytest.fixture
def collection(make_row: MakeRow) -> Collection:
    rows = [make_row(f"{n}.png", patient=f"p{n}", digest=f"d{n}") for n in range(len(SIDES))]
    return Collection(rows, films(len(SIDES), 0), [], {})


def other(make_row: MakeRow, thumbs: np.ndarray, **own: list[str]) -> Collection:
    rows = [
        make_row(f"other/{n}.png", **{key: values[n] for key, values in own.items()}) for n in range(len(thumbs))
    ]  # fmt: skip
    return Collection(rows, thumbs, [], {})


def test_the_images_of_its_own_sides_are_known_again(collection: Collection) -> None:
    remembered = memory(collection, SIDES)
    for side, told in ((TRAIN, (3, 0, 3)), (VAL, (0, 1, 0)), (TEST, (0, 0, 0)), (UNUSED, (0, 0, 0))):
        where = np.flatnonzero([s == side for s in SIDES])
        found = seen(remembered, collection, where, same_patients=True)
        assert (found.trained, found.chosen, found.identical) == told and found.n == len(where)


def test_unlike_images_are_not_seen(collection: Collection, make_row: MakeRow) -> None:
    found = seen(memory(collection, SIDES), other(make_row, films(9, 1)), np.arange(9), same_patients=True)
    assert (found.n, found.trained, found.chosen, found.identical, found.note) == (9, 0, 0, 0, "")


def test_a_film_in_another_file_is_seen_but_not_identical(collection: Collection, make_row: MakeRow) -> None:
    noise = np.random.default_rng(2).normal(0, 12, (2, 32, 32))
    again = (0.7 * collection.thumbs[[1, 2]] + 30 + noise).round().clip(0, 255).astype(np.uint8)
    likeness = (details(again) * details(collection.thumbs[[1, 2]])).sum(axis=1)
    assert (likeness > THRESHOLD + 0.02).all() and (likeness < 0.999).all()
    found = seen(memory(collection, SIDES), other(make_row, again), np.arange(2), same_patients=False)
    assert (found.trained, found.chosen, found.identical) == (1, 1, 0)
    assert found.note == "1 of 2 images or their patients were trained on and 1 of 2 were validated on"


@pytest.mark.parametrize(("same", "trained"), [(True, 1), (False, 0)])
def test_names_of_patients_count_in_the_same_data_set_alone(
    collection: Collection, make_row: MakeRow, same: bool, trained: int
) -> None:
    images = other(make_row, films(2, 3), patient=["p0", "p77"])
    assert seen(memory(collection, SIDES), images, np.arange(2), same_patients=same).trained == trained


def test_unknown_patients_are_not_one_patient(make_row: MakeRow) -> None:
    trained = other(make_row, films(2, 4))
    images = other(make_row, films(3, 5), digest=["new 0", "new 1", "new 2"])
    assert seen(memory(trained, [TRAIN, TRAIN]), images, np.arange(3), same_patients=True).trained == 0


def test_only_the_images_scored_are_looked_at(collection: Collection) -> None:
    found = seen(memory(collection, SIDES), collection, np.array([0, 3]), same_patients=True)
    assert (found.n, found.trained) == (2, 1)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.2))
def test_what_is_remembered_decides_like_the_films_themselves(seed: int, noise: float) -> None:
    """Except within .03 of the threshold, since a film is kept in 4 bits a value."""
    draw = np.random.default_rng(seed)
    before = draw.integers(0, 256, (3, 32, 32)).astype(np.uint8)
    after = (before + 75 * noise * draw.normal(size=before.shape)).clip(0, 255).astype(np.uint8)
    row = Radiograph("a.png", 0, "a", "", "", "", "", "PNG", "L", 1, 1, 1, "a", "a")
    kept = memory(Collection([row] * 3, before, [], {}), [TRAIN] * 3)
    kept["images"][TRAIN] = []
    for n, likeness in enumerate((details(before) @ details(after).T).max(axis=0)):
        if abs(likeness - THRESHOLD) > 0.03:
            images = Collection([row] * 3, after, [], {})
            found = seen(kept, images, np.array([n]), same_patients=False)
            assert found.trained == (likeness > THRESHOLD)


def test_it_is_plain_data_that_a_checkpoint_may_hold(collection: Collection, tmp_path: Path) -> None:
    torch.save(memory(collection, SIDES), tmp_path / "memory.pt")
    back = torch.load(tmp_path / "memory.pt", weights_only=True)
    assert back["films"][TRAIN].shape == (3, 512) and back["films"][TRAIN].dtype == torch.uint8
    assert seen(back, collection, np.arange(6), same_patients=True).trained == 3


def test_phantoms_of_one_split_have_not_seen_each_other(phantoms: Path, shared_cache: Path) -> None:
    data = PneumoniaDataModule("pneumonia", str(phantoms / "chest_xray"), 16, str(shared_cache))
    data.setup()
    assert data.collection is not None
    remembered = memory(data.collection, data.sides)
    found = seen(remembered, data.collection, data.rows_of(TEST), same_patients=True)
    assert (found.trained, found.chosen, found.identical) == (0, 0, 0) and found.n > 0
