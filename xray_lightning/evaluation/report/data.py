"""What a report is made from: the files of a run folder, or of each run of a sweep."""

import base64
import csv
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from PIL import Image

from xray_lightning.artifacts import read_json
from xray_lightning.data.decode import MOST_PIXELS, read_bytes
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.runs import gather
from xray_lightning.evaluation.stored import Record, Status, what_is_wrong
from xray_lightning.evaluation.table import Row
from xray_lightning.status import DONE, FAILED

LARGE = 200_000  # bytes of a PNG above which a page holds it as WebP
ORDER = [
    "confusion_matrix",
    "roc",
    "precision_recall",
    "reliability",
    "histograms",
    "decision_curve",
    "learning_curves",
    "most_wrong",
    "least_certain",
]
NOT_SHOWN = ("command", "overrides", "folder", "variables", "installed")  # of the environment
IMAGES = {"train": "training images", "val": "validation images", "test": "test images"}
Comparison = dict[str, str]
EnsembleLine = dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run folder; `name` tells it from the others of its sweep in as few words as will do."""

    folder: Path
    row: Row
    name: str

    @property
    def short(self) -> str:
        """The name without the data set."""
        return self.name.removeprefix(f"{self.row.dataset} · ")

    @property
    def record(self) -> dict[str, Any]:
        """Empty where there is none. Where it tells no split, as that of an earlier version, it is of test."""
        return {"split": "test"} | self.row.record if self.row.record else {}

    @cached_property
    def status(self) -> dict[str, Any]:
        return status_of(self.folder)

    @cached_property
    def config(self) -> str:
        """The text of the run's configuration; empty where it was not kept."""
        return text_of(self.folder / ".hydra" / "config.yaml")

    @property
    def environment(self) -> dict[str, Any]:
        return self.record.get("environment") or {}

    @property
    def facts(self) -> dict[str, str]:
        """What of the environment readers are shown, a line a fact; metrics.json has all of it, and where it lay."""
        return environment_lines(self.environment)

    @property
    def commands(self) -> dict[str, str]:
        """What repeats it. Of a sweep's job: the whole sweep, and this job alone by its overrides."""
        command = self.environment.get("command") or ""
        if " -m " not in command and " --multirun " not in command:
            return {"The command": command} if command else {}
        overrides = [o for o in _listed(self.folder / ".hydra" / "overrides.yaml") if not o.startswith("sweep=")]
        script = command.split(" -m ")[0].split(" --multirun ")[0]
        return {"The sweep it was part of": command, "This run alone": f"{script} {shlex.join(overrides)}".strip()}


def images_of(records: Sequence[Mapping[str, Any]]) -> str:
    """What the images are called that all of the records score: after their side of the split, or just images."""
    names = {IMAGES.get(r["split"], "images") if r.get("seen") is None else "images" for r in records}
    return names.pop() if len(names) == 1 else "images"


def side_of(records: Sequence[Mapping[str, Any]]) -> str:
    """What stands beside validation: test, or the images that were scored."""
    return "test" if images_of(records) == IMAGES["test"] else "these images"


def _listed(file: Path) -> list[str]:
    """The texts of a YAML list; none where the file is anything else. Safe YAML builds no objects, and what is
    repeated by an alias is not unfolded."""
    try:
        content = yaml.safe_load(text_of(file))
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    return [text for text in content if isinstance(text, str)] if isinstance(content, list) else []


def status_of(folder: Path) -> dict[str, Any]:
    """The content of status.json; empty where it is none."""
    status = read_json(folder / "status.json") or {}
    return {} if what_is_wrong(Status, status) else status


def text_of(file: Path) -> str:
    if not file.is_file():  # opening a pipe would wait forever
        return ""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_run(folder: Path) -> Run:
    """Raises XRayError where its metrics.json is broken."""
    record = read_json(folder / "metrics.json") or {}
    if problem := what_is_wrong(Record, record):
        raise XRayError(f"{folder / 'metrics.json'} is broken ({problem}). Run its experiment again.")
    status = status_of(folder)
    # The run itself has its report written while it is still running; scored it is all the same.
    state = FAILED if status.get("state") == FAILED else DONE
    row = Row(
        run=folder.resolve().name,
        dataset=record["dataset"],
        model=record["model"],
        seed=record["seed"],
        state=state,
        seconds=status.get("seconds"),
        error=status.get("error"),
        record=record,
    )
    return Run(folder, row, f"{row.dataset} · {row.model}")


def read_sweep(folder: Path) -> list[Run]:
    rows = gather(folder)
    settings = [(row.dataset, row.model, row.setting) for row in rows]
    runs = []
    for row, setting in zip(rows, settings, strict=True):
        parts = [part for part in setting if part]
        if settings.count(setting) > 1:
            parts.append(f"seed\u00a0{row.seed}")
        runs.append(Run(folder / row.run, row, " · ".join(parts)))
    return runs


def read_comparisons(folder: Path) -> list[Comparison]:
    """The lines of comparisons.csv; none where runs were not compared."""
    return _lines(folder / "comparisons.csv", ["dataset", "a", "b"])


def read_ensembles(folder: Path) -> list[EnsembleLine]:
    """The lines of ensembles.csv; none where no seeds were averaged."""
    return _lines(folder / "ensembles.csv", ["dataset", "model", "seeds", "n"])


def _lines(file: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        lines = list(csv.DictReader(StringIO(text_of(file), newline=""), restval=""))
    except csv.Error:
        return []
    return lines if lines and lines[0].keys() >= {*needed} else []


def figure_files(folder: Path) -> list[Path]:
    """The folder's PNG figures: those of every run in a reader's order, then the others by name."""
    found = [file for file in (folder / "figures").glob("*.png") if _is_picture(file)]
    return sorted(found, key=lambda f: (ORDER.index(f.stem) if f.stem in ORDER else len(ORDER), f.name))


def _is_picture(file: Path) -> bool:
    """Whether it is a PNG of a size that a figure can have; anything else that bears the name is left out."""
    try:
        with Image.open(BytesIO(read_bytes(file)), formats=["PNG"]) as image:
            return image.width * image.height <= MOST_PIXELS
    except Exception:  # of a damaged header Pillow raises whatever it stumbles over
        return False


def embedded(figure: Path) -> str:
    """The picture as a data URI; large ones, of radiographs, as WebP at a tenth of the size."""
    content, kind = figure.read_bytes(), "png"
    if len(content) > LARGE:
        with suppress(OSError, ValueError, SyntaxError), Image.open(figure, formats=["PNG"]) as image:
            small = BytesIO()  # a damaged picture stays as it is
            image.convert("RGB").save(small, "WEBP", quality=85)
            content, kind = small.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def environment_lines(found: Mapping[str, Any]) -> dict[str, str]:
    """What readers are shown of a result's environment, a line a fact."""
    told = {}
    for key, value in found.items():
        parts = value if isinstance(value, dict) else {"": value}
        text = ", ".join(f"{name} {part}".strip() for name, part in parts.items() if part is not None)
        if key not in NOT_SHOWN and text:
            told[key.replace("_", " ")] = text
    return told
