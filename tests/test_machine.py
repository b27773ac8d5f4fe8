"""The share of a machine that a process has, and what jobs do with it."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from xray_lightning import machine
from xray_lightning.data import parallel
from xray_lightning.machine import cores, release, settle

V2, V1 = "0::/pod/job\n", "12:cpuset:/x\n4:cpu,cpuacct:/pod/job\n3:cpuacct:/x\n"
GROUPS = "sys/fs/cgroup"


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Variables of whoever runs the tests have no say here, and later tests see nothing of what these set."""
    for name in (*machine.OWN_THREADS, *machine.OWN_MALLOC, "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": V2, f"{GROUPS}/pod/job/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": V2, f"{GROUPS}/pod/job/cpu.max": "210000 100000\n"}, 3),
        ({"proc/self/cgroup": V2, f"{GROUPS}/pod/job/cpu.max": "5000 100000\n"}, 1),
        ({"proc/self/cgroup": V2, f"{GROUPS}/pod/job/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": V2, f"{GROUPS}/pod/job/cpu.max": "6400000 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": V2,
                f"{GROUPS}/pod/job/cpu.max": "max 100000\n",
                f"{GROUPS}/pod/cpu.max": "300000 100000\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/\n", f"{GROUPS}/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/../job\n", f"{GROUPS}/cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu/pod/job/cpu.cfs_quota_us": "150000\n",
                f"{GROUPS}/cpu/pod/job/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": V1 + V2,
                f"{GROUPS}/cpu/cpu.cfs_quota_us": "50000\n",  # the host's path is not seen in the container
                f"{GROUPS}/cpu/cpu.cfs_period_us": "10000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu/pod/job/cpu.cfs_quota_us": "-1\n",
                f"{GROUPS}/cpu/pod/job/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({"proc/self/cgroup": "3:cpuacct:/\n", f"{GROUPS}/cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_the_quota_of_control_groups_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(machine, "_schedulable", lambda: 8)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores(tmp_path) == expected


@pytest.mark.parametrize("group", [b"", b"none", b"0::", b"4:cpu:\n\n:::", b"0::/\xff\n"])
@pytest.mark.parametrize("limit", [None, b"", b"1", b"1 2 3", b"one 100000", b"100000 0", b"0 0", b"\xff 1"])
def test_what_cannot_be_read_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: bytes, limit: bytes | None
) -> None:
    monkeypatch.setattr(machine, "_schedulable", lambda: 8)
    assert cores(tmp_path) == 8
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(group)
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        file = tmp_path / GROUPS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.mkdir() if limit is None else file.write_bytes(limit)
    assert cores(tmp_path) == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound to a processor here")
def test_processors_that_the_process_is_kept_from_do_not_count() -> None:
    def bound() -> int:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread alone, which ends soon
        return cores()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(bound).result() == 1
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("share", "variables", "expected"),
    [
        (2, {}, 2),
        (6, {}, 6),
        (12, {}, 6),  # PyTorch's own choice, the physical cores
        (2, {"OMP_NUM_THREADS": "5"}, 6),
        (2, {"MKL_NUM_THREADS": "5"}, 6),
    ],
)
def test_pytorch_takes_no_more_threads_than_there_are_processors(
    monkeypatch: pytest.MonkeyPatch, share: int, variables: dict[str, str], expected: int
) -> None:
    threads = [6]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(machine, "cores", lambda: share)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settle("32-true")
    settle("32-true")
    assert threads[-1] == expected


def test_float32_convolutions_are_tf32_only_in_jobs_of_16_bits() -> None:
    for precision, tf32 in [("bf16-mixed", True), ("32-true", False), ("16-mixed", True), ("64-true", False)]:
        settle(precision)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, tf32)
        assert torch.get_float32_matmul_precision() == "highest"  # as Lightning asks


def test_cpus_compute_the_same_float32_in_jobs_of_16_bits() -> None:
    left, right = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    settle("32-true")
    real = left @ right, torch.backends.mkldnn.matmul.fp32_precision, torch.backends.mkldnn.conv.fp32_precision
    settle("bf16-mixed")
    same = left @ right, torch.backends.mkldnn.matmul.fp32_precision, torch.backends.mkldnn.conv.fp32_precision
    assert torch.equal(real[0], same[0]) and real[1:] == same[1:]


class Libc:
    """Notes what is asked of it, and refuses."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked.append(("mallopt", parameter, value))
        return 0

    def malloc_trim(self, pad: ctypes.c_size_t) -> int:
        self.asked.append(("malloc_trim", pad.value, 0))
        return 0


@pytest.mark.parametrize("variable", [None, *machine.OWN_MALLOC])
def test_malloc_is_left_as_the_user_set_it(monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    libc = Libc()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
    if variable:
        monkeypatch.setenv(variable, "1")
    settle("32-true")
    assert libc.asked == ([] if variable else [("mallopt", -4, 0), ("mallopt", -1, -1)])
    libc.asked.clear()
    release()
    assert libc.asked == [("malloc_trim", 0, 0)]


@pytest.mark.parametrize("error", [None, OSError, TypeError])
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None) -> None:
    def load(name: None) -> object:
        if error:
            raise error
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    settle("32-true")
    release()


def test_the_gpu_gets_its_memory_back_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    release()
    assert not emptied
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    release()
    assert emptied


MEASURE = """
import json, resource, sys
from xray_lightning.machine import cores, release, settle
cores()
asked_for_torch = "torch" in sys.modules
import torch

def faults(times=10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(2**23)  # 32 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

before = faults()
settle("32-true")
settle("32-true")
faults(30)  # until there are freed blocks that fit
after = faults()
held = [torch.ones(2**23) for _ in range(8)]
del held
kept = resident()
release()
print(json.dumps([asked_for_torch, before, after, kept - resident()]))
"""


@pytest.mark.skipif(machine._glibc() is None, reason="malloc is not glibc's")
def test_memory_is_kept_within_a_job_and_given_back_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120, check=True)
    asked_for_torch, before, after, given_back = json.loads(done.stdout)
    assert not asked_for_torch
    assert before >= 5 * after
    assert given_back > 200  # of 8 * 32 MB


@pytest.mark.parametrize(("share", "expected"), [(1, 5), (2, 6), (100, 32)])
def test_files_are_read_by_a_few_more_threads_than_processors(
    monkeypatch: pytest.MonkeyPatch, share: int, expected: int
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: share)
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", lambda threads: threads)
    assert parallel.workers() == expected
