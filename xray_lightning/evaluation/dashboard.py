"""What TensorBoard shows besides the curves that Lightning logs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import TRAIN

EXAMPLES = 16


def log_examples(trainer: Trainer, data: XRayDataModule) -> None:
    """Training images, the same number of each class where there are enough: plain, and augmented once."""
    rows = data.rows_of(TRAIN)
    labels = data.labels[rows]
    each = EXAMPLES // len(data.class_names)
    chosen = np.concatenate([rows[labels == c][:each] for c in range(len(data.class_names))])
    images = torch.from_numpy(data.pixels[chosen][:, None])
    augmented = images
    if data.augment is not None:
        augmented = data.augment(images, torch.Generator().manual_seed(data.seed)).byte()
    for logger in _tensorboards(trainer):
        logger.experiment.add_figure("examples", _example_figure(data, chosen, images, augmented), close=False)


def _example_figure(data: XRayDataModule, rows: np.ndarray, images: torch.Tensor, augmented: torch.Tensor) -> Figure:
    columns = 8
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(1.5 * columns, 3.4 * lines), layout="constrained")
    axes = figure.subplots(2 * lines, columns, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for i, row in enumerate(rows):
        line, column = divmod(i, columns)
        axes[2 * line, column].set_title(data.rows[row].class_name, fontsize=9)
        axes[2 * line, column].imshow(images[i, 0], cmap="gray", vmin=0, vmax=255)
        axes[2 * line + 1, column].set_title("augmented", fontsize=8)
        axes[2 * line + 1, column].imshow(augmented[i, 0], cmap="gray", vmin=0, vmax=255)
    if data.synthetic:
        figure.suptitle("Synthetic radiographs", fontsize=11)
    return figure


def log_outcome(trainer: Trainer, settings: Mapping[str, Any], record: Mapping[str, Any], figure: Figure) -> None:
    """The confusion matrix, and the hyper-parameters with the final test metrics."""
    metrics = {f"test/{k}": v["value"] for k, v in record["metrics"].items() if v["value"] is not None}
    for logger in _tensorboards(trainer):
        logger.experiment.add_figure("confusion_matrix", figure, close=False)
        logger.log_hyperparams(dict(settings), metrics)
        logger.save()


def _tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
