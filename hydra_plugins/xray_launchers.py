"""Launchers of a sweep's jobs, on a cluster or on one big machine, for which a job that dies is a failed run.

Hydra looks for plugins in this package alone, and imports all its modules at each start: imports are in functions.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from xray_lightning.errors import XRayError, plugin_errors

log = logging.getLogger(__name__)
POLL = 2  # seconds between two looks at a job
GRACE = 10  # seconds that the result of a job may take to show on a shared folder


class SubmititLauncher(Launcher):
    """Jobs of hydra-submitit-launcher, submitted at once; waits until each has ended, however it ends.

    `cluster` is slurm, or local for processes of this machine. `parameters` are submitit's: those without a prefix
    are common to its clusters, slurm_… are SLURM's. A job that is stopped by its time limit is queued again up to
    `slurm_max_num_timeout` times.
    """

    def __init__(self, cluster: str, folder: str, slurm_max_num_timeout: int = 0, **parameters: Any) -> None:
        with plugin_errors(f"hydra/launcher={cluster}", "slurm"):
            from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

            if cluster == "slurm" and shutil.which("sbatch") is None:
                raise XRayError("hydra/launcher=slurm is for a machine that submits to SLURM: there is no sbatch here.")
        self.cluster = cluster
        self.folder = folder
        self.retries = slurm_max_num_timeout
        self.parameters = parameters
        self.job = BaseSubmititLauncher()  # what runs as a job

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.job.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        with plugin_errors(f"hydra/launcher={self.cluster}", "slurm"):
            jobs = self._submit(job_overrides, initial_job_idx)
        try:
            return [self._result(job, own) for job, own in zip(jobs, job_overrides, strict=True)]
        except KeyboardInterrupt:
            for job in jobs:
                job.cancel(check=False)
            raise

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[Any]:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        logging.getLogger("submitit").setLevel(logging.ERROR)  # without accounts it warns at each look at the jobs
        state = Singleton.get_state()
        calls = [(list(own), "hydra.sweep.dir", first + i, "", state) for i, own in enumerate(job_overrides)]
        try:
            executor = AutoExecutor(self.folder, cluster=self.cluster, slurm_max_num_timeout=self.retries)
            executor.update_parameters(**self.parameters)
            with _silent_children():  # those that look after local jobs answer Ctrl-C with tracebacks
                return executor.map_array(self.job, *zip(*calls, strict=True))
        except (FailedJobError, FailedSubmissionError, NameError) as error:  # sbatch refuses; an unknown parameter
            raise XRayError(
                f"The jobs cannot be submitted: {error}\nhydra.launcher.* says what they ask for."
            ) from error

    def _result(self, job: Any, overrides: Sequence[str]) -> JobReturn:
        from submitit.core.utils import UncompletedJobError

        while not job.done() and not (self.cluster == "slurm" and _has_left(job)):
            time.sleep(POLL)
        with suppress(UncompletedJobError):  # killed, lost, cancelled, or ended before the run began
            if job.done():
                result: JobReturn = job.results()[0]
                return result
        self._record(overrides, f"its job {job.job_id} ended without a result ({job.state}), see {job.paths.stderr}")
        return no_result()

    def _record(self, overrides: Sequence[str], reason: str) -> None:
        """Writes down the failure of a job that could not do so itself, unless its run is done."""
        from xray_lightning.settings import settings_of
        from xray_lightning.status import is_done, recorded

        assert self.job.hydra_context is not None and self.job.config is not None
        cfg = self.job.hydra_context.config_loader.load_sweep_config(self.job.config, list(overrides))
        with _current(cfg), suppress(XRayError):
            folder = Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir
            log.error("%s failed: %s", folder.name, reason)
            settings = settings_of(cfg)
            if not is_done(folder, settings):
                with recorded(folder, settings):
                    raise XRayError(reason)


class JoblibLauncher(Launcher):
    """Jobs of hydra-joblib-launcher: `n_jobs` processes of this machine, which share its processors. `parameters` are
    joblib.Parallel's."""

    def __init__(self, n_jobs: int, **parameters: Any) -> None:
        with plugin_errors("hydra/launcher=joblib", "joblib"):
            from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher as Plugin
        self.plugin = Plugin(n_jobs=n_jobs, **parameters)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.plugin.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from joblib.externals.loky.process_executor import BrokenProcessPool

        with _quiet_bars():
            try:
                results: Sequence[JobReturn] = self.plugin.launch(job_overrides, initial_job_idx)
                return results
            except BrokenProcessPool:
                log.error(
                    "A job was killed, most likely for want of memory, and the others with it. Lower "
                    "hydra.launcher.n_jobs; the same command with the sweep's name goes on."
                )
                return [no_result() for _ in job_overrides]


def _has_left(job: Any) -> bool:
    """Whether a job has left SLURM's queue, on a cluster without accounts: submitit would wait for ever."""
    if job.state != "UNKNOWN":
        return False
    listed = subprocess.run(["squeue", "--noheader", "--jobs", job.job_id], capture_output=True, text=True)
    if listed.stdout.strip() or (listed.returncode and "Invalid job id" not in listed.stderr):
        return False
    time.sleep(GRACE)
    return not job.done()


def no_result() -> JobReturn:
    """What a run that failed by itself gives to Hydra, which would end the sweep where a job has another status."""
    result = JobReturn()
    result.status, result.return_value = JobStatus.COMPLETED, float("nan")
    return result


@contextmanager
def _current(cfg: DictConfig) -> Iterator[None]:
    """Lets ${hydra:…} mean this job's configuration."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def _silent_children() -> Iterator[None]:
    """Processes begun in here write no errors on the terminal."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Processes begun in here take the terminal for a file: bars of several would overwrite each other."""
    before = os.environ.get("TTY_COMPATIBLE")
    os.environ["TTY_COMPATIBLE"] = "0"
    try:
        yield
    finally:
        del os.environ["TTY_COMPATIBLE"]
        if before is not None:
            os.environ["TTY_COMPATIBLE"] = before
