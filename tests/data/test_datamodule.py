"""What every data module does with a folder, apart from what its data set is."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.batches import BatchLoader
from xray_lightning.data.covid import CovidDataModule
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.pixels import decode
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.errors import XRayError

Build = Callable[..., CovidDataModule]
FolderWriter = Callable[..., Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def covid(covid_root: Path, cache: Path) -> Build:
    """A data module over the tiny covid folder, not set up."""

    def build(**settings: Any) -> CovidDataModule:
        defaults = {"root": str(covid_root), "test_fraction": 0.15, "batch_size": 8}
        return CovidDataModule("covid", image_size=16, cache_dir=str(cache), **defaults | settings)

    return build


def ready(data: XRayDataModule) -> XRayDataModule:
    data.setup()
    return data


def drawn(batches: BatchLoader) -> list[Tensor]:
    """Each image with its label as one vector, over a whole epoch."""
    return [torch.cat([images.flatten(1), labels[:, None]], dim=1) for images, labels in batches]


def equal(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_batches_are_uint8_images_and_int64_labels(covid: Build) -> None:
    data = ready(covid(eval_batch_size=5))
    for batches, size in (
        (data.train_dataloader(), 8),
        (data.val_dataloader(), 5),
        (data.test_dataloader(), 5),
    ):
        images, labels = next(iter(batches))
        assert images.shape == (size, 1, 16, 16) and images.dtype == torch.uint8
        assert labels.shape == (size,) and labels.dtype == torch.int64


def test_an_epoch_holds_every_image_of_its_side_once(covid: Build, covid_root: Path) -> None:
    data = ready(covid())
    for side, batches in (
        ("train", data.train_dataloader()),
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
    ):
        files = [covid_root / data.rows[i].path for i in data.rows_of(side)]
        expected = {(decode(f, 16).tobytes(), f.parent.parent.name) for f in files}
        folders = {label: data.layout.folders[name][0] for label, name in enumerate(data.class_names)}
        found = [
            (image.numpy().tobytes(), folders[int(label)])
            for images, labels in batches
            for image, label in zip(images, labels, strict=True)
        ]
        assert len(found) == len(files) and set(found) == expected


def test_sides_are_disjoint_and_complete(covid: Build) -> None:
    data = ready(covid())
    sides = [set(data.rows_of(side).tolist()) for side in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(data.rows) == 55


def test_evaluation_keeps_the_order_of_the_catalog(covid: Build) -> None:
    data = ready(covid())
    for side, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        labels = torch.cat([labels for _, labels in batches])
        assert labels.tolist() == [data.rows[i].label for i in data.rows_of(side)]


def test_seed_sets_the_training_order_and_leaves_the_split(covid: Build) -> None:
    first, same, other = (ready(covid(seed=seed)) for seed in (1, 1, 2))
    assert equal(drawn(first.train_dataloader()), drawn(same.train_dataloader()))
    assert not equal(drawn(first.train_dataloader()), drawn(other.train_dataloader()))
    assert first.sides == other.sides


def test_split_seed_sets_the_split(covid: Build) -> None:
    assert ready(covid(split_seed=1)).sides != ready(covid(split_seed=2)).sides


def test_a_second_set_up_changes_nothing(covid: Build) -> None:
    data = ready(covid())
    before = drawn(data.test_dataloader())
    data.setup("test")
    assert equal(drawn(data.test_dataloader()), before)


def test_a_failed_set_up_fails_again_and_succeeds_once_the_fault_is_mended(
    tmp_path: Path, covid: Build, write_files: FolderWriter, covid_root: Path
) -> None:
    names = [p.relative_to(covid_root).as_posix() for p in covid_root.glob("*/images/*")]
    write_files(tmp_path, names)
    broken = tmp_path / "COVID" / "images" / "COVID-99.png"
    broken.write_bytes(b"<html>")
    data = covid(root=str(tmp_path))
    for _ in range(2):
        with pytest.raises(XRayError, match=r"COVID-99\.png"):
            data.setup()
    broken.unlink()
    data.setup()
    assert sum(len(labels) for _, labels in data.test_dataloader()) == len(data.rows_of("test"))


def test_classes_can_name_a_subset_in_any_order(covid: Build) -> None:
    data = ready(covid(classes=["Pneumonia", "Covid"]))
    assert data.class_names == ["Pneumonia", "Covid"]
    assert {(row.class_name, row.label) for row in data.rows} == {("Pneumonia", 0), ("Covid", 1)}
    assert data.counts() == {
        "train": {"Pneumonia": 4, "Covid": 7},
        "val": {"Pneumonia": 2, "Covid": 2},
        "test": {"Pneumonia": 2, "Covid": 2},
    }


def test_counts_are_by_side_and_class(covid: Build) -> None:
    assert ready(covid(val_fraction=0.25)).counts() == {
        "train": {"Covid": 6, "Healthy": 12, "Lung_infection": 7, "Pneumonia": 4},
        "val": {"Covid": 3, "Healthy": 6, "Lung_infection": 4, "Pneumonia": 2},
        "test": {"Covid": 2, "Healthy": 4, "Lung_infection": 3, "Pneumonia": 2},
    }


def test_class_weights_balance_the_training_images(covid: Build) -> None:
    data = ready(covid(balance="weighted_loss"))
    counts = np.array(list(data.counts()["train"].values()))
    weights = data.class_weights()
    assert weights == pytest.approx(counts.sum() / (4 * counts))
    assert np.average(weights, weights=counts) == pytest.approx(1)
    assert all(type(weight) is float for weight in weights)


@pytest.mark.parametrize("balance", ["sampling", "none"])
def test_without_a_weighted_loss_there_are_no_class_weights(covid: Build, balance: str) -> None:
    assert ready(covid(balance=balance)).class_weights() is None


def test_balanced_sampling_draws_the_classes_equally(covid: Build) -> None:
    data = ready(covid(balance="sampling"))
    batches = data.train_dataloader()
    drawn_labels: Counter[int] = Counter()
    for epoch in range(60):
        batches.sampler.set_epoch(epoch)
        drawn_labels.update(int(label) for _, labels in batches for label in labels)
    total = 60 * len(data.rows_of("train"))
    assert drawn_labels.total() == total
    assert [drawn_labels[label] / total for label in range(4)] == pytest.approx([0.25] * 4, abs=0.03)


def test_balanced_sampling_leaves_evaluation_alone(covid: Build) -> None:
    plain, balanced = ready(covid(balance="none")), ready(covid(balance="sampling"))
    for name in ("val_dataloader", "test_dataloader"):
        assert equal(drawn(getattr(plain, name)()), drawn(getattr(balanced, name)()))


def test_wrong_classes_are_answered_with_the_valid_ones(covid: Build) -> None:
    with pytest.raises(XRayError, match=r"dataset\.classes.*'Pnuemonia'.*Did you mean Pneumonia"):
        covid(classes=["Covid", "Pnuemonia"])
    with pytest.raises(XRayError, match="Covid, Healthy, Lung_infection, Pneumonia"):
        covid(classes=["Covid", "zzz"])


@pytest.mark.parametrize("classes", [[], ["Covid"], ["Covid", "Covid"], ["Covid", "Healthy", "Covid"]])
def test_classes_have_to_be_two_or_more_different_ones(covid: Build, classes: list[str]) -> None:
    with pytest.raises(XRayError, match="two or more different classes"):
        covid(classes=classes)


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -4])
def test_batch_sizes_have_to_be_positive(covid: Build, key: str, value: int) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.{key}={value}"):
        covid(**{key: value})


@pytest.mark.parametrize("value", [0, -224])
def test_the_image_size_has_to_be_positive(value: int) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.image_size={value}"):
        CovidDataModule("covid", root="data", image_size=value, cache_dir="cache")


@pytest.mark.parametrize("key", ["val_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 15, float("nan")])
def test_fractions_have_to_be_shares(covid: Build, key: str, value: float) -> None:
    with pytest.raises(XRayError, match=rf"dataset\.{key}={value}"):
        covid(**{key: value})


def test_a_class_with_too_few_images_is_named(tmp_path: Path, covid: Build, write_files: FolderWriter) -> None:
    many = [f"{folder}/images/{n}.png" for folder in ("COVID", "Normal") for n in range(10)]
    write_files(tmp_path, [*many, "Viral Pneumonia/images/1.png"])
    with pytest.raises(XRayError) as error:
        covid(root=str(tmp_path), classes=["Covid", "Healthy", "Pneumonia"]).setup()
    message = str(error.value)
    assert "no train image of Pneumonia" in message and str(tmp_path) in message
    assert "Covid" not in message and "dataset.classes" in message


def test_fractions_that_leave_nothing_to_train_on_are_refused(covid: Build) -> None:
    with pytest.raises(XRayError, match="no train image"):
        covid(val_fraction=0.5, test_fraction=0.5).setup()


@pytest.mark.parametrize("module", [PneumoniaDataModule, CovidDataModule])
def test_a_missing_folder_says_what_to_do(tmp_path: Path, module: type[XRayDataModule]) -> None:
    place = tmp_path / "nowhere" / module.kaggle.folder
    data = module("some_name", root=str(place), image_size=16, cache_dir=str(tmp_path))
    with pytest.raises(XRayError) as error:
        data.setup()
    for part in (
        str(place),
        "python -m xray_lightning.data.download dataset=some_name",
        f"https://www.kaggle.com/datasets/{module.kaggle.handle}",
        "XRAY_DATA",
        "dataset.root",
        "make demo",
        next(iter(module.layout.folders.values()))[0],
    ):
        assert part in str(error.value)


def test_a_relative_missing_folder_says_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, covid: Build
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(XRayError) as error:
        covid(root="data/COVID").setup()
    assert "data/COVID" in str(error.value) and str(tmp_path) in str(error.value)


def test_only_folders_beside_the_marker_are_synthetic(tmp_path: Path, covid: Build, covid_root: Path) -> None:
    assert not covid().synthetic
    (tmp_path / "SYNTHETIC.json").write_text("{}")
    assert covid(root=str(tmp_path / "COVID-19_Radiography_Dataset")).synthetic


class Recorder(LightningModule):
    """Keeps the batches that it is given, and learns nothing of use."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: dict[str, list[list[Tensor]]] = {"train": [], "val": [], "test": []}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.0)

    def on_train_epoch_start(self) -> None:
        self.seen["train"].append([])

    def on_validation_epoch_start(self) -> None:
        self.seen["val"].append([])

    def on_test_epoch_start(self) -> None:
        self.seen["test"].append([])

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        self.seen["train"][-1].append(batch[0])
        return self.weight * batch[0].float().mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.seen["val"][-1].append(batch[0])

    def test_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.seen["test"][-1].append(batch[0])


