"""The two-stage system, on the test images of its second stage. See python test.py --help."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from xray_lightning.artifacts import write_csv, write_json
from xray_lightning.console import table_console
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.seen import known_images
from xray_lightning.data.splits import TEST, VAL
from xray_lightning.environment import environment
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.evaluation.cascade import against, scores, sweep, systems, thresholds, verdict
from xray_lightning.predictor import Predictor, Single
from xray_lightning.scored import own_images
from xray_lightning.stage import Stage
from xray_lightning.status import recorded

log = logging.getLogger(__name__)
SENSITIVITIES = (0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)
FEWEST = 20  # ill and healthy validation images that a threshold may be fixed on


def cascade(cfg: DictConfig) -> dict[str, Any]:
    """Scores both networks and the system of them; returns what cascade.json holds.

    Thresholds are fixed on the diagnosis' validation images, which are of the population that is screened, and of
    these on such as the screen was not trained on, where enough are left. Raises XRayError for what cannot be used.
    """
    folder = Path(cfg.paths.run)
    with recorded(folder, OmegaConf.to_container(cfg.cascade, resolve=True)):  # type: ignore[arg-type]
        screen, diagnosis, healthy = _stages(cfg)
        val = Side.scored(cfg, VAL, screen, diagnosis)
        test = Side.scored(cfg, TEST, screen, diagnosis)
        fixed = val.unseen() if val.unseen().fixes(healthy) else val
        asked = float(cfg.cascade.sensitivity)
        threshold, matched = thresholds(fixed.screen, fixed.diagnosis, fixed.labels, healthy, asked)
        answers = systems(test.screen, test.diagnosis, healthy, threshold, matched)
        parts = {"unseen by the screen": test.unseen(), "all": test}
        content = {
            "screen": str(screen.path),
            "diagnosis": str(diagnosis.path),
            "classes": diagnosis.classes,
            "healthy": cfg.cascade.healthy,
            "sensitivity": asked,
            "threshold": threshold,
            "matched_threshold": matched,
            "fixed_on": {"validation": len(fixed.labels), "seen_by_the_screen": int(fixed.seen.sum())},
            "test": {
                name: _judged(part, answers, healthy, diagnosis.classes, threshold) for name, part in parts.items()
            },
            "sweep": sweep(
                (fixed.screen, fixed.diagnosis, fixed.labels),
                (test.screen, test.diagnosis, test.labels),
                healthy,
                SENSITIVITIES,
            ),
            "environment": environment(screen.model.device, str(screen.model.card["precision"])),
        }
        _write_predictions(folder / "predictions.csv", test, answers, diagnosis.classes, threshold)
        write_json(folder / "cascade.json", content)
    _show(table_console(), content)
    log.info("Written to %s: cascade.json and predictions.csv", folder)
    return content


class Side:
    """Images of one side of the diagnosis' split: what both networks say of them, (N,) and (N, classes), labels (N,),
    groups, paths, and whether the screen knows them, (N,) bool."""

    def __init__(
        self,
        screen: np.ndarray,
        diagnosis: np.ndarray,
        labels: np.ndarray,
        groups: Sequence[str],
        paths: Sequence[str],
        seen: np.ndarray,
        rows: np.ndarray,
    ) -> None:
        self.screen, self.diagnosis, self.labels, self.seen = screen, diagnosis, labels, seen
        self.groups, self.paths = list(groups), list(paths)
        self.rows = rows  # of these in the whole side

    @classmethod
    def scored(cls, cfg: DictConfig, split: str, screen: Stage, diagnosis: Stage) -> "Side":
        data: XRayDataModule = own_images(OmegaConf.merge(cfg, {"split": split}), diagnosis.model)  # type: ignore[arg-type]
        rows = data.rows_of(TEST)
        images = [data.rows[row] for row in rows]
        files = [data.root / image.path for image in images]
        assert data.collection is not None
        remembered = screen.model.card["data"]
        own = (remembered["module"], remembered["arguments"]["name"]) == (type(data).__module__, data.name)
        return cls(
            _probabilities(Single(screen), files)[:, 1],
            _probabilities(Single(diagnosis), files),
            data.labels[rows],
            [image.group for image in images],
            [image.path for image in images],
            known_images(remembered, data.collection, rows, same_patients=own),
            np.arange(len(rows)),
        )

    def unseen(self) -> "Side":
        """Without the images that the screen knows."""
        kept = np.flatnonzero(~self.seen)
        arrays = (self.screen[kept], self.diagnosis[kept], self.labels[kept])
        names = ([self.groups[row] for row in kept], [self.paths[row] for row in kept])
        return Side(*arrays, *names, self.seen[kept], kept)

    def fixes(self, healthy: int) -> bool:
        ill = int((self.labels != healthy).sum())
        return min(ill, len(self.labels) - ill) >= FEWEST


def _stages(cfg: DictConfig) -> tuple[Stage, Stage, int]:
    keys = cfg.cascade
    if cfg.ckpt is not None or keys.screen is None or keys.diagnose is None:
        raise XRayError("A cascade needs both cascade.screen=<ckpt> and cascade.diagnose=<ckpt>, and no ckpt.")
    if Path(keys.screen).resolve() == Path(keys.diagnose).resolve():
        raise XRayError("cascade.screen and cascade.diagnose are the same checkpoint. Give two.")
    if not isinstance(keys.sensitivity, int | float) or not 0 < keys.sensitivity <= 1:
        raise XRayError(f"cascade.sensitivity={keys.sensitivity} is not valid. Give a share above 0 and up to 1.")
    screen, diagnosis = Stage.load(Path(keys.screen)), Stage.load(Path(keys.diagnose))
    if len(screen.classes) != 2:
        told = ", ".join(screen.classes)
        raise XRayError(f"cascade.screen={keys.screen} tells apart {told}. A screen has two classes.")
    if keys.healthy not in diagnosis.classes:
        near = did_you_mean(keys.healthy, diagnosis.classes)
        raise XRayError(f"cascade.healthy={keys.healthy} is no class of {keys.diagnose}. {near}")
    return screen, diagnosis, diagnosis.classes.index(keys.healthy)


def _probabilities(predictor: Predictor, files: Sequence[Path]) -> np.ndarray:
    def each() -> Iterator[list[float]]:
        for prediction in predictor.stream(files):
            if prediction.error:
                raise XRayError(f"{prediction.path} {prediction.error}, though it was a whole image when this began.")
            yield list(prediction.probabilities.values())

    return np.array(list(each()))


def _judged(
    part: Side, answers: dict[str, np.ndarray], healthy: int, classes: Sequence[str], threshold: float
) -> dict[str, Any]:
    counts = {name: int((part.labels == c).sum()) for c, name in enumerate(classes)}
    told: dict[str, Any] = {"images": len(part.labels), "counts": counts}
    if not len(part.labels):
        return told | {"verdict": "The screen knows all of these images."}
    own = {name: given[part.rows] for name, given in answers.items()}
    compared = against(own, part.labels, part.groups, len(classes))
    return told | {
        "groups": len(set(part.groups)),
        "spared": float((part.screen < threshold).mean()),
        "systems": {
            name: scores(given, part.labels, part.groups, len(classes), healthy) for name, given in own.items()
        },
        "differences": [asdict(comparison) for comparison in compared],
        "verdict": verdict(compared, len(part.labels)),
    }


def _write_predictions(
    path: Path, test: Side, answers: dict[str, np.ndarray], classes: Sequence[str], threshold: float
) -> None:
    header = ["path", "group", "label", "screen", "flagged", *classes, *answers]
    lines = (
        [test.paths[i], test.groups[i], classes[test.labels[i]], repr(float(test.screen[i]))]
        + [bool(test.screen[i] >= threshold), *map(repr, test.diagnosis[i].tolist())]
        + [classes[given[i]] for given in answers.values()]
        for i in range(len(test.labels))
    )
    write_csv(path, header, lines)


def _show(console: Console, content: dict[str, Any]) -> None:
    fixed = content["fixed_on"]
    console.print(
        f"Threshold of the screen {content['threshold']:.4f}: sensitivity {content['sensitivity']:g} on "
        f"{fixed['validation']} validation images, of which the screen knows {fixed['seen_by_the_screen']}",
        soft_wrap=True,
    )
    for name, part in content["test"].items():
        counts = ", ".join(f"{count} {c}" for c, count in part["counts"].items() if count)
        title = f"{name}: {part['images']} test images ({counts})"
        if part.get("systems"):
            table = Table("system", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for metric in next(iter(part["systems"].values())):
                table.add_column(metric.replace("_", " "), justify="right")
            for system, found in part["systems"].items():
                table.add_row(system, *map(_cell, found.values()))
            console.print(table)
            console.print(f"Not flagged, so spared the second stage: {part['spared']:.1%}")
        console.print(part["verdict"], soft_wrap=True, highlight=False)


def _cell(value: dict[str, float | None]) -> str:
    if value["value"] is None:
        return "–"
    interval = "" if value["low"] is None else f" ({value['low']:.3f}–{value['high']:.3f})"
    return f"{value['value']:.3f}{interval}"
