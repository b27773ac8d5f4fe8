"""The two-stage system as a command, on phantoms."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from xray_lightning.cascade import cascade
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.report.__main__ import main
from xray_lightning.run import test as score
from xray_lightning.run import train

Configure = Callable[..., DictConfig]


@pytest.fixture
def pair(configure: Configure, tmp_path: Path) -> dict[str, Any]:
    """Both runs' metrics, by the name of their folder below tmp_path."""
    return {name: train(configure(f"dataset={name}", "model=cnn", run=name)) for name in ("pneumonia", "covid")}


def asked(configure: Configure, tmp_path: Path, *more: str) -> DictConfig:
    places = {"screen": "pneumonia", "diagnose": "covid"}
    keys = [f"cascade.{key}={tmp_path / name / 'checkpoints/best.ckpt'}" for key, name in places.items()]
    return configure(*keys, *more, run="cascade", config="test")


def test_both_systems_are_scored_on_the_test_images_of_the_second(
    pair: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    content = cascade(asked(configure, tmp_path))
    assert content == json.loads((tmp_path / "cascade/cascade.json").read_text())
    everything = content["test"]["all"]
    assert everything["images"] == pair["covid"]["n"] and "the cascade" in everything["verdict"]
    alone = everything["systems"]["diagnosis alone"]["accuracy"]["value"]
    assert alone == pytest.approx(pair["covid"]["metrics"]["accuracy"]["value"])
    with (tmp_path / "cascade/predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == everything["images"]
    for line in lines:
        flagged = float(line["screen"]) >= content["threshold"]
        assert line["flagged"] == str(flagged) and (flagged or line["cascade"] == "Healthy")
    assert json.loads((tmp_path / "cascade/status.json").read_text())["state"] == "done"


def test_page_and_figures_are_left_and_their_places_told(
    pair: dict[str, Any], configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cascade"
    content = cascade(asked(configure, tmp_path, "figures=true"))
    figures = {file.stem for file in (folder / "figures").glob("*.png")}
    assert {"sweep_all", "confusion_cascade_all", "confusion_alone_all"} <= figures
    told = capsys.readouterr().out
    for what, place in (("Report", "report.html"), ("Results", "cascade.json"), ("Figures", "figures")):
        assert f"{what:<9} {folder / place}" in told
    assert content["test"]["all"]["verdict"] in told and "synthetic radiographs" in told
    page = (folder / "report.html").read_bytes()
    assert page.count(b"data:image/png") == len(figures)
    (folder / "report.html").unlink()
    assert main([str(folder)]) == 0 and (folder / "report.html").read_bytes() == page
    assert content["screen"]["dataset"] == "pneumonia" and content["screen"]["model"] == "cnn"
    trained = sum(pair["pneumonia"]["images"]["train"].values())
    assert sum(content["screen"]["images"]["train"].values()) == trained
    cascade(asked(configure, tmp_path))  # without figures the former ones are not left to stand beside its numbers
    assert not list((folder / "figures").glob("*.png")) and b"data:image" not in (folder / "report.html").read_bytes()


@pytest.mark.parametrize(
    "word, told",
    [
        ("cascade.sensitivity=1.5", "share above 0"),
        ("cascade.healthy=Helthy", "Did you mean Healthy"),
        ("cascade.screen=null", "needs both"),
        ("ckpt=a.ckpt", "no ckpt"),
        ("cascade.screen=${cascade.diagnose}", "same checkpoint"),
    ],
)
def test_what_is_no_cascade_is_refused(
    pair: dict[str, Any], configure: Configure, tmp_path: Path, word: str, told: str
) -> None:
    with pytest.raises(XRayError, match=told):
        cascade(asked(configure, tmp_path, word))


def test_splits_that_leak_are_told_beside_the_scores(configure: Configure, tmp_path: Path) -> None:
    notes = {}
    for name in ("pneumonia", "covid"):
        record = train(configure(f"dataset={name}", "dataset.split=reference", run=name))
        (notes[name],) = [note for note in record["notes"] if note.startswith("leaks")]
    expected = [
        f"the split of the screen (pneumonia) {notes['pneumonia']}",
        f"the split of the diagnosis (covid) {notes['covid']}",
    ]
    content = cascade(asked(configure, tmp_path))
    assert [note for note in content["notes"] if "leaks" in note] == expected
    page = (tmp_path / "cascade/report.html").read_text()
    assert all(f"{note[0].upper()}{note[1:]}" in page for note in expected)


def test_neither_a_cascade_nor_a_test_takes_away_what_the_other_found(
    pair: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    test = configure(f"ckpt={tmp_path / 'covid/checkpoints/best.ckpt'}", run="cascade", config="test")
    cascade(asked(configure, tmp_path))
    with pytest.raises(XRayError, match="is done, with other settings"):
        score(test)
    assert (tmp_path / "cascade/cascade.json").exists()
    shutil.rmtree(tmp_path / "cascade")
    score(test)
    with pytest.raises(XRayError, match="is done, with other settings"):
        cascade(asked(configure, tmp_path))
    assert (tmp_path / "cascade/metrics.json").exists()


def test_a_sweep_over_cascades_has_a_table_of_its_own(pair: dict[str, Any], shell: Any, tmp_path: Path) -> None:
    places = {"screen": "pneumonia", "diagnose": "covid"}
    words = [f"cascade.{key}={tmp_path / name / 'checkpoints/best.ckpt'}" for key, name in places.items()]
    done = shell("test.py", "-m", *words, "cascade.sensitivity=0.9,1.5", "sweep=two", "trainer=cpu", "figures=false")
    assert done.returncode == 1 and "cascade.sensitivity=1.5 is not valid" in done.stderr
    folder = tmp_path / "outputs/sweeps/two"
    with (folder / "cascades.csv").open() as file:
        states = {line["run"]: line["state"] for line in csv.DictReader(file)}
    assert states == {"test_sensitivity=0.9": "done", "test_sensitivity=1.5": "failed"}
    assert "broken" not in done.stdout + done.stderr and "→ covid" in done.stdout
    assert 'href="test_sensitivity%3D0.9/report.html"' in (folder / "report.html").read_text()
    assert not (folder / "results.csv").exists()


def test_a_screen_has_two_classes(configure: Configure, tmp_path: Path) -> None:
    for name in ("pneumonia", "covid"):
        train(configure("dataset=covid", "model=cnn", f"seed={len(name)}", run=name))
    with pytest.raises(XRayError, match="A screen has two classes"):
        cascade(asked(configure, tmp_path))
