"""Looks at a data set before anything is trained on it: leaks, copies, shortcuts, broken files, missing files.

python -m xray_lightning.data.audit dataset=pneumonia
python -m xray_lightning.data.audit dataset=covid against=pneumonia
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from xray_lightning.arguments import check_arguments
from xray_lightning.artifacts import atomic_write, write_csv, write_json
from xray_lightning.cli import command
from xray_lightning.config import CONF, build, slug
from xray_lightning.data.audit_figures import films_figure, pairs_figure
from xray_lightning.data.audit_report import report
from xray_lightning.data.catalog import Radiograph, write_catalog
from xray_lightning.data.collection import Collection
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.overlap import NEAR, PATIENT, Shared, across_sides, between, summary, within
from xray_lightning.data.shortcuts import exposure, find_shortcuts
from xray_lightning.data.splits import TEST, TRAIN, leaks
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.evaluation.figures import save_figure

log = logging.getLogger(__name__)
PAIRS_SHOWN = 24


def audit(data: XRayDataModule, other: XRayDataModule | None, folder: Path) -> dict[str, Any]:
    """Writes audit.md, audit.json, catalog.csv, lists of shared images and figures; returns what audit.json holds."""
    collection = _catalogued(data)
    pairs = within(collection)
    record: dict[str, Any] = {
        "dataset": data.name,
        "root": str(data.root),
        "synthetic": data.synthetic,
        "images": data.counts(),
        "validation": data.validation if data.split_file is None else "file",
        "published": _published(data, collection),
        "bad": {_as_text(path): problem for path, problem in collection.bad.items()},
        "leaks": _leaks(data),
        "shared": summary(collection, data.sides),
        "files": _files(collection.rows, data.class_names),
        "exposure": _exposure(collection, data.class_names),
        "shortcuts": [
            {"attribute": s.attribute, "balanced_accuracy": s.balanced_accuracy, "index": s.index,
             "tells": s.told(), "hints": s.hinted()}
            for s in find_shortcuts(collection.rows, collection.thumbs, data.class_names)
        ],
    }  # fmt: skip
    write_catalog(folder / "catalog.csv", data.rows, data.sides)
    patients = [pair for pair in across_sides(collection, data.sides) if pair.kind == PATIENT]
    _write_pairs(folder / "shared.csv", [*pairs, *patients], data, data)
    save_figure(films_figure(collection, data), folder / "figures" / "films.png")
    shown = sorted((p for p in pairs if p.kind == NEAR), key=lambda p: p.likeness or 0)[:PAIRS_SHOWN]
    if shown:
        save_figure(pairs_figure(shown, data, data), folder / "figures" / "shared.png")
    if other is not None:
        record["against"] = _against(data, collection, other, folder)
    write_json(folder / "audit.json", record)
    with atomic_write(folder / "audit.md") as file:
        file.write(report(record))
    return record


def _catalogued(data: XRayDataModule) -> Collection:
    data.catalog()
    assert data.collection is not None
    if not data.rows:
        raise XRayError(f"{data.root} holds not a single whole image.")
    return data.collection


def _published(data: XRayDataModule, collection: Collection) -> dict[str, dict[str, int]]:
    """Images found in each folder of the classes asked for, bad ones included, and how many its publisher counts."""
    if data.kaggle is None:
        return {}
    skipped = {f for name, folders in data.layout.folders.items() if name not in data.class_names for f in folders}
    counts = {folder: n for folder, n in data.kaggle.counts.items() if folder not in skipped}
    paths = [*(row.path for row in collection.rows), *collection.bad]
    found = Counter(folder for path in paths for folder in counts if path.startswith(f"{folder}/"))
    return {folder: {"published": n, "found": found[folder]} for folder, n in counts.items()}


def _as_text(path: str) -> str:
    """The path with bytes that are no UTF-8, and so cannot be in a JSON file, as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _leaks(data: XRayDataModule) -> list[dict[str, Any]]:
    """Images of one side that belong with images of another, directly or through others: what training refuses."""
    return [
        {"images": count, "of": data.sides.count(side), "side": side, "in": other}
        for (other, side), count in leaks(data.rows, data.sides).items()
    ]


