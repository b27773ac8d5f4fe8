"""What there is before anything goes wrong: images, runs of a tiny network on them, and the cache of these."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from PIL import Image

from xray_lightning.config import CONF, register_resolvers
from xray_lightning.data.phantoms import write_phantoms
from xray_lightning.history import History
from xray_lightning.overrides import check_overrides
from xray_lightning.run import train

TINY = (
    "trainer=cpu",
    "figures=false",
    "logger=csv",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "trainer.precision=32-true",
    "~callbacks.progress_bar",
    "dataset.image_size=16",
    "dataset.augment=null",
    "model.channels=[2,2,2]",
)
STOPPED = ("trainer.max_epochs=2", "callbacks=early_stopping")


class World:
    """Makes what cases need in `root`, once; each case gets a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cases = 0
        register_resolvers()
        write_phantoms(self.phantoms, images=80, size=32)

    @property
    def phantoms(self) -> Path:
        return self.root / "phantoms"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def pneumonia(self) -> Path:
        return self.phantoms / "chest_xray"

    def fresh(self) -> Path:
        """An empty folder; those of earlier cases are removed."""
        shutil.rmtree(self.root / f"case{self._cases}", ignore_errors=True)
        self._cases += 1
        folder = self.root / f"case{self._cases}"
        folder.mkdir()
        return folder

    def words(self, folder: Path, config: str, *more: str) -> list[str]:
        """Overrides of a small run that writes to `folder` alone."""
        own = [f"paths.data={self.phantoms}", f"paths.cache={self.cache}", f"paths.outputs={folder}"]
        run = [f"paths.run={folder / 'run'}"]
        return [*own, *run, *(TINY if config == "train" else ()), *more]

    def configured(self, folder: Path, config: str, *more: str) -> DictConfig:
        """The configuration as a command has it: its overrides checked first."""
        try:
            return check_overrides(config, self.words(folder, config, *more))
        finally:
            GlobalHydra.instance().clear()

    @cached_property
    def sweep(self) -> Path:
        """A sweep of four runs on two data sets, two of them seeds of one setting; not to be changed."""
        folder = self.root / "sweep"
        for name, *more in (
            ("pneumonia_cnn_s0",),
            ("pneumonia_cnn_s1", "seed=1"),
            ("covid_cnn_s0", "dataset=covid"),
            ("covid_cnn_s0_lr-0.1", "dataset=covid", "model.optimizer.lr=0.1"),
        ):
            train(self.configured(folder, "train", *more, f"paths.run={folder / name}"))
            (folder / name / "figures").mkdir()
            Image.new("RGB", (40, 30), "steelblue").save(folder / name / "figures/roc.png")
        return folder

    @cached_property
    def stopped(self) -> Path:
        """A run of the settings STOPPED that was interrupted in its second epoch; not to be changed."""

        def interrupted(_: History, trainer: Any, *args: Any) -> None:
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

        folder = self.root / "stopped"
        with patch.object(History, "on_train_batch_end", interrupted), suppress(SystemExit):  # Lightning's answer to it
            train(self.configured(self.root, "train", *STOPPED, f"paths.run={folder}"))
        return folder

    @property
    def checkpoints(self) -> Sequence[Path]:
        return [self.sweep / run / "checkpoints/best.ckpt" for run in ("pneumonia_cnn_s0", "covid_cnn_s0")]

    @cached_property
    def contents(self) -> Sequence[dict[str, Any]]:
        """Of the checkpoints."""
        return [torch.load(file, weights_only=True) for file in self.checkpoints]

    @cached_property
    def images(self) -> Sequence[Path]:
        return sorted(self.pneumonia.rglob("*.jpeg"))

    def keys(self, config: str) -> dict[str, Any]:
        """Every dotted key of a command's configuration."""
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(config, self.words(self.root, config))


def is_root() -> bool:
    """Whom no permission keeps from a file."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
