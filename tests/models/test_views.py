"""Features of plain training images and of augmented versions of them."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.batches import BatchLoader, RowSampler
from xray_lightning.data.pixels import Images
from xray_lightning.errors import XRayError
from xray_lightning.models.features import ImageSource
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

SIZE = 32


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 1, SIZE, SIZE), dtype=np.uint8)


def prepared(
    resnet: FrozenResNet50Classifier, views: int, images: np.ndarray, augment: object, cache_dir: Path
) -> Images:
    """Features of all images for training, by one backbone with any number of views."""
    model = copy(resnet)
    model.views = views
    source = ImageSource(images, "content", cache_dir, None)
    return model.prepare_training(source, np.arange(len(images)), augment)  # type: ignore[arg-type]


def test_plain_features_come_first_then_those_of_augmented_images_each_with_its_own_draws(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images, augment = random_images(5), CropRotateJitter()
    views = prepared(resnet, 2, images, augment, tmp_path)
    assert len(views) == 15 and views.shape == (15, 2048) and views.ndim == 2
    versions = [
        torch.from_numpy(images).float(),
        *(augment(torch.from_numpy(images), augment.draws(5, v)) for v in (0, 1)),
    ]
    for row in range(15):
        version, image = divmod(row, 5)
        expected = resnet.embed(versions[version])[image]
        found = torch.from_numpy(views[np.array([row])])[0]
        torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)
    plain, first, second = (views[np.arange(5) + 5 * version] for version in range(3))
    assert not np.allclose(plain, first, atol=1e-2) and not np.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(("views", "augment"), [(0, CropRotateJitter()), (2, None), (0, None), (0, print)])
def test_without_views_or_augmentation_features_are_those_that_are_scored(
    resnet: FrozenResNet50Classifier, tmp_path: Path, views: int, augment: object
) -> None:
    images = random_images(3)
    scored = resnet.prepare_inputs(ImageSource(images, "content", tmp_path, None), np.arange(3))
    np.testing.assert_array_equal(prepared(resnet, views, images, augment, tmp_path), scored)
    assert len(files(tmp_path)) == 1


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.npy") if "done" not in file.name}


def test_more_views_reuse_those_there_are_and_other_settings_the_plain_ones(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    def after(count: int, augment: CropRotateJitter) -> set[str]:
        prepared(resnet, count, random_images(3), augment, tmp_path)
        return files(tmp_path)

    one, three = after(1, CropRotateJitter()), after(3, CropRotateJitter())
    assert len(one) == 2 and one < three and len(three) == 4
    assert after(2, CropRotateJitter()) == three
    assert len(after(1, CropRotateJitter(degrees=3.0))) == 5


def test_batches_of_views_carry_the_labels_of_their_images(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    labels = np.arange(4)
    views = prepared(resnet, 2, random_images(4), CropRotateJitter(), tmp_path)
    seen = []
    for inputs, batch_labels in BatchLoader(views, labels, RowSampler(np.arange(12), seed=0), 5):
        for one, label in zip(inputs, batch_labels, strict=True):
            rows = np.flatnonzero((views[np.arange(12)] == one.numpy()).all(axis=1))
            assert len(rows) == 1 and rows[0] % 4 == label
            seen.append(int(rows[0]))
    assert sorted(seen) == list(range(12))


@dataclass(frozen=True)
class Negative:
    def draws(self, count: int, *key: int) -> Tensor:
        return torch.zeros(count, 1)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return 255.0 - images


def test_any_dataclass_may_augment_and_nothing_else(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    images = random_images(2)
    views = prepared(resnet, 1, images, Negative(), tmp_path)
    expected = resnet.embed(torch.from_numpy(255 - images))
    torch.testing.assert_close(torch.from_numpy(views[np.array([2, 3])]).float(), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(XRayError, match=r"dataset\.augment is .*Give it a dataclass"):
        prepared(resnet, 1, images, print, tmp_path)


@pytest.mark.parametrize("settings", [{"views": -1}, {"views": 2, "cache_features": False}])
def test_views_that_cannot_be_are_refused(
    make_resnet: Callable[..., FrozenResNet50Classifier], settings: dict[str, Any]
) -> None:
    with pytest.raises(XRayError, match=r"^model\.views="):
        make_resnet(**settings)
