import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xray_lightning.data.splits import TEST
from xray_lightning.errors import XRayError
from xray_lightning.history import read_history
from xray_lightning.run import test as score
from xray_lightning.run import train

Configure = Callable[..., DictConfig]
RANDOM = "model.weights=random"
RESNET50 = ["model=resnet50", RANDOM, "model.views=0"]  # plain images alone, for speed
FIGURES = (
    "confusion_matrix", "roc", "precision_recall", "reliability", "histograms", "decision_curve", "learning_curves",
    "most_wrong", "least_certain",
)  # fmt: skip


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def scores(record: dict[str, Any]) -> dict[str, float]:
    return {name: metric["value"] for name, metric in record["metrics"].items()}


def test_pictures_that_lie_in_a_folder_already_stay(configure: Configure, tmp_path: Path) -> None:
    mine = tmp_path / "run/figures/mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    train(configure())
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("dataset", ["pneumonia", "covid"])
@pytest.mark.parametrize("model", [["model=cnn"], RESNET50], ids=["cnn", "resnet50"])
def test_each_experiment_leaves_a_complete_run_folder(
    configure: Configure, tmp_path: Path, dataset: str, model: list[str]
) -> None:
    record = train(configure(f"dataset={dataset}", "figures=true", *model))
    run = tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text()) == record
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    files = (
        "catalog.csv",
        "history.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "report.html",
        "MODEL_CARD.md",
    )
    for file in (*files, *(f"figures/{name}.png" for name in FIGURES)):
        assert (run / file).stat().st_size > 0
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {*events.Tags()["images"]} == {*FIGURES, "examples"}
    assert {"train/epoch_loss", "val/auroc", "val/log_loss"} <= {*events.Tags()["scalars"]}
    rows = predictions(run)
    assert len(rows) == record["n"] == sum(map(sum, record["confusion_matrix"]))
    assert all(math.isclose(sum(float(row[c]) for c in record["classes"]), 1, abs_tol=1e-5) for row in rows)
    assert "synthetic radiographs" in record["notes"]


@pytest.mark.parametrize("model", [["model=cnn"], RESNET50], ids=["cnn", "resnet50"])
def test_scoring_a_checkpoint_again_gives_the_same_digits(
    configure: Configure, tmp_path: Path, model: list[str]
) -> None:
    trained = train(configure(*model))
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    cfg = configure(f"ckpt={ckpt}", f"paths.cache={tmp_path / 'fresh'}", config="test", run="again")
    again = score(cfg)
    assert scores(again) == scores(trained)
    first, second = ((tmp_path / run / "predictions.csv").read_text() for run in ("run", "again"))
    assert first == second


@pytest.mark.parametrize("model", [["model=cnn"], RESNET50], ids=["cnn", "resnet50"])
def test_without_a_cache_the_scores_are_the_same_and_nothing_is_written(
    configure: Configure, tmp_path: Path, model: list[str]
) -> None:
    cached = train(configure(*model))
    nowhere = ["cache=off", f"paths.cache={tmp_path / 'cache'}"]
    direct = train(configure(*model, *nowhere, run="direct"))
    assert scores(direct) == scores(cached)
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    again = score(configure(f"ckpt={ckpt}", *nowhere, config="test", run="again"))
    assert scores(again) == scores(cached)
    assert not (tmp_path / "cache").exists()


def test_a_training_is_not_overwritten_by_a_test_of_its_checkpoint(configure: Configure, tmp_path: Path) -> None:
    trained = train(configure())
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    with pytest.raises(XRayError, match="is done, with other settings"):
        score(configure(f"ckpt={ckpt}", config="test"))
    assert json.loads((tmp_path / "run/metrics.json").read_text()) == trained


