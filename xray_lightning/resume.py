"""What a run needs to go on where it was stopped: last.ckpt, the state at the end of an epoch, always whole."""

import copy
import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from xray_lightning.environment import DECISIVE, environment
from xray_lightning.errors import XRayError
from xray_lightning.models.checkpoint import read_checkpoint, write_checkpoint
from xray_lightning.models.classifier import CARD, XRayClassifier

log = logging.getLogger(__name__)
SETTINGS = "settings"  # entry of a card: digest of the settings that a run was begun with


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and reads them to go on from, without executing anything."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """Hands a copy to `storage_options` instead of writing it, where that is given."""
        if storage_options is None:
            write_checkpoint(Path(path), checkpoint)
        else:
            storage_options(copy.deepcopy(checkpoint))  # training goes on to change what it refers to

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        content = read_checkpoint(Path(path))
        _check_counts(content["loops"])
        for state in content["callbacks"].values():
            if "best_k_models" in state:
                _place(state, os.path.realpath(Path(path).parent))
        return content


def _check_counts(loops: Any) -> None:
    """Of epochs and batches that were done: from one below zero, training would have no end."""
    left = [loops]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif not isinstance(value, int) or value < 0:
            raise ValueError(f"{value!r:.40} is no count of what was done")


def _place(state: dict[str, Any], folder: str) -> None:
    """Makes what a ModelCheckpoint notes of its files lie in `folder`, with links followed as Lightning follows them.

    Where it was another, Lightning forgets the best score, and takes the next epoch for the best. And it deletes what
    such a note names, which is in no other folder, whoever wrote it.
    """

    def inside(path: str) -> str:
        name = os.path.basename(path)
        if path and not name.endswith(".ckpt"):
            raise ValueError(f"{name!r} is no checkpoint's name")
        return path and os.path.join(folder, name)

    state["dirpath"] = folder
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = inside(state[key])
    state["best_k_models"] = {inside(path): score for path, score in state["best_k_models"].items()}


class LastCheckpoint(Checkpoint):
    """Keeps the state at the end of the latest epoch in last.ckpt, from which a run goes on to the same result.

    A copy is held in memory. It is written with every new best checkpoint, where `every_seconds` have passed since the
    last time, and whenever training ends: done, failed or interrupted. So a signal costs the epoch under way, and a
    power cut that and `every_seconds`. Writing each epoch would take a third of the time of a head on cached features.
    """

    def __init__(self, dirpath: str, every_seconds: float = 30.0) -> None:
        if not every_seconds >= 0:
            raise XRayError(f"callbacks.last_checkpoint.every_seconds={every_seconds} is not valid. Give 0 or more.")
        self.path = Path(dirpath) / "last.ckpt"
        self.every_seconds = every_seconds
        self._held: dict[str, Any] | None = None  # newer than the file
        self._written = monotonic()
        self._best: Any = None  # score of the best checkpoint when it was written
        self._stopped = False  # by early stopping
        self._restored: dict[str, Any] | None = None
        self._environment: dict[str, Any] = {}
        self.is_under_way = False  # an epoch is done, by which all that a checkpoint holds has been used
        self.changed: set[str] = set()  # what of the environment was another before the run was stopped

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        where = environment(trainer.strategy.root_device, str(trainer.precision), trainer.world_size)
        self._environment = {key: where[key] for key in DECISIVE}

    def state_dict(self) -> dict[str, Any]:
        known = {"environment": self._environment, "changed": sorted(self.changed)}
        return {"random": _random_state(), "stopped": self._stopped, **known}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = state_dict["environment"]
        changed = {key for key in DECISIVE if before.get(key) != self._environment[key]}
        if changed:
            told = ", ".join(sorted(changed))
            log.warning("Going on with other %s: the numbers need not be those of a run that nobody stopped", told)
        self.changed = changed.union(state_dict["changed"]) & {*DECISIVE}
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored is not None:  # after early stopping one epoch more might become the best
            trainer.should_stop |= bool(self._restored["stopped"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored is not None:
            _set_random_state(self._restored["random"])
            self._restored = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stopped = trainer.should_stop
        trainer.save_checkpoint(self.path, weights_only=False, storage_options=self._hold)
        first = trainer.checkpoint_callback
        best = first.best_model_score if isinstance(first, ModelCheckpoint) else None
        if monotonic() - self._written >= self.every_seconds or best is not self._best:
            self._best = best
            self._write()
        self.is_under_way = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self._write()
        except OSError as error:  # what ended training is told, too
            log.warning("%s could not be written: %s", self.path, error.strerror or error)
        self._held = None

    def _hold(self, content: dict[str, Any]) -> None:
        """Called where there is something to write: in the first of several processes."""
        self._held = content

    def _write(self) -> None:
        if self._held is not None:
            write_checkpoint(self.path, self._held)
            self._held, self._written = None, monotonic()


def went_on(trainer: Trainer) -> dict[str, Any]:
    """What a record says of its environment where the run was begun in another one; empty for all other runs."""
    changed = {key for own in trainer.checkpoint_callbacks if isinstance(own, LastCheckpoint) for key in own.changed}
    if not changed:
        return {}
    reason = f"the run was stopped and went on with other {', '.join(sorted(changed))}"
    return {"repeatable": False, "repeatable_reason": reason}


def settings_digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def left_off(folder: Path, model: XRayClassifier) -> Path | None:
    """The run's last.ckpt, where it is of the settings in the card of `model`; or None, and why where it is broken."""
    last, best = (folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    if not last.is_file():
        return None
    try:
        content = read_checkpoint(last)
        if content[CARD].get(SETTINGS) != model.card[SETTINGS]:
            return None
        if "loops" not in content or not isinstance(content.get("epoch"), int):
            return None
        read_checkpoint(best)  # the best epoch so far, which is not trained again
    except XRayError as error:  # after a power cut, say
        log.warning("Starting from the beginning: %s", error)
        return None
    if not model.goes_on:
        log.info("%s starts from the beginning, which takes it seconds", model.name)
        return None
    log.info("Going on after epoch %d, at which this run was stopped", content["epoch"] + 1)
    return last


def _random_state() -> dict[str, Any]:
    """Of all generators that a network may draw from, as plain data."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    kind, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
