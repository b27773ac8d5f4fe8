"""The networks as usually written, from the settings in conf/model: the same functions, in the order of textbooks."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.feature_extraction import create_feature_extractor

from xray_lightning.models.cnn import LEAST_CONTRAST
from xray_lightning.models.head import Standardise
from xray_lightning.models.resnet50 import FEATURES


class UsualCNN(nn.Module):
    """Grey images (B, 1, S, S) from 0 to 1 -> logits (B, classes), in PyTorch's own memory layout."""

    def __init__(self, settings: Mapping[str, Any], size: int, classes: int) -> None:
        super().__init__()
        self.standardise, self.mirror = settings["standardise"], settings["mirror"]
        layers: list[nn.Module] = []
        widths, bias = pairwise((1, *settings["channels"])), not settings["batch_norm"]
        for ends, kernel, step in zip(widths, settings["kernel_size"], settings["stride"], strict=True):
            layers.append(nn.Conv2d(*ends, kernel, step, padding=kernel // 2, bias=bias))
            if settings["batch_norm"]:
                layers.append(nn.BatchNorm2d(ends[1]))
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            size = -(-size // step) // 2
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(settings["dropout"])
        self.head = nn.Linear(settings["channels"][-1] * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.standardise:
            std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
            images = (images - mean) / (std + LEAST_CONTRAST / 255)
        else:
            images = (images - 0.5) / 0.25
        if self.training or not self.mirror:
            return self.logits(images)
        return (self.logits(images) + self.logits(images.flip(3))) / 2

    def logits(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images).flatten(1)))


class Frozen(nn.Module):
    """Normalised images (B, 3, S, S) -> the means over the maps of ResNet50's stages, side by side."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        weights = settings["weights"]
        file = Path(weights).is_file()
        network = resnet50(weights=None if file or weights == "random" else weights)
        if file:
            network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
        layers = [f"layer{stage}" for stage in settings["stages"]]
        self.network = create_feature_extractor(network, layers).requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([maps.mean(dim=(2, 3)) for maps in self.network(images).values()], dim=1)


def usual_head(settings: Mapping[str, Any], classes: int) -> nn.Sequential:
    """Features -> logits (B, classes)."""
    width, hidden = sum(FEATURES[stage - 1] for stage in settings["stages"]), settings["hidden"]
    layers: list[nn.Module] = [Standardise(width), nn.Dropout(settings["feature_dropout"])]
    if hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(settings["dropout"])]
    return nn.Sequential(*layers, nn.Linear(hidden or width, classes))
