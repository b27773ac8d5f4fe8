"""What a checkpoint remembers of the images it was made with, so that it can say which others it has seen."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.collection import Collection
from xray_lightning.data.splits import SIDES, TRAIN, VAL, images_of
from xray_lightning.data.twins import THRESHOLD, details

LEVELS = 7  # 4 bits, -7 to 7, for each value of a film's details: 512 bytes an image
BLOCK = 1024  # films compared at once


@dataclass(frozen=True)
class Seen:
    """How many of N images a model was trained on, or chosen and calibrated on without being trained on them.

    An image counts where the same file, a near-identical film or, in the same data set, another image of its
    patient was there.
    """

    n: int
    trained: int
    chosen: int
    identical: int  # of `trained`, the same file

    @property
    def note(self) -> str:
        """Empty where no image was seen. Without commas, which part notes."""
        told = [f"{self.trained} of {self.n} images or their patients were trained on"] * bool(self.trained)
        told += [f"{self.chosen} of {self.n} were validated on"] * bool(self.chosen)
        return " and ".join(told)


def memory(collection: Collection, sides: Sequence[str]) -> dict[str, Any]:
    """Plain data and uint8 tensors for a checkpoint: images of each side by content, and the films and patients
    of training and validation. Of films, 32 x 32 values of 4 bits; of patients, hashes in place of names."""
    positions = {side: [i for i, where in enumerate(sides) if where == side] for side in (TRAIN, VAL)}
    return {
        "images": {side: images_of(side, collection.rows, sides) for side in SIDES},
        "films": {side: torch.from_numpy(_packed(details(collection.thumbs[p]))) for side, p in positions.items()},
        "patients": {
            side: sorted({_hashed(collection.rows[i].patient) for i in p} - {""}) for side, p in positions.items()
        },
    }  # fmt: skip


def seen(remembered: Mapping[str, Any], collection: Collection, scored: np.ndarray, *, same_patients: bool) -> Seen:
    """Of the images at the positions `scored`, those that `memory` knows.

    `same_patients` says that names of patients mean the same people as in training.
    """
    rows = [collection.rows[i] for i in scored]
    films = details(collection.thumbs[scored])
    known = {side: _known(remembered, side, rows, films, same_patients=same_patients) for side in (TRAIN, VAL)}
    files = {image.split(" ")[0] for image in remembered["images"][TRAIN]}
    return Seen(
        n=len(rows),
        trained=int(known[TRAIN].sum()),
        chosen=int((known[VAL] & ~known[TRAIN]).sum()),
        identical=sum(row.digest in files for row in rows),
    )


def known_images(
    remembered: Mapping[str, Any], collection: Collection, chosen: np.ndarray, *, same_patients: bool
) -> np.ndarray:
    """(N,) bool: which of the images at the positions `chosen` (N,) were trained or validated on, as `seen` counts."""
    rows, films = [collection.rows[i] for i in chosen], details(collection.thumbs[chosen])
    both = [_known(remembered, side, rows, films, same_patients=same_patients) for side in (TRAIN, VAL)]
    return both[0] | both[1]


def _known(
    remembered: Mapping[str, Any], side: str, rows: Sequence[Radiograph], films: np.ndarray, *, same_patients: bool
) -> np.ndarray:
    files = {image.split(" ")[0] for image in remembered["images"][side]}
    people = {*remembered["patients"][side]} if same_patients else set()
    told = np.array([row.digest in files or _hashed(row.patient) in people for row in rows], dtype=bool)
    return told | _alike(films, remembered["films"][side])


def _hashed(patient: str) -> str:
    return hashlib.blake2b(patient.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest() if patient else ""


def _alike(films: np.ndarray, packed: Tensor) -> np.ndarray:
    """Which of the films (N, 1024) are near-identical to a remembered one."""
    there = _unpacked(packed.numpy())
    found = np.zeros(len(films), dtype=bool)
    for start in range(0, len(films), BLOCK) if len(there) else ():
        found[start : start + BLOCK] = (films[start : start + BLOCK] @ there.T).max(axis=1) >= THRESHOLD
    return found


def _packed(films: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 1024) -> (N, 512) uint8. Levels of the square root, since few values are large: in the Kermany
    set and 4400 images of the COVID-19 Radiography Database likeness is kept to .02."""
    largest = np.maximum(np.abs(films).max(axis=1, keepdims=True, initial=0), 1e-12)
    roots = np.sign(films) * np.sqrt(np.abs(films) / largest)
    levels = np.rint(roots * LEVELS).astype(np.int8) + LEVELS
    return (levels[:, ::2] << 4 | levels[:, 1::2]).astype(np.uint8)


def _unpacked(packed: np.ndarray) -> np.ndarray:
    pairs = np.stack([packed >> 4, packed & 15], axis=-1)
    levels = pairs.reshape(len(packed), 2 * packed.shape[1]).astype(np.float32) - LEVELS
    films = np.sign(levels) * levels**2
    return films / np.maximum(np.linalg.norm(films, axis=1, keepdims=True), 1)
