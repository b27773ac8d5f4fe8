"""Checkpoints stand alone, hold plain data, and are read as what they are: untrusted input."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch import Tensor

from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.splits import TEST, images_of
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.calibration import fit_temperature
from xray_lightning.evaluation.metrics import SCALARS
from xray_lightning.evaluation.operating_points import POINTS
from xray_lightning.models.checkpoint import (
    data_card,
    load_classifier,
    load_data_module,
    read_checkpoint,
    refuse_missing_images,
)
from xray_lightning.models.classifier import CARD
from xray_lightning.models.cnn import CNNClassifier
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

Arrays = tuple[np.ndarray, np.ndarray]
DATASET = {
    "_target_": "xray_lightning.data.covid.CovidDataModule",
    "name": "covid",
    "image_size": 32,
    "split_seed": 3,
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "resize": "pad",
    "classes": ["Covid", "Healthy"],
    "augment": {"_target_": "xray_lightning.data.augment.CropRotateJitter"},
}
DATA_CARD = {
    "module": "xray_lightning.data.covid",
    "class": "CovidDataModule",
    "arguments": {},
    "images": {"train": [], "val": [], "test": []},
    "leaked": {},
}


@pytest.fixture(scope="module")
def root(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(phantoms / "COVID-19_Radiography_Dataset", tmp_path_factory.mktemp("data") / "covid")


@pytest.fixture(scope="module")
def data(root: Path, shared_cache: Path) -> CovidDataModule:
    own = {k: v for k, v in DATASET.items() if k not in ("_target_", "augment")}
    module = CovidDataModule(root=str(root), cache_dir=str(shared_cache), **own)
    module.setup()
    return module


@pytest.fixture
def card(data: CovidDataModule, root: Path) -> dict[str, Any]:
    dataset = DATASET | {"root": str(root), "cache_dir": "/gone", "cache": "on", "split_file": "/gone/catalog.csv"}
    return {"data": data_card(dataset, data)}


@pytest.fixture
def moved(root: Path, tmp_path: Path) -> Path:
    """A copy of the training's folder that may be changed."""
    return shutil.copytree(root, tmp_path / "moved")


def of_test(data: CovidDataModule) -> list[tuple[str, int]]:
    return sorted((data.rows[row].digest, data.rows[row].label) for row in data.rows_of(TEST))


@pytest.fixture
def trained(
    make_cnn: Callable[..., CNNClassifier], fit: Callable[..., Trainer], bright_and_dark: Arrays, card: dict[str, Any]
) -> Trainer:
    model = make_cnn()
    model.card |= card | {"precision": "32-true"}
    return fit(model, *bright_and_dark, max_steps=2)


@pytest.fixture
def checkpoint(trained: Trainer, tmp_path: Path) -> Path:
    trained.save_checkpoint(tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


@pytest.fixture
def tampered(checkpoint: Path) -> Callable[..., Path]:
    """tampered(card={...}, drop=[...], **content) rewrites parts of the checkpoint."""

    def rewrite(card: dict[str, Any] | None = None, drop: tuple[str, ...] = (), **content: Any) -> Path:
        whole = torch.load(checkpoint, weights_only=True)
        whole[CARD] |= card or {}
        whole |= content
        for key in drop:
            whole.get(CARD, {}).pop(key, None)
            whole.pop(key, None)
        torch.save(whole, checkpoint)
        return checkpoint

    return rewrite


def assert_plain(content: object) -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            assert type(key) in (str, int)
            assert_plain(value)
    elif isinstance(content, list | tuple):
        for value in content:
            assert_plain(value)
    else:
        assert content is None or type(content) in (str, int, float, bool, Tensor), content


def test_holds_nothing_but_tensors_and_plain_data(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert_plain(content)
    assert not any(isinstance(value, Tensor) for value in content[CARD].values())


def test_gives_the_same_logits_without_any_other_file(
    trained: Trainer, checkpoint: Path, bright_and_dark: Arrays
) -> None:
    images = torch.from_numpy(bright_and_dark[0])
    alone = checkpoint.parent / "elsewhere" / "model.ckpt"
    alone.parent.mkdir()
    shutil.move(checkpoint, alone)
    loaded = load_classifier(alone)
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), trained.lightning_module.eval()(images), rtol=0, atol=0)


