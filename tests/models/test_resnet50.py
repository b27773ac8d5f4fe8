"""The frozen ResNet50: nothing but its head moves, and features stand for images."""

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.batches import BatchLoader, RowSampler
from xray_lightning.errors import XRayError
from xray_lightning.models.backbone import FusedResNet
from xray_lightning.models.features import ImageSource
from xray_lightning.models.resnet50 import FEATURES, FrozenResNet50Classifier

Arrays = tuple[np.ndarray, np.ndarray]
SIZE = 32


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def source(images: np.ndarray, fingerprint: str, cache_dir: Path, autocast: torch.dtype | None = None) -> ImageSource:
    return ImageSource(images, fingerprint, cache_dir, autocast)


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 1, SIZE, SIZE), dtype=np.uint8)


def test_training_moves_the_head_and_no_backbone_parameter_or_statistic(
    resnet: FrozenResNet50Classifier, fit: Callable[..., object], bright_and_dark: Arrays
) -> None:
    backbone = snapshot(resnet.backbone)
    head = {key: value.detach().clone() for key, value in resnet.head.named_parameters()}
    assert any("running_mean" in key for key in backbone) and any("num_batches" in key for key in backbone)
    fit(resnet, *bright_and_dark, max_steps=3)
    for key, value in resnet.backbone.state_dict().items():
        assert torch.equal(value, backbone[key]), key
    for key, parameter in resnet.head.named_parameters():
        assert not torch.equal(parameter, head[key]), key


def test_backbone_stays_in_eval_mode_and_the_rest_follows(resnet: FrozenResNet50Classifier) -> None:
    resnet.eval().train()
    assert not any(module.training for module in resnet.backbone.modules())
    assert resnet.training and all(module.training for module in resnet.head.modules())
    resnet.eval()
    assert not any(module.training for module in resnet.modules())


def test_only_head_parameters_reach_the_optimizer(resnet: FrozenResNet50Classifier) -> None:
    optimizer = resnet.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    reached = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert reached == {id(p) for p in resnet.head.parameters()}
    assert not any(p.requires_grad for p in resnet.backbone.parameters())


def test_features_and_images_give_the_same_logits(resnet: FrozenResNet50Classifier) -> None:
    images = torch.from_numpy(random_images(4))
    resnet.eval()
    features = resnet.embed(images)
    assert features.shape == (4, FEATURES) and not features.requires_grad
    torch.testing.assert_close(resnet(features), resnet(images), rtol=0, atol=0)


def test_grey_enters_as_three_equal_channels_normalised_as_torchvision_does(
    resnet: FrozenResNet50Classifier,
) -> None:
    images = random_images(2)
    preprocess = ResNet50_Weights.IMAGENET1K_V1.transforms(crop_size=SIZE, resize_size=SIZE)
    colour = torch.stack([preprocess(Image.fromarray(image[0]).convert("RGB")) for image in images])
    torch.testing.assert_close(resnet.normalise(torch.from_numpy(images)), colour)

    original = resnet50(weights=None)
    original.fc = nn.Identity()
    original.load_state_dict(resnet.backbone.state_dict())
    with torch.no_grad():
        expected = original.eval()(colour)
    torch.testing.assert_close(resnet.embed(torch.from_numpy(images)), expected, rtol=1e-3, atol=1e-4)


