"""What heads on frozen features have in common."""

import torch
from torch import Tensor, nn

from xray_lightning.models.whole import is_shared, moments_of_all

LEAST_STD = 0.1  # what hardly varies in training would otherwise weigh most where it does, in new images


class Standardise(nn.Module):
    """(x - mean) / std of each feature, over all rows that training has seen so far; in eval mode nothing moves.

    What varies less than LEAST_STD of the median feature is divided by that. Unlike BatchNorm's, the statistics forget
    nothing, since the features of a frozen backbone do not change, and a batch may have one row. The rows are those
    that the head trains on: mixed ones under mixup, and those of all processes where several share a batch.
    Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """

    mean: Tensor
    squares: Tensor
    rows: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("squares", torch.zeros(width))  # sum of squared distances from the mean
        self.register_buffer("rows", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width) float32 -> (B, width) float32. Before any training: the features as they are."""
        if self.training:
            self._see(features.detach())
        return (features - self.mean) / self.std()

    def std(self) -> Tensor:
        """(width,) what features are divided by."""
        return floored(torch.sqrt(self.squares / self.rows.clamp_min(1)))

    def _see(self, features: Tensor) -> None:
        count: Tensor | int = len(features)
        if is_shared():
            count, mean, squares = moments_of_all(features, (0,))
        else:
            mean = features.mean(dim=0)
            squares = (features - mean).square().sum(dim=0)
        apart, total = mean - self.mean, self.rows + count
        self.squares += squares + apart.square() * (self.rows * count / total)
        self.mean += apart * (count / total)
        self.rows += count


def floored(std: Tensor) -> Tensor:
    """(width,) standard deviations -> the same, none below LEAST_STD of their median, none zero."""
    least = LEAST_STD * std.median()
    return std.clamp_min(torch.where(least > 0, least, torch.ones_like(least)))