def test_the_card_says_what_the_network_alone_does_not(checkpoint: Path) -> None:
    card = load_classifier(checkpoint).card
    assert card["model"] == "cnn" and card["precision"] == "32-true"
    assert card["classes"] == ["NORMAL", "PNEUMONIA"]
    assert card["preprocessing"] == {"image_size": 32, "mean": [0.5], "std": [0.25]}


def test_the_card_holds_what_validation_said_of_the_epoch(checkpoint: Path, bright_and_dark: Arrays) -> None:
    loaded = load_classifier(checkpoint)
    with torch.no_grad():
        raw = loaded(torch.from_numpy(bright_and_dark[0])).double().softmax(dim=1).numpy()
    labels = bright_and_dark[1]
    assert loaded.card["temperature"] == pytest.approx(fit_temperature(raw, labels), rel=1e-4)
    points = loaded.card["operating_points"]["PNEUMONIA"]
    assert points.keys() == {*POINTS}
    assert all(sum(point[c] for c in ("tp", "fn", "tn", "fp")) == len(labels) for point in points.values())
    validation = loaded.card["validation"]
    assert (validation["n"], validation["epoch"]) == (len(labels), 1) and validation.keys() >= {*SCALARS}
    loss = -np.log(raw[np.arange(len(labels)), labels]).mean()
    assert validation["log_loss"] == pytest.approx(loss, rel=1e-4)


def test_the_data_card_keeps_what_names_the_test_images(card: dict[str, Any], data: CovidDataModule) -> None:
    kept = card["data"]["arguments"]
    assert kept.keys().isdisjoint({"_target_", "cache_dir", "cache", "split_file", "augment"})
    assert (kept["classes"], kept["resize"], kept["image_size"]) == (["Covid", "Healthy"], "pad", 32)
    assert card["data"]["images"]["test"] == images_of(TEST, data.rows, data.sides)


def test_all_classes_are_named_even_if_none_was_chosen(phantoms: Path, shared_cache: Path) -> None:
    root = str(phantoms / "COVID-19_Radiography_Dataset")
    data = CovidDataModule("covid", root, 16, str(shared_cache), test_fraction=0.15)
    data.setup()
    kept = data_card({"_target_": "xray_lightning.data.covid.CovidDataModule", "classes": None}, data)["arguments"]
    assert kept["classes"] == ["Covid", "Healthy", "Lung_infection", "Pneumonia"]


@pytest.mark.parametrize("cache", ["on", "off"])
def test_the_data_module_comes_back_with_the_same_test_images(
    checkpoint: Path, data: CovidDataModule, moved: Path, tmp_path: Path, cache: str
) -> None:
    card = read_checkpoint(checkpoint)[CARD]
    back = load_data_module(card, root=str(moved), cache_dir=str(tmp_path / "cache"), cache=cache)
    back.setup()
    assert type(back) is CovidDataModule and back.root == moved and back.augment is None
    assert (tmp_path / "cache").exists() == (cache == "on")
    assert back.counts() == {"test": data.counts()["test"]}
    assert of_test(back) == of_test(data)
    assert np.array_equal(back.images[back.rows_of(TEST)], data.images[data.rows_of(TEST)])
    refuse_missing_images(card, back, TEST)
    assert load_data_module(card, root=None, cache_dir=str(tmp_path)).root == data.root


def test_files_added_and_renamed_since_leave_the_test_images(
    card: dict[str, Any], data: CovidDataModule, moved: Path, tmp_path: Path
) -> None:
    for number, file in enumerate(sorted(moved.glob("*/images/*"))):
        image = np.roll(np.array(Image.open(file).convert("L")), 11, axis=(0, 1))
        Image.fromarray(image).save(file.with_name(f"new-{number}.png"))
        file.rename(file.with_name(f"{number % 7}-{file.name}"))
    back = load_data_module(card, root=str(moved), cache_dir=str(tmp_path / "cache"))
    back.setup()
    refuse_missing_images(card, back, TEST)
    assert len(back.rows) == 2 * len(data.rows)
    assert of_test(back) == of_test(data)
    assert back.counts() == {"test": data.counts()["test"]}


