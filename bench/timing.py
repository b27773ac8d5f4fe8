"""What the benchmarks share: a clock, the best of some runs, peak memory and a table."""

import resource
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table


def now() -> float:
    """Seconds on a clock, read when the GPU, where there is one, has done all that it was given to do."""
    import torch  # here, since it takes seconds, and half of the benchmarks do without

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def best_of(run: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest run; the first also warms caches."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak_megabytes() -> float:
    """Most memory that this process has had resident so far, files it maps included, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = Table(*header)
    for row in rows:
        shown.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
