"""On real X-rays, where XRAY_DATA says that there are any."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.splits import TEST, TRAIN, VAL

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("XRAY_DATA" not in os.environ, reason="needs real X-rays, named by XRAY_DATA"),
]
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
        assert all(len(found) == 1 for found in sides.values())


def test_kermanys_official_test_is_complete(data: XRayDataModule) -> None:
    if isinstance(data, PneumoniaDataModule):
        assert data.counts()[TEST] == {"NORMAL": 234, "PNEUMONIA": 390}


def test_the_shares_are_as_documented(data: XRayDataModule) -> None:
    per_class = Counter(row.class_name for row in data.rows)
    counts = data.counts()
    for name in data.class_names:
        pool = per_class[name] - (counts[TEST][name] if isinstance(data, PneumoniaDataModule) else 0)
        assert counts[VAL][name] == -(-15 * pool // 100)
        if isinstance(data, CovidDataModule):
            assert counts[TEST][name] == -(-15 * pool // 100)
    assert sum(sum(c.values()) for c in counts.values()) == len(data.rows)


def test_decoded_pixels_look_like_radiographs(data: XRayDataModule) -> None:
    sample = data.pixels[data.rows_of(TRAIN)[::50]]
    assert 60 < sample.mean() < 190
    assert np.all(sample.std(axis=(1, 2)) > 10)