@pytest.mark.parametrize("fault", ["missing", "changed", "broken"])
def test_a_test_image_that_is_not_there_as_it_was_is_refused(
    card: dict[str, Any], data: CovidDataModule, moved: Path, tmp_path: Path, fault: str
) -> None:
    file = moved / data.rows[data.rows_of(TEST)[0]].path
    if fault == "missing":
        file.unlink()
    elif fault == "changed":
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    else:
        file.write_bytes(file.read_bytes()[:200])
    back = load_data_module(card, root=str(moved), cache_dir=str(tmp_path / "cache"))
    back.setup()
    with pytest.raises(XRayError, match=r"1 of \d+ test images .*dataset\.root") as error:
        refuse_missing_images(card, back, TEST)
    assert str(moved) in str(error.value)


def test_a_frozen_backbone_travels_in_the_checkpoint(
    resnet: FrozenResNet50Classifier,
    fit: Callable[..., Trainer],
    bright_and_dark: Arrays,
    complete: dict[str, Any],
    tmp_path: Path,
) -> None:
    images, labels = bright_and_dark
    resnet.card |= complete
    trainer = fit(resnet, images, labels, max_steps=1)
    trainer.save_checkpoint(tmp_path / "best.ckpt")
    loaded = load_classifier(tmp_path / "best.ckpt")
    assert loaded.card["weights"] == "random"
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(torch.from_numpy(images)), resnet.eval()(torch.from_numpy(images)), rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        ("make_cnn", {"kernel_size": (5, 3, 1), "stride": (2, 1, 1), "batch_norm": True}),
        ("make_cnn", {"standardise": True, "mirror": True, "dropout": 0.3, "mixup": 0.2}),
        ("make_resnet", {"stages": [3, 1], "hidden": 8, "feature_dropout": 0.5, "dropout": 0.5, "mixup": 0.4}),
    ],
    ids=["layers", "images", "resnet"],
)
def test_every_setting_and_statistic_of_a_network_comes_back(
    request: pytest.FixtureRequest,
    fit: Callable[..., Trainer],
    bright_and_dark: Arrays,
    complete: dict[str, Any],
    tmp_path: Path,
    make: str,
    settings: dict[str, Any],
) -> None:
    model, images = request.getfixturevalue(make)(**settings), torch.from_numpy(bright_and_dark[0])
    model.card |= complete
    fit(model, *bright_and_dark, max_steps=3).save_checkpoint(tmp_path / "best.ckpt")
    assert_plain(torch.load(tmp_path / "best.ckpt", weights_only=True)["hyper_parameters"])
    loaded = load_classifier(tmp_path / "best.ckpt")
    assert {key: loaded.hparams[key] for key in settings} == settings
    assert loaded.card.keys() == model.card.keys()
    assert {key: loaded.card[key] for key in loaded.card if key != "data"} == {
        key: model.card[key] for key in model.card if key != "data"
    }
    assert [type(module) for module in loaded.modules()] == [type(module) for module in model.modules()]
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("xray_lightning.models.cnn", "nn"),
        ("xray_lightning.models.cnn", "XRayError"),
        ("xray_lightning.models.cnn", "Nothing"),
        ("xray_lightning.models.nowhere", "CNNClassifier"),
        ("xray_lightning.data.pneumonia", "PneumoniaDataModule"),
        ("xray_lightning.models.classifier", "XRayClassifier"),
        ("xray_lightning.models.", "CNNClassifier"),
        (3, None),
    ],
)
def test_only_classifiers_of_this_package_are_built(
    tampered: Callable[..., Path], module: object, name: object
) -> None:
    with pytest.raises(XRayError, match=rf"(asks for {module}\.{name}|does not fit.*XRayClassifier)"):
        load_classifier(tampered({"module": module, "class": name}))


