"""A sweep's results, gathered from its run folders after every job, in whatever order and place they ran."""

import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from xray_lightning.artifacts import read_json
from xray_lightning.evaluation.table import Row, show_results, write_results
from xray_lightning.status import DONE, FAILED, RUNNING


def gather(sweep_dir: Path) -> list[Row]:
    """A row for each run folder, sorted by its name."""
    return [_row(status.parent) for status in sorted(sweep_dir.glob("*/status.json"))]


def failed_runs(sweep_dir: Path) -> list[Row]:
    return [row for row in gather(sweep_dir) if row.state == FAILED]


def _row(folder: Path) -> Row:
    """A run as its files tell. The record names data set and model; before there is one, the settings do."""
    status: dict[str, Any] = read_json(folder / "status.json") or {}
    if status.get("state") not in (RUNNING, DONE, FAILED) or not isinstance(status.get("settings"), dict):
        status = {"state": FAILED, "error": "status.json is broken", "settings": {}}
    settings = status["settings"]
    record = read_json(folder / "metrics.json") if status["state"] == DONE else None
    if status["state"] == DONE and not (record and record.keys() >= {"dataset", "model", "seed", "n", "metrics"}):
        record, status = None, status | {"state": FAILED, "error": "metrics.json is broken"}
    named = record or {
        "dataset": settings.get("dataset", {}).get("name", "?"),
        "model": settings.get("model", {}).get("name", "?"),
        "seed": settings.get("seed"),
    }
    return Row(
        run=folder.name,
        dataset=named["dataset"],
        model=named["model"],
        seed=named["seed"],
        state=status["state"],
        seconds=status.get("seconds"),
        error=status.get("error"),
        record=record,
    )


def show_sweep(sweep_dir: Path) -> None:
    """Writes the tables of what there is so far, and prints it."""
    if rows := gather(sweep_dir):
        write_results(sweep_dir, rows)
        show_results(rows, sweep_dir)


class SweepCallback(Callback):
    """Shows the results of a run at its end. Of a sweep, rewrites the tables after each job."""

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        if os.environ.get("LOCAL_RANK", "0") == "0" and read_json(folder / "metrics.json"):
            show_results([_row(folder)], folder)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode is not None and config.hydra.mode.name == "MULTIRUN":
            folder = Path(config.hydra.sweep.dir)
            write_results(folder, gather(folder))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        show_sweep(Path(config.hydra.sweep.dir))
