"""Layers that see the whole batch when several processes share it, so that a network trains as in one process."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from xray_lightning.data.batches import share


def is_shared() -> bool:
    """Whether other processes hold the rest of each batch."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def share_batches(network: nn.Module) -> None:
    """Makes layers that train see the whole batch: BatchNorm2d by its statistics, Dropout by its random numbers.

    In place and with their parameters. Layers of other kinds stay as they are, and see this process's part alone.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child.training and type(child) is nn.BatchNorm2d:
                setattr(parent, name, WholeBatchNorm(child))
            elif child.training and type(child) is nn.Dropout:
                setattr(parent, name, WholeDropout(child.p))


def sum_of_all(values: Tensor) -> Tensor:
    """The sum over all processes, through which gradients pass; every process must call it."""
    return _SumOfAll.apply(values)


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of what the processes have, each counting as much as the others."""
    return sum_of_all(values) / distributed.get_world_size()


class _SumOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOfAll.forward(ctx, *gradients)


def moments_of_all(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Of `values` (B, C, ...) in all processes: their number (), mean (C,) and summed squared distances from it (C,).

    `dims` are all but the second.
    In two passes, so that no digits cancel. Some process may have no values.
    """
    shape = [1 if d in dims else size for d, size in enumerate(values.shape)]
    sums = sum_of_all(torch.cat([values.sum(dim=dims), values.new_tensor([values[:, 0].numel()])]))
    count, mean = sums[-1], sums[:-1] / sums[-1]
    return count, mean, sum_of_all((values - mean.view(shape)).square().sum(dim=dims))


class WholeBatchNorm(nn.BatchNorm2d):
    """As torch.nn.SyncBatchNorm, which takes no tensors on CPUs: the statistics are those of all processes."""

    def __init__(self, like: nn.BatchNorm2d) -> None:
        """Takes the parameters and statistics of `like`, which it replaces."""
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats)
        self._parameters, self._buffers = like._parameters, like._buffers

    def forward(self, maps: Tensor) -> Tensor:
        if not (self.training and is_shared()):
            return super().forward(maps)
        with torch.autocast(maps.device.type, enabled=False):
            values = maps.float()
            count, mean, squares = moments_of_all(values, (0, 2, 3))
            self._remember(mean.detach(), squares.detach() / (count - 1).clamp_min(1).detach())
            scale = torch.rsqrt(squares / count + self.eps)
            shift = -mean * scale
            if self.affine:
                scale, shift = scale * self.weight, shift * self.weight + self.bias
            return (values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(maps.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class WholeDropout(nn.Dropout):
    """Draws for the whole batch, as one process would, and takes this process's rows of it.

    So the processes' random numbers, which start equal, stay equal.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if not (self.training and self.p and is_shared()):
            return super().forward(inputs)
        size = int(sum_of_all(torch.tensor(len(inputs), device=inputs.device)))
        own = share(size, distributed.get_rank(), distributed.get_world_size())
        kept = F.dropout(inputs.new_ones((size, *inputs.shape[1:])), self.p)
        return inputs * kept[torch.from_numpy(own).to(inputs.device)]
