"""Every kind of case: what makes one, given random numbers and a world."""

from collections.abc import Callable
from random import Random

from . import pictures, places, records, settings, stopped
from .oracle import Case
from .world import World

KINDS: dict[str, Callable[[Random, World], Case]] = {
    "overrides": settings.overrides,
    "train": settings.training,
    "test": settings.testing,
    "predict": settings.predicting,
    "images predicted": pictures.predicted,
    "images trained on": pictures.trained_on,
    "folders": places.folders,
    "split files": places.split_files,
    "tables": places.tables,
    "caches": places.caches,
    "checkpoints": records.checkpoints,
    "run folders": records.run_folders,
    "stopped runs": stopped.stopped_runs,
}
