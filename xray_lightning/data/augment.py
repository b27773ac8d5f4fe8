"""Augmentation of a whole batch at once, each sample on its own, on the device the batch is on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from xray_lightning.errors import XRayError


class CropRotateJitter:
    """Random resized crop, rotation, left-right flip, brightness and contrast.

    Crop, rotation and flip are one affine map, so the image is resampled once. The random numbers are drawn on
    the CPU from the generator given, so that every device augments alike.
    """

    def __init__(
        self,
        scale: Sequence[float] = (0.5, 1.0),
        ratio: Sequence[float] = (0.75, 1.33),
        degrees: float = 10.0,
        flip: float = 0.5,
        brightness: float = 0.2,
        contrast: float = 0.2,
    ) -> None:
        _check(
            "scale", scale, len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1, "two shares in order, such as [0.5, 1.0]"
        )
        _check(
            "ratio",
            ratio,
            len(ratio) == 2 and 0 < ratio[0] <= ratio[1],
            "two positive numbers in order, such as [0.75, 1.33]",
        )
        _check("brightness", brightness, brightness >= 0, "0 or more")
        _check("contrast", contrast, contrast >= 0, "0 or more")
        _check("flip", flip, 0 <= flip <= 1, "a probability from 0 to 1")
        self.scale = scale
        self.ratio = ratio
        self.degrees = degrees
        self.flip = flip
        self.brightness = brightness
        self.contrast = contrast

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) with values 0 to 255 -> the same shape, float32, values 0 to 255."""
        count = len(images)
        draws = torch.rand(count, 8, generator=generator)
        theta = self._affine(draws).to(images.device)
        shape = [count, images.shape[1], *images.shape[2:]]
        grid = F.affine_grid(theta, shape, align_corners=False)
        cropped = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        gain = (1 + self.contrast * (2 * draws[:, 6] - 1)).to(images.device).view(-1, 1, 1, 1)
        shift = (255 * self.brightness * (2 * draws[:, 7] - 1)).to(images.device).view(-1, 1, 1, 1)
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