def test_a_checkpoint_scores_without_the_run_that_made_it(configure: Configure, tmp_path: Path) -> None:
    trained = train(configure())
    ckpt = (tmp_path / "run/checkpoints/best.ckpt").rename(tmp_path / "alone.ckpt")
    for file in sorted((tmp_path / "run").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert scores(score(configure(f"ckpt={ckpt}", config="test", run="again"))) == scores(trained)


def test_a_run_does_not_depend_on_the_runs_before_it(configure: Configure) -> None:
    alone = train(configure(*RESNET50, run="alone"))
    train(configure("model=cnn", "seed=5", "trainer.deterministic=true", run="before"))
    torch.rand(7)
    after = train(configure(*RESNET50, run="after"))
    assert scores(after) == scores(alone)


def test_seeds_share_one_test_set_and_train_differently(configure: Configure, tmp_path: Path) -> None:
    first, second = (train(configure("dataset=covid", f"seed={s}", run=f"s{s}")) for s in (0, 1))
    assert [r["path"] for r in predictions(tmp_path / "s0")] == [r["path"] for r in predictions(tmp_path / "s1")]
    assert scores(first) != scores(second)


def test_cached_features_train_the_same_head_as_running_the_backbone(configure: Configure) -> None:
    settings = [*RESNET50, "dataset.augment=null", "trainer.precision=32-true"]
    cached = scores(train(configure(*settings, run="cached")))
    direct = scores(train(configure(*settings, "model.cache_features=false", run="direct")))
    assert cached["auroc"] == pytest.approx(direct["auroc"], abs=0.02)
    assert cached["log_loss"] == pytest.approx(direct["log_loss"], rel=0.02)


@pytest.mark.parametrize("views", [0, 2])
def test_runs_of_other_seeds_and_heads_compute_no_features_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: int
) -> None:
    settings = [*RESNET50, f"model.views={views}", f"paths.cache={tmp_path / 'cache'}"]
    train(configure(*settings, run="first"))
    features = sorted((tmp_path / "cache/features").glob("*.npy"))
    assert len(features) == 2 * (views + 1)  # the marks of each, too

    def computed(*args: object) -> None:
        raise AssertionError("features are computed again")

    monkeypatch.setattr("xray_lightning.models.resnet50.FusedResNet", computed)
    for number, other in enumerate(["seed=1", "model.optimizer.lr=0.1", "model.hidden=8", "dataset.balance=sampling"]):
        train(configure(*settings, other, run=str(number)))
    assert sorted((tmp_path / "cache/features").glob("*.npy")) == features


def test_a_run_that_is_done_is_not_run_again(configure: Configure, tmp_path: Path) -> None:
    record = train(configure())
    before = (tmp_path / "run/checkpoints/best.ckpt").stat().st_mtime_ns
    assert train(configure()) == record
    assert (tmp_path / "run/checkpoints/best.ckpt").stat().st_mtime_ns == before


def test_a_done_run_with_other_settings_is_refused(configure: Configure) -> None:
    train(configure())
    with pytest.raises(XRayError, match=r"model\.optimizer\.lr: 0\.003 -> 0\.5"):
        train(configure("model.optimizer.lr=0.5"))


