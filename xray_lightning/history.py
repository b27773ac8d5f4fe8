"""history.csv: what each epoch brought, for the learning curves."""

import csv
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from xray_lightning.artifacts import write_csv
from xray_lightning.evaluation.metrics import SCALARS

COLUMNS = ("epoch", "train/loss", *(f"val/{name}" for name in SCALARS))


class History(Callback):
    """Writes the file anew after each epoch, so that an interrupted run has one too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs: list[list[Any]] = []
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = [list(epoch) for epoch in state_dict["epochs"]]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values: dict[str, Tensor] = dict(trainer.callback_metrics)
        if "train/epoch_loss" in values:  # of a model that takes its steps another way there may be none
            values["train/loss"] = values["train/epoch_loss"]
        told = [c for c in COLUMNS[1:] if self._validated or not c.startswith("val/")]
        known = {c: values[c].item() for c in told if c in values}
        self.epochs.append([trainer.current_epoch + 1, *(known.get(c, "") for c in COLUMNS[1:])])
        self._validated = False
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Also where a run goes on after its last epoch, and trains no more."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            write_csv(self.path, COLUMNS, self.epochs)


def read_history(path: Path) -> list[dict[str, float | None]]:
    """A line an epoch; None where nothing was measured. Empty where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) if v else None for k, v in line.items()} for line in csv.DictReader(file)]
