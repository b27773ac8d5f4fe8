"""One job in several processes: the same result as in one, and never a hang. Real processes, on phantoms."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from xray_lightning.errors import XRayError
from xray_lightning.processes import count_processes, is_first, refuse_other_numbers
from xray_lightning.run import train

Configure = Callable[..., DictConfig]
PROJECT = Path(__file__).resolve().parent.parent
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
EXACT = "trainer.precision=32-true"
HEAD = ("model=resnet50", "model.weights=random", "model.views=1", "dataset.augment.flip=1.0")
# whatever depends on the other images of a batch, or is drawn, in batches of which the last one is a single image
EVERYTHING = ("model=cnn", "model.mixup=0.4", "model.dropout=0.3", "dataset.balance=weighted_loss")
CASES = {
    "cnn": (*EVERYTHING, "dataset.batch_size=59", "trainer.max_epochs=3"),
    "head": (*HEAD, "dataset=covid", "dataset.balance=sampling", "dataset.batch_size=7", "trainer.max_epochs=3"),
}


class Runs:
    """Runs commands on phantoms, each in a folder of its own, with an empty cache."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        paths = {"XRAY_DATA": str(data), "XRAY_CACHE": str(folder / "cache"), "PYTHONPATH": str(PROJECT)}
        self.environment = os.environ | paths | {"XRAY_RESNET50_WEIGHTS": "random"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str) -> tuple[int, str, str]:
        with self.start(*words) as process:
            shown, errors = process.communicate(timeout=900)
        return process.returncode, shown, errors


@pytest.fixture
def runs(tmp_path: Path, phantoms: Path) -> Runs:
    return Runs(tmp_path, phantoms)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def assert_same(one: Path, two: Path, *, of_weights: float) -> None:
    """Sums are taken in another order, so the last digits differ, and Adam divides small gradients by themselves."""
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=of_weights, atol=of_weights)
    records = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    for name, metric in records[0]["metrics"].items():
        assert records[1]["metrics"][name]["value"] == pytest.approx(metric["value"], abs=1e-4), name
    images = [[line["path"] for line in table(run / "predictions.csv")] for run in (one, two)]
    assert images[0] == images[1] and len({*images[0]}) == len(images[0]) == records[0]["n"]
    columns = {"predictions.csv": records[0]["classes"], "history.csv": ["train/loss", "val/log_loss", "val/accuracy"]}
    for file, names in columns.items():
        for ours_line, theirs_line in zip(table(one / file), table(two / file), strict=True):
            expected = [float(ours_line[name]) for name in names]
            assert [float(theirs_line[name]) for name in names] == pytest.approx(expected, abs=1e-4)


def test_two_processes_train_what_one_does(runs: Runs, configure: Configure, tmp_path: Path) -> None:
    small = ["figures=false", "dataset.image_size=32", "dataset.batch_size=16", "trainer.max_epochs=2", *HEAD, EXACT]
    status, shown, errors = runs(str(PROJECT / "train.py"), *TWO, *small)
    assert status == 0, errors
    assert shown.count("Results of") == 1 and "Error" not in errors
    (two,) = (tmp_path / "outputs/runs").iterdir()
    train(configure(*HEAD, EXACT, "trainer.max_epochs=2", run="one"))
    assert_same(tmp_path / "one", two, of_weights=1e-4)
    log = (two / "train.log").read_text()
    assert log.count("pneumonia train: ") == log.count("epoch 1, validation: ") == 1
    assert {file.name for file in two.glob("*.log")} == {"train.log"}
    kept = {kind: len([*(tmp_path / "cache" / kind).glob(ending)]) for kind, ending in
            (("pixels", "*.npy"), ("features", "*.done.npy"))}  # fmt: skip
    assert kept == {"pixels": 1, "features": 2}  # of plain images and of one view
    assert log.count("Computed features of ") == 3  # of training images twice, of the others once


WORKER = """
import sys
from omegaconf import OmegaConf
from xray_lightning.config import register_resolvers
from xray_lightning.run import train
register_resolvers()
for file in sys.argv[1:]:
    train(OmegaConf.load(file))
"""


