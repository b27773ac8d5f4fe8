"""On real X-rays, where XRAY_DATA says that there are any."""

import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.splits import SIDES, TEST, TRAIN, UNUSED, VAL

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("XRAY_DATA" not in os.environ, reason="needs real X-rays, named by XRAY_DATA"),
]
COPY = {"Covid": 1000, "Healthy": 1600, "Lung_infection": 1000, "Pneumonia": 800}  # the partial copy of covid
FOLDERS = {PneumoniaDataModule: "chest_xray", CovidDataModule: "COVID-19_Radiography_Dataset"}


@pytest.fixture(scope="module", params=list(FOLDERS), ids=["pneumonia", "covid"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> XRayDataModule:
    kind: type[XRayDataModule] = request.param
    root = Path(os.environ["XRAY_DATA"]) / FOLDERS[kind]
    if not root.is_dir():
        pytest.skip(f"there is no {root}")
    own = {} if kind is PneumoniaDataModule else {"test_fraction": 0.15}
    module = kind(name="real", root=str(root), image_size=64, cache_dir=str(tmp_path_factory.mktemp("cache")), **own)
    module.setup()
    return module


def test_no_patient_and_no_file_is_on_two_sides(data: XRayDataModule) -> None:
    for key in ("group", "digest"):
        sides: dict[str, set[str]] = {}
        for row, side in zip(data.rows, data.sides, strict=True):
            sides.setdefault(getattr(row, key), set()).add(side)
        assert all(len(found - {UNUSED}) <= 1 for found in sides.values())
    assert data.leaked == {}


def test_no_two_near_identical_images_are_on_two_sides(data: XRayDataModule) -> None:
    side = {row.digest: side for row, side in zip(data.rows, data.sides, strict=True)}
    assert data.collection.twins
    assert all(len({side[a], side[b]} - {UNUSED}) <= 1 for a, b, _ in data.collection.twins)
    # a plainer measure than the one that groups: correlation, which different people stay below
    sides = {name: data.images[data.rows_of(name)].reshape(-1, 64 * 64).astype(np.float32) for name in SIDES}
    for images in sides.values():
        images -= images.mean(axis=1, keepdims=True)
        images /= np.linalg.norm(images, axis=1, keepdims=True)
    for one, other in combinations(SIDES, 2):
        assert (sides[one] @ sides[other].T).max() < 0.99


def test_no_image_of_kermanys_test_has_its_group_elsewhere(data: XRayDataModule) -> None:
    if isinstance(data, PneumoniaDataModule):
        official = {row.group for row in data.rows if row.official == "test"}
        assert official.isdisjoint(row.group for row in data.rows if row.official != "test")
        assert UNUSED not in data.sides


def test_the_twins_of_the_partial_covid_copy_are_those_known(data: XRayDataModule) -> None:
    if not isinstance(data, CovidDataModule) or Counter(row.class_name for row in data.rows) != COPY:
        pytest.skip("this is not that copy")
    classes = {row.digest: row.class_name for row in data.rows}
    pairs = Counter((classes[a], classes[b]) for a, b, _ in data.collection.twins)
    assert pairs["Covid", "Covid"] >= 25 and pairs.total() <= 40
    assert all(one == other for one, other in pairs)


def test_kermanys_official_test_is_complete(data: XRayDataModule) -> None:
    if isinstance(data, PneumoniaDataModule):
        assert data.counts()[TEST] == {"NORMAL": 234, "PNEUMONIA": 390}


def test_the_shares_are_as_documented(data: XRayDataModule) -> None:
    per_class = Counter(row.class_name for row in data.rows)
    counts = data.counts()
    for name in data.class_names:
        pool = per_class[name] - counts.get(UNUSED, {}).get(name, 0)
        if isinstance(data, PneumoniaDataModule):
            pool -= counts[TEST][name]
        assert counts[VAL][name] == -(-15 * pool // 100)
        if isinstance(data, CovidDataModule):
            assert counts[TEST][name] == -(-15 * pool // 100)
    assert sum(sum(c.values()) for c in counts.values()) == len(data.rows)


def test_decoded_pixels_look_like_radiographs(data: XRayDataModule) -> None:
    sample = data.images[data.rows_of(TRAIN)[::50]]
    assert sample.shape[1:] == (1, 64, 64)
    assert 60 < sample.mean() < 190
    assert np.all(sample.std(axis=(1, 2, 3)) > 10)
