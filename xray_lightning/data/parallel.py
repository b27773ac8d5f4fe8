"""Work on many files at once, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from xray_lightning.console import progress
from xray_lightning.machine import cores

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 64  # results that may wait for their turn
READING = 4  # threads that may wait for the disk while the others decode
MOST_THREADS = 32  # more would wait for each other: a part of the work on each image is Python


def workers() -> ThreadPoolExecutor:
    """Threads that keep this process's share of the processors busy with files; the caller ends them."""
    return ThreadPoolExecutor(min(cores() + READING, MOST_THREADS))


def in_order(function: Callable[[T], R], items: Sequence[T], description: str) -> Iterator[R]:
    """function(item) for each item, in the order of items, computed by threads, with a progress bar.

    For work that lets other threads run: reading, hashing, and decoding and resizing with Pillow.
    """
    return progress(_ahead(function, items), description, total=len(items))


def _ahead(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    waiting: deque[Future[R]] = deque()
    with workers() as pool:
        try:
            for item in items:
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
