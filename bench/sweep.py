"""The four experiments: plain Lightning, which reads files in worker processes, and this project's own command.

    XRAY_DATA=<folder> python bench/sweep.py [--epochs 30] [--batches 80] [--whole] [--plain-only]
                                             [--datasets pneumonia,covid] [--models cnn,resnet50]

Plain gets the same images on the same sides, and the same networks, losses, optimisers, schedules, batch sizes,
augmentation, validation and test. It sees one augmented version of each image in an epoch; in ours, that of the
ResNet50 is longer: its head sees the features of each image and of all its model.views versions. Plain's rows: float32,
as Lightning is by itself, and the precision that trainer=auto takes here, or bf16-mixed where that is float32 too.
Plain would take hours, so two epochs are trained, of `--batches` batches drawn at random, with whole validations and
test, and the time is scaled:

    that process, imports included, + (epochs - 2) second epochs + epochs * images left out * seconds an image

the last measured in both epochs, but for their first and last batches. `--whole` adds plain runs without any scaling.
Ours is measured as it is: the command, with an empty cache and then again with another seed.
All files are in the page cache: the splits are made first, which reads them.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from timing import now, table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from usual import Frozen, UsualCNN, usual_head

from xray_lightning.models.resnet50 import IMAGENET_MEAN, IMAGENET_STD
from xray_lightning.models.schedule import WarmupCosine

TRAIN = Path(__file__).parents[1] / "train.py"
PLAIN = "plain"  # the first argument of a plain run's process
TIMED_EPOCHS = 2  # of a plain run that is scaled
BATCH, EVAL_BATCH = 32, 128
WORKERS = os.cpu_count() or 1
MARGIN = 2 * WORKERS + 4  # batches of either end of an epoch, where workers fill their queues or are done

Job = dict[str, Any]  # what a plain run is told, and then what it took, as JSON


class Films(Dataset):
    """As ImageFolder, of the images listed."""

    def __init__(self, images: Sequence[tuple[str, int]], mode: str, transform: transforms.Compose) -> None:
        self.images, self.mode, self.transform = images, mode, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.images[index]
        with Image.open(file) as image:
            return self.transform(image.convert(self.mode)), label


class Plain(LightningModule):
    """The ResNet50 with its frozen backbone, or the CNN, of which nothing is frozen."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        classes, self.settings = len(job["class_weights"]), job["model"]
        self.frozen: nn.Module = nn.Identity()
        if self.settings["name"] == "cnn":
            self.network: nn.Module = UsualCNN(self.settings, job["size"], classes)
        else:
            self.frozen, self.network = Frozen(self.settings), usual_head(self.settings, classes)
        smoothing = self.settings["label_smoothing"]
        self.loss = nn.CrossEntropyLoss(torch.tensor(job["class_weights"]), label_smoothing=smoothing)
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def train(self, mode: bool = True) -> "Plain":
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.frozen(images))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        features, labels, mixup = self.frozen(batch[0]), batch[1], self.settings["mixup"]
        share = torch.distributions.Beta(mixup, mixup).sample().item() if mixup else 1.0
        mixed = share * features + (1 - share) * features.flip(0) if mixup else features
        logits = self.network(mixed)
        loss = self.loss(logits, labels)
        if mixup:
            loss = share * loss + (1 - share) * self.loss(logits, labels.flip(0))
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        logits = self(batch[0])
        self.accuracy(logits, batch[1])
        self.log_dict({"loss": self.loss(logits, batch[1]), "accuracy": self.accuracy}, on_epoch=True)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        step, warmup = self.settings["optimizer"], self.settings["scheduler"]["warmup"]
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=step["lr"], weight_decay=step["weight_decay"])
        schedule = WarmupCosine(optimizer, int(self.trainer.estimated_stepping_batches), warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Clock(Callback):
    """Times of each epoch: after its first MARGIN batches, before its last ones, and when it is validated and saved."""

    def __init__(self) -> None:
        self.margins: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if args[-1] + 1 in (MARGIN, trainer.num_training_batches - MARGIN):
            self.margins.append(now())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ends.append(now())


def loaders(job: Job) -> dict[str, DataLoader]:
    grey, square, augment = job["model"]["name"] == "cnn", (job["size"], job["size"]), job["augment"]
    last: list[Any] = [transforms.ToTensor()]
    if not grey:  # the CNN normalises its images itself
        last.append(transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD))
    resized = transforms.Compose([transforms.Resize(square), *last])
    changes = [
        transforms.RandomResizedCrop(square, scale=augment["scale"], ratio=augment["ratio"]),
        transforms.RandomHorizontalFlip(augment["flip"]),
        transforms.RandomRotation(augment["degrees"]),
        transforms.ColorJitter(brightness=augment["brightness"], contrast=augment["contrast"]),
    ]
    augmented = transforms.Compose([*changes, *last])

    def loader(side: str, transform: transforms.Compose, size: int, **more: Any) -> DataLoader:
        films = Films(job["images"][side], "L" if grey else "RGB", transform)
        pin = torch.cuda.is_available()
        return DataLoader(films, size, num_workers=WORKERS, persistent_workers=True, pin_memory=pin, **more)

    return {
        "train": loader("train", augmented, BATCH, shuffle=True),
        "val": loader("val", resized, EVAL_BATCH),
        "test": loader("test", resized, EVAL_BATCH),
    }


