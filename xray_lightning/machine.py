"""The machine that jobs run on: this process's share of its processors, and how PyTorch and malloc use it."""

import ctypes
import gc
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h; mallopt(3) says what they do
OWN_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
OWN_MALLOC = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def cores(root: Path = Path("/")) -> int:
    """How many processors this process may keep busy, at least 1.

    The smallest of those that it may be scheduled on, those that its SLURM job asked for, and the processor time that
    its control groups grant, rounded up. The latter is how containers are limited, and os.cpu_count() and PyTorch do
    not see it. What cannot be read sets no limit. `root` is where /proc and /sys lie.
    """
    return max(1, math.ceil(min([_schedulable(), _requested(), *map(_granted, _control_groups(root))])))


def settle(precision: str) -> None:
    """Fits PyTorch and malloc to this machine for a job in `precision`, as Lightning names it: 32-true, bf16-mixed, ….

    Every job of a sweep calls it, since they share a process. What the user set by environment variables stays.
    """
    import torch  # here, since it takes seconds, and cores() does without

    # By itself PyTorch takes a thread per physical core. Where a container grants less, they wait for each other.
    share = cores()
    if share < torch.get_num_threads() and not any(name in os.environ for name in OWN_THREADS):
        torch.set_num_threads(share)
    _keep_freed_memory()
    # Where 16 bits will do, convolutions left in float32 may use the GPU's TF32; otherwise float32 is float32, and so
    # are products of matrices, such as heads on features. These flags are CUDA's alone: set_float32_matmul_precision()
    # is for CPUs too. Newer ones, named fp32_precision, make PyTorch 2.10 to 2.15 raise an error when Lightning 2.6
    # asks for the precision.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = "16" in precision


def release() -> None:
    """Gives the memory of a job that has ended back to the GPU and the system."""
    gc.collect()  # trainer, model and data refer to each other
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


def _schedulable() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13, where PYTHON_CPU_COUNT may set it
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _requested() -> float:
    """Processors of a task of a SLURM job, which not every cluster enforces; infinite elsewhere."""
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(asked) if asked.isdecimal() else math.inf


def _control_groups(root: Path) -> Iterator[Path]:
    """Folders of the groups whose limits on processor time hold for this process: its own and all above them.

    Its line in /proc/self/cgroup is 0::<path> in version 2, and <number>:cpu,cpuacct:<path> in version 1.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = mount / path.lstrip("/")  # may be named as the host names it and be missing here: those above count
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _granted(group: Path) -> float:
    """Seconds of processor time per second; infinite where there is no limit or none can be read."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # version 2, version 1
        try:
            quota, period = " ".join((group / file).read_text() for file in files).split()
            if int(quota) > 0:  # version 1 writes -1 for no limit, version 2 max
                return int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


def _keep_freed_memory() -> None:
    """Makes malloc keep what is freed for what comes next, where it is glibc's.

    By itself it maps every tensor of tens of megabytes anew and unmaps it after use, and the kernel zeroes all its
    pages each time. Measured for training the CNN on two cores of an Intel Xeon: 3.9 million page faults and 450
    images/s before, 0.18 million and 590 images/s after. The peak of memory is the same or up to a fifth higher.
    """
    libc = _glibc()
    if libc is None or any(name in os.environ for name in OWN_MALLOC):
        return
    libc.mallopt(M_MMAP_MAX, 0)  # no block of its own for a large tensor. A refusal (0) leaves things as they were.
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # and none of the heap back to the system, until malloc_trim


def _glibc() -> ctypes.CDLL | None:
    """The C library where it has glibc's own calls; None for others. A preloaded malloc is not disturbed by them."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # a static Python; Windows
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
