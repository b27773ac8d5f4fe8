"""What the README says of adding a model and a data set, done word for word in a copy of the project."""

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with each file that the README shows, named by the file's first line."""
    copy = tmp_path_factory.mktemp("project")
    for part in ("conf", "xray_lightning"):
        shutil.copytree(PROJECT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("train.py", "test.py"):
        shutil.copy(PROJECT / script, copy / script)
    files = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", (PROJECT / "README.md").read_text(), flags=re.DOTALL)
    assert len(files) == 3
    for name, content in files:
        (copy / name).write_text(content)
    return copy


@pytest.fixture
def run(extended: Path, warm: Any) -> Callable[..., str]:
    """Runs a command in the extended copy; returns what it shows."""

    def command(*words: str, **environment: str) -> str:
        paths = {"PYTHONPATH": str(extended), "XRAY_CACHE": str(extended / "cache")}
        done = warm(words, extended, os.environ | paths | environment)
        assert done.returncode == 0, done.stderr + done.stdout
        return str(done.stdout)

    return command


SMALL = ("trainer=cpu", "trainer.max_epochs=1", "dataset.image_size=32", "figures=false")


def test_the_added_model_trains_and_its_checkpoint_scores(
    run: Callable[..., str], extended: Path, phantoms: Path
) -> None:
    data = {"XRAY_DATA": str(phantoms)}
    assert "tiny" in run("train.py", "-m", "model=tiny", "sweep=added", *SMALL, **data)
    ckpt = extended / "outputs/sweeps/added/pneumonia_tiny_s0/checkpoints/best.ckpt"
    assert "tiny" in run("test.py", f"ckpt={ckpt}", "trainer=cpu", **data)


def test_the_added_data_set_downloads_and_trains(run: Callable[..., str], extended: Path) -> None:
    section = (PROJECT / "README.md").read_text().split("## Add a data set")[1].split("\n## ")[0]
    noise = np.random.default_rng(0)
    for folder, count in (("clear", 40), ("nodule", 30), ("calcified", 20)):
        (extended / "data" / "lungs" / folder).mkdir(parents=True)
        for number in range(count):
            file = extended / "data" / "lungs" / folder / f"p{len(folder)}{number // 2}_{number}.png"
            Image.fromarray(noise.integers(0, 256, (40, 40), dtype=np.uint8)).save(file)
    one, download, kept = map(shlex.split, re.findall(r"(?:^|`)python ([^`\n]+)", section, flags=re.MULTILINE))
    data = {"XRAY_DATA": "data"}  # as without the variable, which whoever runs the tests may have set
    assert "folder" in run(*one, *SMALL, **data)
    assert str(extended / "data" / "lungs") in run(*download, **data)
    assert "lungs" in run(*kept, *SMALL, **data)


@pytest.mark.parametrize("folder", ["conf", "docs", "."])
def test_no_figure_is_left_to_fill_in(folder: str) -> None:
    pages = [p for ending in ("*.yaml", "*.md") for p in (PROJECT / folder).glob("**/" * (folder != ".") + ending)]
    assert pages
    assert [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")] == []
