"""What a result was obtained with: enough to obtain it again, and to tell where two results part."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from xray_lightning.config import CONF
from xray_lightning.machine import cores

PACKAGE = Path(__file__).resolve().parent
# By name, since others may hold secrets: what the configuration reads, and what changes how numbers are computed.
VARIABLES = (
    *("XRAY_DATA", "XRAY_RESNET50_WEIGHTS", "XRAY_CACHE"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY"),
    *("ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_ENABLE_MPS_FALLBACK"),
)
# Of an environment, what a run's numbers depend on beside its settings.
DECISIVE = ("source", "python", "packages", "device", "devices", "threads", "cpu", "gpu", "determinism")


def environment(device: torch.device, precision: str, devices: int = 1) -> dict[str, Any]:
    """Versions, machine, source and command of this process, as plain data.

    `packages` are those that this program asks for, `installed` all others. `source` is a digest of code and
    configuration as they were when the program started, whether or not git knows them; `git` ends in +changes where
    the tree differs from the commit. `command` was given in `folder`; `overrides` are this run's own in a sweep.
    """
    able, reason = repeatability(device)
    packages, installed = _packages()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "overrides": shlex.join(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None,
        "folder": str(Path.cwd()),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        **STARTED_FROM,
        "python": platform.python_version(),
        "packages": packages,
        "installed": installed,
        "system": platform.platform(),
        "device": device.type,
        "devices": devices,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cpu": _processor(),
        "gpu": _gpu(device) if device.type == "cuda" else None,
        "repeatable": able,
        "repeatable_reason": reason,
        "determinism": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        },
    }


def repeatability(device: torch.device) -> tuple[bool, str]:
    """Whether this process gets the same numbers on `device` each time, bit for bit, and why.

    The same means the same command, packages, machine and number of threads or devices.
    """
    if device.type == "cpu":
        return True, "CPUs add in the same order each time, with the same number of threads"
    if device.type != "cuda":
        return False, f"PyTorch promises no repeatable kernels on {device.type}; trainer=cpu repeats"
    asked = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if not asked:
        return False, "some CUDA kernels add in any order; trainer.deterministic=true takes repeatable, slower ones"
    if torch.backends.cudnn.benchmark:
        return False, "trainer.benchmark=true lets cuDNN choose kernels by their speed at the time"
    return True, "trainer.deterministic=true takes repeatable CUDA kernels"


def source(files: Iterable[Path]) -> str:
    """A digest of what files are called and hold, in whatever order they come."""
    digest = hashlib.blake2b(digest_size=12)
    for file in sorted(files):
        content = hashlib.blake2b(file.read_bytes(), digest_size=12).hexdigest()
        digest.update(f"{file.parent.name}/{file.name}\0{content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _started_from() -> dict[str, str | None]:
    own = [f for f in PACKAGE.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return {"git": _git_state(PACKAGE.parent), "source": source([*own, *CONF.rglob("*.yaml")])}


def _git_state(root: Path) -> str | None:
    """The commit; None where `root` is no working tree of its own, as that of an installed package is not."""
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+changes"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@cache  # a tenth of a second, and the same for every job of a sweep
def _packages() -> tuple[dict[str, str], dict[str, str]]:
    found: dict[str, str] = {}
    for distribution in distributions():
        about = distribution.metadata
        found.setdefault(_normal(about["Name"]), about["Version"])  # the first on the path is what is imported
    asked = [re.match(r"[\w.-]+", line) for line in requires("xray-lightning") or () if "extra ==" not in line]
    own = {"xray-lightning", *(_normal(match[0]) for match in asked if match)}
    ordered = sorted(found.items())
    return {k: v for k, v in ordered if k in own}, {k: v for k, v in ordered if k not in own}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _processor() -> dict[str, Any]:
    """Name and number of cores, how many of them this process may use, and by what instructions PyTorch computes."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.10 does not tell
    return {
        "name": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "granted": cores(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "instructions": " ".join(sorted(name for name, able in can.items() if able is True)),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(device)
    try:
        driver = re.search(r"\d+(\.\d+)+", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        driver = None
    return {
        "name": ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())})),
        "visible": torch.cuda.device_count(),
        "memory_gib": round(about.total_memory / 2**30, 1),
        "capability": f"{about.major}.{about.minor}",
        "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


STARTED_FROM = _started_from()  # now: files may change while a long run is at work
