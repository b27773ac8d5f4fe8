"""The two-stage system, on the test images of its second stage. See python test.py --help."""

import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from xray_lightning.artifacts import clear_results, write_csv, write_json
from xray_lightning.data.splits import TEST, TRAIN, VAL, leak_note
from xray_lightning.environment import environment
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.evaluation.cascade import Scored, counted, judged, systems, thresholds
from xray_lightning.evaluation.cascade_content import ALL, BEFORE, UNSEEN
from xray_lightning.evaluation.cascade_figures import draw_cascade
from xray_lightning.evaluation.cascade_table import show_cascade
from xray_lightning.evaluation.report.page import write_report
from xray_lightning.screened import Side
from xray_lightning.settings import save_config
from xray_lightning.stage import Stage
from xray_lightning.status import is_done, recorded

log = logging.getLogger(__name__)
FEWEST = 20  # ill and healthy validation images that a threshold may be fixed on


def cascade(cfg: DictConfig) -> dict[str, Any]:
    """Scores both networks and the system of them; returns what cascade.json holds.

    Thresholds are fixed on the diagnosis' validation images, which are of the population that is screened, and of
    these on such as the screen was not trained on, where enough are left. Raises XRayError for what cannot be used.
    """
    folder = Path(cfg.paths.run)
    settings: dict[str, Any] = OmegaConf.to_container(cfg.cascade, resolve=True)  # type: ignore[assignment]
    is_done(folder, settings)  # refuses the folder of a training, or of a test
    with recorded(folder, settings):
        clear_results(folder)
        save_config(folder, cfg)
        screen, diagnosis, healthy = _stages(cfg)
        val, test = (Side.scored_by(screen, diagnosis, cfg, split) for split in (VAL, TEST))
        asked = float(cfg.cascade.sensitivity)
        fixed = _fixed(val, healthy)
        points = thresholds(fixed, healthy, asked)
        parts = {UNSEEN: test.unseen(), ALL: test.scored}
        content = {
            "screen": _about(screen),
            "diagnosis": _about(diagnosis),
            "dataset": test.dataset,
            "classes": diagnosis.classes,
            "healthy": cfg.cascade.healthy,
            "sensitivity": asked,
            "threshold": points[0],
            "matched_threshold": points[1],
            "fixed_on": _fixed_on(val, fixed, diagnosis.classes),
            "notes": _notes(test, screen, diagnosis),
            "test": {name: judged(fixed, part, diagnosis.classes, healthy, asked) for name, part in parts.items()},
            "environment": environment(screen.model.device, str(screen.model.card["precision"])),
        }
        answers = systems(test.scored.screen, test.scored.diagnosis, healthy, *points)
        _write_predictions(folder / "predictions.csv", test, answers, diagnosis.classes, points[0])
        write_json(folder / "cascade.json", content)
    _illustrate(folder, content, figures=cfg.figures)
    show_cascade(content, folder)
    return content


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


def _fixed(val: Side, healthy: int) -> Scored:
    """The validation images that thresholds are fixed on."""
    unseen = val.unseen()
    ill = int((unseen.labels != healthy).sum())
    return unseen if min(ill, len(unseen.labels) - ill) >= FEWEST else val.scored


def _fixed_on(val: Side, fixed: Scored, classes: Sequence[str]) -> dict[str, Any]:
    left_out = len(val.paths) - len(fixed.labels)
    return {
        "validation": len(fixed.labels),
        "counts": counted(fixed.labels, classes),
        "seen_by_the_screen": int(val.seen.sum()) - left_out,
        "left_out": left_out,
    }


def _about(stage: Stage) -> dict[str, Any]:
    """Which network, and the images that it was trained and chosen on."""
    data = stage.model.card["data"]
    images = {side: Counter(image.split(" ", 1)[1] for image in data["images"][side]) for side in (TRAIN, VAL)}
    return {
        "checkpoint": str(stage.path),
        "dataset": data["arguments"]["name"],
        "model": stage.model.name,
        "seed": data["arguments"].get("seed"),
        "classes": stage.classes,
        "images": {side: {name: counts[name] for name in stage.classes} for side, counts in images.items()},
    }


def _notes(test: Side, *stages: Stage) -> list[str]:
    """What a reader must know before believing a score, of the screen and the diagnosis too."""
    random = any(str(stage.model.card.get("weights", "")).startswith("random") for stage in stages)
    leaks = [
        f"the split of the {role} ({stage.model.card['data']['arguments']['name']}) {note}"
        for role, stage in zip(("screen", "diagnosis"), stages, strict=True)
        if (note := leak_note(stage.model.card["data"]["leaked"]))
    ]
    return ["synthetic radiographs"] * test.synthetic + leaks + ["random backbone"] * random


def _write_predictions(
    path: Path, test: Side, answers: dict[str, np.ndarray], classes: Sequence[str], threshold: float
) -> None:
    header = [*BEFORE, *classes, *answers]
    found = test.scored
    lines = (
        [test.paths[i], found.groups[i], classes[found.labels[i]], repr(float(found.screen[i]))]
        + [bool(found.screen[i] >= threshold), *map(repr, found.diagnosis[i].tolist())]
        + [classes[given[i]] for given in answers.values()]
        for i in range(len(test.paths))
    )
    write_csv(path, header, lines)


def _illustrate(folder: Path, content: dict[str, Any], *, figures: bool) -> None:
    """What people look at: whatever goes wrong here must not cost the results."""
    try:
        if figures:
            draw_cascade(content, folder / "figures")
        write_report(folder)
    except Exception:
        again = f"python -m xray_lightning.evaluation.report {shlex.quote(str(folder))}"
        log.exception("The scores are complete, but not figures and report. To make the report again: %s", again)
