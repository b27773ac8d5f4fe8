"""Names that mean something to a shell, a file system, Hydra, HTML or Markdown are names, and nothing else."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig
from PIL import Image

from xray_lightning.config import folder_name, is_folder_name, register_resolvers, slug
from xray_lightning.errors import XRayError
from xray_lightning.overrides import check_overrides
from xray_lightning.run import test as score
from xray_lightning.run import train
from xray_lightning.run_folders import sweep_overrides

NO_FOLDER = ["-rf", "a b", "it's", "..", ".", ".hidden", "a/b", "../x", "/x", "a\\b", "$HOME", "<b>", "a\nb", "~"]
CLASSES = ["<script>alert(1)</script>", "${oc.env:HOME}", "-rf", 'it\'s "ü"', "$\\bad{$", "{x}|%s", "y" * 80]


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_resolvers()


def quoted(text: str) -> str:
    """As Hydra's grammar quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'" if not text.endswith("\\") else text


@pytest.mark.parametrize("name", [*NO_FOLDER, "x" * 61])
def test_a_sweep_is_one_folder_below_sweeps_or_none(tmp_path: Path, name: str) -> None:
    given = [f"paths.outputs={tmp_path}", f"sweep={quoted(name)}"]
    with pytest.raises(XRayError, match="cannot name a folder") as error:
        sweep_overrides(check_overrides("train", given), given)
    advised = str(error.value).rsplit("such as ", 1)[1].rstrip(".")
    given[1] = f"sweep={advised}"
    assert sweep_overrides(check_overrides("train", given), given)[1] == tmp_path / "sweeps" / advised


@pytest.mark.parametrize("config", ["train", "test"])
@pytest.mark.parametrize("name", NO_FOLDER)
def test_a_run_name_is_one_folder_or_refused(tmp_path: Path, config: str, name: str) -> None:
    with pytest.raises(XRayError, match="cannot name a folder"):
        check_overrides(config, [f"paths.outputs={tmp_path}", f"run_name={quoted(name)}", "+x=1"])


@pytest.mark.parametrize("name", [*NO_FOLDER, "ü", "=1+1", "日本" * 40, "\U00020000" * 60])
def test_a_data_set_of_any_name_has_runs_in_one_folder(tmp_path: Path, name: str) -> None:
    given = [f"paths.outputs={tmp_path}", f"dataset.name={quoted(name)}", f"model.name={quoted(name)}"]
    run = folder_name(check_overrides("train", given).run_name)
    assert is_folder_name(run) and (tmp_path / run).parent == tmp_path
    (tmp_path / f"2026-01-02_03-04-05_{run}").mkdir()


@given(st.lists(st.text(max_size=90), max_size=9).map(lambda parts: "_".join(map(slug, parts)) or "a"))
def test_names_made_of_slugs_are_folders_that_any_file_system_takes(name: str) -> None:
    assert is_folder_name(name)
    short = folder_name(name)
    assert is_folder_name(short) and len(short.encode()) <= 200 and folder_name(short) == short


def test_long_names_that_differ_late_are_different_folders() -> None:
    assert folder_name("a" * 300 + "1") != folder_name("a" * 300 + "2")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of each class, under paths that are names to mistrust themselves, and a table of them."""
    root = tmp_path_factory.mktemp("hostile") / "films"
    noise = np.random.default_rng(0)
    lines = ["path,label"]
    for number, label in enumerate(CLASSES):
        for film in range(10):
            path = root / f"-x <i>'&\"${number}" / f"{film} {{}} %s.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
            cells = [path.relative_to(root).as_posix(), label]
            lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells))
    (root / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_classes_of_any_name_go_through_a_run_and_its_page(
    configure: Callable[..., DictConfig], films: Path, tmp_path: Path
) -> None:
    dataset = ["dataset=folder", f"dataset.root={films}", "dataset.table=table.csv", "dataset.name='<b>../x'"]
    record = train(configure(*dataset, "figures=true"))
    run = tmp_path / "run"
    assert record["classes"] == sorted(CLASSES, key=str.casefold)
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["classes"] == record["classes"]
    assert len(list((run / "figures").glob("*.png"))) > 6 and (run / "MODEL_CARD.md").is_file()
    again = score(configure(f"ckpt={run}/checkpoints/best.ckpt", run="again", config="test"))
    assert (again["classes"], again["metrics"]) == (record["classes"], record["metrics"])
    assert not {path.name for path in tmp_path.iterdir()} - {"run", "again"}
    assert_no_script_runs(run / "report.html")


def assert_no_script_runs(page: Path) -> None:
    """But the page's own, as headless Chromium sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what playwright's own imports deprecate is not ours
        sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no browser here")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        opened = chromium.new_page()
        dialogs: list[str] = []
        complaints: list[str] = []
        opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(page.as_uri())
        opened.wait_for_load_state("networkidle")
        assert dialogs == complaints == []
        assert CLASSES[0] in opened.inner_text("body") and opened.locator("script").count() == 1
        assert opened.locator("#theme").is_visible()  # which the page's own script shows
        opened.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(2)>')")
        opened.wait_for_timeout(300)
        assert dialogs == [] and complaints  # what got in all the same, the browser would refuse to run
        chromium.close()


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31mred", "\u202eback"])
def test_a_class_that_cannot_be_printed_is_refused(
    configure: Callable[..., DictConfig], tmp_path: Path, name: str
) -> None:
    for folder in (name, "other"):
        (tmp_path / "films" / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "films" / folder / "a.png")
    with pytest.raises(XRayError, match="cannot name a data set or a class") as error:
        train(configure("dataset=folder", f"dataset.root={tmp_path / 'films'}"))
    assert name not in str(error.value)
