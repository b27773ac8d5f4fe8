"""What a record says of where it comes from: enough to repeat it, and no more than may be shown."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import DictConfig

from xray_lightning import environment as module
from xray_lightning.artifacts import write_json
from xray_lightning.config import CONF
from xray_lightning.environment import VARIABLES, environment, repeatability, source
from xray_lightning.processes import RUN_DIR
from xray_lightning.run import test as score
from xray_lightning.run import train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
Configure = Callable[..., DictConfig]


@pytest.fixture
def deterministic() -> Iterator[Callable[..., None]]:
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(False)


def test_versions_are_those_of_the_metadata_and_all_of_them(tmp_path: Path) -> None:
    found = environment(CPU, "32-true")
    write_json(tmp_path / "as.json", found)  # plain data
    known = found["packages"] | found["installed"]
    assert {"torch", "lightning", "hydra-core", "numpy", "scipy", "xray-lightning"} <= set(found["packages"])
    assert all(known[name] == version(name) for name in ("torch", "numpy", "pytest", "sympy", "markupsafe"))
    assert "pytest" in found["installed"] and not {*found["packages"]} & {*found["installed"]}
    frozen = subprocess.run([sys.executable, "-m", "pip", "freeze", "--all"], capture_output=True, text=True)
    listed = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in frozen.stdout.splitlines() if line[0].isalnum()
    }
    assert frozen.returncode or listed <= {*known}


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment(CPU, "bf16-mixed", devices=2)
    assert (found["device"], found["precision"], found["devices"], found["gpu"]) == ("cpu", "bf16-mixed", 2, None)
    assert found["threads"] == torch.get_num_threads() and found["cpu"]["cores"] == os.cpu_count()
    assert found["cpu"]["kernels"] == torch.backends.cpu.get_cpu_capability() and found["cpu"]["name"]


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    about = SimpleNamespace(total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = environment(CUDA, "bf16-mixed")
    assert found["device"] == "cuda" and found["cpu"]["name"]
    told = {"name": "Some GPU", "visible": 2, "memory_gib": 80.0, "capability": "9.0", "cuda": torch.version.cuda}
    assert found["gpu"].items() >= told.items() and {"driver", "cudnn"} <= {*found["gpu"]}


def test_cpus_repeat_and_cuda_where_it_is_asked_to(
    deterministic: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repeatability(CPU)[0]
    assert not repeatability(torch.device("mps"))[0] and "trainer=cpu" in repeatability(torch.device("mps"))[1]
    able, reason = repeatability(CUDA)
    assert not able and "trainer.deterministic=true" in reason
    deterministic(True, warn_only=True)
    assert not repeatability(CUDA)[0]
    deterministic(True)
    assert repeatability(CUDA)[0]
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert not repeatability(CUDA)[0] and "trainer.benchmark" in repeatability(CUDA)[1]


def test_no_variable_is_told_that_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    assert environment(CPU, "32-true")["variables"] == {}
    monkeypatch.setenv("XRAY_TOKEN", "hush")
    monkeypatch.setenv("KAGGLE_KEY", "hush")
    monkeypatch.setenv("XRAY_DATA", "/films and more")
    assert environment(CPU, "32-true")["variables"] == {"XRAY_DATA": "/films and more"}


def test_every_variable_that_the_configuration_reads_is_told() -> None:
    read = {name for file in CONF.rglob("*.yaml") for name in re.findall(r"oc\.env:(\w+)", file.read_text())}
    assert read >= {"XRAY_DATA"} and read - {RUN_DIR} <= {*VARIABLES}  # which one process of a run tells the others


def test_the_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["train.py", "model=cnn", "model.channels=[8, 16]", "paths.data=it's here", "$HOME"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.chdir(tmp_path)
    found = environment(CPU, "32-true")
    echoed = subprocess.run(
        ["sh", "-c", found["command"].replace("python", "printf '%s\\n'", 1)], capture_output=True, text=True
    )
    assert echoed.stdout.splitlines() == words and found["folder"] == str(tmp_path)


def test_the_source_is_known_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    files = [*tmp_path.iterdir()]
    digests = [source(files)]
    assert source(reversed(files)) == digests[0]
    (tmp_path / "b.py").write_text("3")
    digests.append(source(files))
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    digests.append(source(tmp_path.iterdir()))
    (tmp_path / "d.py").write_text("")
    digests.append(source(tmp_path.iterdir()))
    assert len({*digests}) == 4


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_tells_the_commit_and_whether_the_tree_differs(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "first")
    git("tag", "-a", "v1", "-m", "v1")  # a tag does not stand for the commit
    commit = git("rev-parse", "HEAD")
    assert module._git_state(tmp_path) == commit[:12]
    (tmp_path / "file").write_text("2")
    assert module._git_state(tmp_path) == f"{commit[:12]}+changes"
    (tmp_path / "inner").mkdir()  # such as site-packages below somebody's repository
    assert module._git_state(tmp_path / "inner") is None


def test_it_takes_next_to_no_time() -> None:
    environment(CPU, "32-true")
    start = time.process_time()
    for _ in range(5):
        environment(CPU, "32-true")
    assert time.process_time() - start < 5 * 0.3


def test_a_run_tells_its_data_and_the_checkpoint_that_is_scored(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trained = train(configure("dataset=covid", run="a"))["environment"]
    assert {key for key, value in trained["data"].items() if value} == {"images", "split", "pixels"}
    assert trained["repeatable"] is True and "slightly other numbers" not in caplog.text
    assert trained["backbone"] is None and trained["checkpoint"] is None
    file = tmp_path / "a/checkpoints/best.ckpt"
    scored = score(configure(f"ckpt={file}", run="b", config="test"))["environment"]
    assert scored["checkpoint"] == hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    assert scored["data"]["images"] == trained["data"]["images"]


def test_a_run_says_where_numbers_may_change(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "repeatability", lambda device: (False, "its kernels race"))
    record = train(configure(run="told"))
    assert (record["environment"]["repeatable"], record["environment"]["repeatable_reason"]) == (
        False,
        "its kernels race",
    )
    assert caplog.text.count("slightly other numbers next time: its kernels race") == 1
