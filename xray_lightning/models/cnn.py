"""The ten-layer network that is trained from scratch."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xray_lightning.errors import XRayError
from xray_lightning.models.classifier import TRAINING_ONLY, XRayClassifier
from xray_lightning.models.folding import FixedScale, fold_batch_norms

LEAST_CONTRAST = 8.0  # grey values: so far from nothing that an even image stays even, and noise noise


class CNNClassifier(XRayClassifier):
    """Three convolutions, three ReLU, three 2x2 max-poolings, one fully connected layer.

    With `batch_norm` each convolution is followed by a BatchNorm, after training a scale and a shift of each channel,
    which can be folded into the convolution: ten layers. `standardise` scales each image by its own mean and standard
    deviation, in place of fixed ones. With `mirror` a prediction is that of the mean of the logits of an image and of
    its left-right mirror image.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        kernel_size: Sequence[int] = (3, 3, 3),
        stride: Sequence[int] = (1, 1, 1),
        batch_norm: bool = False,
        standardise: bool = False,
        mirror: bool = False,
        dropout: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.save_hyperparameters(ignore=TRAINING_ONLY, logger=False)
        _check("channels", channels, min(channels, default=0) > 0, "widths, such as [16,32,64]")
        _check("kernel_size", kernel_size, all(k > 0 and k % 2 for k in kernel_size), "odd sides, such as [3,3,3]")
        _check("stride", stride, min(stride, default=0) > 0, "steps in pixels, such as [1,1,1]")
        if not 0 <= dropout < 1:
            raise XRayError(f"model.dropout={dropout} is not valid. Give a share from 0 to below 1.")
        self.standardise, self.mirror = standardise, mirror
        if standardise:
            self.card["preprocessing"] |= {"mean": "of each image", "std": "of each image"}
        side = _side(self.image_size, stride)
        if side < 1:
            raise XRayError(
                f"dataset.image_size={self.image_size} is too small: this network needs {_least_size(stride)} or more."
            )
        layers: list[nn.Module] = []
        for (width_in, width_out), kernel, step in zip(pairwise((1, *channels)), kernel_size, stride, strict=True):
            layers += [
                nn.Conv2d(width_in, width_out, kernel, step, kernel // 2, bias=not batch_norm),
                *[nn.BatchNorm2d(width_out)] * batch_norm,
                nn.MaxPool2d(2),  # before ReLU: the same values, since both keep order, from a quarter of the work
                nn.ReLU(),
            ]
        # channels-last lets the CPU's and the GPU's convolution kernels read without rearranging
        self.features = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1] * side * side, len(self.class_names))

    def normalise(self, images: Tensor) -> Tensor:
        return OwnScale()(images) if self.standardise else super().normalise(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images)[0]

    def look(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features: the means of the last maps in the four quarters of the image."""
        images = self.normalise(inputs).contiguous(memory_format=torch.channels_last)
        maps = self.features(images)
        logits = self._logits(maps)
        if not self.training and self.mirror:
            logits = (logits + self._logits(self.features(images.flip(3)))) / 2
        return logits, F.adaptive_avg_pool2d(maps.detach(), 2).flatten(1)

    def _logits(self, maps: Tensor) -> Tensor:
        return self.head(self.dropout(maps.flatten(1)))

    def for_inference(self) -> nn.Module:
        """Ten layers, BatchNorm folded into the convolutions; both views of `mirror` pass them at once."""
        first = OwnScale() if self.standardise else FixedScale(self.mean, self.std)
        layers = nn.Sequential(fold_batch_norms(self.features), nn.Flatten(), deepcopy(self.head))
        return nn.Sequential(first, MeanOfMirrored(layers) if self.mirror else layers).eval()

    def attribution(self) -> tuple[nn.Module, nn.Module]:
        """The map after the last pooling and ReLU: before them are values that the head never reads, those smaller
        than their neighbours and those below zero."""
        return nn.Sequential(self.features, nn.Flatten(), self.head), self.features


class OwnScale(nn.Module):
    """Grey values 0 to 255 -> float32, each image (1, S, S) scaled by its own mean and standard deviation."""

    def forward(self, images: Tensor) -> Tensor:
        images = images.float()
        std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
        return (images - mean) / (std + LEAST_CONTRAST)


class MeanOfMirrored(nn.Module):
    """Normalised images (B, 1, S, S) -> the means of the logits (B, classes) of them and of their mirror images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(torch.cat([images, images.flip(3)]))
        return logits.unflatten(0, (2, -1)).mean(dim=0)


def _side(size: int, stride: Sequence[int]) -> int:
    """Of the last map."""
    for step in stride:
        size = -(-size // step) // 2
    return size


def _least_size(stride: Sequence[int]) -> int:
    """Of images whose last map has one pixel."""
    size = 1
    for step in reversed(stride):
        size = (2 * size - 1) * step + 1
    return size


def _check(key: str, values: Sequence[int], valid: bool, expected: str) -> None:
    if len(values) != 3 or not valid:
        raise XRayError(f"model.{key}={list(values)} must be three {expected}.")
