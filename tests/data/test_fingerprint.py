"""Digests of the data that a run reads."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
from omegaconf import DictConfig

from xray_lightning.config import build
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.fingerprint import fingerprints
from xray_lightning.data.splits import TEST, TRAIN

Configure = Callable[..., DictConfig]


def ready(configure: Configure, *overrides: str) -> XRayDataModule:
    data: XRayDataModule = build(configure("dataset=covid", *overrides).dataset)
    data.setup()
    return data


def alike(a: XRayDataModule, b: XRayDataModule) -> set[str]:
    return {key for key, value in fingerprints(a).items() if value == fingerprints(b)[key]}


def test_each_names_what_it_is_of(configure: Configure) -> None:
    data = ready(configure)
    assert fingerprints(data)["features"] is None and all(fingerprints(data)[k] for k in ("images", "split", "pixels"))
    none = {"features"}
    assert alike(data, ready(configure, "seed=1")) == {"images", "split", "pixels"} | none
    assert alike(data, ready(configure, "dataset.split_seed=1")) == {"images", "pixels"} | none
    assert alike(data, ready(configure, "dataset.image_size=24")) == {"images", "split"} | none
    assert alike(data, ready(configure, "dataset.classes=[Covid,Healthy]")) == none


def test_places_do_not_count_and_contents_do(configure: Configure, phantoms: Path, tmp_path: Path) -> None:
    here, there = phantoms, copytree(phantoms, tmp_path / "there")
    moved = [ready(configure, f"paths.data={folder}") for folder in (here, there)]
    assert alike(*moved) == {"images", "split", "pixels", "features"}
    file = moved[1].root / moved[1].rows[0].path
    with file.open("ab") as image:
        image.write(b"0")
    assert alike(moved[0], ready(configure, f"paths.data={there}")) == {"features"}


def test_features_count_where_they_are_read(configure: Configure) -> None:
    one, other = ready(configure), ready(configure)
    for data in (one, other):
        data.inputs = np.random.default_rng(0).random((len(data.rows), 4), dtype=np.float32).astype(np.float16)
    assert fingerprints(one)["features"] and "features" in alike(one, other)
    other.inputs[other.rows_of(TRAIN)[0]] += 1  # what the test side does not read
    assert "features" in alike(one, other)
    other.inputs[other.rows_of(TEST)[-1]] += 1
    assert "features" not in alike(one, other)
