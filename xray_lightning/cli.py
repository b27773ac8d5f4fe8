"""How commands start and end: overrides are checked first, errors end in one message and an exit status."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console

from xray_lightning.config import CONF, register_resolvers
from xray_lightning.console import legible
from xray_lightning.errors import XRayError, told_in_words
from xray_lightning.machine import release
from xray_lightning.overrides import check_overrides, refuse_unwritable
from xray_lightning.processes import before_telling, count_processes, is_first, is_placed, launch, rank, started
from xray_lightning.run_folders import resume_overrides, run_folder, sweep_overrides, swept_params
from xray_lightning.status import alone, note_failure
from xray_lightning.sweep import failed_runs, show_sweep

log = logging.getLogger(__name__)
# Hydra announces not to mix a plugin's configuration into a file of the same name any more, which is all the same here
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/joblib' is validated against ConfigStore schema")
Task = Callable[[DictConfig], Any]


def command(config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Makes a command of a task: Hydra's `main`, with the errors a user can cause turned into messages.

    A job of a sweep that fails is reported at once and the others go on. SIGTERM and a closed terminal end it in the
    same order as Ctrl-C. Exit status: 0, 1 where something failed, 2 for a wrong command line, 128 + n after signal n.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @wraps(task)
        def main() -> None:
            register_resolvers()
            sys.exit(_run(task, config_name))

        return main

    return decorate


def _run(task: Task, config_name: str) -> int:
    from hydra._internal.utils import get_args_parser  # the parser that hydra.main itself uses

    args = get_args_parser().parse_args()
    asks = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    sweep_dir: Path | None = None
    failures: list[str] = []
    received = _listen()
    try:
        with ExitStack() as held:
            if not asks:
                cfg = check_overrides(config_name, args.overrides)
                if args.multirun:
                    swept = [*swept_params(config_name, args.overrides), *args.overrides]
                    added, sweep_dir = sweep_overrides(cfg, swept)
                    sys.argv += added
                    held.enter_context(alone(sweep_dir, _ELSEWHERE.format(sweep_dir.name)))
                else:
                    goes_on = cfg.get("resume") and started() == 1  # several processes are told the folder
                    added = resume_overrides(config_name, args.overrides) if goes_on else []
                    overrides = [*args.overrides, *added]
                    if is_placed(overrides):
                        refuse_unwritable(run_folder(config_name, overrides), "hydra.run.dir")
                    if (count := count_processes(cfg, overrides)) > 1:
                        return _in_processes(count, run_folder(config_name, overrides))
                    sys.argv += added
            job = _guarded(task, failures, multirun=args.multirun)
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except XRayError as error:
        before_telling(error)
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _wind_up(config_name, sweep_dir)
        return 128 + (received or [signal.SIGINT])[0]
    return 1 if failures or (sweep_dir is not None and failed_runs(sweep_dir)) else 0


def _in_processes(count: int, folder: Path) -> int:
    """Gives this command to so many processes, and says what became of them if they could not."""
    status, reason = launch(count, folder)
    if reason:
        note_failure(folder, reason)
        _complain(reason)
    return status


_ELSEWHERE = (
    "Sweep {0} is being run by another process. Wait for it, or stop it and give this command again, or give this one "
    "another name: sweep=<name>."
)


def _listen() -> list[int]:
    """Makes the signals that end a process by default raise what Ctrl-C raises; returns a list of those received."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it, submitit has its own
            signal.signal(number, stop)
    return received


def _wind_up(config_name: str, sweep_dir: Path | None) -> None:
    """Shows what an interrupted command has got so far, and how to go on."""
    if not is_first():
        return
    again = ""
    if sweep_dir is not None:
        # of somebody who cannot wait, also for PyTorch, which cannot be imported again
        with suppress(KeyboardInterrupt, ImportError):
            show_sweep(sweep_dir)
        again = f" The same command with sweep={sweep_dir.name} goes on."
    elif config_name == "train":
        again = " The same command with resume=true goes on."
    _complain(f"Interrupted.{again}")


def _guarded(task: Task, failures: list[str], *, multirun: bool) -> Task:
    @wraps(task)
    def job(cfg: DictConfig) -> Any:
        register_resolvers()  # a launcher may run the job in a fresh process
        try:
            return _attempt(task, cfg, failures, multirun=multirun)
        finally:
            release()  # when neither the task nor a traceback refers to what it used

    return job


def _attempt(task: Task, cfg: DictConfig, failures: list[str], *, multirun: bool) -> Any:
    try:
        with told_in_words():
            return task(cfg)
    except SystemExit as error:  # Lightning's answer to Ctrl-C, which would end a sweep without a word
        raise KeyboardInterrupt from error
    except XRayError as error:
        before_telling(error)
        asked = cfg.debug or os.environ.get("HYDRA_FULL_ERROR") == "1"
        log.error("%s failed: %s", cfg.run_name, error, exc_info=asked)
        failures.append(cfg.run_name)
    except Exception as error:  # a fault of the program: its traceback, now; the other jobs of a sweep go on
        before_telling(error)
        if not multirun:
            raise
        log.exception("%s failed", cfg.run_name)
        failures.append(cfg.run_name)
    return float("nan")


def _complain(message: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    who = "Error" if is_first() else f"Error in process {rank() + 1}"
    console.print(f"[bold red]{who}:[/] ", end="")
    console.print(legible(message), markup=False)
