"""The commands as a user runs them: real processes, on phantoms."""

import csv
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = ("trainer=cpu", "trainer.max_epochs=1", "dataset.image_size=32")


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_help_names_the_commands_and_groups(shell: Any) -> None:
    shown = shell("train.py", "--help").stdout
    assert "python train.py -m dataset=pneumonia,covid model=cnn,resnet50" in shown
    assert "cnn, resnet50" in shown


def test_a_folder_that_no_run_can_be_in_is_one_message(shell: Any) -> None:
    done = shell("train.py", "hydra.run.dir=/proc/nowhere")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "/proc/nowhere cannot be written to" in done.stderr and "hydra.run.dir=<folder>" in done.stderr


def test_the_four_experiments_in_one_sweep(shell: Any, tmp_path: Path) -> None:
    done = shell(
        "train.py", "-m", "dataset=pneumonia,covid", "model=cnn,resnet50", "sweep=four", "figures=false", *SMALL
    )
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs/sweeps/four"
    runs = {"pneumonia_cnn_s0", "pneumonia_resnet50_s0", "covid_cnn_s0", "covid_resnet50_s0"}
    assert {row["run"] for row in table(sweep)} == runs
    assert all(row["state"] == "done" and row["notes"] for row in table(sweep))
    for run in runs:
        log = (sweep / run / "train.log").read_text()
        assert "synthetic radiographs" in log
        assert (sweep / run / ".hydra/config.yaml").is_file()
    for told in ("results.md", "tensorboard --logdir", "synthetic radiographs", "random backbone"):
        assert told in done.stdout
    assert "Warning" not in done.stdout + done.stderr

    page = (sweep / "report.html").read_bytes()
    assert all(run.encode() in page for run in runs)
    assert (sweep / "comparisons.csv").read_text().count("\n") == 3  # a line for each data set
    (sweep / "report.html").unlink()
    again = shell("-m", "xray_lightning.evaluation.report", str(sweep))
    assert again.returncode == 0 and (sweep / "report.html").read_bytes() == page

    scored = shell("test.py", f"ckpt={sweep / 'covid_cnn_s0/checkpoints/best.ckpt'}", "trainer=cpu", "cache=off")
    assert scored.returncode == 0, scored.stderr
    assert "Warning" not in scored.stdout + scored.stderr
    (record,) = [json.loads(f.read_text()) for f in (tmp_path / "outputs/runs").glob("*_test/metrics.json")]
    assert record["metrics"] == json.loads((sweep / "covid_cnn_s0/metrics.json").read_text())["metrics"]
    for told in ("report.html", "Operating points", "sensitivity .95", "temperature"):
        assert told in scored.stdout


def test_a_failing_job_stops_no_other_and_a_named_sweep_goes_on(shell: Any, tmp_path: Path) -> None:
    words = ["train.py", "-m", "sweep=half", "dataset.batch_size=0,16", *SMALL]
    first = shell(*words)
    assert first.returncode == 1
    assert "dataset.batch_size=0 is not valid" in first.stderr and "Traceback" not in first.stderr + first.stdout
    sweep = tmp_path / "outputs/sweeps/half"
    states = {row["run"]: row["state"] for row in table(sweep)}
    assert states == {"pneumonia_cnn_s0_batch_size=0": "failed", "pneumonia_cnn_s0_batch_size=16": "done"}
    assert "batch_size=0 is not valid" in (sweep / "pneumonia_cnn_s0_batch_size=0/train.log").read_text()
    assert "batch_size=0 is not valid" in (sweep / "results.md").read_text()

    kept = (sweep / "pneumonia_cnn_s0_batch_size=16/checkpoints/best.ckpt").stat().st_mtime_ns
    again = shell(*words)
    assert again.returncode == 1 and "is done already" in again.stdout
    assert (sweep / "pneumonia_cnn_s0_batch_size=16/checkpoints/best.ckpt").stat().st_mtime_ns == kept


def test_a_fault_of_the_program_keeps_its_traceback(shell: Any, tmp_path: Path) -> None:
    fault = "model.optimizer._target_=torch.optim.SparseAdam"
    failed = shell("train.py", "-m", "sweep=fault", fault, "~model.optimizer.weight_decay", *SMALL)
    assert failed.returncode == 1
    log = (tmp_path / "outputs/sweeps/fault/pneumonia_cnn_s0/train.log").read_text()
    assert "Traceback" in log and "SparseAdam" in log
    assert table(tmp_path / "outputs/sweeps/fault")[0]["state"] == "failed"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["train.py", "modle=cnn"], 2, "Did you mean model"),
        (["train.py", "dataset=pneumonai"], 2, "Did you mean pneumonia"),
        (["train.py", "dataset.root=nowhere"], 1, "data.download dataset=pneumonia"),
        (["train.py", "model=resnet50", "model.weights=nowhere.pth"], 1, "neither a file nor the name"),
        (["test.py", "ckpt=nowhere.ckpt"], 1, "There is no checkpoint nowhere.ckpt"),
        (["test.py"], 2, "ckpt must be given"),
        (["test.py", "ckpt=nowhere.ckpt", "dataset=pneumonai"], 2, "Did you mean pneumonia"),
        (["-m", "xray_lightning.data.download", "dataset=covd"], 2, "Did you mean covid"),
    ],
)
def test_a_users_mistake_is_one_message_without_a_traceback(
    shell: Any, words: list[str], status: int, message: str
) -> None:
    failed = shell(*words)
    assert failed.returncode == status
    assert message in failed.stderr and "Traceback" not in failed.stderr + failed.stdout


def test_debug_shows_the_traceback(shell: Any) -> None:
    debugged = shell("train.py", "dataset.root=nowhere", "debug=true")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr and "data.download dataset=pneumonia" in debugged.stderr


def test_ctrl_c_ends_a_sweep_in_order(shell: Any, tmp_path: Path) -> None:
    words = shell.command("train.py", "-m", "sweep=stopped", "seed=0,1", *SMALL, "trainer.max_epochs=100000")
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells make jobs in the background ignore it
    )
    run = tmp_path / "outputs/sweeps/stopped/pneumonia_cnn_s0"
    deadline = time.monotonic() + 120
    while not (run / "checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert "pneumonia_cnn_s0: interrupted" in shown
    assert process.returncode == 130
    assert "sweep=stopped goes on" in errors and "Traceback" not in errors
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "interrupted")
    assert not (tmp_path / "outputs/sweeps/stopped/pneumonia_cnn_s1").exists()
