"""Augmentation of a whole batch at once, each sample on its own, on the device the batch is on."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xray_lightning.errors import XRayError

AUGMENTATION = 1  # keeps its random numbers apart from others drawn with the same seed


@dataclass(frozen=True)
class CropRotateJitter:
    """Random resized crop, rotation, left-right flip, brightness and contrast.

    Crop, rotation and flip are one affine map, so the image is resampled once. Its random numbers are drawn
    apart, on the CPU, so that every device augments alike.
    """

    scale: Sequence[float] = (0.5, 1.0)
    ratio: Sequence[float] = (0.75, 1.33)
    degrees: float = 10.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():  # [1, 2] of a configuration is the same as (1.0, 2.0)
            plain = tuple(map(float, value)) if isinstance(value, Sequence) else float(value)
            object.__setattr__(self, key, plain)
        scale, ratio = self.scale, self.ratio
        ordered = len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1
        _check("scale", scale, ordered, "two shares in order, such as [0.5, 1.0]")
        ordered = len(ratio) == 2 and 0 < ratio[0] <= ratio[1]
        _check("ratio", ratio, ordered, "two positive numbers in order, such as [0.75, 1.33]")
        _check("brightness", self.brightness, self.brightness >= 0, "0 or more")
        _check("contrast", self.contrast, self.contrast >= 0, "0 or more")
        _check("flip", self.flip, 0 <= self.flip <= 1, "a probability from 0 to 1")

    def draws(self, count: int, *key: int) -> Tensor:
        """(count, 8) float32, 0 to 1: the random numbers of so many images, a function of `key` alone."""
        generator = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(AUGMENTATION,)))
        return torch.from_numpy(generator.random((count, 8), dtype=np.float32))

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """(B, C, H, W) with values 0 to 255 and (B, 8) draws -> the same shape, float32, values 0 to 255."""
        theta = self._affine(draws)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        cropped = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        gain = (1 + self.contrast * (2 * draws[:, 6] - 1)).view(-1, 1, 1, 1)
        shift = (255 * self.brightness * (2 * draws[:, 7] - 1)).view(-1, 1, 1, 1)
        mean = cropped.mean(dim=(1, 2, 3), keepdim=True)
        return ((cropped - mean) * gain + mean + shift).clamp_(0, 255)

    def _affine(self, draws: Tensor) -> Tensor:
        """(B, 2, 3) maps from output to input positions, in the -1 to 1 coordinates of `affine_grid`."""
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, 0]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        aspect = torch.exp(low + (high - low) * draws[:, 1])
        aspect = aspect.clamp(min=area, max=1 / area)  # so that neither side is longer than the image's
        width = (area * aspect).sqrt()
        height = (area / aspect).sqrt()
        x = (1 - width) * (2 * draws[:, 2] - 1)
        y = (1 - height) * (2 * draws[:, 3] - 1)
        angle = torch.deg2rad(self.degrees * (2 * draws[:, 4] - 1))
        mirror = 1 - 2 * (draws[:, 5] < self.flip).float()
        cos, sin = angle.cos(), angle.sin()
        rows = [
            torch.stack([width * cos * mirror, -height * sin, x], dim=1),
            torch.stack([width * sin * mirror, height * cos, y], dim=1),
        ]
        return torch.stack(rows, dim=1)


def _check(key: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise XRayError(f"dataset.augment.{key}={value} is not valid. Give {expected}.")
