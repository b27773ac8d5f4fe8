"""The processes of one job on several devices: which this one is, how they start, wait for each other and end."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from xray_lightning.config import build, plain
from xray_lightning.errors import XRayError

if TYPE_CHECKING:
    from lightning import Trainer

RUN_DIR = "XRAY_RUN_DIR"  # the run folder, for conf/hydra/default.yaml: each process would name it by its own time
FOREVER = timedelta(days=365)
DEVICES = ("accelerator", "devices", "num_nodes", "strategy")  # what says how many processes there are
ONE_DEVICE = {"devices": ("1",), "num_nodes": ("1",), "strategy": ("auto", "None")}


def started() -> int:
    """How many processes of this job were started: by this program, torchrun or srun."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


def rank() -> int:
    """Which of them this is, 0 the first; known before PyTorch is imported."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) if started() > 1 else 0


def is_first() -> bool:
    """Whether this process writes the run folder and speaks for all."""
    return rank() == 0


def is_placed(overrides: Sequence[str]) -> bool:
    """Whether a command line says itself where its run is to be written."""
    return any(o.lstrip("+").startswith("hydra.run.dir=") for o in overrides)


def asks_for_several(trainer: DictConfig) -> bool:
    """Whether a trainer's configuration names more than one device, without looking for devices."""
    return any(str(trainer.get(key, one[0])) not in one for key, one in ONE_DEVICE.items())


@contextmanager
def trainer_errors() -> Iterator[None]:
    """Turns what keeps a trainer from being set up, such as a device that is not there, into one message."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    try:
        yield
    except XRayError:
        raise
    except Exception as error:  # Hydra wraps what the constructors of parts raise
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, MisconfigurationException | TypeError | ValueError | RuntimeError):
            raise
        raise XRayError(
            f"The trainer cannot be set up: {cause}\n"
            "Choose a device and precision that this machine has, such as trainer=auto or trainer=cpu."
        ) from error


def count_processes(cfg: DictConfig, overrides: Sequence[str]) -> int:
    """How many processes to start for a command; 1: none, it is one of those that were started, or needs no other.

    Raises XRayError for devices that are not there and for what several processes cannot share.
    """
    several = "trainer" in cfg and asks_for_several(cfg.trainer)
    if several and "cascade" in cfg and cfg.cascade.screen:
        raise XRayError("A cascade is scored on one device: leave trainer.devices and trainer.strategy out.")
    named = RUN_DIR in os.environ or is_placed(overrides)
    if started() > 1 and not named:
        raise XRayError(
            "Processes that srun or torchrun starts need one folder, which they cannot agree on by the time: give "
            "hydra.run.dir=<folder>, such as outputs/runs/<name>."
        )
    if started() > 1 or not several:
        return 1
    from xray_lightning.arguments import check_arguments

    check_arguments(DictConfig({"trainer": plain(cfg.trainer)}))
    from lightning import Trainer

    settings = {key: cfg.trainer[key] for key in ("_target_", *DEVICES) if key in cfg.trainer}
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the processes tell which devices there are
    with trainer_errors():
        trainer = build(DictConfig(settings), Trainer, logger=False, enable_checkpointing=False)
    _refuse_strategy(trainer, str(cfg.trainer.get("strategy")))
    if trainer.num_nodes > 1:
        raise XRayError(
            f"trainer.num_nodes={trainer.num_nodes}: start this command on each of them, by srun or torchrun, with "
            "hydra.run.dir=<one folder that all of them see>."
        )
    return trainer.num_devices


def _refuse_strategy(trainer: "Trainer", strategy: str) -> None:
    """Raises XRayError unless each process has the whole model and runs the whole command."""
    from lightning.pytorch.strategies import DDPStrategy

    is_ddp = isinstance(trainer.strategy, DDPStrategy) and not any(s in strategy for s in ("spawn", "fork", "notebook"))
    if trainer.num_devices * trainer.num_nodes > 1 and not is_ddp:
        raise XRayError(f"trainer.strategy={strategy} is not supported on several devices. Give ddp.")


def refuse_other_numbers(trainer: "Trainer", cfg: DictConfig) -> None:
    """Raises XRayError unless as many processes were started as the trainer counts on, and can share their work."""
    _refuse_strategy(trainer, str(cfg.trainer.get("strategy")))
    wanted = trainer.num_devices * trainer.num_nodes
    if wanted != started():
        raise XRayError(
            f"trainer.devices and trainer.num_nodes ask for {wanted} processes, but there are {started()}. With srun "
            "or torchrun start as many on each node as trainer.devices says; otherwise use python train.py, without -m."
        )
    if wanted > 1 and cfg.cache == "off":
        raise XRayError("cache=off: several processes share their images and features in the cache. Set cache=on.")


@contextmanager
def first_alone(trainer: "Trainer") -> Iterator[None]:
    """The first process does it while the others wait, however long; then they do it, and find results in the cache."""
    if trainer.world_size == 1:
        yield
        return
    from torch import distributed

    trainer.strategy.setup_environment()
    group: Any = distributed.new_group(backend="gloo", timeout=FOREVER)
    if not trainer.is_global_zero:
        distributed.barrier(group)
    yield
    if trainer.is_global_zero:
        distributed.barrier(group)


def before_telling(error: BaseException) -> None:
    """Called before an error is told. What all processes meet, the first one tells, and the others are ended meanwhile;
    what a process says that has only lost another one, which is ended meanwhile too, would hide what happened."""
    if started() > 1 and not isinstance(error, KeyboardInterrupt):
        time.sleep(5 if not is_first() else 0 if isinstance(error, XRayError) else 2)


def launch(count: int, folder: Path) -> tuple[int, str]:
    """Runs this command in `count` processes. When one fails, the others are ended.

    Returns the exit status, and of a process that could not tell itself what happened.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # of what the launcher says, in each module's own level; it is all told below
    os.environ[RUN_DIR] = str(folder)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        max_restarts=0,
        run_id=f"xray-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any port that is free
        local_addr="localhost",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    try:
        elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
    except SignalException as signal:
        return 128 + signal.sigval, ""
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if number == 0 and failure.exitcode > 0:
            return failure.exitcode, ""
        how = "failed" if failure.exitcode > 0 else f"was ended by {failure.signal_name()}"
        return 1, f"Process {number + 1} of {count} {how}. The others were stopped."
    return 0, ""
