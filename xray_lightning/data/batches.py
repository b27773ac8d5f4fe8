"""Batches as indices into an array."""

import mmap
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch

from xray_lightning.data.delivery import Batch, Delivery, deliver
from xray_lightning.data.pixels import Images

CPU = torch.device("cpu")
MAPPED_BYTES = 32 * 2**20  # of a file that stay in this process's memory; the page cache keeps the rest


class RowSampler:
    """The order of rows in each epoch, a function of seed and epoch alone.

    Shuffles without replacement or, given `weights`, draws as many rows with replacement in proportion to
    them. Where there are several `versions` of the rows, `apart` rows from each other, each row drawn is one of its
    versions at random.
    """

    def __init__(
        self,
        rows: np.ndarray,
        *,
        seed: int | None = None,
        weights: np.ndarray | None = None,
        versions: int = 1,
        apart: int = 0,
    ) -> None:
        self.rows = rows
        self.seed = seed
        self.weights = weights
        self.versions = versions
        self.apart = apart
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def everything(self) -> np.ndarray:
        """All rows that some epoch may ask for."""
        return np.concatenate([self.rows + version * self.apart for version in range(self.versions)])

    def order(self) -> np.ndarray:
        if self.seed is None:
            return self.rows
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.weights is None:
            order = generator.permutation(self.rows)
        else:
            order = generator.choice(self.rows, len(self.rows), p=self.weights / self.weights.sum())
        if self.versions > 1:
            order = order + self.apart * generator.integers(self.versions, size=len(order))
        return order


def share(size: int, rank: int, world: int) -> np.ndarray:
    """The positions in a batch of `size` that process `rank` of `world` takes, ascending; none where there are too few.

    A position goes with its mirror image, counted from the end, since mixup pairs these two.
    """
    positions = np.arange(size)
    return positions[np.minimum(positions, size - 1 - positions) % world == rank]


def shares(order: np.ndarray, batch_size: int, rank: int, world: int) -> list[np.ndarray]:
    """The rows of each batch that process `rank` takes: batches are of all processes, so as many for each of them."""
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batch[share(len(batch), rank, world)] for batch in batches]


class BatchLoader:
    """Yields (inputs, labels) on `device`: rows of an array, in its own dtype, and (B,) int64.

    `inputs` may hold several views of the images one after the other: row r has label r % len(labels). Rows
    that are put on the device to stay are freed with the loader. `batch_size` counts the rows of all `world` processes;
    see `share` for those of one.
    """

    batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __init__(
        self,
        inputs: Images,
        labels: np.ndarray,
        sampler: RowSampler,
        batch_size: int,
        device: torch.device = CPU,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.device = device
        self.rank = rank
        self.world = world
        self._rows = RowReader(inputs, labels)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Begins when the first batch is asked for: Lightning sets the epoch after it calls iter."""
        yield from self._deliver(shares(self.sampler.order(), self.batch_size, self.rank, self.world))

    @cached_property
    def _deliver(self) -> Delivery:
        return deliver(self._rows, self.sampler.everything(), self.device)


class RowReader:
    """Rows of an array and their labels; of a mapped file, no more than MAPPED_BYTES stay in memory.

    Raises ValueError where there are not as many inputs for each label.
    """

    def __init__(self, inputs: Images, labels: np.ndarray) -> None:
        if len(inputs) % max(1, len(labels)):
            raise ValueError(f"{len(inputs)} inputs are not a whole number of views of {len(labels)} images.")
        self.inputs = inputs
        self.labels = labels
        self._mapped = [m for part in getattr(inputs, "views", [inputs]) if (m := _memory_map(part)) is not None]
        self._read = 0  # bytes since memory was last given back

    def __call__(self, rows: np.ndarray) -> Batch:
        inputs = self.inputs[rows]
        self._read += inputs.nbytes
        if self._read > MAPPED_BYTES:
            for mapped in self._mapped:
                mapped.madvise(mmap.MADV_DONTNEED)
            self._read = 0
        return torch.from_numpy(inputs), torch.from_numpy(self.labels[rows % len(self.labels)])


def _memory_map(array: object) -> mmap.mmap | None:
    """The file map that an array shows, on systems where pages of it can be given back."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array if hasattr(mmap, "MADV_DONTNEED") else None
