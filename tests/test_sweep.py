"""A sweep's results, gathered from whatever its run folders hold."""

import csv
import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.utils import JobReturn
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from xray_lightning.artifacts import write_csv, write_json
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.report.__main__ import main
from xray_lightning.evaluation.runs import gather
from xray_lightning.evaluation.table import METRICS
from xray_lightning.status import recorded
from xray_lightning.sweep import SweepCallback, failed_runs


def settings(dataset: str = "pneumonia", model: str = "cnn", seed: int = 0) -> dict[str, Any]:
    return {"dataset": {"name": dataset}, "model": {"name": model}, "seed": seed}


def finish(folder: Path, **chosen: Any) -> None:
    made = settings(**chosen)
    record = {
        "dataset": made["dataset"]["name"],
        "model": made["model"]["name"],
        "seed": made["seed"],
        "n": 9,
        "split": "test",
        "metrics": {name: {"value": 0.5, "low": None, "high": None} for name in METRICS},
        "classes": ["NORMAL", "PNEUMONIA"],
        "confusion_matrix": [[3, 1], [2, 3]],
        "reference": None,
        "operating_points": {},
        "calibration": {"temperature": 1.5}
        | {
            w: {"log_loss": {"value": 0.5}, "brier": {"value": 0.2}, "ece": {"value": 0.1}} for w in ("before", "after")
        },
        "notes": [],
    }
    with recorded(folder, made):
        write_json(folder / "metrics.json", record)


def fail(folder: Path, error: str, **chosen: Any) -> None:
    with pytest.raises(XRayError), recorded(folder, settings(**chosen)):
        raise XRayError(error)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep"
    finish(folder / "pneumonia_cnn_s0")
    fail(folder / "covid_cnn_s0", "no images", dataset="covid")
    return folder


def config(folder: Path, mode: RunMode) -> DictConfig:
    return OmegaConf.create(
        {"hydra": {"mode": mode, "sweep": {"dir": str(folder)}, "runtime": {"output_dir": str(folder)}}}
    )


def test_every_run_folder_is_a_row_sorted_by_name(sweep: Path) -> None:
    (sweep / "notes").mkdir()
    rows = gather(sweep)
    assert [(r.run, r.dataset, r.model, r.seed, r.state) for r in rows] == [
        ("covid_cnn_s0", "covid", "cnn", 0, "failed"),
        ("pneumonia_cnn_s0", "pneumonia", "cnn", 0, "done"),
    ]
    assert rows[0].error == "no images" and rows[0].record is None
    assert rows[1].value("accuracy") == 0.5
    assert [r.run for r in failed_runs(sweep)] == ["covid_cnn_s0"]


def test_a_run_in_progress_shows_no_scores_of_an_earlier_one(sweep: Path) -> None:
    with recorded(sweep / "pneumonia_cnn_s0", settings()):
        row = gather(sweep)[1]
    assert row.state == "running" and row.record is None and row.value("accuracy") is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"settings": {}}', '{"state": "failed", "settings": null}', '{"state": null}', "\x00"],
)
def test_a_broken_status_is_a_failed_run_of_unknown_settings(sweep: Path, content: str) -> None:
    (sweep / "covid_cnn_s0" / "status.json").write_text(content)
    broken, whole = gather(sweep)
    assert broken.state == "failed" and broken.dataset == "?" and broken.seed is None
    assert whole.state == "done"


@pytest.mark.parametrize("content", ["{", "{}", '{"dataset": "pneumonia"}'])
def test_a_finished_run_with_broken_metrics_does_not_count_as_done(sweep: Path, content: str) -> None:
    (sweep / "pneumonia_cnn_s0" / "metrics.json").write_text(content)
    row = gather(sweep)[1]
    assert row.record is None and row.state == "failed" and "metrics.json" in (row.error or "")


def test_an_empty_sweep_has_no_rows(tmp_path: Path) -> None:
    assert gather(tmp_path / "nowhere") == []


