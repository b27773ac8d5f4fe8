"""Two run folders, of cascades too, or two sweep folders, compared. They are untrusted: nothing in them is executed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_lightning.artifacts import read_json
from xray_lightning.compare.images import cascade_predictions, catalogs, predictions
from xray_lightning.compare.part import Part, of_files, of_values
from xray_lightning.compare.training import histories, weights
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.runs import is_cascade, read_cascade_folder, read_run_folder
from xray_lightning.evaluation.table import Row
from xray_lightning.evaluation.versus import read_predictions

ELSEWHERE = ("environment", "dataset", "model", "seed", "checkpoint")  # of a record: other parts tell
NETWORKS = ("screen", "diagnosis")  # of a cascade's record
ASKED = ("sensitivity", "healthy")  # as its settings tell
CHECKPOINT = "checkpoints/best.ckpt"
PREDICTIONS = "predictions.csv"


@dataclass(frozen=True)
class Comparison:
    """The parts, first of what went into the runs, then of what came out; and why a run, by its own words, cannot be
    repeated bit for bit."""

    parts: list[Part]
    unrepeatable: str | None

    @property
    def same(self) -> bool:
        """Whether all results are, bit for bit."""
        return not any(part.result and part.differences for part in self.parts)


def compare_runs(a: Path, b: Path) -> Comparison:
    """Of two runs, or of two cascades.

    Raises XRayError for a folder without a finished run, for one of each kind, and for a file that is broken.
    """
    both = a, b
    kinds = [is_cascade(folder) for folder in both]
    if any(kinds):
        if not all(kinds):
            raise XRayError(f"{both[kinds.index(True)]} is a cascade and the other no cascade. Give two of a kind.")
        return _compare_cascades(both)
    rows = [_done(folder) for folder in both]
    records: list[Mapping[str, Any]] = [row.record or {} for row in rows]
    settings = [(read_json(folder / "status.json") or {}).get("settings") for folder in both]
    environments = [record.get("environment") for record in records]
    scores = [{k: v for k, v in record.items() if k not in ELSEWHERE} for record in records]

    def predicted() -> Any:
        return predictions(*(read_predictions(folder, row) for folder, row in zip(both, rows, strict=True)))

    parts = [
        of_values("settings", "settings", *settings, result=False),
        of_values("environment", "facts", *environments, result=False),
        of_files("data", "images", both, "catalog.csv", lambda: catalogs(*_in(both, "catalog.csv")), result=False),
        of_values("metrics", "values", *scores, result=True),
        of_files("predictions", "images", both, PREDICTIONS, predicted, result=True),
        of_files("history", "epochs", both, "history.csv", lambda: histories(*_in(both, "history.csv")), result=True),
        of_files("weights", "tensors", both, CHECKPOINT, lambda: weights(*_in(both, CHECKPOINT)), result=True),
    ]
    return Comparison(parts, _unrepeatable(environments))


def _compare_cascades(both: tuple[Path, Path]) -> Comparison:
    records = [_done_cascade(folder) for folder in both]
    settings = [(read_json(folder / "status.json") or {}).get("settings") for folder in both]
    networks = [{role: record[role] for role in NETWORKS} for record in records]
    environments = [record["environment"] for record in records]
    scores = [{k: v for k, v in record.items() if k not in (*ELSEWHERE, *NETWORKS, *ASKED)} for record in records]
    parts = [
        of_values("settings", "settings", *settings, result=False),
        of_values("networks", "facts", *networks, result=False),
        of_values("environment", "facts", *environments, result=False),
        of_values("metrics", "values", *scores, result=True),
        of_files(
            "predictions",
            "images",
            both,
            PREDICTIONS,
            lambda: cascade_predictions(*_in(both, PREDICTIONS)),
            result=True,
        ),
    ]
    return Comparison(parts, _unrepeatable(environments))


def _unrepeatable(environments: Sequence[Any]) -> str | None:
    reasons = [e.get("repeatable_reason") for e in environments if isinstance(e, dict) and e.get("repeatable") is False]
    return str(reasons[0]) if reasons else None


def compare_sweeps(a: Path, b: Path) -> dict[str, Comparison | str]:
    """Each run by its name; or why it cannot be compared: it is in one sweep alone, not done, or broken."""
    names = [{status.parent.name for status in folder.glob("*/status.json")} for folder in (a, b)]
    found: dict[str, Comparison | str] = {}
    for name in sorted(names[0] | names[1]):
        try:
            only = [letter for letter, has in zip("AB", names, strict=True) if name in has]
            found[name] = compare_runs(a / name, b / name) if len(only) == 2 else f"only in {only[0]}"
        except XRayError as error:
            found[name] = str(error)
    return found


def is_sweep(folder: Path) -> bool:
    """Whether it holds runs rather than being one. Raises XRayError where it is neither."""
    if (folder / "status.json").is_file():
        return False
    if any(folder.glob("*/status.json")):
        return True
    raise XRayError(f"{folder} is no folder of a run or a sweep. They lie in outputs/runs/ and outputs/sweeps/.")


def _done(folder: Path) -> Row:
    row = read_run_folder(folder)
    if row.record is None:
        raise XRayError(f"{folder} holds no finished run: {(row.error or row.state).rstrip('.')}.")
    return row


def _done_cascade(folder: Path) -> Mapping[str, Any]:
    row = read_cascade_folder(folder)
    if row.content is None:
        raise XRayError(f"{folder} holds no finished cascade: {(row.error or row.state).rstrip('.')}.")
    return row.content


def _in(folders: tuple[Path, Path], file: str) -> tuple[Path, Path]:
    return folders[0] / file, folders[1] / file
