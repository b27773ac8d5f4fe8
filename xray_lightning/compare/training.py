"""Trainings of two runs: where they part, and how far apart their weights end."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from xray_lightning.compare.part import Difference, Found, change
from xray_lightning.errors import XRayError
from xray_lightning.history import read_history
from xray_lightning.models.checkpoint import read_checkpoint


def histories(a: Path, b: Path) -> Found:
    """The numbers of epochs, and all that differs in the first epoch in which anything does.

    Raises XRayError for a history.csv that is broken.
    """
    one, other = _epochs(a), _epochs(b)
    found = [Difference("epochs", len(one), len(other))] if len(one) != len(other) else []
    for number, (x, y) in enumerate(zip(one, other, strict=False), start=1):
        parted = [d for key in x | y if (d := change(f"epoch {number}: {key}", x.get(key), y.get(key)))]
        if parted:
            return min(len(one), len(other)), found + parted
    return min(len(one), len(other)), found


def _epochs(file: Path) -> list[dict[str, float | None]]:
    try:
        return read_history(file)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise XRayError(f"{file} cannot be read as a history ({error}). Run the experiment again.") from error


def weights(a: Path, b: Path) -> Found:
    """Tensors of two checkpoints that differ in any bit. Raises XRayError for a file that is no checkpoint."""
    one, other = _tensors(a), _tensors(b)
    found = []
    for name in one | other:
        x, y = one.get(name), other.get(name)
        if x is None or y is None or (x.shape, x.dtype) != (y.shape, y.dtype):
            found.append(Difference(name, _described(x), _described(y)))
        elif not torch.equal(_bits(x), _bits(y)):
            gaps = (x.double() - y.double()).abs()
            apart = int(gaps.count_nonzero())
            found.append(Difference(name, None, None, f"{gaps.max():.3g} at most, {apart} of {x.numel()} values"))
    return len(one | other), found


def _tensors(file: Path) -> dict[str, Tensor]:
    state = read_checkpoint(file)["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) and not t.is_complex() for t in state.values()):
        raise XRayError(f"{file} holds weights that are no real numbers. It is damaged or no checkpoint.")
    return {str(name): tensor for name, tensor in state.items()}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _described(tensor: Tensor | None) -> str | None:
    return None if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
