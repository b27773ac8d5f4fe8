"""Runs that are stopped at any moment, and end with the numbers of runs that were not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from xray_lightning.errors import XRayError
from xray_lightning.history import History
from xray_lightning.models.checkpoint import read_checkpoint
from xray_lightning.run import train
from xray_lightning.status import alone

Configure = Callable[..., DictConfig]
PROJECT = Path(__file__).resolve().parent.parent
EACH_EPOCH = ("trainer.max_epochs=4", "callbacks.last_checkpoint.every_seconds=0")
RANDOM_CNN = ("model=cnn", "model.dropout=0.3", "model.mixup=0.4")
HEAD = ("model=resnet50", "model.weights=random", "model.views=1")


def outcome(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "metrics.json").read_text())
    weights = read_checkpoint(folder / "checkpoints/best.ckpt")["state_dict"]
    return {
        "record": {k: v for k, v in record.items() if k != "environment"},
        "predictions": (folder / "predictions.csv").read_bytes(),
        "history": (folder / "history.csv").read_bytes(),
        "weights": {k: v.numpy().tobytes() for k, v in weights.items()},
    }


def stop(monkeypatch: pytest.MonkeyPatch, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
    """Ends training in the middle of the epoch that follows `after` whole ones."""

    def on_train_batch_end(self: History, trainer: Any, *args: Any) -> None:
        if trainer.current_epoch == after:
            raise error

    monkeypatch.setattr(History, "on_train_batch_end", on_train_batch_end)


def stopped(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch, after: int = 2) -> None:
    with monkeypatch.context() as patch:
        stop(patch, after)
        with pytest.raises(SystemExit):  # which Lightning makes of Ctrl-C
            train(cfg)


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("model", [RANDOM_CNN, HEAD], ids=["cnn", "resnet50"])
def test_an_interrupted_run_ends_with_the_numbers_of_a_whole_one(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: tuple[str, ...], after: int
) -> None:
    train(configure(*model, *EACH_EPOCH, run="whole"))
    cfg = configure(*model, *EACH_EPOCH)
    stopped(cfg, monkeypatch, after)
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "interrupted")
    torch.rand(5)  # another process has drawn other numbers
    train(cfg)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["environment"]["repeatable"]
    later = json.loads((tmp_path / "run/status.json").read_text())
    assert later["state"] == "done" and later["seconds"] >= status["seconds"]


def test_a_run_that_went_on_elsewhere_says_so(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = configure(*EACH_EPOCH)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 99)
        stopped(cfg, monkeypatch, 1)
    stopped(cfg, monkeypatch, 2)  # and is as it was then from here on
    assert caplog.text.count("Going on with other threads") == 1
    where = train(cfg)["environment"]
    assert caplog.text.count("Going on with other") == 1
    assert not where["repeatable"] and "went on with other threads" in where["repeatable_reason"]


def test_epochs_that_were_done_are_not_run_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = configure(*EACH_EPOCH)
    stopped(cfg, monkeypatch)
    run: list[int] = []
    monkeypatch.setattr(History, "on_train_epoch_start", lambda self, trainer, model: run.append(trainer.current_epoch))
    train(cfg)
    assert run == [2, 3]


def test_a_signal_saves_the_last_whole_epoch_however_seldom_it_is_written(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = configure("trainer.max_epochs=4", "model.optimizer.lr=0.0", "callbacks.last_checkpoint.every_seconds=1e9")
    stopped(cfg, monkeypatch, 3)
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["epoch"] == 2


def test_early_stopping_is_not_undone(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "trainer.max_epochs=30")
    early += ("model.optimizer.lr=0.0", "callbacks.last_checkpoint.every_seconds=0")
    cfg = configure(*early)

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("xray_lightning.run.judge", killed)
        with pytest.raises(KeyboardInterrupt):
            train(cfg)
    epochs = (tmp_path / "run/history.csv").read_text()
    assert 2 <= epochs.count("\n") < 30
    train(cfg)
    assert (tmp_path / "run/history.csv").read_text() == epochs


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["last", "best"])
def test_what_a_power_cut_left_is_no_start(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    train(configure(*RANDOM_CNN, *EACH_EPOCH, run="whole"))
    cfg = configure(*RANDOM_CNN, *EACH_EPOCH)
    stopped(cfg, monkeypatch)
    damaged(tmp_path / f"run/checkpoints/{name}.ckpt")
    (tmp_path / "run/.metrics.json.ab12cd34").write_text("{")
    train(cfg)
    assert "Starting from the beginning" in caplog.text
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert not (tmp_path / "run/.metrics.json.ab12cd34").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="sees in /proc which file it is")
def test_a_run_is_done_when_the_disk_has_its_checkpoint(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, kept = os.fsync, list[str]()

    def noted(descriptor: int) -> None:
        kept.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    train(configure("~logger"))
    done = max(place for place, name in enumerate(kept) if name.startswith(".status.json"))
    assert "best.ckpt" in kept[:done]


def test_other_settings_do_not_go_on_from_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configure("seed=1", *EACH_EPOCH, run="whole"))
    stopped(configure("seed=0", *EACH_EPOCH), monkeypatch)
    train(configure("seed=1", *EACH_EPOCH))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_folder_that_was_moved_goes_on_to_the_same_end(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = (*RANDOM_CNN, *EACH_EPOCH, "model.optimizer.lr=0.5")  # later epochs are no better than the first two
    train(configure(*worse, run="whole"))
    stopped(configure(*worse), monkeypatch, 2)
    (tmp_path / "run").rename(tmp_path / "moved")
    train(configure(*worse, run="moved"))
    assert outcome(tmp_path / "moved") == outcome(tmp_path / "whole")
    assert outcome(tmp_path / "whole")["record"]["validation"]["epoch"] <= 2


def test_without_its_callback_a_run_does_not_go_on_with_other_random_numbers(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configure(*RANDOM_CNN, *EACH_EPOCH, run="whole"))
    stopped(configure(*RANDOM_CNN, *EACH_EPOCH), monkeypatch)
    train(configure(*RANDOM_CNN, "trainer.max_epochs=4", "~callbacks.last_checkpoint"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def tampered(path: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    content = read_checkpoint(path)
    spoil(content)
    torch.save(content, path)


def callback_state(content: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(state for name, state in content["callbacks"].items() if name.startswith(kind))


def epochs_done(content: dict[str, Any]) -> dict[str, int]:
    return content["loops"]["fit_loop"]["epoch_progress"]["current"]


SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no callbacks": lambda content: content.pop("callbacks"),
    "no optimizer": lambda content: content.pop("optimizer_states"),
    "no loop": lambda content: content.update(loops={}),
    "weights": lambda content: content["state_dict"].update(dict.fromkeys(content["state_dict"], torch.ones(2))),
    "random": lambda content: callback_state(content, "LastCheckpoint")["random"].update(torch=torch.ones(3)),
    "history": lambda content: callback_state(content, "History").update(epochs=5),
    "an epoch below zero": lambda content: epochs_done(content).update(processed=-3, completed=-3),
    "a learning rate": lambda content: content["optimizer_states"][0]["param_groups"][0].update(lr="a"),
    "a scheduler": lambda content: content["lr_schedulers"][0].update(base_lrs=["a"]),
    "a moment": lambda content: content["optimizer_states"][0]["state"][0].update(exp_avg=torch.ones(3, 3)),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=list(SPOILT))
def test_a_state_that_somebody_else_wrote_is_one_message(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    stopped(configure("~logger", *EACH_EPOCH), monkeypatch, 1)
    tampered(tmp_path / "run/checkpoints/last.ckpt", spoil)
    with pytest.raises(XRayError, match=r"last\.ckpt cannot be gone on from"):
        train(configure("~logger", *EACH_EPOCH))


def test_a_state_of_no_epoch_is_no_start(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(configure("~logger", *EACH_EPOCH), monkeypatch, 1)
    tampered(tmp_path / "run/checkpoints/last.ckpt", lambda content: content.update(epoch={"a": 1}))
    train(configure("~logger", *EACH_EPOCH))
    assert "Going on after" not in caplog.text


@pytest.mark.parametrize("path", ["{}/..", "{}/../../precious.ckpt", "memory://precious.ckpt"])
def test_a_state_that_somebody_else_wrote_deletes_nothing_elsewhere(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    stopped(configure("~logger", *EACH_EPOCH), monkeypatch, 1)
    mine = [tmp_path / name for name in ("precious.ckpt", "run/catalog.csv")]
    mine[0].write_text("mine")
    worst = path.format(tmp_path / "run/checkpoints")

    def spoil(content: dict[str, Any]) -> None:
        state, score = callback_state(content, "ModelCheckpoint"), torch.tensor(1e9)  # which the next epoch betters
        state.update(kth_best_model_path=worst, kth_value=score, best_k_models={worst: score}, best_model_score=score)

    tampered(tmp_path / "run/checkpoints/last.ckpt", spoil)
    with suppress(XRayError):
        train(configure("~logger", *EACH_EPOCH))
    assert all(file.is_file() for file in mine)


def test_a_head_that_is_solved_for_starts_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convex = ("model=resnet50_convex", "model.weights=random", "model.l2_steps=3", *EACH_EPOCH)
    train(configure(*convex, run="whole"))
    stopped(configure(*convex), monkeypatch, 1)
    train(configure(*convex))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_run_that_failed_is_run_again_unless_it_is_to_be_kept(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop(patch, 1, OSError)
        with pytest.raises(OSError):
            train(configure(*EACH_EPOCH))
    with pytest.raises(XRayError, match="failed before"):
        train(configure(*EACH_EPOCH, "failed=keep"))
    with pytest.raises(XRayError, match="Did you mean keep"):
        train(configure(*EACH_EPOCH, "failed=kepe"))
    assert train(configure(*EACH_EPOCH))["n"] > 0


def test_an_interrupted_run_goes_on_though_failed_ones_are_kept(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(configure(*EACH_EPOCH), monkeypatch)
    assert train(configure(*EACH_EPOCH, "failed=keep"))["n"] > 0


def test_one_run_has_one_process(configure: Configure, tmp_path: Path) -> None:
    with alone(tmp_path / "run", "held"), pytest.raises(XRayError, match="being run by another process"):
        train(configure())
    assert not (tmp_path / "run/status.json").exists()


def test_sigterm_ends_a_run_in_order_and_the_command_goes_on(shell: Any, tmp_path: Path) -> None:
    small = ("trainer=cpu", "dataset.image_size=32", "figures=false", "model.dropout=0.3")
    words = ("train.py", *small, "trainer.max_epochs=100000")
    refused = shell(*words, "resume=true")
    assert refused.returncode == 2 and "none with these settings is left" in refused.stderr
    process = subprocess.Popen(
        shell.command(*words), cwd=tmp_path, env=shell.environment, stdout=-1, stderr=-1, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:  # each epoch is told, where there is no terminal
        if "epoch 3, validation" in line:
            break
    busy = shell(*words, "resume=true")
    assert busy.returncode == 2 and "still being run by another process" in busy.stderr
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "The same command with resume=true goes on." in errors and "Traceback" not in errors
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert json.loads((run / "status.json").read_text())["error"] == "interrupted"
    assert read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] >= 2


def test_two_sweeps_of_one_name_do_not_run_at_once(shell: Any, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs/sweeps/mine"
    with alone(sweep, "held"):
        second = shell("train.py", "-m", "sweep=mine", "seed=0,1", "trainer=cpu")
    assert second.returncode == 2 and "Sweep mine is being run by another process" in second.stderr
    assert [*sweep.glob("*/status.json")] == []
    unnamed = shell("train.py", "-m", "resume=true", "seed=0,1")
    assert unnamed.returncode == 2 and "sweep=<name>" in unnamed.stderr


def test_faults_at_many_moments_change_no_number() -> None:
    """Kills between write and rename, kills and signals while training, full disks: see bench/faults.py."""
    found = subprocess.run(
        [sys.executable, str(PROJECT / "bench/faults.py"), "--every", "100", "--models", "cnn"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert found.returncode == 0, found.stderr
    assert "SIGKILL between write and rename" in found.stdout
