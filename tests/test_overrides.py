from pathlib import Path
from typing import IO

import pytest

from xray_lightning.config import register_resolvers
from xray_lightning.errors import XRayError
from xray_lightning.overrides import check_overrides


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_resolvers()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["dataset=covid", "model=resnet50", "seed=3"],
        ["model.optimizer.lr=1e-4", "dataset.classes=[NORMAL,PNEUMONIA]"],
        ["dataset=pneumonia,covid", "model=cnn,resnet50", "model.optimizer.lr=1e-3,1e-4"],
        ["model=resnet50", "model.dropout=choice(0.1,0.2)"],
        ["seed=range(0,3)"],
        ["experiment=demo"],
        ["+model.new=1", "~callbacks.progress_bar", "hydra.verbose=true", "~logger"],
    ],
)
def test_valid_overrides_pass(overrides: list[str]) -> None:
    assert check_overrides("train", overrides).dataset.name in ("pneumonia", "covid")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=pneumonai"], "dataset has no option 'pneumonai'. Did you mean pneumonia?"),
        (["model=cnn,resnet5"], "model has no option 'resnet5'. Did you mean resnet50?"),
        (["modle=cnn"], "There is no key 'modle'.*Did you mean model?"),
        (["model.lr=1"], r"There is no key 'model.lr'.*model\.optimizer\.lr"),
        (["trainer.max_epoch=3"], r"Did you mean trainer\.max_epochs"),
        (["model.channels=[1,2,3]", "model=cnn,resnet50"], "There is no key 'model.channels' with model=resnet50"),
        (["logger=null"], "logger"),
        (["experiment=[demo,reference]"], "experiment takes one option"),
        (["model=[cnn]"], "model takes one option"),
        (["~model"], "model cannot be left out"),
        (["paths.outputs=/proc/nowhere"], "cannot be written to"),
        (["dataset"], "key=value"),
        (["model=["], "key=value"),
    ],
)
def test_a_wrong_override_names_the_nearest_right_ones(overrides: list[str], message: str) -> None:
    with pytest.raises(XRayError, match=message):
        check_overrides("train", overrides)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_told_before_hydra_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(dir: Path) -> IO[bytes]:
        return Path("/dev/full").open("wb")

    monkeypatch.setattr("xray_lightning.overrides.TemporaryFile", on_full_disk)
    with pytest.raises(XRayError, match=r"No space left on device.*paths.outputs=<folder>"):
        check_overrides("train", [f"paths.outputs={tmp_path}"])
