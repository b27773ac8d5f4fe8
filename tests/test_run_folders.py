import itertools
from pathlib import Path

import pytest

from xray_lightning.config import register_resolvers
from xray_lightning.errors import XRayError
from xray_lightning.overrides import check_overrides
from xray_lightning.run_folders import sweep_overrides


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_resolvers()


def named(tmp_path: Path, *overrides: str) -> tuple[list[str], Path]:
    given = [f"paths.outputs={tmp_path}", *overrides]
    return sweep_overrides(check_overrides("train", given), given)


def test_a_named_sweep_keeps_its_name(tmp_path: Path) -> None:
    added, folder = named(tmp_path, "sweep=mine", "model=cnn,resnet50", "seed=0,1")
    assert added == [] and folder == tmp_path / "sweeps" / "mine"


def test_unnamed_sweeps_never_share_a_folder(tmp_path: Path) -> None:
    folders = [named(tmp_path)[1] for _ in range(5)]
    assert all(a != b for a, b in itertools.combinations(folders, 2))


@pytest.mark.parametrize("name", ["../up", "a/b", "with space", "-dash", "x;rm", "$HOME"])
def test_a_sweep_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(XRayError, match="cannot name a folder"):
        named(tmp_path, f"sweep='{name}'")


def test_whatever_else_is_swept_becomes_part_of_the_run_names(tmp_path: Path) -> None:
    added, _ = named(tmp_path, "sweep=x", "model.optimizer.lr=1e-3,1e-4", "trainer=cpu,auto", "trainer.max_epochs=3")
    given = ["sweep=x", "model.optimizer.lr=1e-4", "trainer=cpu", *added]
    text = check_overrides("train", given)
    assert "max_epochs" not in added[0]
    assert (
        text._get_node("run_name")
        ._value()
        .endswith("_lr=${slug:${model.optimizer.lr}}_trainer=${slug:${hydra:runtime.choices.trainer}}")
    )


@pytest.mark.parametrize(
    "override",
    [
        "trainer=ddp",
        "trainer=cpu,ddp",
        "trainer.devices=2",
        "trainer.devices=1,2",
        "trainer.devices=choice(1,auto)",
        "+trainer.num_nodes=1,2",
        "+trainer.strategy=ddp",
        "+trainer.strategy=auto,ddp",
        "run_name=same",
        "sweep=a,b",
        "hydra.sweep.dir=elsewhere",
        "hydra.sweep.subdir=same",
    ],
)
def test_what_would_break_a_sweep_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(XRayError, match=r"sweep \(-m\)"):
        named(tmp_path, override)


def test_a_sweep_in_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(XRayError, match=r"sweep \(-m\)"):
        named(tmp_path, "seed=0,1")