def test_the_data_module_must_be_one_of_this_package(tmp_path: Path) -> None:
    card = {
        "data": {
            "module": "subprocess",
            "class": "Popen",
            "arguments": {"args": ["true"]},
            "images": {"test": []},
            "leaked": {},
        }
    }
    with pytest.raises(XRayError, match=r"asks for subprocess\.Popen"):
        load_data_module(card, cache_dir=str(tmp_path))


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"data": None},
        {"data": {"module": "xray_lightning.data.covid", "arguments": {}, "images": {"test": []}, "leaked": {}}},
        {"data": DATA_CARD | {"arguments": {"nonsense": 1}}},
        {"data": DATA_CARD | {"arguments": None}},
        {"data": {key: value for key, value in DATA_CARD.items() if key != "images"}},
    ],
    ids=["no data", "null", "no class", "other arguments", "no arguments", "no test images"],
)
def test_a_data_card_that_does_not_fit_is_an_error_of_the_user(tmp_path: Path, card: dict[str, Any]) -> None:
    with pytest.raises(XRayError, match="checkpoint"):
        load_data_module(card, cache_dir=str(tmp_path))


@pytest.mark.parametrize("key", ["module", "class", "state_dict", "hyper_parameters", "format", CARD])
def test_a_missing_entry_is_an_error_of_the_user(tampered: Callable[..., Path], key: str) -> None:
    path = tampered(drop=(key,))
    with pytest.raises(XRayError, match=r"best\.ckpt|The checkpoint asks for"):
        load_classifier(path)


@pytest.mark.parametrize("number", [0, 3, "4", None])
def test_another_format_is_named(tampered: Callable[..., Path], number: object) -> None:
    with pytest.raises(XRayError, match=f"has checkpoint format {number}; this version reads 4"):
        read_checkpoint(tampered({"format": number}))


@pytest.mark.parametrize(
    "content",
    [
        {"hyper_parameters": {"nonsense": 1}},
        {"hyper_parameters": None},
        {"hyper_parameters": {"name": "cnn", "class_names": ["A"] * 3, "image_size": 32}},
        {"hyper_parameters": {"name": "cnn", "class_names": ["A"] * 2, "image_size": "32"}},
        {"state_dict": {}},
        {"state_dict": None},
        {"state_dict": {"head.bias": 3}},
    ],
    ids=["other arguments", "no arguments", "three classes", "text", "no weights", "null weights", "no tensor"],
)
def test_content_that_does_not_fit_is_an_error_of_the_user(
    tampered: Callable[..., Path], content: dict[str, Any]
) -> None:
    with pytest.raises(XRayError, match=r"best\.ckpt does not fit"):
        load_classifier(tampered(**content))


