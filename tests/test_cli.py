"""What is left of a job once it has ended, one way or the other."""

import weakref
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from xray_lightning import cli
from xray_lightning.errors import XRayError

CFG = OmegaConf.create({"run_name": "some_run", "debug": False})


class Model:
    """Refers to itself, as trainers and models do."""

    def __init__(self) -> None:
        self.trainer = self


@pytest.mark.parametrize("error", [None, XRayError, ValueError])
def test_the_memory_of_a_job_is_free_before_the_next_one(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None
) -> None:
    models: list[weakref.ref[Model]] = []
    alive_at_release: list[bool] = []
    release = cli.release

    def released() -> None:
        release()
        alive_at_release.append(models[0]() is not None)

    def task(cfg: DictConfig) -> Any:
        model = Model()
        models.append(weakref.ref(model))
        if error is not None:
            raise error("of the user, or our own")
        return 0.5

    monkeypatch.setattr(cli, "release", released)
    monkeypatch.setattr(cli.log, "disabled", True)  # pytest would keep the records, with their tracebacks
    failures: list[str] = []
    result = cli._guarded(task, failures, multirun=True)(CFG)
    assert failures == ([] if error is None else ["some_run"]) and (result == 0.5) == (error is None)
    assert alive_at_release == [False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError("torch cannot be imported again")])
def test_whoever_cannot_wait_for_the_tables_is_told_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, error: BaseException
) -> None:
    def stopped(folder: Path) -> None:
        raise error

    monkeypatch.setattr(cli, "show_sweep", stopped)
    cli._wind_up("train", tmp_path / "mine")
    assert "sweep=mine goes on" in capsys.readouterr().err
