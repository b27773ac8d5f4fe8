"""The LightningModule that every classifier shares: loss, metrics, optimiser, and a checkpoint that stands alone."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.batches import Batch
from xray_lightning.data.decode import LARGEST_SIDE
from xray_lightning.data.pixels import Images
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.calibration import fit_temperature, temper
from xray_lightning.evaluation.metrics import SCALARS, ClassificationMetrics, number, scalar_metrics
from xray_lightning.evaluation.operating_points import choose
from xray_lightning.models.features import ImageSource
from xray_lightning.models.folding import Whole
from xray_lightning.models.whole import is_shared, mean_of_all, share_batches

log = logging.getLogger(__name__)
CARD = "xray_lightning"  # where a checkpoint keeps what the network alone does not say
CARD_FORMAT = 4
LEAST_MIXUP = 0.01  # below, float32 cannot draw from the Beta distribution
TRAINING_ONLY = ("optimizer", "scheduler", "class_weights")  # arguments that a saved model does not need


class XRayClassifier(LightningModule, ABC):
    """Grey radiographs -> class logits.

    A network derives from this and defines `forward`. Its constructor takes plain data and saves it with
    `save_hyperparameters`, so that a checkpoint holds all that rebuilds it. `optimizer` and `scheduler` are
    partial constructors; a model that only predicts needs neither.
    """

    goes_on: ClassVar[bool] = True  # training may be stopped after any epoch and gone on with from its checkpoint
    mean: Tensor
    std: Tensor
    class_weights: Tensor | None
    not_saved: ClassVar[Sequence[str]] = TRAINING_ONLY  # arguments that no checkpoint has

    def __init__(
        self,
        *,
        name: str,
        class_names: Sequence[str],
        image_size: int,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise XRayError(f"model.label_smoothing={label_smoothing} is not valid. Give a share from 0 to 1.")
        if odd := [text for text in (name, *class_names) if not text or not text.isprintable()]:
            raise XRayError(f"{odd[0]!r} cannot name a model or a class: use letters that can be printed.")
        if not 1 <= image_size <= LARGEST_SIDE:
            raise XRayError(f"model.image_size={image_size} is not valid. Give 1 to {LARGEST_SIDE} pixels.")
        if mixup != 0 and not LEAST_MIXUP <= mixup < math.inf:
            raise XRayError(f"model.mixup={mixup} is not valid. Give 0 for none, or {LEAST_MIXUP} or more.")
        self.name = name
        self.class_names = list(class_names)
        self.image_size = image_size
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.card: dict[str, Any] = {
            "format": CARD_FORMAT,
            "module": type(self).__module__,
            "class": type(self).__name__,
            "model": name,
            "classes": self.class_names,
            "preprocessing": {"image_size": image_size, "mean": list(mean), "std": list(std)},
            "temperature": 1.0,
            "operating_points": {},
        }
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.val_metrics = ClassificationMetrics()
        self.test_metrics = ClassificationMetrics()

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 1, S, S) with grey values 0 to 255 of any dtype, or what `prepare_inputs` made -> logits (B, classes)."""

    def look(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, classes) as scoring has them, of images or what `prepare_inputs` made; and features (B, width).

        By these `Familiarity` tells whether images are like those of training. None: nobody is warned of any.
        """
        return self(inputs), None

    def normalise(self, images: Tensor) -> Tensor:
        """Grey values 0 to 255 -> float32, (x / 255 - mean) / std in each of the network's input channels."""
        return (images.float() / 255 - self.mean) / self.std

    def prepare_inputs(self, source: ImageSource, rows: np.ndarray) -> Images:
        """What evaluation reads in place of the images (N, 1, S, S); here the images themselves.

        A model whose first part never changes computes that part once for the rows named, and keeps it.
        """
        return source.images

    def prepare_training(self, source: ImageSource, rows: np.ndarray, augment: CropRotateJitter | None) -> Images:
        """As `prepare_inputs`, for training; or several augmented versions, all N rows of one after the other."""
        return self.prepare_inputs(source, rows)

    def backbone_digest(self) -> str | None:
        """Names the weights that came from elsewhere and stay as they are; None: all are trained."""
        return None

    def attribution(self) -> tuple[nn.Module, nn.Module] | None:
        """The network from `normalise`d images to logits (B, classes), and the layer of it whose output (B, C, H, W)
        Grad-CAM weighs. Gradients can pass from the logits to that layer. None: this model has no such layer."""
        return None

    def for_inference(self) -> nn.Module:
        """What is deployed: images (B, 1, S, S) with grey values 0 to 255 -> the logits (B, classes) of eval mode.

        Here the model as it is. A model that does less work once nothing trains any more returns a network of its own,
        of plain PyTorch operators, which leaves the model as it was.
        """
        return Whole(self.eval())

    def configure_model(self) -> None:
        """Called by Lightning before training and scoring."""
        if is_shared():
            share_batches(self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = self._mixed_loss(inputs.float(), labels) if self.mixup else self._loss(self(inputs).float(), labels)
        whole = loss
        if is_shared():
            loss = loss * self._weight(labels)
            whole = mean_of_all(loss.detach())
        self.log("train/loss", whole, prog_bar=True)
        size: Any = float(len(labels))  # as a whole number, Lightning would round down its mean over processes
        self.log("train/epoch_loss", whole, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):  # the mean of nothing is no number, but this process's gradients must be
            return logits.sum()
        return F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=self.label_smoothing)

    def _weight(self, labels: Tensor) -> Tensor:
        """By which the mean over processes of their own mean losses is that of the whole batch; gradients follow."""
        own = (torch.ones_like(labels).float() if self.class_weights is None else self.class_weights[labels]).sum()
        return own / mean_of_all(own)

    def _mixed_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Of each row mixed with its mirror image in the batch, whose order is random already.

        A process that shares batches with others has both rows of a pair, and draws the same number as the others.
        Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.
        """
        share = torch.distributions.Beta(self.mixup, self.mixup).sample().item()
        logits = self(share * inputs + (1 - share) * inputs.flip(0)).float()
        return share * self._loss(logits, labels) + (1 - share) * self._loss(logits, labels.flip(0))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        inputs, labels = batch
        logits = self(inputs).float()
        if not logits.isfinite().all():
            raise XRayError(
                "Training diverged: the network's output is no number any more. Lower model.optimizer.lr, or set "
                "trainer.precision=32-true."
            )
        self.val_metrics.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        probabilities, labels = self.val_metrics.gathered()
        self.val_metrics.reset()
        values = scalar_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels))
        self._calibrate(probabilities, labels, values)
        scores = ", ".join(f"{name} {values[name]:.4f}" for name in ("log_loss", "accuracy", "auroc"))
        log.debug("epoch %d, validation: %s", self.current_epoch + 1, scores)
        for metric in SCALARS:
            self.log(
                f"val/{metric}", values[metric].float(), prog_bar=metric in ("accuracy", "log_loss"), sync_dist=True
            )

    def _calibrate(self, probabilities: np.ndarray, labels: np.ndarray, values: Mapping[str, Tensor]) -> None:
        """Notes in the card what validation says, so that the checkpoint of this epoch holds it."""
        temperature = fit_temperature(probabilities, labels)
        self.card |= {
            "temperature": temperature,
            "operating_points": choose(temper(probabilities, temperature), labels, self.class_names),
            "validation": {"n": len(labels), "epoch": self.current_epoch + 1}
            | {name: number(value) for name, value in values.items()},
        }

    def on_test_start(self) -> None:
        self.test_metrics.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        inputs, labels = batch
        self.test_metrics.update(self(inputs).float(), labels)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.optimizer is not None, "a model without an optimizer only predicts"
        try:
            optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        except ValueError as error:
            raise XRayError(f"model.optimizer is not valid: {error}.") from error
        if self.scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = self.scheduler(optimizer, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CARD] = self.card

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.card = checkpoint[CARD]
