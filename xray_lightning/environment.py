"""What a result was obtained with."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "xray-lightning",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "pillow",
)


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions, device, precision, command and state of the source, as plain data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "system": platform.platform(),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "git": _git_state(),
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _git_state() -> str | None:
    """Commit of the source, with +changes where the tree differs from it; None outside a repository."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty=+changes",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
