"""How commands start and end: overrides are checked first, errors end in one message and an exit status."""

import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console

from xray_lightning.config import CONF, register_resolvers
from xray_lightning.errors import XRayError
from xray_lightning.machine import release
from xray_lightning.overrides import check_overrides, run_folder, sweep_overrides
from xray_lightning.processes import before_telling, count_processes, is_first, launch, rank
from xray_lightning.status import note_failure
from xray_lightning.sweep import failed_runs, show_sweep

log = logging.getLogger(__name__)
Task = Callable[[DictConfig], Any]


def command(config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Makes a command of a task: Hydra's `main`, with the errors a user can cause turned into messages.

    A job of a sweep that fails is reported at once and the others go on. Exit status: 0, 1 where something
    failed, 2 for a wrong command line, 130 after Ctrl-C.
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
    try:
        if not asks:
            cfg = check_overrides(config_name, args.overrides)
            if args.multirun:
                added, sweep_dir = sweep_overrides(cfg, args.overrides)
                sys.argv += added
            elif (count := count_processes(cfg, args.overrides)) > 1:
                folder = run_folder(config_name, args.overrides)
                status, reason = launch(count, folder)
                if reason:
                    note_failure(folder, reason)
                    _complain(reason)
                return status
        job = _guarded(task, failures, multirun=args.multirun)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except XRayError as error:
        before_telling(error)
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        if sweep_dir is not None:
            show_sweep(sweep_dir)
        again = f" The same command with sweep={sweep_dir.name} goes on." if sweep_dir else ""
        if is_first():
            _complain(f"Interrupted.{again}")
        return 130
    return 1 if failures or (sweep_dir is not None and failed_runs(sweep_dir)) else 0


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
    console.print(message, markup=False)
