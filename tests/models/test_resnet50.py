"""The frozen ResNet50: nothing but its head moves, and features stand for images."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from xray_lightning.errors import XRayError
from xray_lightning.models.resnet50 import FEATURES, FrozenResNet50Classifier

Arrays = tuple[np.ndarray, np.ndarray]
SIZE = 32


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


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
    features = resnet.prepare_inputs(images, "content", np.arange(6), None, tmp_path)
    assert features.dtype == np.float16 and features.shape == (6, FEATURES)
    expected = resnet.embed(torch.from_numpy(images))
    torch.testing.assert_close(torch.from_numpy(np.array(features)).float(), expected, rtol=1e-3, atol=1e-4)


def test_features_do_not_depend_on_which_rows_were_asked_for_first(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images = random_images(70)
    at_once = resnet.prepare_inputs(images, "content", np.arange(70), None, tmp_path / "a")
    resnet.prepare_inputs(images, "content", np.array([69]), None, tmp_path / "b")
    in_parts = resnet.prepare_inputs(images, "content", np.arange(70), None, tmp_path / "b")
    np.testing.assert_array_equal(at_once, in_parts)


def test_other_content_precision_or_weights_never_share_features(
    resnet: FrozenResNet50Classifier, tmp_path: Path
) -> None:
    images, rows = random_images(1), np.arange(1)
    other = deepcopy(resnet)
    with torch.no_grad():
        other.backbone.bn1.running_mean += 1
    prepared = [
        resnet.prepare_inputs(images, "content", rows, None, tmp_path),
        resnet.prepare_inputs(images, "other", rows, None, tmp_path),
        resnet.prepare_inputs(images, "content", rows, torch.bfloat16, tmp_path),
        other.prepare_inputs(images, "content", rows, None, tmp_path),
    ]
    assert len({features.filename for features in prepared if isinstance(features, np.memmap)}) == 4
    assert not np.array_equal(prepared[0], prepared[3])


def test_without_cached_features_the_images_pass(resnet: FrozenResNet50Classifier, tmp_path: Path) -> None:
    images = random_images(2)
    resnet.cache_features = False
    try:
        assert resnet.prepare_inputs(images, "content", np.arange(2), None, tmp_path) is images
    finally:
        resnet.cache_features = True
    assert not list(tmp_path.iterdir())


def test_head_trains_on_features(
    resnet: FrozenResNet50Classifier, fit: Callable[..., object], bright_and_dark: Arrays, tmp_path: Path
) -> None:
    images, labels = bright_and_dark
    features = resnet.prepare_inputs(images, "bright and dark", np.arange(16), None, tmp_path)
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


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    build = partial(FrozenResNet50Classifier, name="resnet50", class_names=["A", "B"], image_size=SIZE)
    with pytest.raises(XRayError, match=r"^model\.dropout="):
        build(dropout=dropout)
