"""Near-identical images: the same film exported, cropped or compressed a second time."""

import csv
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from xray_lightning.artifacts import write_csv
from xray_lightning.console import progress
from xray_lightning.data.decode import DECODER_VERSION, THUMB
from xray_lightning.data.linking import Links
from xray_lightning.errors import cache_errors

log = logging.getLogger(__name__)
THRESHOLD = 0.91
BLUR = 2.0  # standard deviation in pixels of the thumbnail
BLOCK = 1024  # rows compared at once
TWIN_VERSION = 1  # part of the cache's name: raise it when other pairs come to be found
HEADER = ["digest", "twin", "likeness"]
Pair = tuple[str, str, float]  # two digests in order, and their likeness


def details(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails (N, 32, 32) uint8 -> unit vectors (N, 1024) float32 whose dot product is the likeness, -1 to 1.

    A blurred copy is taken off first: its broad light and dark are those of any chest (median correlation of
    two patients .72), what is left is one film's own (.28). Brightness and contrast do not matter.

    THRESHOLD was read off pairs looked at in the Kermany set and in 4400 images of the COVID-19 Radiography
    Database: from .916 on they show one film or one patient, up to .901 different people in like poses. A
    film reduced from 1700 to 224 pixels a side and compressed anew stays above .99.
    """
    offsets = np.arange(THUMB)[:, None] - np.arange(THUMB)
    weights = np.exp(-0.5 * (offsets / BLUR) ** 2)
    blur = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    vectors = np.empty((len(thumbs), THUMB * THUMB), dtype=np.float32)
    for start in range(0, len(thumbs), BLOCK):
        part = thumbs[start : start + BLOCK].astype(np.float32)
        part -= blur @ part @ blur.T
        flat = part.reshape(len(part), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        # a film without any detail is like no other, not even an equal one: identical files are found by digest
        vectors[start : start + BLOCK] = np.where(length > 1, flat / np.maximum(length, 1), 0)
    return vectors


def pairs_above(a: np.ndarray, b: np.ndarray | None = None) -> Iterator[tuple[int, int, float]]:
    """Positions in `a` and `b` of vectors at least THRESHOLD alike; each pair of `a` once, where there is no `b`."""
    blocks = range(0, len(a), BLOCK)
    for start in progress(blocks, "Looking for twins", total=len(blocks)):
        first = start if b is None else 0
        likeness = a[start : start + BLOCK] @ (a if b is None else b)[first:].T
        for i, j in zip(*np.nonzero(likeness >= THRESHOLD), strict=True):
            if b is not None or i < j:
                yield int(start + i), int(first + j), float(likeness[i, j])


def _joining(pairs: Iterator[tuple[int, int, float]]) -> Iterator[tuple[int, int, float]]:
    """Those pairs that no chain of earlier ones has joined: a thousand frames of one film give 999, not 499500."""
    linked = Links[int]()
    yield from (pair for pair in pairs if linked.join(*pair[:2]))


def find_twins(digests: Sequence[str], thumbs: np.ndarray, cache_dir: Path) -> list[Pair]:
    """Pairs of different files that show one film, remembered in `cache_dir` by the contents compared.

    Of files that are all alike each is paired once, with one of the others.
    """
    order = {digest: position for position, digest in enumerate(digests)}
    known = sorted(order)
    key = hashlib.blake2b(
        "\n".join([f"{DECODER_VERSION}:{TWIN_VERSION}:{THRESHOLD}:{BLUR}", *known]).encode(), digest_size=12
    ).hexdigest()
    path = cache_dir / "catalogs" / f"{key}.twins.csv"
    found = _read(path)
    if found is None:
        vectors = details(thumbs[[order[digest] for digest in known]])
        found = [(known[i], known[j], round(likeness, 4)) for i, j, likeness in _joining(pairs_above(vectors))]
        with cache_errors(path.parent):
            write_csv(path, HEADER, found)
        log.info("Near-identical images in %d files: %d pairs", len(known), len(found))
    return found


def _read(path: Path) -> list[Pair] | None:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
            return [(a, b, float(likeness)) for a, b, likeness in lines] if header == HEADER else None
    except (OSError, ValueError, csv.Error):
        return None