def train_plain(file: Path) -> None:
    """One plain run in this process, as told by a JSON file, which then holds what its epochs took."""
    job: Job = json.loads(file.read_text())
    seed_everything(0)
    clock, data = Clock(), loaders(job)
    trainer = Trainer(
        precision=job["precision"],
        max_epochs=job["epochs"],
        gradient_clip_val=1.0,
        devices=1,
        callbacks=[ModelCheckpoint(monitor="loss"), clock],
        logger=TensorBoardLogger(str(file.parent)),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
    )
    trainer.fit(Plain(job), data["train"], data["val"])
    trainer.test(ckpt_path="best", dataloaders=data["test"])
    file.write_text(json.dumps({"margins": clock.margins, "ends": clock.ends}))


def run(command: Sequence[object]) -> float:
    """Seconds. Ends this program with what the command said last where it fails."""
    start = now()
    done = subprocess.run(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit("\n".join(done.stdout.splitlines()[-30:]))
    return now() - start


def plain_job(dataset: str, model: str, cache: Path) -> Job:
    """All but precision and epochs, with the images on each side of this project's split."""
    from hydra import compose, initialize_config_dir  # here, since plain runs, which import this too, do without
    from omegaconf import OmegaConf

    from xray_lightning.config import CONF, build, register_resolvers
    from xray_lightning.data.splits import SIDES

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"dataset={dataset}", f"model={model}", f"paths.cache={cache}"])
    data = build(cfg.dataset)
    data.catalog()
    images = {
        side: [(str(data.root.resolve() / data.rows[i].path), int(data.labels[i])) for i in data.rows_of(side)]
        for side in SIDES
    }
    random.Random(0).shuffle(images["train"])
    model_settings, augment = (OmegaConf.to_container(node, resolve=True) for node in (cfg.model, cfg.dataset.augment))
    about = {"model": model_settings, "augment": augment, "size": data.image_size}
    return about | {"images": images, "class_weights": data.class_weights()}


