"""A screen and a diagnosis that are often right, drawn, and what cascade.json would say of them."""

from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xray_lightning.artifacts import write_csv, write_json
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.cascade import Scored, counted, judged, systems, thresholds
from xray_lightning.evaluation.cascade_content import ALL, BEFORE, SYSTEMS, UNSEEN
from xray_lightning.status import recorded

CLASSES = ["Covid", "Healthy", "Lung_infection", "Pneumonia"]
HEALTHY = 1


def drawn(seed: int, count: int = 120) -> Scored:
    """Of each class at least one image, every third patient has two."""
    numbers = np.random.default_rng(seed)
    labels = np.r_[np.arange(4), numbers.integers(0, 4, count - 4)]
    diagnosis = np.exp(numbers.normal(size=(count, 4)) + 2 * np.eye(4)[labels])
    screen = 1 / (1 + np.exp(-numbers.normal(size=count) - np.where(labels == HEALTHY, -1, 1)))
    groups = [f"p{i - (i % 4 == 3)}" for i in range(count)]
    return Scored(screen, diagnosis / diagnosis.sum(axis=1, keepdims=True), labels, groups)


def cascade_content(known: int = 20, **more: Any) -> dict[str, Any]:
    """cascade.json of 120 test images, of which the screen knows the first `known`."""
    return deepcopy(_content(known)) | more


@cache
def _content(known: int, asked: float = 0.98) -> dict[str, Any]:
    validation, test = drawn(1), drawn(2)
    parts = {UNSEEN: Scored(*(part[known:] for part in test)), ALL: test}
    threshold, matched = thresholds(validation, HEALTHY, asked)
    network = {
        "checkpoint": "runs/a/best.ckpt", "dataset": "covid", "model": "cnn", "seed": 0, "classes": CLASSES,
        "images": {"train": dict.fromkeys(CLASSES, 30), "val": dict.fromkeys(CLASSES, 10)},
    }  # fmt: skip
    return {
        "screen": network | {"dataset": "pneumonia", "classes": ["NORMAL", "PNEUMONIA"]},
        "diagnosis": network, "dataset": "covid", "classes": CLASSES, "healthy": "Healthy", "sensitivity": asked,
        "threshold": threshold, "matched_threshold": matched,
        "fixed_on": {"validation": 120, "counts": counted(validation.labels, CLASSES), "seen_by_the_screen": 0,
                     "left_out": 7},
        "notes": ["synthetic radiographs"],
        "test": {name: judged(validation, part, CLASSES, HEALTHY, asked) for name, part in parts.items()},
        "environment": {"command": "python test.py cascade.screen=a.ckpt", "packages": {"torch": "2.10"}, "git": None},
    }  # fmt: skip


def finish_cascade(folder: Path, content: dict[str, Any] | None = None, sensitivity: float = 0.98) -> Path:
    """The folder of a cascade that is done, by its own files."""
    content = content or cascade_content(sensitivity=sensitivity)
    test = drawn(2)
    answers = systems(test.screen, test.diagnosis, HEALTHY, content["threshold"], content["matched_threshold"])
    with recorded(folder, asked_of(sensitivity)):
        about = (
            [f"{i}.png", group, CLASSES[label]]
            for i, (group, label) in enumerate(zip(test.groups, test.labels, strict=True))
        )
        said = (
            [float(p), bool(p >= content["threshold"]), *d.tolist()]
            for p, d in zip(test.screen, test.diagnosis, strict=True)
        )
        given = ([CLASSES[i] for i in image] for image in zip(*answers.values(), strict=True))
        lines = [[*a, *b, *c] for a, b, c in zip(about, said, given, strict=True)]
        write_csv(folder / "predictions.csv", [*BEFORE, *CLASSES, *SYSTEMS], lines)
        write_json(folder / "cascade.json", content)
    return folder


def fail_cascade(folder: Path, error: str, sensitivity: float = 1.5) -> Path:
    with suppress(XRayError), recorded(folder, asked_of(sensitivity)):
        raise XRayError(error)
    return folder


def asked_of(sensitivity: float) -> dict[str, Any]:
    runs = {"screen": "sweeps/x/screen_s0/checkpoints/best.ckpt", "diagnose": "sweeps/x/covid_s0/checkpoints/best.ckpt"}
    return runs | {"sensitivity": sensitivity, "healthy": "Healthy"}
