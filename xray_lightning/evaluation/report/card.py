"""MODEL_CARD.md of a run that trained a checkpoint, made from the files of its folder alone.

After Mitchell et al., Model Cards for Model Reporting, 2019, with the items of CLAIM (Mongan et al. 2020,
https://doi.org/10.1148/ryai.2020200029) that apply.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from xray_lightning.artifacts import atomic_write
from xray_lightning.evaluation.report.card_facts import CLAIM, PUBLISHED, TORCHVISION
from xray_lightning.evaluation.report.data import Run, read_run, text_of
from xray_lightning.evaluation.report.evidence_tables import POINTS
from xray_lightning.evaluation.report.numbers import count, estimate, number, signed, with_interval
from xray_lightning.evaluation.report.run_tables import METRIC_NAMES, PER_CLASS
from xray_lightning.evaluation.report.tables import SPLITS
from xray_lightning.evaluation.report.trust import promised, worsened
from xray_lightning.evaluation.report.words import interval_method
from xray_lightning.markdown import block, escaped

OPTIONAL = (
    "groups",
    "interval",
    "calibration",
    "operating_points",
    "validation",
    "subgroups",
    "reference",
    "bad_images",
)


def write_model_card(run_folder: Path) -> Path | None:
    """Writes MODEL_CARD.md and says where; None where the run trained no checkpoint.

    Raises XRayError where metrics.json is broken.
    """
    if not (run_folder / "checkpoints" / "best.ckpt").is_file():
        return None
    run = read_run(run_folder)
    environment = Environment(
        loader=PackageLoader("xray_lightning.evaluation", "report"),
        autoescape=False,  # not HTML: the filter md escapes names
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": escaped,
        "block": block,
        "v": lambda found: with_interval(estimate(found)),
        "v3": lambda found: with_interval(estimate(found), 3),
    }
    environment.globals |= {"number": number, "signed": signed, "count": count}
    text = environment.get_template("card.md.j2").render(_content(run))
    with atomic_write(run_folder / "MODEL_CARD.md") as file:
        file.write(text)
    return run_folder / "MODEL_CARD.md"


def _content(run: Run) -> dict[str, Any]:
    """What the template shows."""
    record: dict[str, Any] = {**dict.fromkeys(OPTIONAL), **run.record}
    settings = run.status.get("settings") or {}  # the configuration, resolved on the machine it ran on
    dataset, model = settings.get("dataset") or {}, settings.get("model") or {}
    return {
        "run": run,
        "record": record,
        "dataset": dataset,
        "model": model,
        "settings": settings,
        "published": PUBLISHED.get(record["dataset"]),
        "synthetic": any(note.startswith("synthetic") for note in record.get("notes") or []),
        "weights": _weights(model, record),
        "catalog": _catalog(run.folder / "catalog.csv"),
        "splits": SPLITS,
        "prevalence": _prevalence(record),
        "metric_names": METRIC_NAMES,
        "per_class": PER_CLASS,
        "points": POINTS,
        "method": interval_method(record),
        "worsened": list(worsened([run])),
        "promised": list(promised([run])),
        "claim": _claim(run),
    }


def _weights(model: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    weights = str(model.get("weights") or "")
    if "random backbone" in (record.get("notes") or []):
        return "a frozen backbone with random weights: the scores say nothing about the architecture"
    if not weights:
        return "trained from scratch, from a random start"
    if weights.startswith("IMAGENET1K"):
        return TORCHVISION.format(weights=weights)
    return f"the state dict {escaped(Path(weights).name)}; its source and licence are not recorded in this run"


def _catalog(path: Path) -> list[dict[str, Any]]:
    """Of each split: images, groups, images whose patient is known, and sources. Empty where there is no catalog."""
    try:
        rows = list(csv.DictReader(StringIO(text_of(path), newline=""), restval=""))
    except csv.Error:
        return []
    if not rows or not rows[0].keys() >= {"split", "group", "patient", "source"}:
        return []
    found = []
    for split in (s for s in SPLITS if any(row["split"] == s for row in rows)):
        own = [row for row in rows if row["split"] == split]
        found.append(
            {
                "split": split,
                "images": len(own),
                "groups": len({row["group"] for row in own}),
                "known": sum(bool(row["patient"]) for row in own),
                "sources": Counter(row["source"] for row in own if row["source"]),
            }
        )
    return found


def _prevalence(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The share of each class in each split."""
    return {
        split: {name: n / total for name, n in counts.items()}
        for split, counts in (record.get("images") or {}).items()
        if (total := sum(counts.values()))
    }


def _claim(run: Run) -> list[tuple[int, str, str]]:
    figures = run.folder / "figures"
    gallery = "`figures/most_wrong.png`, `figures/least_certain.png`"
    shown = (figures / "most_wrong.png").is_file()
    answers = {
        "explained": f"Grad-CAM overlays: {gallery}" if shown else "not available",
        "external": "not available here; `python test.py ckpt=… dataset=… split=all` tests on other images",
        "failures": f"{gallery} and the confusion matrix" if shown else "Confusion matrix",
    }
    return [(item, subject, answer.format(**answers)) for item, subject, answer in CLAIM]
