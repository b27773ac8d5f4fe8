"""history.csv: a line an epoch, whatever is validated when."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from xray_lightning.evaluation.metrics import SCALARS
from xray_lightning.history import read_history
from xray_lightning.run import train

Configure = Callable[..., DictConfig]


def test_each_epoch_has_its_losses_and_scores(configure: Configure, tmp_path: Path) -> None:
    record = train(configure("trainer.max_epochs=3"))
    history = read_history(tmp_path / "run/history.csv")
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert all(line[f"val/{name}"] is not None for line in history for name in SCALARS)
    assert all((line["train/loss"] or 0) > 0 for line in history)
    chosen = history[record["validation"]["epoch"] - 1]
    assert chosen["val/log_loss"] == min(line["val/log_loss"] or 9 for line in history)
    assert chosen["val/log_loss"] == pytest.approx(record["validation"]["log_loss"], rel=1e-5)


def test_epochs_without_validation_are_left_empty(configure: Configure, tmp_path: Path) -> None:
    train(configure("trainer.max_epochs=4", "+trainer.check_val_every_n_epoch=2"))
    history = read_history(tmp_path / "run/history.csv")
    assert [line["val/auroc"] is None for line in history] == [True, False, True, False]
    assert all(line["train/loss"] is not None for line in history)


def test_a_head_that_is_solved_for_has_one_too(configure: Configure, tmp_path: Path) -> None:
    train(configure("model=resnet50_convex", "model.weights=random", "model.l2_steps=3", "trainer.max_epochs=3"))
    losses = [line["train/loss"] or 0 for line in read_history(tmp_path / "run/history.csv")]
    assert len(losses) == 3 and losses[0] > losses[1] > losses[2] > 0  # each penalty is weaker


def test_there_is_none_where_nothing_was_trained(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.csv") == []
