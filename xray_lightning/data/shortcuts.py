"""What tells the classes apart without a look at the lungs: format, size, exposure, borders."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xray_lightning.data.catalog import Radiograph

BINS = 16
TELLS, HINTS = 0.5, 0.25  # Youden's index from which a class is told, or hinted at
OF_THE_FILE = ("format", "mode", "exact size", "width", "height", "aspect ratio")
OF_THE_FILM = ("file size", "brightness", "contrast", "border")


@dataclass(frozen=True)
class Shortcut:
    """How well one attribute alone names the class. `index` maps each class to Youden's index, -1 to 1, 0 by chance.

    `balanced_accuracy` is the mean recall over the classes that have images, 1 / classes by chance.
    """

    attribute: str
    balanced_accuracy: float
    index: dict[str, float]

    def told(self) -> list[str]:
        return [name for name, value in self.index.items() if value >= TELLS]

    def hinted(self) -> list[str]:
        return [name for name, value in self.index.items() if HINTS <= value < TELLS]


def exposure(thumbs: np.ndarray) -> dict[str, np.ndarray]:
    """Of thumbnails (N, 32, 32) uint8: mean, standard deviation, and mean of the outer ring, each 0 to 255."""
    films = thumbs.astype(np.float32)
    ring = np.ones(thumbs.shape[1:], dtype=bool)
    ring[1:-1, 1:-1] = False
    return {
        "brightness": films.mean(axis=(1, 2)),
        "contrast": films.std(axis=(1, 2)),
        "border": films[:, ring].mean(axis=1),
    }


def attributes(rows: Sequence[Radiograph], thumbs: np.ndarray) -> dict[str, np.ndarray]:
    """One value an image for each attribute, as small integers: numbers are binned by their quantiles."""
    words = {
        "format": [row.format for row in rows],
        "mode": [row.mode for row in rows],
        "exact size": [f"{row.width}x{row.height}" for row in rows],
    }
    numbers: dict[str, np.ndarray] = {
        "width": np.array([row.width for row in rows]),
        "height": np.array([row.height for row in rows]),
        "aspect ratio": np.array([row.width / row.height for row in rows]),
        "file size": np.array([row.size for row in rows]),
        **exposure(thumbs),
    }
    coded = {name: np.unique(values, return_inverse=True)[1] for name, values in words.items()}
    for name, values in numbers.items():
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
        # values on an edge get a bin of their own: where most images have one width, that is what tells the others
        coded[name] = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return {name: coded[name] for name in (*OF_THE_FILE, *OF_THE_FILM)}


def find_shortcuts(rows: Sequence[Radiograph], thumbs: np.ndarray, classes: Sequence[str]) -> list[Shortcut]:
    """Each attribute that varies, with what it tells.

    The class in which a value is the most frequent is guessed, from one half of the groups for the images of
    the other half and the other way round, so that values seen once, such as most sizes, tell nothing.
    """
    labels = np.array([row.label for row in rows])
    fold = np.array([hashlib.blake2b(row.group.encode(errors="surrogateescape")).digest()[0] % 2 for row in rows])
    return [
        _judge(name, values, labels, fold, classes)
        for name, values in attributes(rows, thumbs).items()
        if len(np.unique(values)) > 1
    ]


def _judge(name: str, values: np.ndarray, labels: np.ndarray, fold: np.ndarray, classes: Sequence[str]) -> Shortcut:
    k = len(classes)
    hits = np.zeros((k, k))  # actual, guessed; images with nothing to go by count as guessed at random
    for half in (0, 1):
        counts = np.zeros((values.max() + 1, k))
        np.add.at(counts, (values[fold != half], labels[fold != half]), 1)
        frequency = counts / counts.sum(axis=0).clip(min=1)
        best = frequency == frequency.max(axis=1, keepdims=True)
        guesses = best / best.sum(axis=1, keepdims=True)
        np.add.at(hits, labels[fold == half], guesses[values[fold == half]])
    images, right = hits.sum(axis=1), np.diag(hits)
    recall = right / images.clip(min=1)
    false_alarms = (hits.sum(axis=0) - right) / (images.sum() - images).clip(min=1)
    index = dict(zip(classes, (recall - false_alarms).tolist(), strict=True))
    return Shortcut(name, float(recall[images > 0].mean()), index)
