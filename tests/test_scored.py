"""test.py on other images than a checkpoint's own test: other sides of its split, other data sets."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from xray_lightning.errors import XRayError
from xray_lightning.run import test as score
from xray_lightning.run import train

Configure = Callable[..., DictConfig]
FOLDERS = "dataset.folders={NORMAL: train/NORMAL, PNEUMONIA: train/PNEUMONIA}"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def sides(run: Path) -> dict[str, set[str]]:
    with (run / "catalog.csv").open() as file:
        found: dict[str, set[str]] = {}
        for line in csv.DictReader(file):
            found.setdefault(line["split"], set()).add(line["path"])
        return found


@pytest.fixture
def trained(configure: Configure, tmp_path: Path) -> dict[str, Any]:
    return train(configure(run="trained"))


@pytest.fixture
def again(configure: Configure, trained: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """again(*overrides) scores the trained checkpoint, into the folder `again`."""

    def _again(*overrides: str) -> dict[str, Any]:
        ckpt = tmp_path / "trained/checkpoints/best.ckpt"
        return score(configure(f"ckpt={ckpt}", *overrides, config="test", run="again"))

    return _again


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_side_of_its_own_split_is_known_again(
    again: Callable[..., dict[str, Any]], tmp_path: Path, split: str
) -> None:
    record = again(f"split={split}")
    assert {row["path"] for row in rows(tmp_path / "again")} == sides(tmp_path / "trained")[split]
    assert record["split"] == split and record["images"].keys() == {split}
    noted = [note for note in record["notes"] if note.startswith("scored on its own ")]
    assert len(noted) == (split != "test") and record["seen"] is None


def test_validation_gives_what_it_promised(again: Callable[..., dict[str, Any]]) -> None:
    record = again("split=val")
    for points in record["operating_points"].values():
        for point in points.values():
            for rate, gap in point["gap"].items():
                assert gap["value"] == 0 and gap["low"] < 0 < gap["high"], rate
    before = record["calibration"]["before"]["log_loss"]["value"]
    assert before == pytest.approx(record["validation"]["log_loss"], rel=1e-5)
    assert record["calibration"]["after"]["log_loss"]["value"] <= before


def test_predictions_are_calibrated_and_give_the_metrics_back(
    again: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    record = again()
    lines = rows(tmp_path / "again")
    p = np.array([[float(line[c]) for c in record["classes"]] for line in lines])
    labels = np.array([record["classes"].index(line["label"]) for line in lines])
    assert (p.argmax(axis=1) == labels).mean() == pytest.approx(record["metrics"]["accuracy"]["value"])
    loss = -np.log(p[np.arange(len(p)), labels]).mean()
    assert loss == pytest.approx(record["calibration"]["after"]["log_loss"]["value"], rel=1e-9)


def test_all_images_of_another_data_set_are_scored(
    again: Callable[..., dict[str, Any]], phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "elsewhere"
    for n, file in enumerate(sorted((phantoms / "chest_xray").glob("*/*/*.jpeg"))):
        moved = other / file.parent.name / f"{n}.png"
        moved.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(Image.open(file).convert("L"))[::-1]).save(moved)  # upside down: other films
    caplog.set_level("INFO")
    record = again("dataset=folder", f"dataset.root={other}", "dataset.name=hospital", "split=all")
    assert record["dataset"] == "hospital" and record["n"] == len(list(other.glob("*/*.png")))
    assert record["classes"] == ["NORMAL", "PNEUMONIA"] and record["seed"] == 0
    assert "trained on pneumonia and scored on hospital" in record["notes"]
    assert record["seen"] == {"trained": 0, "chosen": 0, "identical": 0}
    assert "none of" in caplog.text
    assert not (tmp_path / "again/MODEL_CARD.md").exists() and (tmp_path / "again/report.html").exists()


def test_it_says_how_many_of_the_images_were_trained_on(
    again: Callable[..., dict[str, Any]], phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(phantoms / "chest_xray", tmp_path / "copy")
    train_images = [f for f in sides(tmp_path / "trained")["train"] if f.startswith("train/")]
    for file in train_images[:5]:  # the same films in other files
        image = Image.open(root / file).convert("L")
        (root / file).unlink()
        image.save((root / file).with_name(f"again-{Path(file).stem}.png"))
    record = again("dataset=folder", f"dataset.root={root}", FOLDERS, "split=all")
    known = sides(tmp_path / "trained")
    assert record["n"] == sum(f.startswith("train/") for side in known.values() for f in side)
    assert record["seen"]["identical"] == len(train_images) - 5
    assert record["seen"]["trained"] >= len(train_images)
    assert record["seen"]["trained"] + record["seen"]["chosen"] <= record["n"]
    assert f"{record['seen']['trained']} of {record['n']} images" in caplog.text


def test_classes_are_matched_by_name_whatever_their_order(
    again: Callable[..., dict[str, Any]], trained: dict[str, Any], phantoms: Path
) -> None:
    turned = "dataset.folders={PNEUMONIA: test/PNEUMONIA, NORMAL: test/NORMAL}"
    record = again("dataset=folder", f"dataset.root={phantoms / 'chest_xray'}", turned, "split=all")
    assert record["classes"] == ["NORMAL", "PNEUMONIA"] and record["positive"] == "PNEUMONIA"
    assert {n: v["value"] for n, v in record["metrics"].items()} == {
        n: pytest.approx(v["value"]) for n, v in trained["metrics"].items()
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=covid", "split=all"], r"tells apart NORMAL, PNEUMONIA, but covid has Covid.*dataset\.folders="),
        (["dataset=pneumonia", "split=alll"], "Did you mean all"),
        (["split=all"], "split=all is for other images"),
        (["split=validation"], "not valid.*train, val, test"),
        (["dataset=pneumonia", "dataset.image_size=64"], "the checkpoint needs 32"),
        (["dataset=pneumonia", "dataset.balance=wieghted_loss"], "Did you mean weighted_loss"),
        (["dataset=pneumonia", "dataset.root=/nowhere"], "/nowhere has no"),
    ],
)
def test_what_does_not_fit_is_refused(
    again: Callable[..., dict[str, Any]], overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(XRayError, match=message):
        again(*overrides)
    assert json.loads((tmp_path / "again/status.json").read_text())["state"] == "failed"


def test_fewer_classes_than_the_data_has_must_be_asked_for(configure: Configure, tmp_path: Path) -> None:
    train(configure("dataset=covid", "dataset.classes=[Covid,Healthy]", run="two"))
    ckpt = f"ckpt={tmp_path / 'two/checkpoints/best.ckpt'}"
    with pytest.raises(XRayError, match=r"dataset\.classes=\[Covid,Healthy\]"):
        score(configure(ckpt, "dataset=covid", "split=all", config="test", run="all"))
    chosen = "dataset.classes=[Healthy,Covid]"
    record = score(configure(ckpt, "dataset=covid", "split=all", chosen, config="test", run="some"))
    assert record["classes"] == ["Covid", "Healthy"]
    assert record["seen"]["trained"] > 0 and record["seen"]["chosen"] > 0