def test_prepared_features_are_the_embedding_within_half_precision(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images = random_images(6)
    features = resnet.prepare_inputs(source(images, "content", tmp_path), np.arange(6))
    assert features.dtype == np.float16 and features.shape == (6, FEATURES)
    expected = resnet.embed(torch.from_numpy(images))
    torch.testing.assert_close(torch.from_numpy(np.array(features)).float(), expected, rtol=1e-3, atol=1e-4)


def test_features_do_not_depend_on_which_rows_were_asked_for_first(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images = random_images(70)
    at_once = resnet.prepare_inputs(source(images, "content", tmp_path / "a"), np.arange(70))
    resnet.prepare_inputs(source(images, "content", tmp_path / "b"), np.array([69]))
    in_parts = resnet.prepare_inputs(source(images, "content", tmp_path / "b"), np.arange(70))
    np.testing.assert_array_equal(at_once, in_parts)


def test_other_content_precision_or_weights_never_share_features(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images, rows = random_images(1), np.arange(1)
    other = deepcopy(resnet)
    with torch.no_grad():
        other.backbone.bn1.running_mean += 1
    prepared = [
        resnet.prepare_inputs(source(images, "content", tmp_path), rows),
        resnet.prepare_inputs(source(images, "other", tmp_path), rows),
        resnet.prepare_inputs(source(images, "content", tmp_path, torch.bfloat16), rows),
        other.prepare_inputs(source(images, "content", tmp_path), rows),
    ]
    assert len({features.filename for features in prepared if isinstance(features, np.memmap)}) == 4
    assert not np.array_equal(prepared[0], prepared[3])


def test_without_cached_features_the_images_pass(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    images = random_images(2)
    resnet.cache_features = False
    try:
        assert resnet.prepare_inputs(source(images, "content", tmp_path), np.arange(2)) is images
    finally:
        resnet.cache_features = True
    assert not list(tmp_path.iterdir())


def test_head_trains_on_features(
    resnet: FrozenResNet50Classifier, fit: Callable[..., object], bright_and_dark: Arrays, tmp_path: Path
) -> None:
    images, labels = bright_and_dark
    features = resnet.prepare_inputs(source(images, "bright and dark", tmp_path), np.arange(16))
    fit(resnet, features, labels, max_steps=300)
    with torch.no_grad():
        predicted = resnet.eval()(torch.from_numpy(images)).argmax(dim=1)
    assert (predicted.numpy() == labels).all()


def test_a_last_batch_of_one_image_trains(
    resnet: FrozenResNet50Classifier, fit: Callable[..., object], bright_and_dark: Arrays
) -> None:
    images, labels = bright_and_dark
    fit(resnet, images[:9], labels[:9], batch_size=8, max_epochs=1)
    assert all(p.isfinite().all() for p in resnet.head.parameters())


def test_in_mixed_precision_features_and_images_give_the_same_logits(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images = random_images(6)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        whole = resnet.eval()(torch.from_numpy(images))
        features = resnet.prepare_inputs(source(images, "content", tmp_path, torch.bfloat16), np.arange(6))
        cached = resnet(torch.from_numpy(features[np.arange(6)]))
    assert whole.dtype == torch.float32
    torch.testing.assert_close(cached, whole, rtol=1e-3, atol=1e-3)


def test_the_fast_backbone_follows_the_weights(resnet: FrozenResNet50Classifier) -> None:
    images = torch.from_numpy(random_images(2))
    other = deepcopy(resnet)
    before = other.embed(images)
    with torch.no_grad():
        other.backbone.bn1.weight *= 2
    assert not torch.allclose(other.embed(images), before)
    other.load_state_dict(resnet.state_dict())
    assert torch.equal(other.embed(images), before)


def test_the_fast_backbone_is_in_no_checkpoint(resnet: FrozenResNet50Classifier) -> None:
    before = resnet.state_dict().keys()
    resnet.embed(torch.from_numpy(random_images(1)))
    assert resnet.state_dict().keys() == before
    assert not any(isinstance(module, FusedResNet) for module in resnet.modules())


def test_making_a_model_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    FrozenResNet50Classifier(name="resnet50", class_names=["A", "B"], image_size=SIZE).head.requires_grad_(False)
    assert seeded == [] and not torch.equal(torch.get_rng_state(), before)  # the head is drawn with the run's seed


def test_a_model_made_in_inference_mode_works(resnet: FrozenResNet50Classifier) -> None:
    images = torch.from_numpy(random_images(2))
    with torch.inference_mode():
        model = FrozenResNet50Classifier(name="resnet50", class_names=["A", "B"], image_size=SIZE)
        assert model(images).isfinite().all()
    assert torch.equal(model.embed(images), model.embed(images))


def test_random_weights_are_the_same_for_every_seed() -> None:
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = FrozenResNet50Classifier(name="resnet50", class_names=["A", "B"], image_size=SIZE)
        digests.add(model.backbone_digest())
    assert len(digests) == 1


def test_views_are_features_of_augmented_images_each_with_its_own_draws(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images, augment = random_images(5), CropRotateJitter()
    several = with_views(resnet, 2)
    views = several.prepare_training(source(images, "content", tmp_path), np.arange(5), augment)
    assert len(views) == 10 and views.shape == (10, FEATURES) and views.ndim == 2
    for row in range(10):
        view, image = divmod(row, 5)
        expected = several.embed(augment(torch.from_numpy(images), augment.draws(5, view)))[image]
        found = torch.from_numpy(views[np.array([row])])[0]
        torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)
    plain = several.prepare_inputs(source(images, "content", tmp_path), np.arange(5))
    assert not np.allclose(plain[np.arange(5)], views[np.arange(5)], atol=1e-2)


def test_more_views_reuse_those_there_are_and_other_settings_none(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images, rows = random_images(3), np.arange(3)

    def files(count: int, augment: CropRotateJitter) -> set[str]:
        with_views(resnet, count).prepare_training(source(images, "content", tmp_path), rows, augment)
        return {file.name for file in tmp_path.glob("*.npy") if "done" not in file.name}

    one, three = files(1, CropRotateJitter()), files(3, CropRotateJitter())
    assert len(one) == 1 and one < three and len(three) == 3
    assert files(2, CropRotateJitter()) == three
    assert len(files(1, CropRotateJitter(degrees=5.0))) == 4


def test_batches_of_views_carry_the_labels_of_their_images(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    images, labels = random_images(4), np.arange(4)
    views = with_views(resnet, 3).prepare_training(
        source(images, "content", tmp_path), np.arange(4), CropRotateJitter()
    )
    seen = []
    for inputs, batch_labels in BatchLoader(views, labels, RowSampler(np.arange(12), seed=0), 5):
        for one, label in zip(inputs, batch_labels, strict=True):
            rows = np.flatnonzero((views[np.arange(12)] == one.numpy()).all(axis=1))
            assert len(rows) == 1 and rows[0] % 4 == label
            seen.append(int(rows[0]))
    assert sorted(seen) == list(range(12))


def with_views(resnet: FrozenResNet50Classifier, views: int) -> FrozenResNet50Classifier:
    other = copy(resnet)
    other.views = views
    return other


@dataclass(frozen=True)
class Negative:
    def draws(self, count: int, *key: int) -> Tensor:
        return torch.zeros(count, 1)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return 255.0 - images


def test_any_dataclass_may_augment_and_nothing_else(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    images, rows = random_images(2), np.arange(2)
    views = with_views(resnet, 1).prepare_training(source(images, "content", tmp_path), rows, Negative())  # type: ignore[arg-type]
    expected = resnet.embed(torch.from_numpy(255 - images))
    torch.testing.assert_close(torch.from_numpy(views[rows]).float(), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(XRayError, match=r"dataset\.augment is .*Give it a dataclass"):
        with_views(resnet, 1).prepare_training(source(images, "content", tmp_path), rows, print)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"views": -1}, {"views": 2, "cache_features": False}])
def test_views_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(XRayError, match=r"^model\.views="):
        FrozenResNet50Classifier(name="resnet50", class_names=["A", "B"], image_size=SIZE, **settings)


def test_views_need_an_augmentation(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    with pytest.raises(XRayError, match=r"dataset\.augment is null"):
        with_views(resnet, 2).prepare_training(source(random_images(1), "content", tmp_path), np.arange(1), None)


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    build = partial(FrozenResNet50Classifier, name="resnet50", class_names=["A", "B"], image_size=SIZE)
    with pytest.raises(XRayError, match=r"^model\.dropout="):
        build(dropout=dropout)
