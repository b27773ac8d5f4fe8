"""Errors that a user can cause, and the wording they share."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher
from errno import EDQUOT, ENOSPC, EROFS
from pathlib import Path

log = logging.getLogger(__name__)

FULL = (ENOSPC, EDQUOT, EROFS)


class XRayError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Commands print the message without a traceback and end with status 1.
    """


def did_you_mean(word: object, valid: Iterable[object]) -> str:
    """The valid words nearest to a mistyped one, or all of them where none is near, as a sentence."""
    words = sorted({str(v) for v in valid})
    typed = str(word)
    leaf = 0.95 if "." in typed else 0.85  # what the last part of a dotted key counts
    likeness = {w: max(_ratio(typed, w), leaf * _ratio(_leaf(typed), _leaf(w))) for w in words}
    near = sorted((w for w in words if likeness[w] >= 0.65), key=lambda w: -likeness[w])[:3]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    shown = words if len(words) <= 12 else [*words[:12], "…"]
    return f"Valid: {', '.join(shown)}."


def _leaf(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _ratio(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()


def why_unreadable(error: Exception) -> str:
    """The first line of what a reader says of a broken file, but not PyTorch's advice to load it unsafely."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    refused = "weights only" in line.lower().replace("_", " ")
    return "it holds more than tensors and plain data, or is no PyTorch file" if refused else line


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turns what a configuration or the file system refuses, wherever that shows, into one message."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise XRayError(f"The configuration cannot be used. {key}{error.msg or error}") from error
    except OSError as error:
        if error.errno is None:  # of a library, not of the system
            raise
        if error.errno in FULL:
            where = f" to {error.filename}" if error.filename else ""
            raise XRayError(
                f"Nothing more can be written{where} ({error.strerror}). Free space, and give the command again with "
                "resume=true, or with the sweep's name. paths.outputs and paths.cache say where files go."
            ) from error
        raise XRayError(f"{error.filename or 'A file'} cannot be used ({error.strerror}).") from error


@contextmanager
def folder_errors() -> Iterator[None]:
    """Turns what keeps a folder of images from being read, such as its permissions, into one message."""
    try:
        yield
    except OSError as error:
        raise XRayError(f"{error.filename} cannot be read ({error.strerror}). Mend its permissions.") from error


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turns what keeps a cache from being written, such as a full disk, into one message with the ways out."""
    try:
        yield
    except OSError as error:
        raise XRayError(
            f"The cache cannot be written to {folder} ({error.strerror or error}). Free space with "
            "python -m xray_lightning.cache clear=all, choose another folder with paths.cache=<folder> or the variable "
            "XRAY_CACHE, or work without a cache: cache=off."
        ) from error


@contextmanager
def plugin_errors(what: str, extra: str) -> Iterator[None]:
    """Around what a plugin of Hydra does: Hydra would print the traceback of an XRayError, here the process ends with
    its message and status 2. A module that is missing is one of the extra."""
    try:
        yield
    except (XRayError, ModuleNotFoundError) as error:
        missing = f'{what} needs the extra packages of: pip install "xray-lightning[{extra}]"'
        log.error("%s", missing if isinstance(error, ModuleNotFoundError) else error)
        raise SystemExit(2) from error
