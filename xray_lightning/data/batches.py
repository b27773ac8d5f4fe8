"""Batches as indices into an array."""

import mmap
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from xray_lightning.data.pixels import Images

Batch = tuple[Tensor, Tensor]
MAPPED_BYTES = 32 * 2**20  # of a file that stay in this process's memory; the page cache keeps the rest


class RowSampler:
    """The order of rows in each epoch, a function of seed and epoch alone.

    Shuffles without replacement or, given `weights`, draws as many rows with replacement in proportion to
    them. With several processes each takes every `world`-th row, all of them the same number in training.
    """

    def __init__(
        self,
        rows: np.ndarray,
        *,
        seed: int | None = None,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows = rows
        self.seed = seed
        self.weights = weights
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.seed is None:
            return len(range(self.rank, len(self.rows), self.world))
        return len(self.rows) // self.world

    def order(self) -> np.ndarray:
        if self.seed is None:
            return self.rows[self.rank :: self.world]
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.weights is None:
            order = generator.permutation(self.rows)
        else:
            order = generator.choice(self.rows, len(self.rows), p=self.weights / self.weights.sum())
        return order[self.rank :: self.world][: len(self)]


class BatchLoader:
    """Yields (inputs, labels): rows of an array, in its own dtype, and (B,) int64."""

    batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __init__(self, inputs: Images, labels: np.ndarray, sampler: RowSampler, batch_size: int) -> None:
        self.inputs = inputs
        self.labels = labels
        self.sampler = sampler
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self.sampler.order()
        mapped, read = _memory_map(self.inputs), 0
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            inputs = self.inputs[rows]
            read += inputs.nbytes
            if mapped is not None and read > MAPPED_BYTES:
                mapped.madvise(mmap.MADV_DONTNEED)
                read = 0
            yield torch.from_numpy(inputs), torch.from_numpy(self.labels[rows])


def _memory_map(array: object) -> mmap.mmap | None:
    """The file map that an array shows, on systems where pages of it can be given back."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array if hasattr(mmap, "MADV_DONTNEED") else None