@pytest.fixture
def fit() -> Callable[..., dict[str, list[list[Tensor]]]]:
    def run(data: XRayDataModule, **settings: Any) -> dict[str, list[list[Tensor]]]:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **settings,
        )
        model = Recorder()
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        return model.seen

    return run


lightning = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated")


@lightning
def test_only_training_images_are_augmented(covid: Build, fit: Callable[..., Any]) -> None:
    data = covid(augment=CropRotateJitter())
    seen = fit(data)
    assert all(images.dtype == torch.float32 for epoch in seen["train"] for images in epoch)
    assert all(images.shape[1:] == (1, 16, 16) for epoch in seen["train"] for images in epoch)
    for side, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        for epoch in seen[side]:
            assert equal(epoch, [images for images, _ in batches])


@lightning
def test_epochs_differ_in_order_and_hold_the_same_images(covid: Build, fit: Callable[..., Any]) -> None:
    first, second = fit(covid(augment=None))["train"]
    assert {images.dtype for images in first} == {torch.uint8}
    assert not equal(first, second)
    images = [sorted(image.numpy().tobytes() for batch in epoch for image in batch) for epoch in (first, second)]
    assert images[0] == images[1]


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory, write_image: Callable[..., Path], covid: Build) -> Build:
    """A data module over files that differ, but all show the same image."""
    folder = tmp_path_factory.mktemp("alike")
    for name in ("COVID", "Normal"):
        for n in range(20):
            file = write_image(folder / name / f"{name}-{n}.png", content="one image for all")
            file.write_bytes(file.read_bytes() + file.name.encode())
    return partial(covid, root=str(folder), classes=["Covid", "Healthy"], augment=CropRotateJitter())


@lightning
def test_the_seed_alone_sets_the_augmentation(alike: Build, fit: Callable[..., Any]) -> None:
    runs = []
    for seed, noise in ((1, 0), (1, 5), (2, 0)):
        torch.manual_seed(noise)
        runs.append([batch for epoch in fit(alike(seed=seed))["train"] for batch in epoch])
    assert equal(runs[0], runs[1])
    assert not any(torch.equal(one, other) for one, other in zip(runs[0], runs[2], strict=True))


@lightning
@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_training_image_is_augmented_in_its_own_way(
    alike: Build, fit: Callable[..., Any], accumulate: int
) -> None:
    epochs = fit(alike(), accumulate_grad_batches=accumulate)["train"]
    images = torch.cat([batch for epoch in epochs for batch in epoch])
    different = len(torch.unique(images, dim=0))
    assert different == len(images)


def test_without_a_trainer_batches_pass_as_they_are(covid: Build) -> None:
    data = ready(covid(augment=CropRotateJitter()))
    batch = next(iter(data.train_dataloader()))
    images, labels = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(images, batch[0]) and torch.equal(labels, batch[1])
