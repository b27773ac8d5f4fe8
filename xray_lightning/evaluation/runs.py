"""The runs of a sweep as their folders tell, in whatever order and place they ran."""

from pathlib import Path
from typing import Any

from xray_lightning.artifacts import read_json
from xray_lightning.evaluation.stored import Record, Status, what_is_wrong
from xray_lightning.evaluation.table import Row
from xray_lightning.status import DONE, FAILED, RUNNING, is_held


def gather(sweep_dir: Path) -> list[Row]:
    """A row for each run folder, sorted by its name."""
    return [read_run_folder(status.parent) for status in sorted(sweep_dir.glob("*/status.json"))]


def read_run_folder(folder: Path) -> Row:
    """A run as its files tell. The record names data set and model; before there is one, the settings do."""
    status: dict[str, Any] = read_json(folder / "status.json") or {}
    if status.get("state") not in (RUNNING, DONE, FAILED) or what_is_wrong(Status, status):
        status = {"state": FAILED, "error": "status.json is broken", "settings": {}}
    if status["state"] == RUNNING and not is_held(folder):
        status |= {"state": FAILED, "error": "it was killed"}
    settings = status["settings"]
    record = read_json(folder / "metrics.json") if status["state"] == DONE else None
    if status["state"] == DONE and (problem := what_is_wrong(Record, record)):
        record, status = None, status | {"state": FAILED, "error": f"metrics.json is broken: {problem}"}
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
