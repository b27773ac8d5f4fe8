"""Pretrained weights: a torchvision name, a state-dict file, or random."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.models.plain import Unreadable, read_plain

log = logging.getLogger(__name__)
RANDOM = "random"
DOWNLOAD_TIMEOUT = 20  # seconds without an answer


class WeightsUnavailable(XRayError):
    """Weights that exist could not be downloaded."""


def load_resnet50_weights(backbone: nn.Module, weights: str, fallback: str | None = None) -> str:
    """Loads weights into a torchvision ResNet50 whose `fc` has been taken off, and says what they are.

    `weights` is a name of `torchvision.models.ResNet50_Weights`, a file with a torchvision state dict, or
    random, which leaves the initialisation. Raises XRayError where the weights cannot be had, unless
    they could not be downloaded and `fallback` is random.
    """
    if weights == RANDOM:
        return RANDOM
    try:
        state = _state_dict(weights)
    except WeightsUnavailable as error:
        if fallback != RANDOM:
            raise
        log.warning("%s\nGoing on with RANDOM weights: the scores say nothing about the model.", error)
        return f"{RANDOM} (fallback)"
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise XRayError(
            f"model.weights={weights} does not fit torchvision's ResNet50: {reason[:300]}\n"
            "Give a state dict with torchvision's names, such as conv1.weight and layer1.0.bn1.running_mean."
        ) from error
    return Path(weights).name if Path(weights).is_file() else weights


def _state_dict(weights: str) -> Mapping[str, Tensor]:
    if Path(weights).is_file():
        stat = Path(weights).stat()
        return _read(Path(weights), stat.st_mtime_ns, stat.st_size)
    names = list(ResNet50_Weights.__members__)
    if weights not in names:
        raise XRayError(
            f"model.weights={weights} is neither a file nor the name of torchvision weights. "
            f"{did_you_mean(weights, [*names, RANDOM])}"
        )
    try:
        with _timeout():
            return ResNet50_Weights[weights].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except UnpicklingError as error:
        raise XRayError(
            f"The downloaded ResNet50 weights {weights} hold more than tensors, so they are not torchvision's. Remove "
            f"the file from {torch.hub.get_dir()}/checkpoints, and run this again."
        ) from error
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the download has a wrong hash
        raise WeightsUnavailable(
            f"The ResNet50 weights {weights} could not be downloaded ({error}).\n"
            f"Fetch {ResNet50_Weights[weights].url} on a machine with a network, then pass the file with "
            "model.weights=<file> or the variable XRAY_RESNET50_WEIGHTS."
        ) from error


@lru_cache(maxsize=1)
def _read(file: Path, mtime: int, size: int) -> Mapping[str, Tensor]:
    """Once for all jobs of a sweep, as long as time and size of the file stay the same."""
    try:
        state = read_plain(file)
    except Unreadable as problem:
        raise XRayError(
            f"model.weights={file} cannot be read as a PyTorch state dict ({problem}). "
            "Give a file that torch.save wrote from plain tensors."
        ) from problem
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise XRayError(f"model.weights={file} is not a state dict, a mapping of names to tensors.")
    return state


@contextmanager
def _timeout() -> Iterator[None]:
    """torchvision offers no timeout of its own, and a firewall that drops packets would hang for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
