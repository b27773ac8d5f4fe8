"""What every data module makes of its images: batches, in order or drawn at random, and augmented."""

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
from xray_lightning.data.decode import Resize, decode
from xray_lightning.data.pneumonia import PneumoniaDataModule

Build = Callable[..., CovidDataModule]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def covid(covid_root: Path, cache: Path) -> Build:
    """A data module over the tiny covid folder, not set up."""

    def build(**settings: Any) -> CovidDataModule:
        defaults = {"root": str(covid_root), "test_fraction": 0.15, "batch_size": 8}
        defaults |= {"image_size": 16, "cache_dir": str(cache)}
        return CovidDataModule("covid", **defaults | settings)

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


def test_without_a_cache_the_batches_are_the_same_and_nothing_is_left(covid: Build, tmp_path: Path) -> None:
    cached = ready(covid())
    direct = ready(covid(cache="off", cache_dir=str(tmp_path / "cache")))
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert equal(drawn(getattr(direct, name)()), drawn(getattr(cached, name)()))
    assert direct.rows == cached.rows and direct.images.shape == cached.images.shape == (55, 1, 16, 16)
    scratch = direct.cache_dir
    del direct
    assert not list(tmp_path.iterdir()) and not scratch.exists()


@pytest.mark.parametrize("cached", ["on", "off"])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_images_are_made_square_as_asked(phantoms: Path, cache: Path, resize: Resize, cached: str) -> None:
    root = phantoms / "chest_xray"
    data = PneumoniaDataModule("pneumonia", str(root), 40, str(cache), resize=resize, cache=cached)
    rows = ready(data).rows_of("test")
    images = data.images[rows]
    assert np.array_equal(images[:, 0], [decode(root / data.rows[row].path, 40, resize) for row in rows])
    bars = images[:, 0, [0, -1]].max(axis=(1, 2)) == 0  # these films are wider than tall
    assert all(bars) if resize == "pad" else not any(bars)


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


def test_a_second_set_up_changes_nothing(covid: Build) -> None:
    data = ready(covid())
    before = drawn(data.test_dataloader())
    data.setup("test")
    assert equal(drawn(data.test_dataloader()), before)


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
    """A data module over files that differ, but all show the same image; a grouped split would keep them together."""
    folder = tmp_path_factory.mktemp("alike")
    for name in ("COVID", "Normal"):
        for n in range(20):
            file = write_image(folder / name / f"{name}-{n}.png", content="one image for all")
            file.write_bytes(file.read_bytes() + file.name.encode())
    return partial(covid, root=str(folder), classes=["Covid", "Healthy"], split="reference", augment=CropRotateJitter())


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


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_an_epoch_takes_one_view_of_each_training_image_and_many_take_all(covid: Build, balance: str) -> None:
    data = ready(covid(balance=balance))
    count, train = len(data.rows), data.rows_of("train")
    data.train_inputs = np.arange(3 * count, dtype=np.float16)[:, None]
    loader, taken = data.train_dataloader(), set()
    for epoch in range(40):
        loader.sampler.set_epoch(epoch)
        inputs, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        rows = inputs[:, 0].long().numpy()
        assert len(rows) == len(train) and set(rows % count) <= set(train)
        np.testing.assert_array_equal(labels, data.labels[rows % count])
        if balance == "none":
            assert sorted(rows % count) == sorted(train)
        taken |= set(rows)
    assert len(taken) == 3 * len(train)
    assert len(torch.cat([x for x, _ in data.val_dataloader()])) == len(data.rows_of("val"))