def plain(job: Job, folder: Path, batches: int) -> tuple[float, float, float]:
    """Seconds of a plain run: scaled, of its process; and images a second in training. 0 batches: nothing is scaled."""
    all_images, epochs = job["images"]["train"], job["epochs"]
    images = all_images[: batches * BATCH or None]
    cut = {"images": job["images"] | {"train": images}, "epochs": TIMED_EPOCHS if batches else epochs}
    file = folder / "job.json"
    file.write_text(json.dumps(job | cut))
    timed = -(-len(images) // BATCH) - 2 * MARGIN  # batches of an epoch
    if timed < 1:
        sys.exit(f"{len(images)} training images are too few to time: {2 * MARGIN + 1} batches are needed.")
    seconds = run([__file__, PLAIN, file])
    took: Job = json.loads(file.read_text())
    begun, ended = took["margins"][::2], took["margins"][1::2]
    an_image = (sum(ended) - sum(begun)) / (len(begun) * timed * BATCH)
    if not batches:
        return seconds, seconds, 1 / an_image
    second_epoch = took["ends"][1] - took["ends"][0]
    left_out = len(all_images) - len(images)
    return seconds + (epochs - TIMED_EPOCHS) * second_epoch + epochs * left_out * an_image, seconds, 1 / an_image


def ours(name: str, seed: int, options: argparse.Namespace, folder: Path) -> list[float]:
    """Seconds of each experiment, as its status.json tells, and of the whole command."""
    keys = [f"dataset={options.datasets}", f"model={options.models}", f"trainer.max_epochs={options.epochs}"]
    keys += [f"seed={seed}", f"sweep={name}", f"paths.cache={folder / 'ours'}", f"paths.outputs={folder}"]
    total = run([TRAIN, "-m", *keys])
    runs = [folder / "sweeps" / name / f"{d}_{m}_s{seed}" / "status.json" for d, m in experiments(options)]
    return [*(json.loads(run.read_text())["seconds"] for run in runs), total]


def experiments(options: argparse.Namespace) -> list[tuple[str, str]]:
    """In the order of Hydra's sweep."""
    return list(product(options.datasets.split(","), options.models.split(",")))


def plain_rows(options: argparse.Namespace, precisions: Sequence[str], folder: Path) -> dict[str, list[float]]:
    """Seconds of each experiment, and their sum; prints what was measured as it goes."""
    jobs = {(d, m): plain_job(d, m, folder / "splits") for d, m in experiments(options)}
    rows = {}
    for precision, batches in product(precisions, [options.batches, *[0] * options.whole]):
        way = f"plain, {precision}, {'scaled' if batches else 'whole'}"
        row = []
        for (dataset, model), job in jobs.items():
            told = job | {"precision": precision, "epochs": options.epochs}
            scaled, measured, speed = plain(told, folder, batches)
            sides = {side: len(images) for side, images in job["images"].items()}
            print(f"{way}, {dataset}/{model} {sides}: {speed:.1f} training images/s,", end=" ")
            print(f"{measured:.0f} s measured, {scaled:.0f} s in all", flush=True)
            row.append(scaled)
        rows[way] = [*row, sum(row)]
    return rows


def main() -> None:
    from xray_lightning.config import auto_precision

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("epochs", 30), ("batches", 80), ("datasets", "pneumonia,covid"), ("models", "cnn,resnet50")):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    for name in ("whole", "plain-only"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    own = auto_precision("auto")
    print(f"trainer=auto is {own} here; {WORKERS} workers")
    with tempfile.TemporaryDirectory() as temporary:
        rows = plain_rows(options, ["32-true", own if own != "32-true" else "bf16-mixed"], Path(temporary))
        if not options.plain_only:
            rows[f"ours, {own}, first run"] = ours("first", 0, options, Path(temporary))
            rows[f"ours, {own}, warm"] = ours("warm", 1, options, Path(temporary))
    slowest = next(iter(rows.values()))[-1]
    print(f"Seconds of {options.epochs} epochs and test. Plain, scaled: measured were {TIMED_EPOCHS} epochs of at most")
    print(f"{options.batches} batches, whole validations and test. Ours: all was; imports are in its total alone.")
    table(
        ["way", *("/".join(e) for e in experiments(options)), "total", "times faster"],
        [[way, *(f"{s:.0f}" for s in seconds), f"{slowest / seconds[-1]:.1f}"] for way, seconds in rows.items()],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [PLAIN]:
        train_plain(Path(sys.argv[2]))
    else:
        main()
