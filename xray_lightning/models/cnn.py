"""The ten-layer network that is trained from scratch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from xray_lightning.errors import XRayError
from xray_lightning.models.classifier import TRAINING_ONLY, XRayClassifier


class CNNClassifier(XRayClassifier):
    """Three convolutions, three ReLU, three 2x2 max-poolings, one fully connected layer."""

    def __init__(self, channels: Sequence[int] = (16, 32, 64), kernel_size: int = 3, **shared: Any) -> None:
        super().__init__(**shared)
        self.save_hyperparameters(ignore=TRAINING_ONLY, logger=False)
        if len(channels) != 3 or min(channels) < 1:
            raise XRayError(f"model.channels={list(channels)} must be three widths, such as [16,32,64].")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise XRayError(f"model.kernel_size={kernel_size} must be an odd number, such as 3.")
        if self.image_size < 8:
            raise XRayError(f"dataset.image_size={self.image_size} is too small: three poolings need 8 or more.")
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((1, *channels)):
            layers += [
                nn.Conv2d(width_in, width_out, kernel_size, padding=kernel_size // 2),
                nn.MaxPool2d(2),  # before ReLU: the same values, since both keep order, from a quarter of the work
                nn.ReLU(),
            ]
        side = self.image_size // 8
        # channels-last lets the CPU's and the GPU's convolution kernels read without rearranging
        self.features = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.head = nn.Linear(channels[-1] * side * side, len(self.class_names))

    def forward(self, images: Tensor) -> Tensor:
        inputs = self.normalise(images).contiguous(memory_format=torch.channels_last)
        return self.head(self.features(inputs).flatten(1))

    def attribution(self) -> tuple[nn.Module, nn.Module]:
        """The map after the last pooling and ReLU: before them are values that the head never reads, those smaller
        than their neighbours and those below zero."""
        return nn.Sequential(self.features, nn.Flatten(), self.head), self.features
