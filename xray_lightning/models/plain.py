"""PyTorch files from anywhere: nothing in them is executed, and reading them takes no more memory than they have."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xray_lightning.artifacts import is_stored
from xray_lightning.errors import why_unreadable

LONGEST_INT = 63  # bits


class Unreadable(Exception):
    """A file that is not taken; the message is the reason, without the file's name."""


def read_plain(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU: dicts, lists, tuples, texts, numbers and dense tensors.

    Raises Unreadable for anything else, and for a file that claims to hold more than it has bytes, by compression, by
    tensors that repeat their values or by containers that hold each other.
    """
    try:
        if zipfile.is_zipfile(path) and not is_stored(path):
            raise Unreadable("it would unpack to more than it has, or is compressed, which torch.save does not do")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Unreadable:
        raise
    except Exception as error:  # of a damaged file the unpickler raises whatever it stumbles over
        raise Unreadable(why_unreadable(error)) from error
    _check(content, path.stat().st_size)
    return content


def _check(content: Any, most: int) -> None:
    """Visits every value as often as it is held, so that one that is held in many places counts for each.

    `most` is the file's size in bytes, of which each value and each byte of a tensor takes one at least.
    """
    left, counted = [content], 1
    while left:
        value = left.pop()
        if isinstance(value, dict):
            inner = [*value, *value.values()]
        elif type(value) in (list, tuple):
            inner = list(value)
        elif not _is_plain(value):
            raise Unreadable(f"it holds a {type(value).__name__}, which is more than dense tensors and plain data")
        else:
            inner = []
            counted += value.numel() * value.element_size() if isinstance(value, Tensor) else 0
        counted += len(inner)
        if counted > most:
            raise Unreadable("it would unpack to more than it has")
        left += inner


def _is_plain(value: Any) -> bool:
    if type(value) in (Tensor, nn.Parameter):
        return value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    if type(value) is int:
        return value.bit_length() <= LONGEST_INT
    return value is None or type(value) in (str, float, bool)
