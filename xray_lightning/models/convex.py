"""The frozen ResNet50 with a head that is solved for: the minimum of a convex objective, not the end of many steps."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from xray_lightning.data.batches import Batch
from xray_lightning.errors import XRayError
from xray_lightning.models.head import floored
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

log = logging.getLogger(__name__)
HISTORY = 50  # steps that L-BFGS remembers; measured: with 20 it takes up to 1.5 times as many, with 100 hardly fewer


class Solution(NamedTuple):
    weight: Tensor  # (classes, D)
    bias: Tensor  # (classes,)
    loss: float  # without the penalty
    iterations: int
    slope: float  # the objective's largest derivative there, in absolute value


@torch.enable_grad()
def fit_softmax(
    features: Tensor,
    labels: Tensor,
    start: tuple[Tensor, Tensor],
    *,
    l2: float,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> Solution:
    """Minimises F.cross_entropy(features (N, D) @ weight.T + bias, labels (N,), …) + l2 / 2 * |weight|².

    Ends where no derivative exceeds `tolerance`, or else earlier, as the solution's slope tells. `start`, a weight
    and a bias, changes the time it takes but not the minimum. Tensors are float64 and on one device.
    Source: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.
    """
    weight, bias = (parameter.clone().requires_grad_() for parameter in start)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        max_eval=25 * max_iterations,  # so many that iterations are the limit
        tolerance_grad=1.0,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        """In units of `tolerance`, since LBFGS has absolute thresholds that would end or mislead it near a minimum."""
        optimizer.zero_grad()
        logits = F.linear(features, weight, bias)
        loss = F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
        value = (loss + l2 / 2 * weight.square().sum()) / tolerance
        value.backward()
        return value

    optimizer.step(objective)
    iterations = optimizer.state[weight]["n_iter"]
    loss = tolerance * objective().item() - l2 / 2 * weight.square().sum().item()
    slope = tolerance * max(p.grad.abs().max().item() for p in (weight, bias) if p.grad is not None)
    return Solution(weight.detach(), bias.detach(), loss, iterations, slope)


class TrainingRows:
    """Labels and standardised features. See `floored` for what hardly varies."""

    def __init__(self, batches: Sequence[Batch], classes: int, device: torch.device) -> None:
        features = torch.cat([inputs for inputs, _ in batches]).to(device).double()
        self.labels = torch.cat([labels for _, labels in batches]).to(device)
        self.mean = features.mean(dim=0)
        self.std = floored(features.std(dim=0, correction=0))
        self.features = features.sub_(self.mean).div_(self.std)
        self.head = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)  # solved for last

    def raw_head(self) -> tuple[Tensor, Tensor]:
        """Weight and bias that give the logits of `head` from features as they came."""
        weight = self.head[0] / self.std
        return weight, self.head[1] - weight @ self.mean


class ConvexResNet50Classifier(FrozenResNet50Classifier):
    """`FrozenResNet50Classifier` with a linear head, the one that minimises a convex objective.

    It is the loss that the other one descends, of all training rows at once, plus l2 / 2 times the squared weights of
    standardised features. Each epoch solves for one strength l2, from the first of `l2_range` to the second in
    `l2_steps` equal ratios, each from the solution before; then training ends. So validation chooses the strength.
    Batches serve to collect the rows, in the first epoch. Precision and clipping do not touch the solution.
    """

    goes_on = False  # a solution is exactly the same only from the same one before it, and from rows in the same order

    def __init__(
        self,
        l2_range: Sequence[float] = (10.0, 1e-3),
        l2_steps: int = 17,
        tolerance: float = 1e-6,
        max_iterations: int = 10_000,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if len(l2_range) != 2 or not np.inf > l2_range[0] >= l2_range[1] > 0:
            raise XRayError(f"model.l2_range={[*l2_range]} is not valid. Give two strengths, the greater one first.")
        for key, count in (("l2_steps", l2_steps), ("max_iterations", max_iterations)):
            if count < 1:
                raise XRayError(f"model.{key}={count} is not valid. Give a whole number of at least 1.")
        if not 0 < tolerance < 1:
            raise XRayError(f"model.tolerance={tolerance} is not valid. Give a small number above zero, such as 1e-6.")
        for key, own in (
            ("hidden", False),
            ("dropout", False),
            ("feature_dropout", False),
            ("mixup", False),
            ("views", False),
            ("optimizer", False),
            ("scheduler", False),
            ("cache_features", True),
            ("standardise", True),
        ):
            if bool(shared.get(key, own)) is not own:
                raise XRayError(f"model.{key} is for model=resnet50. Here the head is solved for: leave the key out.")
        self.head = nn.Sequential(nn.Linear(self.width, len(self.class_names)))
        self.strengths: list[float] = np.geomspace(l2_range[0], l2_range[1], l2_steps).tolist()
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.forget_rows()

    def forget_rows(self) -> None:
        self._kept: list[Batch] = []
        self._rows: TrainingRows | None = None

    def configure_callbacks(self) -> list[Callback]:
        return [_ForgetRows()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=0.0)  # Lightning asks for one; it takes no step

    def on_train_start(self) -> None:
        if self.trainer.world_size > 1:
            raise XRayError("A head that is solved for needs all rows in one process. Set trainer.devices=1.")
        if getattr(getattr(self.trainer.train_dataloader, "sampler", None), "weights", None) is not None:
            raise XRayError("dataset.balance=sampling leaves rows out; all are needed. Set it to weighted_loss.")
        trainer, whole = self.trainer, len(self.trainer.train_dataloader or ())
        once = trainer.val_check_batch == whole and trainer.check_val_every_n_epoch == 1
        if trainer.num_training_batches != whole or not once:
            raise XRayError(
                "A head that is solved for needs every training batch, and a validation after each epoch. Leave out "
                "trainer.limit_train_batches, val_check_interval and check_val_every_n_epoch."
            )
        epochs, steps = self.trainer.max_epochs, len(self.strengths)
        if epochs is not None and 0 <= epochs < steps:
            log.warning("trainer.max_epochs=%d leaves out the weakest of model.l2_steps=%d strengths.", epochs, steps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self._rows is None:
            self._kept.append(batch)
        return torch.zeros((), device=self.device)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Nothing: single batches have no gradient."""

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: object, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Solves for the epoch's head after its last batch."""
        assert optimizer_closure is not None
        optimizer_closure()
        if self.trainer.is_last_batch:
            last = epoch >= len(self.strengths) - 1
            self._solve(self.strengths[-1 if last else epoch])
            self.trainer.should_stop |= last

    def _solve(self, l2: float) -> None:
        if self._rows is None:
            device = torch.device("cpu") if self.device.type == "mps" else self.device  # MPS has no float64
            self._rows, self._kept = TrainingRows(self._kept, len(self.class_names), device), []
        rows = self._rows
        solution = fit_softmax(
            rows.features,
            rows.labels,
            rows.head,
            l2=l2,
            class_weights=None if self.class_weights is None else self.class_weights.to(rows.features),
            label_smoothing=self.label_smoothing,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        if not solution.slope <= self.tolerance:
            log.warning("l2 %.3g: slope %.1e. Raise model.tolerance or model.max_iterations.", l2, solution.slope)
        log.debug("l2 %.3g: training loss %.4f, %d iterations", l2, solution.loss, solution.iterations)
        values = {"train/l2": l2, "train/epoch_loss": solution.loss, "train/iterations": float(solution.iterations)}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)
        rows.head = solution.weight, solution.bias
        with torch.no_grad():
            for parameter, value in zip(self.head[-1].parameters(), rows.raw_head(), strict=True):
                parameter.copy_(value.float())
        self.card["l2"] = l2


class _ForgetRows(Callback):
    """When training ends, one way or the other: a LightningModule is not told of exceptions."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ConvexResNet50Classifier)
        pl_module.forget_rows()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_fit_end(trainer, pl_module)
