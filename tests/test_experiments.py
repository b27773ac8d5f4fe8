"""The experiments of conf/experiment: what they ask of each model, and how their files open."""

from collections import Counter
from collections.abc import Callable
from itertools import takewhile

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from xray_lightning.config import CONF, build, plain
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.run import train

Configure = Callable[..., DictConfig]
RANDOM = "model.weights=random"
MODELS = sorted({file.stem for file in CONF.glob("model/*.yaml")} - {"base"})


def weights(model: str) -> list[str]:
    return [RANDOM] * model.startswith("resnet50")


def built(cfg: DictConfig) -> XRayClassifier:
    return build(cfg.model, class_names=["NORMAL", "PNEUMONIA"], image_size=cfg.dataset.image_size)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dataset", ["pneumonia", "covid"])
def test_the_reference_trains_plainly(configure: Configure, dataset: str, model: str) -> None:
    chosen = [f"dataset={dataset}", f"model={model}", *weights(model)]
    cfg = configure(*chosen, "experiment=reference")
    assert cfg.dataset.augment is None and cfg.dataset.balance == "none"
    assert cfg.model.mixup == cfg.model.label_smoothing == 0 and cfg.model.scheduler is None

    network = built(cfg)
    if "convex" not in model:  # which is solved for
        optimizer = network.configure_optimizers()
        assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["weight_decay"] == 0
    same = configure(*chosen)  # all that an experiment leaves alone is as without it
    assert plain(cfg.callbacks) == plain(same.callbacks) and cfg.dataset.split == same.dataset.split


def test_the_reference_cnn_has_ten_layers_in_training(configure: Configure) -> None:
    network = built(configure("model=cnn", "experiment=reference"))
    layers = Counter(type(m) for m in network.modules() if not list(m.children()) and type(m) is not nn.Dropout)
    assert {nn.Conv2d: 3, nn.ReLU: 3, nn.MaxPool2d: 3, nn.Linear: 1}.items() <= layers.items()
    assert nn.BatchNorm2d not in layers


def test_the_reference_head_is_linear_on_the_last_features(configure: Configure) -> None:
    network = built(configure("model=resnet50", RANDOM, "experiment=reference"))
    learned = [p.shape for p in network.parameters() if p.requires_grad]
    assert learned == [(2, 2048), (2,)]
    assert {type(layer) for layer in network.head.children()} <= {nn.Linear, nn.Dropout}


@pytest.mark.parametrize("model", MODELS)
def test_the_reference_runs(configure: Configure, model: str) -> None:
    record = train(configure(f"model={model}", *weights(model), "experiment=reference", "trainer.max_epochs=1"))
    assert record["n"] > 0 and 0 <= record["metrics"]["auroc"]["value"] <= 1


@pytest.mark.parametrize("name", sorted(file.stem for file in CONF.glob("experiment/*.yaml")))
def test_an_experiment_opens_with_its_command_its_time_and_its_score(name: str) -> None:
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    opening = "\n".join(takewhile(lambda line: line.startswith("#"), lines))
    assert f"python train.py -m experiment={name} " in opening
    assert all(word in opening for word in ("minutes on two cores", "GPU", "score"))
