"""A sweep's results, gathered from its run folders after every job, in whatever order and place they ran."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from xray_lightning.artifacts import read_json
from xray_lightning.evaluation.cascade_table import CascadeRow, show_cascades
from xray_lightning.evaluation.runs import gather, gather_cascades, read_run_folder, write_tables
from xray_lightning.evaluation.table import Row, show_results
from xray_lightning.processes import is_first
from xray_lightning.status import FAILED

log = logging.getLogger(__name__)


def failed_runs(sweep_dir: Path) -> list[Row | CascadeRow]:
    every: list[Row | CascadeRow] = [*gather(sweep_dir), *gather_cascades(sweep_dir)]
    return [row for row in every if row.state == FAILED]


def show_sweep(sweep_dir: Path) -> None:
    """Writes tables, comparisons, ensembles and the report of what there is so far, and prints the results."""
    # a second that --help need not wait for
    from xray_lightning.evaluation.ensemble import write_ensembles
    from xray_lightning.evaluation.report.page import write_report
    from xray_lightning.evaluation.versus import compare_runs

    rows, cascades = write_tables(sweep_dir)
    steps: list[partial[Any]] = []
    if rows:
        steps += [partial(compare_runs, sweep_dir, rows), partial(write_ensembles, sweep_dir, rows)]
    if rows or cascades:
        steps.append(partial(write_report, sweep_dir))
    for step in steps:
        try:
            step()
        except OSError as error:  # a full disk, say
            log.error("The results are complete, but not what %s makes of them: %s", step.func.__name__, error)
        except Exception:  # what is only looked at must hide neither the results nor the next step
            log.exception("The results are complete, but not what %s makes of them", step.func.__name__)
    if rows:
        show_results(rows, sweep_dir)
    if cascades:
        show_cascades(cascades, sweep_dir)


class SweepCallback(Callback):
    """Shows the results of a run at its end. Of a sweep, rewrites the tables after each job."""

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        from xray_lightning.evaluation.promises import show_promises

        folder = Path(config.hydra.runtime.output_dir)
        if is_first() and read_json(folder / "metrics.json"):
            run = read_run_folder(folder)
            show_results([run], folder)
            show_promises(run.record or {})

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode is not None and config.hydra.mode.name == "MULTIRUN":
            folder = Path(config.hydra.sweep.dir)
            # of jobs that end together, the last one to write has seen both
            with _disk_errors(folder), FileLock(folder / ".results.lock"):
                write_tables(folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        with _disk_errors(folder):
            show_sweep(folder)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Says that the tables could not be written, of which Hydra would make a warning of its own."""
    try:
        yield
    except OSError as error:
        again = f"python -m xray_lightning.evaluation.report {shlex.quote(str(folder))}"
        log.error("The tables of %s cannot be written (%s). To make them again: %s", folder, error.strerror, again)
