"""Sweeps whose jobs run in other processes: joblib's, submitit's, and those of SLURM where there is one; searches."""

import csv
import functools
import importlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus

from xray_lightning.config import register_resolvers
from xray_lightning.errors import XRayError
from xray_lightning.machine import cores
from xray_lightning.overrides import check_overrides
from xray_lightning.run_folders import sweep_overrides, swept_params

PROJECT = Path(__file__).resolve().parent.parent
SMALL = ("trainer=cpu", "trainer.max_epochs=1", "dataset.image_size=32", "figures=false")
PATIENCE = 600  # seconds, on a machine with much else to do
LOG_RATE = "model.optimizer.lr=tag(log,interval(1e-4,1e-2))"


@pytest.fixture
def train(tmp_path: Path, phantoms: Path, shared_cache: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts train.py in an empty folder, with the phantoms as its data; leaves no process behind."""
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        own = {"XRAY_DATA": str(phantoms), "XRAY_CACHE": str(shared_cache), "PYTHONPATH": str(PROJECT)}
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "train.py"), *words],
            cwd=tmp_path,
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for number in processes_of(tmp_path):
        os.kill(number, signal.SIGKILL)


def table(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "results.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def validation_loss(run: Path) -> float:
    return float(json.loads((run / "metrics.json").read_text())["validation"]["log_loss"])


def test_jobs_of_one_machine_share_it_and_a_named_sweep_goes_on(
    train: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", "hydra/launcher=joblib", "seed=0,-1", "sweep=both", *SMALL]
    shown, errors = (first := train(*words)).communicate(timeout=PATIENCE)
    assert first.returncode == 1 and "Traceback" not in errors and "Warning" not in errors, errors
    sweep = tmp_path / "outputs/sweeps/both"
    assert {run: row["state"] for run, row in table(sweep).items()} == {
        "pneumonia_cnn_s0": "done",
        "pneumonia_cnn_s-1": "failed",
    }
    assert "seed=-1 is not valid" in (sweep / "pneumonia_cnn_s-1/train.log").read_text()
    threads = json.loads((sweep / "pneumonia_cnn_s0/metrics.json").read_text())["environment"]["threads"]
    assert threads <= max(1, cores() // 2)
    written = (sweep / "pneumonia_cnn_s0/checkpoints/best.ckpt").stat().st_mtime_ns
    shown, errors = (again := train(*words)).communicate(timeout=PATIENCE)
    assert again.returncode == 1 and "is done already" in shown, errors
    assert (sweep / "pneumonia_cnn_s0/checkpoints/best.ckpt").stat().st_mtime_ns == written


def processes_of(sweep: Path) -> list[int]:
    """Of submitit's jobs that are at work on a sweep."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "submitit.core._submit" in words and str(sweep) in words:
            found.append(int(folder.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def state_of(run: Path) -> str:
    try:
        return str(json.loads((run / "status.json").read_text())["state"])
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_job_that_is_killed_is_a_failed_run_and_the_others_go_on(
    train: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["-m", "hydra/launcher=local", *SMALL[:1], *SMALL[2:], "trainer.max_epochs=1,100000", "sweep=killed"]
    process = train(*words)
    sweep = tmp_path / "outputs/sweeps/killed"
    short, long = sweep / "pneumonia_cnn_s0_max_epochs=1", sweep / "pneumonia_cnn_s0_max_epochs=100000"
    wait_for(lambda: state_of(short) == "done" and state_of(long) == "running" and len(processes_of(sweep)) == 1)
    for number in processes_of(sweep):
        os.kill(number, signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert "max_epochs=100000 failed: its job" in re.sub(r"\s+", " ", errors)
    rows = table(sweep)
    assert rows[short.name]["state"] == "done" and rows[short.name]["accuracy"]
    assert rows[long.name]["state"] == "failed" and "ended without a result" in rows[long.name]["notes"]
    assert (sweep / "report.html").is_file()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="begun without Ctrl-C")
def test_jobs_of_a_command_that_is_stopped_are_interrupted_without_a_traceback(
    train: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    process = train("-m", "hydra/launcher=local", *SMALL, "trainer.max_epochs=100000", "sweep=stopped")
    run = tmp_path / "outputs/sweeps/stopped/pneumonia_cnn_s0"
    wait_for(lambda: (run / "history.csv").exists())
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors, errors
    assert "The same command with sweep=stopped goes on." in errors
    wait_for(lambda: not processes_of(run.parent))
    assert json.loads((run / "status.json").read_text())["error"] == "interrupted"
    assert (run / "checkpoints/last.ckpt").exists()


def test_a_search_goes_on_and_chooses_by_validation(
    train: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    words = ["-m", "hydra/sweeper=optuna", LOG_RATE, "sweep=search", *SMALL]
    shown, errors = (first := train(*words, "hydra.sweeper.n_trials=1")).communicate(timeout=PATIENCE)
    assert first.returncode == 0 and "Warning" not in errors, errors
    sweep = tmp_path / "outputs/sweeps/search"
    (one,) = table(sweep)
    written = (sweep / one / "metrics.json").stat().st_mtime_ns
    shown, errors = (second := train(*words, "hydra.sweeper.n_trials=2")).communicate(timeout=PATIENCE)
    assert second.returncode == 0, errors
    losses = {run: validation_loss(sweep / run) for run in table(sweep)}
    assert len(losses) == 2 and (sweep / one / "metrics.json").stat().st_mtime_ns == written
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == min(losses.values())
    name = min(losses, key=lambda run: losses[run])
    assert name == f"pneumonia_cnn_s0_lr={best['best_params']['model.optimizer.lr']}"
    assert "the best on validation" in shown


@functools.cache
def has_slurm() -> bool:
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return False
    try:
        return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def test_a_sweep_through_slurm(train: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if not has_slurm():
        pytest.skip("no SLURM answers here; bench/one_node_slurm.sh starts one")
    asked = [f"hydra.launcher.{key}" for key in ("cpus_per_task=1", "mem_gb=2", "timeout_min=10")]
    process = train("-m", "hydra/launcher=slurm", *asked, "seed=0,-1", "sweep=cluster", *SMALL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    states = {run: row["state"] for run, row in table(tmp_path / "outputs/sweeps/cluster").items()}
    assert states == {"pneumonia_cnn_s0": "done", "pneumonia_cnn_s-1": "failed"}


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="there is one")
def test_without_slurm_one_message_says_so(train: Callable[..., subprocess.Popen[str]]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    _, errors = (process := train("-m", "hydra/launcher=slurm", "seed=0,1")).communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("Error") == 1 and "there is no sbatch here" in errors and "Traceback" not in errors


def plugin(name: str) -> Any:
    Plugins.instance()  # imports the modules of the package
    module, _, member = name.rpartition(".")
    return getattr(importlib.import_module(f"hydra_plugins.{module}"), member)


@pytest.mark.parametrize(
    ("name", "arguments", "missing", "extra"),
    [
        ("xray_launchers.JoblibLauncher", {"n_jobs": 1}, "hydra_plugins.hydra_joblib_launcher", "joblib"),
        (
            "xray_launchers.SubmititLauncher",
            {"cluster": "local", "folder": "x"},
            "hydra_plugins.hydra_submitit_launcher",
            "slurm",
        ),
        (
            "xray_search.OptunaSweeper",
            {"storage": "", "sampler": {}, "direction": "minimize", "n_trials": 1, "n_jobs": 1, "seed": 0},
            "optuna",
            "optuna",
        ),
    ],
)
def test_a_missing_extra_is_one_message_that_says_how_to_install_it(
    name: str,
    arguments: dict[str, Any],
    missing: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = plugin(name)
    for module in [*(known for known in sys.modules if known.startswith(f"{missing}.")), missing]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as ended, caplog.at_level(logging.ERROR):
        made(**arguments)
    assert ended.value.code == 2
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        f'pip install "xray-lightning[{extra}]"'
    ]


class Jobs:
    """A launcher of jobs whose result is the square of x, or none where x is 3."""

    def __init__(self) -> None:
        self.launched: list[list[tuple[str, ...]]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.launched.append([tuple(own) for own in job_overrides])
        return [self._result(own) for own in job_overrides]

    def _result(self, overrides: Sequence[str]) -> JobReturn:
        x = float(next(o for o in overrides if o.startswith("x=")).split("=")[1])
        job = JobReturn()
        job.status, job.return_value = JobStatus.COMPLETED, math.nan if x == 3 else x**2
        return job


class Stopped(Jobs):
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        super().launch(job_overrides, initial_job_idx)
        raise KeyboardInterrupt


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., list[list[tuple[str, ...]]]]:
    """Searches in one study, and returns what was launched."""
    pytest.importorskip("optuna")

    def run(*arguments: str, jobs: Jobs | None = None, **own: Any) -> list[list[tuple[str, ...]]]:
        made: dict[str, Any] = {"direction": "minimize", "n_trials": 4, "n_jobs": 1, "seed": 0}
        made |= {"sampler": {"_target_": "optuna.samplers.RandomSampler"}, "storage": f"sqlite:///{tmp_path}/search.db"}
        sweeper = plugin("xray_search.OptunaSweeper")(**made | own)
        sweeper.folder, sweeper.config_loader, sweeper.launcher = tmp_path, None, jobs or Jobs()
        with suppress(KeyboardInterrupt):
            sweeper.sweep(list(arguments))
        launched: list[list[tuple[str, ...]]] = sweeper.launcher.launched
        return launched

    return run


def results(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    return found


def test_trials_get_all_overrides_and_numbers_of_an_interval(
    search: Callable[..., list[list[tuple[str, ...]]]], tmp_path: Path
) -> None:
    launched = search("~logger", "a.b=[1,2]", "x=interval(1,2)", "y=tag(log,interval(1e-4,1e-2))", "z=p,q", n_jobs=3)
    assert [len(batch) for batch in launched] == [3, 1]
    trials = [trial for batch in launched for trial in batch]
    assert len({*trials}) == 4
    for first, second, x, y, z in trials:
        assert (first, second) == ("~logger", "a.b=[1,2]") and z in ("z=p", "z=q")
        assert 1 <= float(x[2:]) <= 2 and 1e-4 <= float(y[2:]) <= 1e-2 and len(y) <= 12
    best = min(trials, key=lambda trial: float(trial[2][2:]))
    assert results(tmp_path)["best_params"]["x"] == best[2][2:]


def test_a_trial_that_was_stopped_is_begun_again_with_its_values(
    search: Callable[..., list[list[tuple[str, ...]]]],
) -> None:
    stopped = search("x=interval(4,9)", jobs=Stopped(), n_jobs=2)
    assert len(stopped) == 1
    again = search("x=interval(4,9)", n_jobs=2)
    assert again[0] == stopped[0] and [len(batch) for batch in again] == [2, 2]
    assert len({trial for batch in again for trial in batch}) == 4
    assert search("x=interval(4,9)") == []  # all are done
    assert [len(batch) for batch in search("x=interval(4,9)", n_trials=5)] == [1]


def test_what_is_proposed_twice_at_a_time_runs_once_and_a_failure_is_no_result(
    search: Callable[..., list[list[tuple[str, ...]]]], tmp_path: Path
) -> None:
    launched = search("x=2,3", n_jobs=8, n_trials=8)
    assert [sorted(batch) for batch in launched] == [[("x=2",), ("x=3",)]]
    found = results(tmp_path)
    assert found["best_params"] == {"x": "2"} and found["best_value"] == 4 and 0 < found["trials"] < 8


def test_a_study_that_would_be_in_another_place_is_refused(
    search: Callable[..., list[list[tuple[str, ...]]]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        search("x=interval(1,2)", storage="sqlite:////what?/search.db")
    assert "would be another file" in caplog.text


def test_the_command_line_comes_before_params(search: Callable[..., list[list[tuple[str, ...]]]]) -> None:
    (batch,) = search("x=5", params={"x": "1,2", "y": "choice(7)"}, n_trials=1)
    assert batch == [("x=5", "y=7")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x=1"], "needs something to choose"),
        (["x=1,2", "seed=0,1"], "cannot choose seed"),
        (["x=1,2", "dataset=pneumonia,covid"], "cannot choose dataset"),
    ],
)
def test_what_cannot_be_searched_is_one_message(
    search: Callable[..., list[list[tuple[str, ...]]]],
    caplog: pytest.LogCaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        search(*arguments)
    assert message in caplog.text


def test_a_study_of_something_else_is_not_continued(
    search: Callable[..., list[list[tuple[str, ...]]]], caplog: pytest.LogCaptureFixture
) -> None:
    search("x=interval(1,2)", "epochs=3", n_trials=1)
    with pytest.raises(SystemExit):
        search("x=interval(1,2)", "epochs=30")
    assert "epochs=3" in caplog.text


def test_a_study_that_cannot_be_read_is_one_message(
    search: Callable[..., list[list[tuple[str, ...]]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "search.db").write_text("no database")
    with pytest.raises(SystemExit):
        search("x=interval(1,2)")
    assert "holds no study that can be gone on with" in caplog.text and "not a database" in caplog.text


def test_runs_of_a_search_are_named_by_what_it_chooses(tmp_path: Path) -> None:
    register_resolvers()
    given = [f"paths.outputs={tmp_path}", "sweep=s", "hydra/sweeper=optuna", LOG_RATE]
    given.append("hydra.sweeper.params={model.optimizer.weight_decay: 'choice(0,0.1)'}")
    cfg = check_overrides("train", given)
    params = swept_params("train", given)
    assert params == ["model.optimizer.weight_decay=choice(0,0.1)"]
    added, _ = sweep_overrides(cfg, [*params, *given])
    assert "_weight_decay=" in added[0] and "_lr=" in added[0]


def test_an_interval_is_for_a_search_alone() -> None:
    with pytest.raises(XRayError, match="hydra/sweeper=optuna"):
        swept_params("train", [LOG_RATE])
