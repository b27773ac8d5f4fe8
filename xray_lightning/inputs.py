"""From images on disk to what a model reads."""

import logging

import numpy as np
import torch
from lightning import Trainer

from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import TRAIN
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.features import ImageSource, Views

log = logging.getLogger(__name__)
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def set_up(data: XRayDataModule) -> None:
    """Loads the images, and says how many there are of what."""
    data.setup()
    for side, counts in data.counts().items():
        described = ", ".join(f"{count} {name}" for name, count in counts.items())
        log.info("%s %s: %d images (%s)", data.name, side, sum(counts.values()), described)
    if data.scored is None:
        groups = {row.group for row in data.rows}
        log.info("%s: %d groups by patient, copies and near-identical images", data.name, len(groups))
    if data.synthetic:
        log.warning("These are synthetic radiographs: the scores say nothing about real X-rays.")


def prepare_inputs(model: XRayClassifier, data: XRayDataModule, trainer: Trainer, sides: list[str]) -> None:
    """Gives `data` what the model reads of the images on `sides`: these themselves, or features computed once."""
    model.to(trainer.strategy.root_device)
    autocast = AUTOCAST[str(trainer.precision)]
    root = str(data.root.resolve())
    source = ImageSource(data.images, data.fingerprint, data.cache_dir / "features", autocast, root)
    if TRAIN in sides:
        data.train_inputs = model.prepare_training(source, data.rows_of(TRAIN), data.augment)
        plain_features = data.train_inputs.ndim == 2 and not isinstance(data.train_inputs, Views)
        if plain_features and data.augment is not None:
            log.info("%s trains on cached features of plain images: dataset.augment is not used.", model.name)
            data.augment = None
    data.inputs = model.prepare_inputs(source, np.concatenate([data.rows_of(s) for s in sides if s != TRAIN]))
