"""Networks for inference: what training needs apart, BatchNorm above all, folded into the layers beside it."""

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xray_lightning.models.head import Standardise


class Whole(nn.Module):
    """A model as it is. PyTorch's exporter takes no LightningModule itself, which refers to its trainer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class FixedScale(nn.Module):
    """Grey values 0 to 255 -> float32, (x / 255 - mean) / std in each channel; `mean` and `std` (1, C, 1, 1)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.mean) / self.std


class HalfPrecision(nn.Module):
    """Values rounded to float16, as features are kept: (B, D) float32 -> (B, D) float32."""

    def forward(self, features: Tensor) -> Tensor:
        return features.half().float()


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose BatchNorms are part of the convolutions that stand before them.

    A BatchNorm that is registered right after a convolution is taken for one that is applied to its output, as in
    `nn.Sequential` and in torchvision's networks. One that stands elsewhere stays.
    """
    copy = deepcopy(network).eval()
    for parent in list(copy.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, nn.Identity())
            before = name, child
    return copy


def fold_head(head: nn.Sequential) -> nn.Sequential:
    """A copy in eval mode without dropout, and with `Standardise` folded into the linear layer that follows it."""
    layers: list[nn.Module] = []
    for layer in head:
        if isinstance(layer, nn.Linear) and layers and isinstance(layers[-1], Standardise):
            layer = _fold_standardise(cast(Standardise, layers.pop()), layer)
        if not isinstance(layer, nn.Dropout):
            layers.append(deepcopy(layer))
    return nn.Sequential(*layers).eval()


@torch.no_grad()
def _fold_standardise(scaling: Standardise, linear: nn.Linear) -> nn.Linear:
    """weight @ ((x - mean) / std) + bias as one linear layer, computed in float64."""
    folded = deepcopy(linear)
    weight = linear.weight.double() / scaling.std().double()
    folded.weight.copy_(weight)
    folded.bias.copy_(linear.bias.double() - weight @ scaling.mean.double())
    return folded