def test_whatever_sees_a_whole_batch_does_so_in_two_processes(runs: Runs, configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    for name, settings in CASES.items():
        train(configure(*settings, EXACT, run=f"one_{name}"))
        OmegaConf.save(configure(*settings, EXACT, *TWO, run=f"two_{name}"), tmp_path / f"{name}.yaml", resolve=True)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "worker.py")
    status, _, errors = runs(*torchrun, *(f"{name}.yaml" for name in CASES))
    assert status == 0, errors
    for name in CASES:
        assert_same(tmp_path / f"one_{name}", tmp_path / f"two_{name}", of_weights=1e-3)


def test_a_process_that_is_killed_ends_the_job_with_a_message(runs: Runs, tmp_path: Path) -> None:
    run = tmp_path / "outputs/runs/killed"
    long = ["trainer.max_epochs=100000", "dataset.image_size=32", f"hydra.run.dir={run}"]
    with runs.start(str(PROJECT / "train.py"), *TWO, *long) as process:
        deadline = time.monotonic() + 600
        while not (run / "history.csv").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        second = next(pid for pid in children(process.pid) if environment(pid).get("RANK") == "1")
        os.kill(second, signal.SIGKILL)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Process 2 of 2 was ended by SIGKILL. The others were stopped." in errors and "Traceback" not in errors
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["error"].split(".")[0]) == ("failed", "Process 2 of 2 was ended by SIGKILL")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


LAUNCHED = """
import os, sys, time
from pathlib import Path
from xray_lightning.processes import before_telling, launch, rank, started
from xray_lightning.errors import XRayError
if started() == 1:
    print(launch(3, Path("run")))
elif rank() == int(sys.argv[1]):
    print(os.environ["XRAY_RUN_DIR"], flush=True)
    sys.exit(3)
else:
    before_telling(XRayError(""))
    print("not reached" if rank() else "", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize(
    ("failing", "told"), [("0", "(3, '')"), ("1", "(1, 'Process 2 of 3 failed. The others were stopped.')")]
)
def test_when_one_process_fails_the_others_are_stopped(runs: Runs, failing: str, told: str) -> None:
    (runs.folder / "job.py").write_text(LAUNCHED)
    status, shown, _ = runs("job.py", failing)
    assert status == 0
    assert shown.split("\n")[-2] == told and "run" in shown.split("\n") and "not reached" not in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.accelerator=cpu", "trainer.devices=0"), "trainer cannot be set up.*devices"),
        (("trainer.accelerator=cpu", "trainer.devices=2", "trainer.num_nodes=2"), r"num_nodes=2: start .*hydra\.run"),
        (("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp_spawn"), "ddp_spawn is not supported"),
        ((), "trainer cannot be set up.*gpu"),
    ],
)
def test_devices_that_cannot_be_had_are_named_before_anything_starts(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(XRayError, match=message):
        count_processes(configure("trainer=ddp", *overrides), [])


def test_one_device_needs_no_other_process(configure: Configure) -> None:
    assert count_processes(configure(), []) == 1
    assert count_processes(configure(*TWO), []) == 2
    assert count_processes(configure(*TWO, "trainer.devices=1"), []) == 1


@pytest.mark.parametrize(
    ("count", "overrides", "message"),
    [
        (1, TWO, "ask for 2 processes, but there are 1"),
        (2, ("trainer=cpu",), "ask for 1 processes, but there are 2"),
        (2, (*TWO, "cache=off"), "cache=off"),
    ],
)
def test_other_numbers_of_processes_than_the_trainer_counts_on_are_refused(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, count: int, overrides: tuple[str, ...], message: str
) -> None:
    cfg = configure(*overrides)
    devices = {key: cfg.trainer.get(key, "auto") for key in ("accelerator", "devices", "strategy")}
    trainer = Trainer(**devices, logger=False, enable_checkpointing=False)
    monkeypatch.setenv("WORLD_SIZE", str(count))
    with pytest.raises(XRayError, match=message):
        refuse_other_numbers(trainer, cfg)


def test_processes_started_from_outside_must_share_a_folder(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(key, value)
    assert not is_first()
    with pytest.raises(XRayError, match=r"hydra\.run\.dir"):
        count_processes(configure(*TWO), list(TWO))
    assert count_processes(configure(*TWO), [*TWO, "hydra.run.dir=here"]) == 1
