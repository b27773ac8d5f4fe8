"""The frozen ResNet50: nothing but its head moves, and features stand for images."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from xray_lightning.errors import XRayError
from xray_lightning.models.backbone import FusedResNet
from xray_lightning.models.features import ImageSource
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

Arrays = tuple[np.ndarray, np.ndarray]
Make = Callable[..., FrozenResNet50Classifier]
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
    assert features.shape == (4, 2048) and not features.requires_grad
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
    assert features.dtype == np.float16 and features.shape == (6, 2048)
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


@pytest.mark.parametrize(
    "settings", [{}, {"stages": [2, 4], "hidden": 16, "dropout": 0.2, "feature_dropout": 0.2, "mixup": 0.4}], ids=str
)
def test_head_trains_on_features(
    make_resnet: Make, fit: Callable[..., object], bright_and_dark: Arrays, tmp_path: Path, settings: dict[str, Any]
) -> None:
    images, labels = bright_and_dark
    resnet = make_resnet(**settings)
    features = resnet.prepare_inputs(source(images, "bright and dark", tmp_path), np.arange(16))
    fit(resnet, features, labels, max_steps=100)
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


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dropout": -0.1}, "model.dropout"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"feature_dropout": 1.5}, "model.feature_dropout"),
        ({"hidden": -1}, "model.hidden"),
        ({"stages": []}, "model.stages"),
        ({"stages": [0]}, "model.stages"),
        ({"stages": [1, 5]}, "model.stages"),
        ({"image_size": 31}, "dataset.image_size"),
    ],
)
def test_a_setting_that_cannot_be_is_named(make_resnet: Make, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(XRayError, match=rf"^{named}="):
        make_resnet(**settings)


def test_the_order_of_stages_and_one_named_twice_change_nothing(make_resnet: Make) -> None:
    images = torch.from_numpy(random_images(2))
    found = [make_resnet(stages=stages).embed(images) for stages in ([2, 4], [4, 2, 2])]
    assert found[0].shape == (2, 512 + 2048) and torch.equal(found[0], found[1])


def test_features_of_other_stages_are_kept_apart(make_resnet: Make, tmp_path: Path) -> None:
    images, files = random_images(3), set()
    for stages in ([4], [3, 4], [4, 3], [3]):
        model = make_resnet(stages=stages)
        features = model.prepare_inputs(source(images, "content", tmp_path), np.arange(3))
        assert features.shape == (3, model.width) and isinstance(features, np.memmap)
        expected = model.embed(torch.from_numpy(images))
        torch.testing.assert_close(torch.from_numpy(np.array(features)).float(), expected, rtol=1e-3, atol=1e-3)
        files.add(features.filename)
    assert len(files) == 3


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_head_is_what_numpy_makes_of_features_by_the_statistics_of_training(
    make_resnet: Make, fit: Callable[..., object], hidden: int
) -> None:
    model = make_resnet(stages=[1], hidden=hidden, feature_dropout=0.5, dropout=0.5)
    rows = np.random.default_rng(0).gamma(2, size=(21, 256)).astype(np.float16)
    fit(model, rows, np.arange(21) % 2, max_epochs=2)
    exact = rows.astype(np.float64)
    found = (exact - exact.mean(axis=0)) / exact.std(axis=0)
    linear = [layer for layer in model.eval().head if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == ([256, 5] if hidden else [256])
    for number, layer in enumerate(linear):
        found = np.maximum(found, 0) if number else found
        found = found @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.from_numpy(rows)), found, rtol=1e-3, atol=1e-4)


def test_mixup_is_of_features_whether_they_are_cached_or_not(
    make_resnet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = torch.from_numpy(random_images(6)), torch.arange(6) % 2
    cached = make_resnet(stages=[1, 2], hidden=4, mixup=1.0)
    direct = deepcopy(cached)
    losses = []
    for model, inputs in ((cached, cached.embed(images)), (direct, images)):
        monkeypatch.setattr(model, "log", lambda *args, **options: None)  # which a trainer would take
        torch.manual_seed(0)
        losses.append(model.training_step((inputs, labels), 0))
    torch.testing.assert_close(losses[0], losses[1])


def test_dropout_is_of_training_alone_and_of_features_and_units(make_resnet: Make) -> None:
    features = torch.rand(4, 256)
    for settings in ({"feature_dropout": 0.5}, {"dropout": 0.5, "hidden": 16}):
        model = make_resnet(stages=[1], **settings)
        model(features)
        assert not torch.equal(model(features), model(features))
        model.eval()
        assert torch.equal(model(features), model(features))
