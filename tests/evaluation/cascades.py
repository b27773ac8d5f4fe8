"""A screen and a diagnosis that are often right, drawn, and what cascade.json would say of them."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np

from xray_lightning.evaluation.cascade import Scored, counted, judged, thresholds
from xray_lightning.evaluation.cascade_content import ALL, UNSEEN

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