def test_a_checkpoint_of_another_program_is_named_as_such(tmp_path: Path) -> None:
    for number, content in enumerate(({"state_dict": {}, "hyper_parameters": {}}, {CARD: 3}, [1], torch.zeros(2))):
        torch.save(content, tmp_path / f"{number}.ckpt")
        with pytest.raises(XRayError, match="was not written by xray-lightning"):
            read_checkpoint(tmp_path / f"{number}.ckpt")


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"\x80\x02.", b"a text file\n", b"U\x10\xc1\xd0", b"\x80\x02KNN]M.", pickle.dumps([1, 2])],
    ids=["empty", "stop", "empty pickle", "text", "bytes", "half a number", "plain pickle"],
)
def test_a_file_that_is_no_checkpoint_is_an_error_of_the_user(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(XRayError, match=r"best\.ckpt cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "best.ckpt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_an_error_of_the_user(checkpoint: Path, share: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(XRayError, match=r"best\.ckpt cannot be read as a checkpoint"):
        load_classifier(checkpoint)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_executed(tampered: Callable[..., Path], tmp_path: Path) -> None:
    path = tampered({"temperature": Malicious(tmp_path / "executed")})
    with pytest.raises(XRayError, match="cannot be read as a checkpoint"):
        load_classifier(path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_checkpoint_is_answered_with_those_beside_it(checkpoint: Path) -> None:
    with pytest.raises(XRayError, match=r"There is no checkpoint .*bset\.ckpt\. There is best\.ckpt\."):
        read_checkpoint(checkpoint.with_name("bset.ckpt"))
    with pytest.raises(XRayError, match=r"There is no checkpoint .*checkpoints/best\.ckpt"):
        read_checkpoint(Path("nowhere/best.ckpt"))
    with pytest.raises(XRayError, match="There is no checkpoint"):
        read_checkpoint(checkpoint.parent)


def test_a_target_in_a_checkpoint_is_never_imported(
    card: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\nrun = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    target = {"_target_": "evil_module.run"}
    arguments = card["data"]["arguments"]
    for more in (target, {"augment": target}, {"kaggle": target}, {"classes": [target]}, {"seed": target}):
        asked = card | {"data": card["data"] | {"arguments": arguments | more}}
        with pytest.raises(XRayError, match=r"The checkpoint|dataset\.classes has"):
            load_data_module(asked, cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "executed").exists()


def test_interpolations_in_a_checkpoint_are_plain_text(
    card: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "12345")
    name = "${oc.env:SECRET}"
    asked = card | {"data": card["data"] | {"arguments": card["data"]["arguments"] | {"name": name}}}
    assert load_data_module(asked, cache_dir=str(tmp_path)).name == name


@pytest.mark.parametrize(
    "more",
    [
        {"weights": "IMAGENET1K_V1"},
        {"weights": "/etc/passwd"},
        {"optimizer": "torch.optim.SGD"},
        {"channels": [10**9] * 3},
        {"channels": [4, 4, 10**12]},
        {"channels": "abc"},
        {"image_size": 10**9},
        {"image_size": 0},
        {"kernel_size": [2**40 + 1] * 3},
        {"stride": [0, 0, 0]},
        {"class_names": "AB"},
        {"class_names": ["A", 1]},
        {"class_names": ["A", "\x1b[2J"]},
        {"class_names": []},
        {"name": "a\nb"},
        {"mean": [[]]},
        {"dropout": "x"},
        {1: 2},
    ],
    ids=lambda more: str(next(iter(more.items())))[:30],
)
def test_a_network_that_the_weights_are_not_of_is_refused_before_it_takes_memory(
    tampered: Callable[..., Path], checkpoint: Path, more: dict[Any, Any]
) -> None:
    arguments = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    with pytest.raises(XRayError, match=r"best\.ckpt does not fit"):
        load_classifier(tampered(hyper_parameters=arguments | more))


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": float("nan")},
        {"temperature": "1"},
        {"precision": "8-bit"},
        {"precision": None},
        {"classes": ["A", "B"]},
        {"operating_points": {"PNEUMONIA": {}}},
        {"operating_points": {"PNEUMONIA": {"default": {"threshold": None}}}},
        {"operating_points": {"Other": {"default": {"threshold": 0.5, "tp": 1, "fn": 1, "tn": 1, "fp": 1}}}},
        {"validation": [1]},
        {"weights": 3},
        {"familiarity": {"mean": 1}},
        {"familiarity": dict.fromkeys(("mean", "std", "directions", "variances", "rest", "limit"), torch.zeros(3))},
        {"data": None},
        {"data": {}},
    ],
    ids=str,
)
def test_a_card_that_is_not_as_it_is_written_is_an_error_of_the_user(
    tampered: Callable[..., Path], change: dict[str, Any]
) -> None:
    with pytest.raises(XRayError, match=r"best\.ckpt does not fit"):
        load_classifier(tampered(change))


@pytest.mark.parametrize(
    "change",
    [
        {"films": {"train": torch.zeros(2, 3), "val": torch.zeros(0, 512, dtype=torch.uint8)}},
        {"films": None},
        {"images": {"train": [], "val": [], "test": [1]}},
        {"images": {"test": []}},
        {"patients": {"train": 3, "val": []}},
        {"leaked": {"test": "x"}},
        {"arguments": {"name": "covid"}},
        {"arguments": {"name": "covid", "resize": "other", "image_size": 32}},
        {"arguments": {"name": "covid", "resize": "pad", "image_size": 10**6}},
    ],
    ids=str,
)
def test_data_that_are_not_as_they_are_written_are_an_error_of_the_user(
    tampered: Callable[..., Path], checkpoint: Path, change: dict[str, Any]
) -> None:
    whole = torch.load(checkpoint, weights_only=True)[CARD]["data"]
    with pytest.raises(XRayError, match=r"best\.ckpt does not fit"):
        load_classifier(tampered({"data": whole | change}))
