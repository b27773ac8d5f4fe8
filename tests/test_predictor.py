"""Predictions from Python and by the command: the same numbers as test.py, whatever else lies in the folder."""

import csv
import json
import shutil
import subprocess
import sys
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from xray_lightning import load
from xray_lightning.config import CONF, register_resolvers
from xray_lightning.errors import XRayError
from xray_lightning.models.checkpoint import read_checkpoint
from xray_lightning.models.classifier import CARD
from xray_lightning.predict import predict
from xray_lightning.run import train

RANDOM = "model.weights=random"
KINDS = {
    "pneumonia": ["model=cnn"],
    "covid": ["dataset=covid", "model=cnn", "dataset.resize=pad"],
    "features": ["model=resnet50", RANDOM, "model.views=0", "model.hidden=8"],
}


@pytest.fixture(scope="module")
def runs(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a tiny run of each kind."""
    outputs = tmp_path_factory.mktemp("runs")
    register_resolvers()
    paths = [f"paths.data={phantoms}", f"paths.cache={outputs / 'cache'}", f"paths.outputs={outputs}"]
    small = ["trainer=cpu", "figures=false", "trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
    for name, choices in KINDS.items():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            own = [f"paths.run={outputs / name}", "~callbacks.progress_bar", "dataset.image_size=32"]
            train(compose("train", [*paths, *small, *own, *choices]))
    return {name: outputs / name for name in KINDS}


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def scored(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def folder_of(run: Path, phantoms: Path) -> Path:
    return phantoms / ("COVID-19_Radiography_Dataset" if run.name == "covid" else "chest_xray")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_has_the_probabilities_that_test_gave_it(kind: str, runs: dict[str, Path], phantoms: Path) -> None:
    lines = scored(runs[kind])
    films = [folder_of(runs[kind], phantoms) / line["path"] for line in lines]
    found = load(checkpoint(runs[kind])).predict(films, batch_size=5)
    assert [p.path for p in found] == [str(film) for film in films]
    for line, prediction in zip(lines, found, strict=True):
        assert prediction.probabilities == pytest.approx(
            {c: float(line[c]) for c in prediction.probabilities}, abs=1e-6
        )
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_checkpoint_knows_what_is_familiar(runs: dict[str, Path], phantoms: Path) -> None:
    model = load(checkpoint(runs["pneumonia"]))
    lines = scored(runs["pneumonia"])
    own = model.predict([folder_of(runs["pneumonia"], phantoms) / line["path"] for line in lines])
    assert np.mean([not p.warnings for p in own]) > 0.8
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    prediction, image, explained = model.predict_bytes("a.png", _png(noise))
    assert image is not None and explained is not None and "not like the training images" in prediction.warnings[0]


def test_a_broken_file_has_an_error_and_the_others_an_answer(
    runs: dict[str, Path], phantoms: Path, tmp_path: Path
) -> None:
    film = next((phantoms / "chest_xray/test/NORMAL").iterdir())
    shutil.copy(film, tmp_path / f"a[1]{film.suffix}")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("not read")
    model = load(checkpoint(runs["pneumonia"]))
    good, bad = model.predict(tmp_path)
    assert good.error is None and good.answer in ("NORMAL", "PNEUMONIA")
    assert bad.error == "is no image, or damaged at its start" and bad.answer is None and not bad.probabilities
    assert [p.path for p in model.predict(str(tmp_path / "*.png"))] == [str(tmp_path / "b.png")]
    assert model.predict(tmp_path / f"a[1]{film.suffix}")[0].answer == good.answer
    with pytest.raises(XRayError, match="no such file"):
        model.predict(tmp_path / "gone.png")


def test_the_operating_point_decides(runs: dict[str, Path], phantoms: Path) -> None:
    path = checkpoint(runs["pneumonia"])
    points = read_checkpoint(path)[CARD]["operating_points"]["PNEUMONIA"]
    films = phantoms / "chest_xray/test"
    for point in ("default", "sensitivity_95"):
        for p in load(path, operating_point=point).predict(films):
            reached = p.probabilities["PNEUMONIA"] >= points[point]["threshold"]
            assert p.answer == ("PNEUMONIA" if reached else "NORMAL") and point in p.reason
    points = read_checkpoint(checkpoint(runs["covid"]))[CARD]["operating_points"]
    for p in load(checkpoint(runs["covid"]), operating_point="sensitivity_95").predict(films):
        reached = [c for c in points if p.probabilities[c] >= points[c]["sensitivity_95"]["threshold"]]
        assert p.answer == (" + ".join(reached) or "none")
    with pytest.raises(XRayError, match="Did you mean sensitivity_95"):
        load(path, operating_point="sensitivity_59")


def test_of_two_stages_only_what_is_flagged_is_diagnosed(runs: dict[str, Path], phantoms: Path) -> None:
    screen, diagnosis = checkpoint(runs["pneumonia"]), checkpoint(runs["covid"])
    films = phantoms / "COVID-19_Radiography_Dataset"
    both = load([screen, diagnosis], operating_point="balanced").predict(films)
    first = load(screen, operating_point="balanced").predict(films)
    second = load(diagnosis).predict(films)
    flagged = [p.answer == "PNEUMONIA" for p in first]
    assert 0 < sum(flagged) < len(flagged)
    for p, one, two, is_flagged in zip(both, first, second, flagged, strict=True):
        assert p.screening == pytest.approx(one.probabilities, abs=1e-6)
        assert p.answer == (two.answer if is_flagged else "not flagged")
        assert p.probabilities == (pytest.approx(two.probabilities, abs=1e-6) if is_flagged else {})
    with pytest.raises(XRayError, match="a screen has two classes"):
        load([diagnosis, screen])


def test_the_command_writes_what_it_found(runs: dict[str, Path], phantoms: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    shutil.copytree(phantoms / "chest_xray/test/NORMAL", films)
    (films / "b.png").write_bytes(b"no image")
    predict(_command(tmp_path, ckpt=str(checkpoint(runs["pneumonia"])), input=str(films), overlay=True))
    with (tmp_path / "out/predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    told = json.loads((tmp_path / "out/predictions.json").read_text())["predictions"]
    assert len(lines) == len(told) == len(list(films.iterdir()))
    for line, entry in zip(lines, told, strict=True):
        assert line["path"] == entry["path"] and line["answer"] == (entry["answer"] or "")
        assert line["error"] == (entry["error"] or "")
        if not entry["error"]:
            assert float(line["PNEUMONIA"]) == entry["probabilities"]["PNEUMONIA"]
            with Image.open(entry["overlay"]) as picture:
                assert picture.width > 600


def test_columns_of_two_stages_keep_classes_of_one_name_apart(
    runs: dict[str, Path], phantoms: Path, tmp_path: Path
) -> None:
    both = [str(checkpoint(runs["pneumonia"])), str(checkpoint(runs["features"]))]
    found = predict(_command(tmp_path, ckpt=both, input=str(phantoms / "chest_xray/test")))
    with (tmp_path / "out/predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line, p in zip(lines, found, strict=True):
        assert float(line["screen PNEUMONIA"]) == p.screening["PNEUMONIA"]
        assert line["PNEUMONIA"] == (repr(p.probabilities["PNEUMONIA"]) if p.probabilities else "")
    assert any(p.probabilities for p in found)
    assert json.loads((tmp_path / "out/predictions.json").read_text())["ckpt"] == both


@pytest.mark.parametrize(
    "keys, told",
    [
        ({"input": ""}, "input names no file"),
        ({"input": "a" * 300}, "too long"),
        ({"batch_size": "many"}, "batch_size=many"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"overlay": "maybe"}, "true or false"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    keys: dict[str, Any], told: str, runs: dict[str, Path], phantoms: Path, tmp_path: Path
) -> None:
    asked = {"ckpt": str(checkpoint(runs["pneumonia"])), "input": str(phantoms / "chest_xray/test")} | keys
    with pytest.raises(XRayError, match=told):
        predict(_command(tmp_path, **asked))


def _command(tmp_path: Path, **keys: Any) -> DictConfig:
    register_resolvers()
    own = [f"++{key}={json.dumps(value)}" for key, value in keys.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("predict", [*own, f"paths.run={tmp_path / 'out'}"])


def test_a_broken_file_shows_in_the_exit_status(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    words = [f"ckpt={checkpoint(runs['pneumonia'])}", f"input={tmp_path / 'b.png'}", f"paths.outputs={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "xray_lightning.predict", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "1 files could not be read" in done.stderr and "Traceback" not in done.stderr


def test_its_types_are_for_those_who_import_it() -> None:
    assert (files("xray_lightning") / "py.typed").is_file()


def test_importing_the_package_waits_for_nothing() -> None:
    asks = "import sys, xray_lightning as x; print('torch' in sys.modules, callable(x.load), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr


def _png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(XRayError, match="finds no GPU"):
        load(checkpoint(runs["pneumonia"]), device="gpu")
