"""What is known of the files of a data set, read once and kept while they stay as they are."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from xray_lightning.artifacts import atomic_write, is_stored, locked
from xray_lightning.data.decode import DECODER_VERSION, THUMB, Resize
from xray_lightning.data.examine import Facts, examine, stamp
from xray_lightning.data.parallel import in_order
from xray_lightning.data.pixels import PixelPlan, root_key
from xray_lightning.errors import cache_errors

log = logging.getLogger(__name__)
Known = dict[str, tuple[Facts, np.ndarray]]
COLUMNS = [f.name for f in fields(Facts)]
NUMBERS = ("size", "width", "height")
KINDS = {name: "i" if name in NUMBERS else "U" for name in (*COLUMNS, "path")}  # NumPy's, of the columns on disk


@dataclass(frozen=True)
class Inventory:
    """Facts of each file asked for, in that order, and their thumbnails (N, 32, 32) uint8."""

    facts: list[Facts]
    thumbs: np.ndarray


def take_inventory(root: Path, paths: Sequence[str], cache_dir: Path, plan: PixelPlan | None = None) -> Inventory:
    """Examines the files below `root` that are new or have changed, and remembers them in `cache_dir`.

    Where none is known yet, the pixels that `plan` describes are made of the same reading. Two processes that
    ask at once read the files once. Raises XRayError where the cache cannot be written to.
    """
    store = cache_dir / "catalogs" / f"{root_key(root)}.npz"
    stamps = [stamp(root / path) for path in paths]
    known = _load(store)
    if _news(paths, stamps, known):
        with cache_errors(cache_dir), locked(store):
            known = _load(store)
            if news := _news(paths, stamps, known):
                _examine_all(root, [paths[i] for i in news], known, plan if len(news) == len(paths) else None)
                _save(store, root, known)
    thumbs = np.stack([known[path][1] for path in paths]) if paths else np.zeros((0, THUMB, THUMB), np.uint8)
    return Inventory([known[path][0] for path in paths], thumbs)


def _news(paths: Sequence[str], stamps: Sequence[str], known: Known) -> list[int]:
    def changed(path: str, now: str) -> bool:
        return path not in known or not now or known[path][0].stamp != now

    return [i for i, (path, now) in enumerate(zip(paths, stamps, strict=True)) if changed(path, now)]


def _examine_all(root: Path, paths: Sequence[str], known: Known, plan: PixelPlan | None) -> None:
    size: int | None = plan.size if plan else None
    resize: Resize = plan.resize if plan else "stretch"
    rows = plan.open() if plan else None
    try:
        results = in_order(lambda path: examine(root / path, size, resize), paths, f"Reading {root.name}")
        # one array for all: many small ones between the images that come and go would keep memory in pieces
        thumbs = np.empty((len(paths), THUMB, THUMB), dtype=np.uint8)
        for position, (facts, thumb, pixels) in enumerate(results):
            thumbs[position] = thumb
            known[paths[position]] = (facts, thumbs[position])
            if rows is not None and pixels is not None:
                rows.append(pixels)
        if plan and rows is not None:
            plan.finish(rows, [known[path][0].digest for path in paths if not known[path][0].problem])
    except BaseException:
        if rows is not None:
            rows.discard()
        raise
    log.info("Read %d files of %s", len(paths), root)


def _load(store: Path) -> Known:
    """What was remembered, or nothing where that cannot be read or was written by other rules or another program."""
    try:
        if not store.is_file() or not is_stored(store):
            return {}
        with store.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if int(archive["version"]) != DECODER_VERSION:
                return {}
            path, thumbs = archive["path"], archive["thumbs"]
            kinds = {name: archive[name].dtype.kind for name in COLUMNS} | {"path": path.dtype.kind}
            if kinds != KINDS or (thumbs.dtype, thumbs.shape[1:]) != (np.uint8, (THUMB, THUMB)):
                return {}
            columns = [archive[name].tolist() for name in COLUMNS]
            lines = zip(path.tolist(), zip(*columns, strict=True), thumbs, strict=True)
            return {path: (Facts(*values), thumb) for path, values, thumb in lines}
    except Exception:  # of a damaged archive NumPy and zipfile raise whatever they stumble over
        return {}


def _save(store: Path, root: Path, known: Known) -> None:
    kept = {path: entry for path, entry in known.items() if os.path.exists(root / path)}
    rows = [asdict(facts) for facts, _ in kept.values()]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    arrays: dict[str, Any] = {name: np.array(values, dtype=np.int64 if name in NUMBERS else np.str_)
              for name, values in columns.items()}  # fmt: skip
    with atomic_write(store, "wb") as file:
        np.savez(
            file,
            version=DECODER_VERSION,
            root=str(root.resolve()),
            path=np.array(list(kept), dtype=np.str_),
            thumbs=np.stack([thumb for _, thumb in kept.values()]) if kept else np.zeros((0, THUMB, THUMB), np.uint8),
            **arrays,
        )