def _files(rows: Sequence[Radiograph], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    files = {}
    for name in classes:
        own = [row for row in rows if row.class_name == name]
        sizes = Counter(f"{row.width}x{row.height}" for row in own)
        files[name] = {
            "formats": dict(Counter(row.format for row in own).most_common()),
            "modes": dict(Counter(row.mode for row in own).most_common()),
            "sources": dict(Counter(row.source for row in own if row.source).most_common()),
            "sizes": len(sizes),
            "commonest_size": list(sizes.most_common(1)[0]) if sizes else None,
            "median_width": float(np.median([row.width for row in own])) if own else None,
            "median_height": float(np.median([row.height for row in own])) if own else None,
        }
    return files


def _exposure(collection: Collection, classes: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Quartiles of each grey statistic over the images of each class."""
    names = np.array([row.class_name for row in collection.rows])
    return {
        name: {
            key: np.quantile(values[names == name], [0.25, 0.5, 0.75]).round(1).tolist()
            for key, values in exposure(collection.thumbs).items()
        }
        for name in classes
        if (names == name).any()
    }


def _against(data: XRayDataModule, collection: Collection, other: XRayDataModule, folder: Path) -> dict[str, Any]:
    """How many images of each class, and of each side, the other data set has too, and on which of its sides."""
    pairs = between(collection, _catalogued(other))
    name = f"shared_with_{slug(other.name)}"
    _write_pairs(folder / f"{name}.csv", pairs, data, other)
    if pairs:
        shown = sorted(pairs, key=lambda p: p.likeness or 0)[:PAIRS_SHOWN]
        save_figure(pairs_figure(shown, data, other), folder / "figures" / f"{name}.png")
    classes: dict[str, dict[str, Any]] = {}
    for class_name in data.class_names:
        own = [p for p in pairs if data.rows[p.a].class_name == class_name]
        cells = {(p.a, other.rows[p.b].class_name, other.sides[p.b]) for p in own}
        classes[class_name] = {
            "images": sum(row.class_name == class_name for row in data.rows),
            "shared": len({p.a for p in own}),
            "where": dict(Counter(f"{c} ({side})" for _, c, side in sorted(cells)).most_common()),
        }
    meetings = Counter((data.sides[p.a], other.sides[p.b]) for p in pairs)
    return {
        "dataset": other.name,
        "root": str(other.root),
        "file": f"{name}.csv",
        "pairs": dict(Counter(p.kind for p in pairs)),
        "classes": classes,
        "trained here, tested there": meetings[TRAIN, TEST],
        "trained there, tested here": meetings[TEST, TRAIN],
    }


def _write_pairs(path: Path, pairs: Sequence[Shared], a: XRayDataModule, b: XRayDataModule) -> None:
    header = ["kind", "likeness", *(f"{c}_{n}" for n in "ab" for c in ("path", "class", "patient", "split"))]

    def side(data: XRayDataModule, position: int) -> list[str]:
        row = data.rows[position]
        return [row.path, row.class_name, row.patient, data.sides[position]]

    lines = ([p.kind, "" if p.likeness is None else f"{p.likeness:.4f}", *side(a, p.a), *side(b, p.b)] for p in pairs)
    write_csv(path, header, lines)


def _other(name: str, overrides: Sequence[str]) -> XRayDataModule:
    from hydra import compose

    options = sorted(p.stem for p in (CONF / "dataset").glob("*.yaml") if p.stem not in ("base", "checkpoint"))
    if name not in options:
        raise XRayError(f"against={name} names no data set. {did_you_mean(name, options)}")
    kept = [o for o in overrides if o.startswith(("paths.", "cache="))]
    return build(compose("audit", [*kept, f"dataset={name}"]).dataset, on_leak="warn", on_bad_image="skip")


@command("audit")
def main(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from rich import get_console
    from rich.markdown import Markdown

    check_arguments(cfg)
    data = build(cfg.dataset, on_leak="warn", on_bad_image="skip")
    other = _other(cfg.against, HydraConfig.get().overrides.task) if cfg.against else None
    folder = Path(cfg.paths.run)
    record = audit(data, other, folder)
    get_console().print(Markdown(report(record)))
    log.info("Written to %s: audit.md, audit.json, catalog.csv, shared.csv and figures/", folder)


if __name__ == "__main__":
    main()
