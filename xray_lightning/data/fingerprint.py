"""Digests of what a run read, by which two runs are known to have had the same data."""

import hashlib
from collections.abc import Iterable

import numpy as np

from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import TEST


def fingerprints(data: XRayDataModule) -> dict[str, str | None]:
    """Of a data module that is set up. Names and places of files have no part in them.

    `images` names contents and classes of all images, `split` which of them are on which side, `pixels` how and in
    which order they are decoded, and `features` what was computed of the test side beforehand; None where nothing was.
    """
    features = data.inputs[data.rows_of(TEST)] if data.inputs.ndim == 2 else None
    return {
        "images": _named(f"{row.digest} {row.class_name}" for row in data.rows),
        "split": _named(f"{row.digest} {side}" for row, side in zip(data.rows, data.sides, strict=True)),
        "pixels": data.fingerprint,
        "features": None if features is None else _digest(np.ascontiguousarray(features).tobytes()),
    }


def _named(lines: Iterable[str]) -> str:
    return _digest("\n".join(sorted(lines)).encode(errors="surrogateescape"))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