def test_tables_are_rewritten_after_each_job_of_a_sweep(sweep: Path) -> None:
    callback, cfg = SweepCallback(), config(sweep, RunMode.MULTIRUN)
    for runs in (2, 3):
        callback.on_job_end(cfg, job_return=JobReturn())
        with open(sweep / "results.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == runs
        assert "no images" in (sweep / "results.md").read_text()
        finish(sweep / "pneumonia_cnn_s1", seed=1)


def test_of_jobs_that_end_together_the_last_to_write_has_seen_all(sweep: Path) -> None:
    lock, cfg = FileLock(sweep / ".results.lock"), config(sweep, RunMode.MULTIRUN)
    with ThreadPoolExecutor(1) as pool:
        with lock:  # another job is writing
            waiting = pool.submit(SweepCallback().on_job_end, cfg, job_return=JobReturn())
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            finish(sweep / "pneumonia_cnn_s1", seed=1)
        waiting.result(timeout=60)
    assert "pneumonia_cnn_s1" in (sweep / "results.csv").read_text()


def test_ensembles_of_seeds_are_made_at_the_end_and_by_the_report_command(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        finish(sweep / f"pneumonia_cnn_s{seed}", seed=seed)
        lines = [[f"{i}.png", f"p{i // 2}", ["NORMAL", "PNEUMONIA"][i % 2], 0.4, 0.6] for i in range(9)]
        header = ["path", "group", "label", "NORMAL", "PNEUMONIA"]
        write_csv(sweep / f"pneumonia_cnn_s{seed}" / "predictions.csv", header, lines)
    SweepCallback().on_multirun_end(config(sweep, RunMode.MULTIRUN))
    first = [(sweep / name).read_text() for name in ("ensembles.csv", "results.md", "report.html")]
    assert first[0].splitlines()[1].startswith("pneumonia,cnn,,2,9,")
    assert all("Ensembles of seeds" in text for text in first[1:])
    (sweep / "ensembles.csv").unlink()
    assert main([str(sweep)]) == 0
    assert [(sweep / name).read_text() for name in ("ensembles.csv", "results.md", "report.html")] == first
    fail(sweep / "pneumonia_cnn_s1", "disk full", seed=1)
    assert main([str(sweep)]) == 0
    assert not (sweep / "ensembles.csv").exists()
    assert not any("Ensembles of seeds" in (sweep / name).read_text() for name in ("results.md", "report.html"))


def test_ensembles_of_fewer_runs_do_not_stand_beside_new_results(sweep: Path) -> None:
    (sweep / "ensembles.csv").write_text("of an earlier call\n")
    SweepCallback().on_job_end(config(sweep, RunMode.MULTIRUN), job_return=JobReturn())
    assert not (sweep / "ensembles.csv").exists()


@pytest.mark.parametrize("broken", ["versus.compare_runs", "ensemble.write_ensembles"])
def test_what_goes_wrong_in_one_step_costs_neither_the_results_nor_the_report(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    def step(*args: object) -> None:
        raise OSError("disk full")

    step.__name__ = broken
    monkeypatch.setattr(f"xray_lightning.evaluation.{broken}", step)
    SweepCallback().on_multirun_end(config(sweep, RunMode.MULTIRUN))
    assert "0.5000" in capsys.readouterr().out
    assert (sweep / "report.html").is_file()


@pytest.mark.parametrize("name", ["write_results", "gather"])
def test_tables_that_cannot_be_written_are_told_in_words(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"xray_lightning.evaluation.runs.{name}", full)
    SweepCallback().on_job_end(config(sweep, RunMode.MULTIRUN), job_return=JobReturn())
    SweepCallback().on_multirun_end(config(sweep, RunMode.MULTIRUN))
    assert [r.getMessage() for r in caplog.records] == [
        f"The tables of {sweep} cannot be written (No space left on device). To make them again: "
        f"python -m xray_lightning.evaluation.report {sweep}"
    ] * 2


def test_a_single_run_writes_no_tables(sweep: Path) -> None:
    SweepCallback().on_job_end(config(sweep, RunMode.RUN), job_return=JobReturn())
    assert not (sweep / "results.csv").exists()


def test_results_are_shown_at_the_end(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SweepCallback().on_multirun_end(config(sweep, RunMode.MULTIRUN))
    swept = capsys.readouterr().out
    assert "0.5000" in swept and "no images" in swept
    SweepCallback().on_run_end(config(sweep / "pneumonia_cnn_s0", RunMode.RUN))
    assert "0.5000" in capsys.readouterr().out
    SweepCallback().on_run_end(config(sweep / "covid_cnn_s0", RunMode.RUN))
    assert capsys.readouterr().out == ""
