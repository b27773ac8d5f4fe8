"""Loggers that cannot cost a run its results: one that fails is told of once, and silent from then on."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import getattr_static, isfunction
from typing import Any, Literal
from weakref import finalize

from hydra.errors import InstantiationException
from lightning.fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig

from xray_lightning.config import build, refuse_cut_path
from xray_lightning.errors import XRayError
from xray_lightning.processes import is_first

log = logging.getLogger(__name__)
SILENT = "_silent"  # an attribute that a logger gets when it fails


class WandbRun(WandbLogger):
    """Lightning's logger for W&B, whose run ends with it: Lightning leaves the run open, and a sweep's next job goes on
    in it. Needs settings.reinit=create_new."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        begins = self._experiment is None
        run = super().experiment
        if begins:
            finalize(self, _end, run)
        return run


def _end(run: Any) -> None:
    try:
        run.finish()
    except Exception as error:  # such as a server that is gone, where there is nobody left to raise it to
        _tell(WandbRun.__name__, error)


def build_logger(cfg: DictConfig | None) -> Logger | Literal[False]:
    """The logger that a configuration names, guarded; False for none, and for one that cannot be set up.

    Raises XRayError where the packages of an extra are missing, and for what is no logger.
    """
    if not cfg or not is_first():  # of several processes the first one writes
        return False
    refuse_cut_path(str(cfg.get("tracking_uri")), "logger.tracking_uri")
    try:
        logger = build(cfg, Logger)
    except XRayError:
        raise
    except Exception as error:
        reason = error.__cause__ or error if isinstance(error, InstantiationException) else error
        if isinstance(reason, ModuleNotFoundError):
            raise XRayError(
                f"{cfg._target_} needs a package that is not installed. To install those of logger=mlflow and "
                'logger=wandb: pip install "xray-lightning[mlflow]" or pip install "xray-lightning[wandb]". '
                "logger=tensorboard and logger=csv need none."
            ) from error
        _tell(str(cfg._target_), reason)
        return False
    return guarded(logger)


def guarded(logger: Logger) -> Logger:
    """The same object, of a class derived from its own, none of whose public methods and properties raises."""
    kind = type(logger)
    members: dict[str, Any] = {}
    for name in dir(kind):
        member = getattr_static(kind, name)
        if name.startswith("_"):
            continue
        if isinstance(member, property) and member.fget:
            members[name] = property(_spared(member.fget, _DummyExperiment() if name == "experiment" else None))
        elif isfunction(member):
            members[name] = _spared(member, None)
    logger.__class__ = type(kind.__name__, (kind,), members)
    return logger


def _spared(call: Callable[..., Any], instead: Any) -> Callable[..., Any]:
    @wraps(call)
    def attempt(logger: Logger, *args: Any, **kwargs: Any) -> Any:
        if hasattr(logger, SILENT):
            return instead
        with spared(logger):
            return call(logger, *args, **kwargs)
        return instead

    return attempt


@contextmanager
def spared(logger: Logger) -> Iterator[None]:
    """Keeps what goes wrong with a logger from the run."""
    try:
        yield
    except Exception as error:
        if not hasattr(logger, SILENT):
            setattr(logger, SILENT, True)
            _tell(type(logger).__name__, error)


def _tell(name: str, error: BaseException) -> None:
    while error.__cause__ is not None:  # Lightning's own words on a full disk are of unsupported values
        error = error.__cause__
    reason = (str(error).strip().splitlines() or [""])[0]
    log.warning("%s failed (%s: %s). The run goes on without it.", name, type(error).__name__, reason)


def _hook(told: Callable[[threading.ExceptHookArgs], Any]) -> Callable[[threading.ExceptHookArgs], Any]:
    def hook(args: threading.ExceptHookArgs) -> None:
        """TensorBoard's writer raises again, in the next call, what its thread met: no traceback is wanted twice."""
        if not type(args.thread).__module__.startswith("tensorboard."):
            told(args)

    return hook


threading.excepthook = _hook(threading.excepthook)
