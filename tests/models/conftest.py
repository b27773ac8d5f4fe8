"""Tiny training runs on the CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer

from xray_lightning.data.batches import BatchLoader, RowSampler
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.cnn import CNNClassifier
from xray_lightning.models.head import Standardise
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

Fit = Callable[..., Trainer]


@pytest.fixture
def fit() -> Fit:
    """fit(model, inputs, labels, max_steps=..., ...) trains and validates on the same arrays."""

    def run(
        model: XRayClassifier, inputs: np.ndarray, labels: np.ndarray, *, batch_size: int = 8, **options: Any
    ) -> Trainer:
        everything = np.arange(len(labels))
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(accelerator="cpu", num_sanity_val_steps=0, **(quiet | options))
        trainer.fit(
            model,
            BatchLoader(inputs, labels, RowSampler(everything, seed=0), batch_size),
            BatchLoader(inputs, labels, RowSampler(everything), batch_size),
        )
        return trainer

    return run


@pytest.fixture
def complete() -> dict[str, Any]:
    """What a run adds to the card of a model for 32 pixels."""
    nobody = {"train": [], "val": []}
    films = dict.fromkeys(nobody, torch.zeros(0, 512, dtype=torch.uint8))
    data = {
        "module": "xray_lightning.data.pneumonia",
        "class": "PneumoniaDataModule",
        "arguments": {"name": "pneumonia", "image_size": 32, "resize": "stretch"},
        "leaked": {},
        "images": nobody | {"test": []},
        "films": films,
        "patients": nobody,
    }
    return {"precision": "32-true", "data": data}


@pytest.fixture
def bright_and_dark() -> tuple[np.ndarray, np.ndarray]:
    """Images (16, 1, 32, 32) uint8 that their mean grey value alone tells apart, and labels (16,)."""
    labels = np.arange(16, dtype=np.int64) % 2
    noise = np.random.default_rng(0).integers(0, 60, (16, 1, 32, 32))
    return (noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture
def make_cnn() -> Callable[..., CNNClassifier]:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    return partial(
        CNNClassifier,
        name="cnn",
        class_names=["NORMAL", "PNEUMONIA"],
        image_size=32,
        channels=(4, 4, 8),
        optimizer=optimizer,
    )


@pytest.fixture(scope="session")
def make_resnet() -> Callable[..., FrozenResNet50Classifier]:
    torch.manual_seed(0)
    return partial(
        FrozenResNet50Classifier,
        name="resnet50",
        class_names=["NORMAL", "PNEUMONIA"],
        image_size=32,
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
    )


@pytest.fixture(scope="session")
def shared_resnet(make_resnet: Callable[..., FrozenResNet50Classifier]) -> FrozenResNet50Classifier:
    return make_resnet()


@pytest.fixture
def resnet(shared_resnet: FrozenResNet50Classifier) -> FrozenResNet50Classifier:
    """One random backbone for all tests, with a new head for each."""
    torch.manual_seed(1)
    for layer in shared_resnet.head:
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
        if isinstance(layer, Standardise):
            layer.load_state_dict(Standardise(shared_resnet.width).state_dict())
    shared_resnet.train()
    return shared_resnet
