"""The same command twice, and what differs between two runs that are not the same."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.compare.__main__ import main
from xray_lightning.compare.part import flat, of_values

from .evaluation.cascades import fail_cascade, finish_cascade
from .evaluation.report.conftest import Maker

PROJECT = Path(__file__).resolve().parent.parent
SMALL = ("trainer=cpu", "trainer.max_epochs=2", "dataset.image_size=32", "figures=false", "dataset.batch_size=16")
RESULTS = {"metrics", "predictions", "history", "weights"}
FAILED = '{"state": "failed", "error": "no disk", "settings": {}}'
ODD = '{"state": "running", "error": null, "settings": {"dataset": 3, "model": {"name": []}}}'
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, phantoms: Path, shared_cache: Path) -> Callable[..., Any]:
    """Runs python in an empty folder with the phantoms as its data."""
    folder = tmp_path_factory.mktemp("compare")
    known = {"XRAY_DATA": str(phantoms), "XRAY_CACHE": str(shared_cache), "PYTHONWARNINGS": "default"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=folder, env=os.environ | known, capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="module")
def sweeps(shell: Callable[..., Any]) -> tuple[Path, Path]:
    """The same command twice, each with two seeds."""
    for name in ("first", "again"):
        done = shell(str(PROJECT / "train.py"), "-m", "seed=0,1", f"sweep={name}", *SMALL)
        assert done.returncode == 0, done.stderr
    outputs = Path(shell("-c", "import os; print(os.getcwd())").stdout.strip()) / "outputs/sweeps"
    return outputs / "first", outputs / "again"


@pytest.fixture
def copies(sweeps: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """One run, and a copy of it that a test may change."""
    run = sweeps[0] / "pneumonia_cnn_s0"
    return run, Path(shutil.copytree(run, tmp_path / "copy"))


def compared(capsys: pytest.CaptureFixture[str], a: Path, b: Path) -> tuple[int, dict[str, Any]]:
    """The exit status, and what --json prints."""
    status = main([str(a), str(b), "--json"])
    return status, json.loads(capsys.readouterr().out)


def lines_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def differing(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {name: part["differences"] for name, part in found["parts"].items() if part["differences"]}


def test_the_same_command_gives_the_same_numbers(shell: Callable[..., Any], sweeps: tuple[Path, Path]) -> None:
    a, b = (str(sweep / "pneumonia_cnn_s0") for sweep in sweeps)
    done = shell("-m", "xray_lightning.compare", a, b)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The results are the same, bit for bit" in done.stdout and "2 epochs of history" in done.stdout
    assert all(f"{n} images" in done.stdout for n in (80, 9)) and "Warning" not in done.stdout + done.stderr
    files = [Path(run) / "predictions.csv" for run in (a, b)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_another_seed_differs_and_is_named(capsys: pytest.CaptureFixture[str], sweeps: tuple[Path, Path]) -> None:
    assert main([str(sweeps[0] / f"pneumonia_cnn_s{seed}") for seed in (0, 1)]) == 1
    told = capsys.readouterr().out
    assert "The results differ: metrics, predictions, history, weights." in told
    assert "settings: dataset.seed, seed" in told and "epoch 1: train/loss" in told


def test_sweeps_are_compared_run_by_run(
    capsys: pytest.CaptureFixture[str], sweeps: tuple[Path, Path], tmp_path: Path
) -> None:
    status, found = compared(capsys, *sweeps)
    assert status == 0 and {name: run["same"] for name, run in found.items()} == {
        "pneumonia_cnn_s0": True,
        "pneumonia_cnn_s1": True,
    }
    third = Path(shutil.copytree(sweeps[1], tmp_path / "third"))
    (third / "pneumonia_cnn_s0").rename(third / "pneumonia_cnn_s2")
    (third / "pneumonia_cnn_s1/metrics.json").write_text("{")
    assert main([str(sweeps[0]), str(third)]) == 1
    told = capsys.readouterr().out
    assert told.count("not compared") == 3 and "only in A" in told and "only in B" in told
    assert "metrics.json is broken" in " ".join(told.split())
    assert "Of 3 runs, 0 have the same results" in told


def test_far_probabilities_and_changed_decisions_are_counted(
    capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path], sweeps: tuple[Path, Path]
) -> None:
    other = sweeps[0] / "pneumonia_cnn_s1"
    tables = [lines_of(run / "predictions.csv") for run in (copies[0], other)]
    chance = [{line["path"]: float(line["PNEUMONIA"]) for line in table} for table in tables]
    gaps = {path: abs(chance[0][path] - chance[1][path]) for path in chance[0]}
    farthest = max(gaps, key=lambda path: gaps[path])
    decided = sum((chance[0][path] > 0.5) != (chance[1][path] > 0.5) for path in gaps)
    _, found = compared(capsys, copies[0], other)
    (told,) = differing(found)["predictions"]
    assert abs(told["a"] - told["b"]) == pytest.approx(gaps[farthest], rel=1e-12)
    assert f"the largest of {sum(gap > 0 for gap in gaps.values())} images; {decided} have another" in told["by"]


def test_weights_are_compared_to_the_last_bit(capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path]) -> None:
    file = copies[1] / "checkpoints/best.ckpt"
    content = torch.load(file, weights_only=True)
    name = next(iter(content["state_dict"]))
    weight = content["state_dict"][name].flatten()  # a view
    before = weight[3].clone()
    weight[3] = torch.nextafter(before, torch.tensor(torch.inf))
    content["state_dict"]["more"] = torch.zeros(2)
    torch.save(content, file)
    status, found = compared(capsys, *copies)
    assert status == 1 and differing(found).keys() == {"weights"}
    changed, more = differing(found)["weights"]
    step = (weight[3].double() - before.double()).item()
    assert changed["what"] == name and changed["by"] == f"{step:.3g} at most, 1 of {len(weight)} values"
    assert (more["what"], more["a"], more["b"]) == ("more", None, "float32 (2,)")


def test_the_first_epoch_that_differs_is_told(capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path]) -> None:
    file = copies[1] / "history.csv"
    header, first, second = file.read_text().splitlines()
    cells = second.split(",")
    cells[1] = repr(float(cells[1]) + 1)
    file.write_text("\n".join([header, first, ",".join(cells), second]) + "\n")
    status, found = compared(capsys, *copies)
    assert status == 1
    length, loss = differing(found)["history"]
    assert (length["what"], length["a"], length["b"]) == ("epochs", 2, 3)
    assert (loss["what"], loss["by"]) == ("epoch 2: train/loss", "+1")


def test_images_are_told_that_moved_changed_or_went(
    capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path]
) -> None:
    file = copies[1] / "catalog.csv"
    lines = lines_of(file)
    moved, changed, gone = (next(line for line in lines if line["split"] == side) for side in ("train", "val", "test"))
    moved["split"], changed["digest"] = "val", "0" * 32
    lines.remove(gone)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, lines[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    status, found = compared(capsys, *copies)
    told = {(d["what"], d["a"], d["b"], d["by"].rsplit(" ", 1)[1]) for d in differing(found)["data"]}
    assert told == {
        ("images of one alone", "there", None, gone["path"]),
        ("split", "train", "val", moved["path"]),
        ("digest", "one", "another", changed["path"]),
    }
    assert status == 0 and found["same"]  # what came out is the same all the same


def test_settings_and_environment_alone_do_not_make_results_differ(
    capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path]
) -> None:
    for name, change in (
        ("status.json", lambda content: content["settings"]["model"].update(lr=[1, 2])),
        ("metrics.json", lambda content: content["environment"]["packages"].update(torch="0.1")),
    ):
        content = json.loads((copies[1] / name).read_text())
        change(content)
        (copies[1] / name).write_text(json.dumps(content))
    status, found = compared(capsys, *copies)
    assert status == 0 and {k: [d["what"] for d in v] for k, v in differing(found).items()} == {
        "settings": ["model.lr.0", "model.lr.1"],
        "environment": ["packages.torch"],
    }


def test_what_cannot_be_repeated_is_not_held_against_it(
    capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path]
) -> None:
    gpu = copies[1]
    content = json.loads((gpu / "metrics.json").read_text())
    content["metrics"]["auroc"]["value"] = 0.25
    (gpu / "metrics.json").write_text(json.dumps(content))
    assert main([str(copies[0]), str(gpu)]) == 1
    assert "What went in is the same" in capsys.readouterr().out
    content["environment"] |= {"repeatable": False, "repeatable_reason": "its kernels race"}
    (gpu / "metrics.json").write_text(json.dumps(content))
    assert main([str(copies[0]), str(gpu)]) == 1
    told = capsys.readouterr().out
    assert "its kernels race" in told and "metrics.auroc.value" in told


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def imaginary(run: Path) -> None:
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    content["state_dict"] = {key: torch.zeros(1, dtype=torch.complex64) for key in content["state_dict"]}
    torch.save(content, run / "checkpoints/best.ckpt")


def without_a_column(run: Path) -> None:
    lines = (run / "predictions.csv").read_text().splitlines()
    (run / "predictions.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in lines))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda run: shutil.rmtree(run), "is no folder of a run or a sweep"),
        (lambda run: (run / "status.json").write_text(FAILED), "holds no finished run: no disk"),
        (lambda run: (run / "status.json").write_text(ODD), "status.json is broken"),
        (lambda run: (run / "metrics.json").write_text("[" * 100_000), "metrics.json is broken"),
        (lambda run: (run / "metrics.json").unlink(), "metrics.json is broken"),
        (lambda run: (run / "history.csv").write_bytes(b"epoch,val/auroc\n1,\xff\n"), "history.csv cannot be read"),
        (lambda run: (run / "catalog.csv").write_text("name\nx\n"), "catalog.csv cannot be read"),
        (without_a_column, "predictions.csv cannot be used"),
        (lambda run: (run / "checkpoints/best.ckpt").write_bytes(b"PK"), "cannot be read as a checkpoint"),
        (lambda run: torch.save(Trap(run / "sprung"), run / "checkpoints/best.ckpt"), "cannot be read as a checkpoint"),
        (imaginary, "no real numbers"),
    ],
)  # fmt: skip
def test_broken_and_hostile_folders_are_one_message(
    capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path], edit: Edit, message: str
) -> None:
    edit(copies[1])
    assert main([*map(str, copies)]) == 2
    told = capsys.readouterr()
    assert message in told.err and str(copies[1].name) in told.err and not told.out
    assert not (copies[1] / "sprung").exists()


def test_what_is_missing_on_one_side_is_a_difference(
    capsys: pytest.CaptureFixture[str], copies: tuple[Path, Path]
) -> None:
    (copies[1] / "checkpoints/best.ckpt").unlink()
    status, found = compared(capsys, *copies)
    assert status == 1 and [d["a"] for d in differing(found)["weights"]] == ["there"]
    assert compared(capsys, copies[1], copies[1])[0] == 0  # and of neither: as of runs that only score


@pytest.mark.parametrize("words", [[], ["one"], ["a", "b", "c"], ["a", "b", "--all"]])
def test_a_wrong_call_is_exit_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and "usage" in capsys.readouterr().err


def test_a_run_is_not_compared_with_a_sweep(sweeps: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweeps[0]), str(sweeps[0] / "pneumonia_cnn_s0")]) == 2
    assert "two of a kind" in capsys.readouterr().err


@pytest.fixture
def cascades(tmp_path: Path) -> tuple[Path, Path]:
    """One and its copy, which a test may change."""
    one = finish_cascade(tmp_path / "one" / "two")
    return one, Path(shutil.copytree(one, tmp_path / "other" / "two"))


def test_two_cascades_are_the_same_or_told_apart(
    capsys: pytest.CaptureFixture[str], cascades: tuple[Path, Path]
) -> None:
    assert main([*map(str, cascades)]) == 0
    told = capsys.readouterr().out
    assert "The results are the same, bit for bit" in told and "120 images of predictions" in told
    lines = lines_of(cascades[1] / "predictions.csv")
    lines[3]["screen"], lines[5]["Healthy"] = "0.5", repr(float(lines[5]["Healthy"]) + 0.25)
    lines[7]["cascade"] = "Covid" if lines[7]["cascade"] != "Covid" else "Healthy"
    with (cascades[1] / "predictions.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, lines[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[:-1])
    content = json.loads((cascades[1] / "cascade.json").read_text())
    content["test"]["all"]["spared"]["value"] = 0.125
    content["screen"]["seed"] = 9
    content["environment"]["packages"]["torch"] = "0.1"
    (cascades[1] / "cascade.json").write_text(json.dumps(content))
    status, found = compared(capsys, *cascades)
    differing_ = {name: [d["what"] for d in part] for name, part in differing(found).items()}
    assert status == 1 and differing_ == {
        "networks": ["screen.seed"],
        "environment": ["packages.torch"],
        "metrics": ["test.all.spared.value"],
        "predictions": [
            "images of one alone",
            "probability of screen, 3.png",
            "probability of Healthy, 5.png",
            "cascade",
        ],
    }
    healthy = next(d for d in differing(found)["predictions"] if "Healthy" in d["what"])
    assert healthy["by"] == "+0.25, the largest of 1 images"
    assert compared(capsys, *(folder.parent for folder in cascades))[1]["two"]["same"] is False  # as sweeps


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folder: fail_cascade(folder, "no disk"), "holds no finished cascade: no disk"),
        (lambda folder: (folder / "cascade.json").write_text("{}"), "cascade.json is broken"),
        (without_a_column, "predictions.csv cannot be used"),
        (lambda folder: (folder / "predictions.csv").write_text(""), "predictions.csv cannot be used"),
        (lambda folder: (folder / "predictions.csv").write_bytes(b"\0"), "predictions.csv cannot be used"),
    ],
)
def test_cascades_that_cannot_be_compared_are_one_message(
    capsys: pytest.CaptureFixture[str], cascades: tuple[Path, Path], edit: Edit, message: str
) -> None:
    edit(cascades[1])
    assert main([*map(str, cascades)]) == 2
    told = capsys.readouterr()
    assert message in told.err and "other/two" in told.err and not told.out


def test_a_cascade_is_not_compared_with_a_run(
    capsys: pytest.CaptureFixture[str], cascades: tuple[Path, Path], tmp_path: Path
) -> None:
    make = Maker(tmp_path / "one")
    run = make.run("pneumonia_cnn_s0", make.record(), figures=False)
    for pair in ((cascades[0], run), (run, cascades[0])):
        assert main([*map(str, pair)]) == 2
        told = capsys.readouterr().err
        assert f"{cascades[0]} is a cascade" in told and "two of a kind" in told


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
TREES = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3)),
    min_size=1,
    max_size=4,
)


@given(TREES)
def test_data_is_the_same_as_its_copy(tree: dict[str, Any]) -> None:
    copy = json.loads(json.dumps(tree))
    assert of_values("part", "values", tree, copy, result=True).differences == []


@given(TREES, st.data())
def test_one_changed_leaf_is_the_one_difference(tree: dict[str, Any], data: st.DataObject) -> None:
    leaves = dict(flat(tree))
    chosen = data.draw(st.sampled_from(sorted(leaves)))
    changed = leaves | {chosen: ["another"]}
    found = of_values("part", "values", leaves, changed, result=True).differences
    assert {d.what for d in found} <= {chosen, f"{chosen}.0"} and found
