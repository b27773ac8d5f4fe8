"""What loggers show besides the curves that Lightning logs."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import TRAIN
from xray_lightning.evaluation.figures import readable
from xray_lightning.loggers import spared

EXAMPLES = 16


def log_examples(trainer: Trainer, data: XRayDataModule) -> None:
    """Training images of each class, as many of each; below each one augmentation of it where there is any."""
    rows = data.rows_of(TRAIN)
    labels = data.labels[rows]
    each = EXAMPLES // len(data.class_names)
    chosen = np.concatenate([rows[labels == c][:each] for c in range(len(data.class_names))])
    images = data.images[chosen]
    lines = [("", images[:, 0])]
    if data.augment is not None:
        augmented = data.augment(torch.from_numpy(images), data.augment.draws(len(images), data.seed))
        lines.append(("augmented", augmented[:, 0].numpy()))
    figure = _example_figure([data.rows[row].class_name for row in chosen], lines)
    figure.suptitle("Training images" + (", synthetic" if data.synthetic else ""), fontsize=12)
    log_figure(trainer, "examples", figure)


def _example_figure(names: Sequence[str], lines: Sequence[tuple[str, np.ndarray]]) -> Figure:
    columns = 8
    blocks = -(-len(names) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.7 * len(lines) * blocks + 0.4), layout="constrained")
    axes = figure.subplots(len(lines) * blocks, columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for i, name in enumerate(names):
        block, column = divmod(i, columns)
        for line, (remark, images) in enumerate(lines):
            panel = axes[len(lines) * block + line, column]
            panel.set_title(readable(remark or name), fontsize=9)
            panel.imshow(images[i], cmap="gray", vmin=0, vmax=255)
    return figure


def log_figure(trainer: Trainer, name: str, figure: Figure) -> None:
    for logger in trainer.loggers:
        with spared(logger):
            _add_figure(logger, name, figure)


@singledispatch
def _add_figure(logger: Logger, name: str, figure: Figure) -> None:
    """Other loggers, such as CSV, show no pictures."""


@_add_figure.register
def _(logger: TensorBoardLogger, name: str, figure: Figure) -> None:
    logger.experiment.add_figure(name, figure, close=False)


@_add_figure.register
def _(logger: MLFlowLogger, name: str, figure: Figure) -> None:
    logger.experiment.log_figure(logger.run_id, figure, f"figures/{name}.png")


@_add_figure.register
def _(logger: WandbLogger, name: str, figure: Figure) -> None:
    logger.log_image(name, [figure])


def log_outcome(trainer: Trainer, settings: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """The hyper-parameters with the final test metrics."""
    metrics = {f"test/{k}": v["value"] for k, v in record["metrics"].items() if v["value"] is not None}
    for logger in trainer.loggers:
        with spared(logger):
            _add_outcome(logger, dict(settings), metrics)
            logger.save()


@singledispatch
def _add_outcome(logger: Logger, settings: dict[str, Any], metrics: dict[str, float]) -> None:
    logger.log_metrics(metrics)
    logger.log_hyperparams(settings)


@_add_outcome.register
def _(logger: TensorBoardLogger, settings: dict[str, Any], metrics: dict[str, float]) -> None:
    logger.log_hyperparams(settings, metrics)  # which its table of runs shows side by side
