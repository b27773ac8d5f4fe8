"""An epoch of training the CNN: this project's, and a bare PyTorch loop over images in memory.

    python bench/epoch.py [epochs] [key=value ...]

Keys are those of train.py, such as dataset=pneumonia or trainer=cpu. Without a dataset, 4000 images are made up.
Ours is the real data module, trainer and callbacks, without progress bar; of each epoch its
training steps are timed, not validation and checkpoint. The bare loops run in the same process, one epoch of each
after every epoch of ours; the last row has a process of its own, in which malloc and threads are as they come. The
first epoch of each does not count.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from full_size import generate
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from timing import now, table
from torch import Tensor, nn
from torch.nn import functional as F
from usual import UsualCNN

from xray_lightning.config import CONF, build, register_resolvers
from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import TRAIN
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.run import AUTOCAST, _same_start, _trainer

IMAGES = 4000
OURS, BARE, NOT_AUGMENTED, USUAL = "ours", "bare", "bare, not augmented", "bare, as usual"


@dataclass
class Bare:
    """Training without Lightning and data module: one loop."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    clip: float  # largest norm of the gradient
    images: Tensor  # (N, 1, S, S) uint8, on the device
    labels: Tensor
    class_weights: Tensor | None
    label_smoothing: float
    batch_size: int
    augment: CropRotateJitter | None
    autocast: torch.dtype | None
    epochs: int = 0  # done so far

    def epoch(self) -> float:
        """Seconds."""
        start, count, device = now(), len(self.images), self.images.device
        order = torch.randperm(count).to(device)
        draws = None if self.augment is None else self.augment.draws(count, self.epochs).to(device)
        for first in range(0, count, self.batch_size):
            rows = order[first : first + self.batch_size]
            inputs = self.images[rows]
            if self.augment is not None and draws is not None:
                inputs = self.augment(inputs, draws[first : first + len(inputs)])
            with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
                loss = self.loss(self.network(inputs).float(), self.labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
            self.optimizer.step()
            self.scheduler.step()
        self.epochs += 1
        return now() - start

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=self.label_smoothing)


class Usual(nn.Module):
    """The same function of grey images as `model=cnn`, in textbook order and PyTorch's own memory layout."""

    def __init__(self, cfg: DictConfig, size: int, classes: int) -> None:
        super().__init__()
        self.network = UsualCNN(cfg, size, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.float() / 255)


class InTurn(Callback):
    """Times the training part of Lightning's epochs, and runs one epoch of every other way after each."""

    def __init__(self, others: Mapping[str, Bare]) -> None:
        self.others = others
        self.seconds: dict[str, list[float]] = {OURS: [], **{name: [] for name in others}}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self.seconds[OURS].append(now() - self.start)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, way in self.others.items():
            self.seconds[name].append(way.epoch())


def composed(overrides: list[str]) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides)


def model_of(cfg: DictConfig, data: XRayDataModule) -> XRayClassifier:
    about = {"class_names": data.class_names, "image_size": data.image_size, "class_weights": data.class_weights()}
    return build(cfg.model, **about)


def bare(cfg: DictConfig, data: XRayDataModule, trainer: Trainer, *, usual: bool = False, augment: bool = True) -> Bare:
    """With all that training has in this project: optimiser, schedule, class weights and precision."""
    model, device, rows = model_of(cfg, data), trainer.strategy.root_device, data.rows_of(TRAIN)
    network = Usual(cfg.model, data.image_size, len(data.class_names)) if usual else model
    assert model.optimizer is not None and model.scheduler is not None and not model.mixup
    optimizer = model.optimizer(network.to(device).parameters())
    return Bare(
        network,
        optimizer,
        model.scheduler(optimizer, total_steps=-(-len(rows) // data.batch_size) * cfg.trainer.max_epochs),
        cfg.trainer.gradient_clip_val,
        torch.from_numpy(data.images[rows]).to(device),
        torch.from_numpy(data.labels[rows]).to(device),
        model.class_weights if model.class_weights is None else model.class_weights.to(device),
        model.label_smoothing,
        data.batch_size,
        data.augment if augment else None,
        AUTOCAST.get(str(trainer.precision)),
    )


def usual_epochs(overrides: list[str]) -> None:
    """Prints the seconds of each epoch. PyTorch and malloc are as any script finds them."""
    cfg = composed(overrides)
    data = build(cfg.dataset)
    data.setup()
    way = bare(cfg, data, build(cfg.trainer, logger=False), usual=True)
    print(json.dumps([way.epoch() for _ in range(cfg.trainer.max_epochs)]))


def all_epochs(overrides: list[str], folder: Path) -> tuple[dict[str, list[float]], str]:
    """Seconds of each way's epochs, and what was measured."""
    cfg = composed(overrides)
    _same_start(cfg.seed)
    trainer, data = _trainer(cfg, folder), build(cfg.dataset)
    data.setup()
    about = f"{data.name}: {len(data.rows_of(TRAIN))} training images of {data.image_size}x{data.image_size}, "
    about += f"{trainer.precision} on {trainer.strategy.root_device}, {torch.get_num_threads()} threads"
    in_turn = InTurn({BARE: bare(cfg, data, trainer), NOT_AUGMENTED: bare(cfg, data, trainer, augment=False)})
    trainer.callbacks.insert(0, in_turn)
    trainer.fit(model_of(cfg, data), datamodule=data)
    command = [sys.executable, __file__, USUAL, *overrides]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return in_turn.seconds | {USUAL: json.loads(out.splitlines()[-1])}, about


def main() -> None:
    keys = sys.argv[1:]
    epochs = int(keys.pop(0)) if keys and keys[0].isdigit() else 8
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not any(key.startswith("dataset=") for key in keys):
            generate(folder / "COVID-19_Radiography_Dataset", IMAGES)
            keys += ["dataset=covid", f"paths.data={folder}", f"paths.cache={folder / 'cache'}"]
        keys += ["model=cnn", f"paths.run={folder}", f"paths.outputs={folder}", f"trainer.max_epochs={1 + epochs}"]
        keys += ["~callbacks.progress_bar", "trainer.enable_progress_bar=false"]
        seconds, about = all_epochs(keys, folder)
    counted = {name: values[1:] for name, values in seconds.items()}
    rows = []
    for name, values in counted.items():
        ratios = (f"{f(values) / f(counted[BARE]):.2f}" for f in (median, min))
        rows.append([name, f"{median(values):.2f}", f"{min(values):.2f}", *ratios])
    print(f"Training part of {epochs} epochs. {about}")
    table(["way", "median s", "best s", "median, times bare", "best, times bare"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == [USUAL]:
        usual_epochs(sys.argv[2:])
    else:
        main()
