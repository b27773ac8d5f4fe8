"""The ways in which batches reach the device: the same batches, in the same order."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]
Gather = Callable[[np.ndarray], Batch]  # rows -> their inputs and labels, on the CPU
Delivery = Callable[[Sequence[np.ndarray]], Iterator[Batch]]  # the rows of each batch of an epoch -> batches

RESIDENT_SHARE = 0.25  # of the memory free, for one loader; three of them leave 42 % for the model to work in
PIECE_BYTES = 32 * 2**20  # of the host's memory, for inputs on their way to the device
AHEAD = 2  # batches gathered before they are copied, and batches copied before they are asked for


def deliver(gather: Gather, rows: np.ndarray, device: torch.device) -> Delivery:
    """The way that suits the device; `rows` are all that an epoch may ask for, in any order, some more than once."""
    return partial(mapped, gather) if device.type == "cpu" else on_device(gather, rows, device)


def on_device(gather: Gather, rows: np.ndarray, device: torch.device) -> Delivery:
    """Resident where there is room, or else streamed."""
    rows = np.unique(rows)
    size = len(rows) * sum(part.nbytes for part in gather(rows[:1]))
    fits = size <= RESIDENT_SHARE * free_memory(device)
    log.debug("%d inputs of %d MB %s %s", len(rows), size // 10**6, "stay on" if fits else "are streamed to", device)
    return resident(gather, rows, device) if fits else partial(streamed, gather, device)


def free_memory(device: torch.device) -> int:
    """Bytes; 0 for devices that cannot be asked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def mapped(gather: Gather, order: Sequence[np.ndarray]) -> Iterator[Batch]:
    """Batches on the CPU, each gathered when it is asked for."""
    return map(gather, order)


def resident(gather: Gather, rows: np.ndarray, device: torch.device) -> Delivery:
    """Puts `rows`, which are sorted and all different, on the device; an epoch then sends it their order alone."""
    inputs, labels = _uploaded(gather, rows, device)

    def batches(order: Sequence[np.ndarray]) -> Iterator[Batch]:
        places = torch.from_numpy(np.searchsorted(rows, np.concatenate([rows[:0], *order]))).to(device)
        for chosen in places.split([*map(len, order)]):
            yield inputs.index_select(0, chosen), labels.index_select(0, chosen)

    return batches


def _uploaded(gather: Gather, rows: np.ndarray, device: torch.device) -> Batch:
    first = gather(rows[:1])
    inputs, labels = (part.new_empty((len(rows), *part.shape[1:]), device=device) for part in first)
    step = max(1, PIECE_BYTES // max(1, first[0].nbytes))
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        for whole, part in zip((inputs, labels), gather(rows[piece]), strict=True):
            whole[piece].copy_(part)
    return inputs, labels


def streamed(gather: Gather, device: torch.device, order: Sequence[np.ndarray]) -> Iterator[Batch]:
    """Gathers batches in a thread, and begins to copy each before those in front of it are handed out."""
    cuda = device.type == "cuda"  # which keeps pinned memory until it is copied; MPS may read what is freed already
    fetch = partial(_pinned, gather, device) if cuda else gather
    with closing(_in_thread(fetch, order)) as batches:
        copies = (
            (inputs.to(device, non_blocking=cuda), labels.to(device, non_blocking=cuda)) for inputs, labels in batches
        )
        ready = deque(islice(copies, AHEAD))
        for copy in copies:
            ready.append(copy)
            yield ready.popleft()
        yield from ready


def _pinned(gather: Gather, device: torch.device, rows: np.ndarray) -> Batch:
    inputs, labels = gather(rows)
    with torch.cuda.device(device):  # in a new thread it is the first GPU, on which this would take memory
        return inputs.pin_memory(), labels.pin_memory()


def _in_thread(gather: Gather, batches: Iterable[np.ndarray]) -> Generator[Batch, None, None]:
    waiting: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        for rows in batches:
            waiting.append(pool.submit(gather, rows))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
