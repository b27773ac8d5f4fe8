"""Synthetic data and small configurations that all tests share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is a worker for each core, and each starts processes

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from xray_lightning.config import CONF, register_resolvers
from xray_lightning.data.catalog import Radiograph
from xray_lightning.data.phantoms import write_phantoms

from .warm import Warm

SMALL = (
    "trainer=cpu",
    "figures=false",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "~callbacks.progress_bar",
    "dataset.image_size=32",
    "dataset.batch_size=16",
)


PROJECT = Path(__file__).resolve().parent.parent


class Shell:
    """Runs commands of the project in an empty folder, with the phantoms as its data."""

    def __init__(self, folder: Path, data: Path, cache: Path, warm: Warm) -> None:
        self.folder, self.warm = folder, warm
        self.environment = os.environ | {
            "XRAY_DATA": str(data),
            "XRAY_CACHE": str(cache),
            "XRAY_RESNET50_WEIGHTS": "random",
            "PYTHONWARNINGS": "default",
        }

    def command(self, *words: str) -> list[str]:
        script = words[0]
        return [sys.executable, str(PROJECT / script) if script.endswith(".py") else script, *words[1:]]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.warm(self.command(*words)[1:], self.folder, self.environment)


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Runs commands that need not import PyTorch first."""
    made = Warm()
    yield made
    made.close()


@pytest.fixture
def shell(tmp_path: Path, phantoms: Path, shared_cache: Path, warm: Warm) -> Shell:
    return Shell(tmp_path, phantoms, shared_cache, warm)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both data sets, 80 small images each."""
    return write_phantoms(tmp_path_factory.mktemp("data") / "phantoms", images=80, size=48)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def configure(phantoms: Path, shared_cache: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes a configuration of a small run on phantoms; `run` names its folder below tmp_path."""

    def _configure(*overrides: str, run: str = "run", config: str = "train") -> DictConfig:
        register_resolvers()
        paths = [
            f"paths.data={phantoms}",
            f"paths.cache={shared_cache}",
            f"paths.outputs={tmp_path}",
            f"paths.run={tmp_path / run}",
        ]
        small = SMALL if config == "train" else SMALL[:2]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(config, [*paths, *small, *overrides])

    return _configure


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Radiograph]:
    def row(
        path: str, label: int = 0, group: str = "", official: str = "", digest: str = "", patient: str = "", **own: Any
    ) -> Radiograph:
        digest = digest or f"digest of {path}"
        file = {"format": "PNG", "mode": "L", "width": 12, "height": 12, "size": 1, "source": "", "subtype": ""} | own
        return Radiograph(
            path=path,
            label=label,
            class_name=f"class{label}",
            patient=patient,
            official=official,
            digest=digest,
            group=group or patient or digest,
            **file,
        )

    return row
