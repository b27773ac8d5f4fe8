"""The cascades of a sweep: apart from its runs, every number the files', and failed only what failed."""

import csv
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import OmegaConf

from xray_lightning.artifacts import write_json
from xray_lightning.evaluation.cascade_content import ALL, ALONE, CASCADE, UNSEEN
from xray_lightning.evaluation.report.__main__ import main
from xray_lightning.evaluation.runs import gather, gather_cascades
from xray_lightning.status import recorded
from xray_lightning.sweep import SweepCallback, failed_runs

from .cascades import asked_of, cascade_content, fail_cascade, finish_cascade
from .report.conftest import Maker
from .report.pages import page_of

CONTENT = cascade_content()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "two"
    finish_cascade(folder / "test_sensitivity=0.9", cascade_content(known=0, sensitivity=0.9), 0.9)
    finish_cascade(folder / "test_sensitivity=0.98")
    fail_cascade(folder / "test_sensitivity=1.5", "Give a share above 0 and up to 1.")
    return folder


def end(sweep: Path) -> None:
    place = {"mode": RunMode.MULTIRUN, "sweep": {"dir": str(sweep)}}
    SweepCallback().on_job_end(OmegaConf.create({"hydra": place}), job_return=JobReturn())
    SweepCallback().on_multirun_end(OmegaConf.create({"hydra": place}))


def lines_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_each_part_of_each_cascade_is_a_line_with_the_file_s_numbers(sweep: Path) -> None:
    end(sweep)
    lines = lines_of(sweep / "cascades.csv")
    assert [(line["run"][17:], line["state"], line["part"], line["images"]) for line in lines] == [
        ("0.9", "done", ALL, "120"),
        ("0.98", "done", UNSEEN, "100"),
        ("0.98", "done", ALL, "120"),
        ("1.5", "failed", "", ""),
    ]
    for line in lines[1:3]:
        part = CONTENT["test"][line["part"]]
        own = part["systems"][CASCADE]
        (pair,) = (pair for pair in part["differences"] if pair["b"] == ALONE)
        found = {name: own[name] for name in ("accuracy", "macro_f1", "sensitivity", "specificity")} | {
            "alone_accuracy": part["systems"][ALONE]["accuracy"],
            "accuracy_difference": pair["accuracy"],
            "spared": part["spared"],
        }
        for name, value in found.items():
            told = [line[name], line[f"{name}_low"], line[f"{name}_high"]]
            assert told == [str(value[end]) for end in ("value", "low", "high")]
        assert f"better than one, {line['verdict']} on" in part["verdict"]
        assert line["validation_sensitivity"] == "0.98" and line["notes"] == "synthetic radiographs"
    assert lines[3]["notes"] == "Give a share above 0 and up to 1." and lines[3]["validation_sensitivity"] == "1.5"
    assert lines[3]["screen"] == asked_of(1.5)["screen"]


def test_what_is_done_is_not_told_as_failed_and_what_failed_is(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(sweep)
    assert gather(sweep) == [] and [row.run for row in failed_runs(sweep)] == ["test_sensitivity=1.5"]
    told = capsys.readouterr().out
    assert "broken" not in told and told.count("failed") == 1
    assert "test_sensitivity=1.5: Give a share above 0" in told and all(
        name in told for name in ("screen_s0", "→ covid_s0")
    )
    accuracy = CONTENT["test"][UNSEEN]["systems"][CASCADE]["accuracy"]["value"]
    assert f"{accuracy:.3f}" in told and "100 unseen" in told and str(sweep / "cascades.csv") in told
    assert not (sweep / "results.csv").exists() and not (sweep / "comparisons.csv").exists()


def test_the_report_shows_the_cascades_and_leads_to_their_own(sweep: Path) -> None:
    (sweep / "test_sensitivity=0.98" / "report.html").touch()
    end(sweep)
    page, text = page_of(sweep), (sweep / "report.html").read_text()
    heads = [row["cells"][0]["text"] for row in page.rows]
    assert heads == ["cascade", *(f"test_sensitivity={asked}" for asked in ("0.9", "0.98", "0.98", "1.5"))]
    assert 'href="test_sensitivity%3D0.98/report.html"' in text and "0.9/report.html" not in text
    part = CONTENT["test"][UNSEEN]
    shown = {cell["key"] for cell in page.rows[2]["cells"]}
    assert {str(value["value"]) for value in part["systems"][CASCADE].values()} <= shown
    assert "3 cascades of two stages: 2 done, 1 failed" in page.text
    assert "Give a share above 0" in page.text and "Synthetic radiographs" in page.text
    (sweep / "cascades.csv").unlink()
    assert main([str(sweep)]) == 0 and (sweep / "cascades.csv").is_file()


def test_runs_and_cascades_of_one_folder_are_kept_apart(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = Maker(sweep)
    for seed in (0, 1):
        make.run(f"pneumonia_cnn_s{seed}", make.record(seed=seed), figures=False)
    end(sweep)
    assert [line["run"] for line in lines_of(sweep / "results.csv")] == ["pneumonia_cnn_s0", "pneumonia_cnn_s1"]
    assert len(lines_of(sweep / "cascades.csv")) == 4
    told = capsys.readouterr().out
    assert "Results of two" in told and "Cascades of two" in told
    heads = [row["cells"][0]["text"] for row in page_of(sweep).rows]
    assert heads.count("cascade") == 1 and sum(head.startswith("test_") for head in heads) == 4


def test_a_cascade_in_progress_shows_no_scores_and_a_broken_one_is_failed(sweep: Path) -> None:
    with recorded(sweep / "test_sensitivity=0.98", asked_of(0.98)):
        states = {row.sensitivity: (row.state, row.content is None) for row in gather_cascades(sweep)}
    assert states == {"0.9": ("done", False), "0.98": ("running", True), "1.5": ("failed", True)}
    write_json(sweep / "test_sensitivity=0.98" / "cascade.json", CONTENT | {"test": {}})
    broken = gather_cascades(sweep)[1]
    assert broken.state == "failed" and "cascade.json is broken: test" in (broken.error or "")