def test_early_stopping_is_a_choice(configure: Configure, tmp_path: Path) -> None:
    settings = ["trainer.max_epochs=4", "model.optimizer.lr=0", "model.batch_norm=false"]  # nothing ever gets better
    for chosen, epochs in ([], 4), (["callbacks=early_stopping", "callbacks.early_stopping.patience=1"], 2):
        train(configure(*settings, *chosen, run=f"{epochs}"))
        assert len(read_history(tmp_path / f"{epochs}/history.csv")) == epochs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.balance=wieghted_loss", "Did you mean weighted_loss"),
        ("trainer.precision=bf17-mixed", "Did you mean .*bf16-mixed"),
        ("trainer.precision=64-true", "64-true is not supported.*32-true, bf16-mixed, 16-mixed"),
        ("trainer.precision=bf16-true", "bf16-true is not supported"),
        ("trainer.max_epochs=many", "Expected"),
        ("model.channels=[1,2]", "three widths"),
        ("model.kernel_size=3", "Expected .*Sequence"),
        ("+model.width=3", "not an argument"),
        ("dataset.classes=[NORMAL,PNEUMNIA]", "Did you mean PNEUMONIA"),
        ("dataset.val_fraction=2", "between 0 and 1"),
        ("seed=-1", "seed=-1 is not valid"),
        ("model.optimizer.lr=-1", "Invalid learning rate"),
        ("model.optimizer.lr=1e30", "Training diverged"),
        ("callbacks=early_stopping callbacks.early_stopping.monitor=val/auroq", "val/auroq"),
        ("dataset.augment.scale=[]", "two shares"),
        ("dataset.root=nowhere", "data.download dataset=pneumonia"),
        ("dataset.resize=streched", "Did you mean stretch"),
        ("dataset.split=patient", "grouped"),
        ("dataset.validation=blocks", "Did you mean block"),
        ("dataset.split_file=nowhere.csv", r"nowhere\.csv cannot be read"),
        ("dataset.on_leak=warm", "Did you mean warn"),
        ("dataset.on_bad_image=skipp", "Did you mean skip"),
        ("cache=of", r"cache='of' is not valid\. .*off"),
        ("trainer.accelerator=gpu", "trainer=cpu"),
        ("+trainer.fast_dev_run=true", "without a checkpoint"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*fast_dev_run")
def test_a_wrong_value_is_one_clear_message(
    configure: Configure, tmp_path: Path, override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(XRayError, match=message):
        train(configure(*override.split()))
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["state"] == "failed" and status["error"]


def test_weights_that_cannot_be_had_fail_unless_the_demo_allows_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    settings = ["model=resnet50", "model.weights=IMAGENET1K_V1", "model.views=0"]
    with pytest.raises(XRayError, match="XRAY_RESNET50_WEIGHTS"):
        train(configure(*settings, run="refused"))
    record = train(configure(*settings, "weights_fallback=random"))
    assert "random backbone" in record["notes"]


def test_a_moved_data_set_is_named_on_the_command_line(configure: Configure, phantoms: Path, tmp_path: Path) -> None:
    trained = train(configure())
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    moved = tmp_path / "elsewhere"
    moved.symlink_to(phantoms / "chest_xray")
    again = score(configure(f"ckpt={ckpt}", f"dataset.root={moved}", config="test", run="again"))
    assert scores(again) == scores(trained)
    assert again["images"][TEST] == trained["images"][TEST]


def test_other_test_images_than_those_of_training_are_refused(
    configure: Configure, phantoms: Path, tmp_path: Path
) -> None:
    train(configure("dataset=covid"))
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    fewer = shutil.copytree(phantoms / "COVID-19_Radiography_Dataset", tmp_path / "fewer")
    tested = predictions(tmp_path / "run")[0]["path"]
    (fewer / tested).unlink()
    with pytest.raises(XRayError, match=r"1 of \d+ test images"):
        score(configure(f"ckpt={ckpt}", f"dataset.root={fewer}", config="test", run="again"))


def test_files_added_and_renamed_since_training_change_no_score(
    configure: Configure, phantoms: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(phantoms / "COVID-19_Radiography_Dataset", tmp_path / "data")
    trained = train(configure("dataset=covid", f"dataset.root={root}"))
    for number, file in enumerate(sorted(root.glob("*/images/*"))):
        Image.open(file).rotate(90).save(file.with_name(f"new-{number}.png"))
        file.rename(file.with_name(f"{number % 3}-{file.name}"))
    again = score(configure(f"ckpt={tmp_path / 'run/checkpoints/best.ckpt'}", config="test", run="again"))
    assert scores(again) == pytest.approx(scores(trained), rel=1e-6)
    assert again["confusion_matrix"] == trained["confusion_matrix"]
    assert again["images"] == {TEST: trained["images"][TEST]}


def test_a_split_that_leaks_is_noted_with_its_scores(
    configure: Configure, phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(phantoms / "COVID-19_Radiography_Dataset", tmp_path / "data")
    for file in sorted(root.glob("*/images/*")):
        Image.open(file).point(lambda value: 0.9 * value).save(file.with_suffix(".jpg"), quality=70)
    settings = ["dataset=covid", f"dataset.root={root}"]
    whole = train(configure(*settings, run="grouped"))
    assert whole["audit"]["leaked"] == {} and "leak" not in " ".join(whole["notes"]) + caplog.text
    record = train(configure(*settings, "dataset.split=reference", run="reference"))
    assert any(note.startswith("leaks: ") for note in record["notes"])
    assert record["audit"]["leaked"]["test"] > 0
    assert "This split leaks: " in caplog.text
    listed = f"dataset.split_file={tmp_path / 'reference/catalog.csv'}"
    with pytest.raises(XRayError, match=r"This split leaks: .*dataset\.on_leak=warn"):
        train(configure(*settings, listed, run="refused"))
    repeated = train(configure(*settings, listed, "dataset.on_leak=warn", run="repeated"))
    assert (scores(repeated), repeated["notes"]) == (scores(record), record["notes"])


def test_a_checkpoint_of_a_split_file_scores_without_it(configure: Configure, tmp_path: Path) -> None:
    train(configure("dataset.split_seed=4", run="first"))
    (tmp_path / "first/catalog.csv").rename(tmp_path / "split.csv")
    trained = train(configure(f"dataset.split_file={tmp_path / 'split.csv'}"))
    (tmp_path / "split.csv").unlink()
    again = score(configure(f"ckpt={tmp_path / 'run/checkpoints/best.ckpt'}", config="test", run="again"))
    assert scores(again) == scores(trained)


def test_bad_files_end_a_run_or_are_named_in_its_record(configure: Configure, phantoms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(phantoms / "chest_xray", tmp_path / "data")
    (root / "train/NORMAL/page.jpeg").write_bytes(b"<html>")
    (root / "test/NORMAL/empty.jpeg").write_bytes(b"")
    with pytest.raises(XRayError, match=r"(?s)test/NORMAL/empty\.jpeg is empty.*train/NORMAL/page\.jpeg is a web page"):
        train(configure(f"dataset.root={root}", run="stopped"))
    record = train(configure(f"dataset.root={root}", "dataset.on_bad_image=skip"))
    assert record["bad_images"].keys() == {"test/NORMAL/empty.jpeg", "train/NORMAL/page.jpeg"}
    assert scores(record) == scores(train(configure(run="whole")))
    assert "page.jpeg" not in (tmp_path / "run/catalog.csv").read_text()


def test_scoring_takes_no_other_data_setting_than_the_root(configure: Configure, tmp_path: Path) -> None:
    train(configure())
    ckpt = tmp_path / "run/checkpoints/best.ckpt"
    with pytest.raises(XRayError, match=r"not dataset\.split_seed"):
        score(configure(f"ckpt={ckpt}", "+dataset.split_seed=5", config="test", run="again"))


def test_a_subset_of_classes_is_noted_and_the_second_is_positive(configure: Configure) -> None:
    record = train(configure("dataset=covid", "dataset.classes=[Healthy,Covid]"))
    assert record["positive"] == "Covid" and record["classes"] == ["Healthy", "Covid"]
    assert "classes Healthy + Covid" in record["notes"]


def test_a_finished_run_keeps_its_configuration(configure: Configure, tmp_path: Path) -> None:
    train(configure())
    before = (tmp_path / "run/.hydra/config.yaml").read_text()
    with pytest.raises(XRayError, match="is done, with other settings"):
        train(configure("trainer.max_epochs=2"))
    assert (tmp_path / "run/.hydra/config.yaml").read_text() == before


def test_a_mistyped_weights_name_does_not_fall_back(configure: Configure) -> None:
    with pytest.raises(XRayError, match="IMAGENET1K_V1"):
        train(configure("model=resnet50", "model.weights=IMAGENET1K_V9", "weights_fallback=random"))
