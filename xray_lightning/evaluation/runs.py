"""The runs and the cascades of a sweep as their folders tell, in whatever order and place they ran."""

from pathlib import Path
from typing import Any

from xray_lightning.artifacts import read_json
from xray_lightning.evaluation.cascade_content import Cascade
from xray_lightning.evaluation.cascade_table import CascadeRow, write_cascades
from xray_lightning.evaluation.stored import Part, Record, Status, what_is_wrong
from xray_lightning.evaluation.table import Row, write_results
from xray_lightning.status import DONE, FAILED, RUNNING, is_held


def gather(sweep_dir: Path) -> list[Row]:
    """A row for each run folder, sorted by its name; cascades are no runs."""
    return [read_run_folder(folder) for folder in _folders(sweep_dir) if not is_cascade(folder)]


def gather_cascades(sweep_dir: Path) -> list[CascadeRow]:
    """A row for each cascade's folder, sorted by its name."""
    return [read_cascade_folder(folder) for folder in _folders(sweep_dir) if is_cascade(folder)]


def write_tables(sweep_dir: Path) -> tuple[list[Row], list[CascadeRow]]:
    """Writes the tables of what there is so far, and returns their rows."""
    rows, cascades = gather(sweep_dir), gather_cascades(sweep_dir)
    if rows:
        write_results(sweep_dir, rows)
    if cascades:
        write_cascades(sweep_dir, cascades)
    return rows, cascades


def _folders(sweep_dir: Path) -> list[Path]:
    return [status.parent for status in sorted(sweep_dir.glob("*/status.json"))]


def is_cascade(folder: Path) -> bool:
    """Whether two stages are scored there: by its result, and before there is one by what was asked for."""
    settings = (read_json(folder / "status.json") or {}).get("settings")
    asked = isinstance(settings, dict) and settings.keys() >= {"screen", "diagnose"}
    return asked or (folder / "cascade.json").exists()


def read_run_folder(folder: Path) -> Row:
    """A run as its files tell. The record names data set and model; before there is one, the settings do."""
    status, record = _told(folder, "metrics.json", Record)
    settings = status["settings"]
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


def read_cascade_folder(folder: Path) -> CascadeRow:
    """A cascade as its files tell. Before there is a result, the settings tell what was asked for."""
    status, content = _told(folder, "cascade.json", Cascade)
    settings = status["settings"]
    screen, diagnosis, sensitivity = (settings.get(key) for key in ("screen", "diagnose", "sensitivity"))
    if content:
        screen, diagnosis = (content[role]["checkpoint"] for role in ("screen", "diagnosis"))
        sensitivity = content["sensitivity"]
    return CascadeRow(
        run=folder.name,
        screen="" if screen is None else str(screen),
        diagnosis="" if diagnosis is None else str(diagnosis),
        sensitivity="" if sensitivity is None else str(sensitivity),
        state=status["state"],
        seconds=status.get("seconds"),
        error=status.get("error"),
        content=content,
    )


def _told(folder: Path, file: str, kind: type[Part]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """status.json, with a state that can be relied on, and the result in the file of a folder that is done."""
    status: dict[str, Any] = read_json(folder / "status.json") or {}
    if status.get("state") not in (RUNNING, DONE, FAILED) or what_is_wrong(Status, status):
        status = {"state": FAILED, "error": "status.json is broken", "settings": {}}
    if status["state"] == RUNNING and not is_held(folder):
        status |= {"state": FAILED, "error": "it was killed"}
    if status["state"] != DONE:
        return status, None
    content = read_json(folder / file)
    if problem := what_is_wrong(kind, content):
        return status | {"state": FAILED, "error": f"{file} is broken: {problem}"}, None
    return status, content
