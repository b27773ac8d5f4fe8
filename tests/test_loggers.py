"""Loggers: what they hold of a run when they work, and that a run is the same when they do not."""

import errno
import gc
import struct
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import tensorboard.summary.writer.record_writer as record_writer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig

from xray_lightning.errors import XRayError
from xray_lightning.loggers import build_logger
from xray_lightning.run import train

Configure = Callable[..., DictConfig]


def values(record: dict[str, Any]) -> dict[str, float]:
    return {f"test/{name}": metric["value"] for name, metric in record["metrics"].items()}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    return {}


@pytest.fixture
def scores(configure: Configure, undisturbed: dict[str, Any]) -> dict[str, float]:
    """Of the run without any logger, trained once."""
    if not undisturbed:
        undisturbed.update(values(train(configure("~logger", run="undisturbed"))))
    return undisturbed


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings about loggers so far."""
    return lambda: [r.getMessage() for r in caplog.records if r.name == "xray_lightning.loggers"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_holds_a_runs_curves_settings_figures_and_outcome(
    configure: Configure, tmp_path: Path, scores: dict[str, float]
) -> None:
    record = train(configure("logger=mlflow", "figures=true"))
    assert values(record) == scores
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'run/mlflow.db'}")
    experiment = client.get_experiment_by_name("xray-lightning")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "pneumonia_cnn_s0"
    assert run.data.metrics["test/accuracy"] == pytest.approx(scores["test/accuracy"])
    assert {"val/auroc", "val/log_loss", "train/epoch_loss"} <= run.data.metrics.keys()
    assert run.data.params["model/name"] == "cnn" and run.data.params["seed"] == "0"
    figures = {figure.path for figure in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/examples.png", "figures/confusion_matrix.png"} <= figures
    assert all(next((tmp_path / "run/mlflow").rglob(Path(figure).name)).stat().st_size > 0 for figure in figures)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_each_run_is_one_of_wandbs_offline(
    configure: Configure, tmp_path: Path, scores: dict[str, float], told: Callable[[], list[str]]
) -> None:
    for run, figures in (("first", "false"), ("second", "true")):
        assert values(train(configure("logger=wandb", f"figures={figures}", run=run))) == scores
    gc.collect()  # as after each job
    assert told() == []
    for run in ("first", "second"):
        (folder,) = (tmp_path / run / "wandb").glob("offline-run-*")
        records = list(wandb_records(next(folder.glob("*.wandb"))))
        assert next(r.run.display_name for r in records if r.HasField("run")) == "pneumonia_cnn_s0"
        logged = {i.key or "/".join(i.nested_key) for r in records if r.HasField("history") for i in r.history.item}
        assert {"val/auroc", "train/epoch_loss", "test/accuracy"} <= logged
        settings = {u.key for r in records if r.HasField("config") for u in r.config.update}
        assert {"dataset", "model", "seed"} <= settings
        assert any(r.HasField("exit") for r in records)
        assert ("examples/count" in logged) == bool(list(folder.rglob("examples*.png"))) == (run == "second")


def wandb_records(file: Path) -> Iterator[Any]:
    """After 7 bytes of its own a LevelDB log: pieces of records, each behind checksum, length and kind, in blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = file.read_bytes(), 7, b""
    while at + 7 < len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def fail(*args: object, **kwargs: object) -> None:
    raise ConnectionError("no server")


@pytest.mark.parametrize(
    "where",
    ["__init__", "experiment", "log_metrics", "log_hyperparams", "save", "finalize", "after_save_checkpoint"],
)
def test_a_logger_that_fails_is_told_once_and_changes_no_number(
    configure: Configure,
    scores: dict[str, float],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    broken = wraps(getattr(CSVLogger, where))(fail) if where != "experiment" else property(fail)
    monkeypatch.setattr(CSVLogger, where, broken)
    assert values(train(configure("logger=csv"))) == scores
    (message,) = told()
    assert "CSVLogger failed (ConnectionError: no server). The run goes on without it." in message


@pytest.mark.parametrize("call", ["add_figure", "add_scalar", "flush", "close"])
def test_so_is_one_whose_experiment_fails(
    configure: Configure,
    scores: dict[str, float],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    monkeypatch.setattr(f"torch.utils.tensorboard.SummaryWriter.{call}", fail)
    assert values(train(configure("figures=true"))) == scores
    (message,) = told()
    assert "TensorBoardLogger failed (ConnectionError: no server)" in message


def test_a_full_disk_under_tensorboards_thread_shows_no_traceback(
    configure: Configure,
    scores: dict[str, float],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = record_writer.RecordWriter.write, []

    def full(self: Any, data: bytes) -> None:
        written.append(len(data))
        if len(written) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    assert values(train(configure())) == scores
    (message,) = told()
    assert "No space left on device" in message


def test_a_folder_that_cannot_be_made_costs_the_curves_alone(
    configure: Configure, tmp_path: Path, scores: dict[str, float], told: Callable[[], list[str]]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tensorboard").write_text("in the way")
    assert values(train(configure())) == scores
    (message,) = told()
    assert "FileExistsError" in message
    assert (tmp_path / "run/tensorboard").read_text() == "in the way"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_server_that_is_not_there_costs_the_curves_alone(
    configure: Configure, scores: dict[str, float], told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert values(train(configure("logger=mlflow", "logger.tracking_uri=http://127.0.0.1:9"))) == scores
    (message,) = told()
    assert "MLFlowLogger failed" in message and "127.0.0.1" in message


@pytest.mark.parametrize(
    ("extra", "switch"),
    [("mlflow", "mlflow._MLFLOW_AVAILABLE"), ("wandb", "wandb._WANDB_AVAILABLE")],
)
def test_a_missing_extra_is_one_message(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, extra: str, switch: str
) -> None:
    monkeypatch.setattr(f"lightning.pytorch.loggers.{switch}", False)
    with pytest.raises(XRayError, match=rf"pip install \"xray-lightning\[{extra}\]"):
        train(configure(f"logger={extra}"))


def test_what_is_no_logger_is_refused(configure: Configure) -> None:
    with pytest.raises(XRayError, match="gives a dict, where a Logger is needed"):
        build_logger(configure("logger=csv", "logger._target_=builtins.dict").logger)


def test_a_database_that_would_be_in_another_place_is_refused(configure: Configure) -> None:
    with pytest.raises(XRayError, match=r"would be another file: it has a \?, # or %"):
        build_logger(configure("logger=mlflow", "logger.tracking_uri='sqlite:////what?/mlflow.db'").logger)


def test_a_guarded_logger_is_still_of_its_kind(configure: Configure) -> None:
    assert isinstance(build_logger(configure("logger=csv").logger), CSVLogger)
    assert isinstance(build_logger(configure().logger), TensorBoardLogger)
    assert build_logger(None) is False
