"""Which images are chosen to be looked at, and where Grad-CAM finds what speaks for a class."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from xray_lightning.evaluation.explain import grad_cam, least_certain, most_wrong
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.cnn import CNNClassifier
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

CLASSES = ["NORMAL", "PNEUMONIA"]
Make = Callable[[], XRayClassifier]


def cnn() -> CNNClassifier:
    torch.manual_seed(0)
    return CNNClassifier(name="cnn", class_names=CLASSES, image_size=32, channels=(4, 4, 8)).eval()


def resnet(**head: Any) -> FrozenResNet50Classifier:
    torch.manual_seed(0)
    settings = head or {"feature_dropout": 0.5}
    model = FrozenResNet50Classifier(name="resnet50", class_names=CLASSES, image_size=64, **settings).eval()
    for module in model.backbone.modules():  # random convolutions shrink their input: keep the maps alive
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.5)
    return model


def stages() -> FrozenResNet50Classifier:
    return resnet(stages=[2, 3, 4], hidden=24, dropout=0.5)


def early() -> FrozenResNet50Classifier:
    return resnet(stages=[1, 3])


MODELS = pytest.mark.parametrize(("make", "size"), [(cnn, 32), (resnet, 64), (stages, 64), (early, 64)])


class Mean(XRayClassifier):
    """Two maps, the grey value and its negative; the logits are their means."""

    def __init__(self) -> None:
        super().__init__(name="mean", class_names=CLASSES, image_size=32)
        self.maps = nn.Conv2d(1, 2, 1, bias=False)
        self.maps.weight.data.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.maps(self.normalise(inputs)).mean(dim=(2, 3))

    def attribution(self) -> tuple[nn.Module, nn.Module]:
        return nn.Sequential(self.maps, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), self.maps


class Opaque(Mean):
    def attribution(self) -> None:  # type: ignore[override]
        return XRayClassifier.attribution(self)


def noise(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, size, size), dtype=np.uint8)


def by_hooks(model: XRayClassifier, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Equation 1 and 2 of the paper, with autograd's own hooks and one image at a time."""
    kept: dict[str, Tensor] = {}
    read = [] if isinstance(model, CNNClassifier) else [f"layer{stage}" for stage in model.stages]
    layer = model.features if isinstance(model, CNNClassifier) else model.backbone.get_submodule(read[-1])[-1]
    handles = [
        layer.register_forward_hook(lambda _, __, output: kept.update(maps=output)),
        layer.register_full_backward_hook(lambda _, __, gradients: kept.update(slopes=gradients[0])),
    ]
    for name in read:
        stage = model.backbone.get_submodule(name)
        mean = partial(lambda name, _, __, output: kept.update({name: output.mean(dim=(2, 3))}), name)
        handles.append(stage.register_forward_hook(mean))
    found = []
    for image, target in zip(images, targets, strict=True):
        inputs = model.normalise(torch.from_numpy(image[None])).requires_grad_()
        if isinstance(model, CNNClassifier):
            logits = model.head(model.features(inputs).flatten(1))
        else:
            model.backbone(inputs)
            logits = model.head(torch.cat([kept[name] for name in read], dim=1))
        logits[0, int(target)].backward()
        weights = kept["slopes"][0].mean(dim=(1, 2))
        coarse = sum(w * m for w, m in zip(weights, kept["maps"][0], strict=True)).clamp(min=0).detach()
        fine = nn.Upsample(image.shape[1:], mode="bilinear")(coarse[None, None])[0, 0]
        found.append((fine / fine.max() if fine.max() > 0 else fine).numpy())
    for handle in handles:
        handle.remove()
    return np.stack(found)


@MODELS
def test_the_differentiable_path_is_the_function_of_forward(make: Make, size: int) -> None:
    model, images = make(), torch.from_numpy(noise(3, size))
    path = model.attribution()
    assert path is not None
    with torch.no_grad():
        ours = path[0].eval()(model.normalise(images))
        torch.testing.assert_close(ours, model(images), rtol=1e-3, atol=1e-3)
    assert path[1] in list(path[0].modules())


@MODELS
def test_maps_equal_those_of_plain_autograd_hooks(make: Make, size: int) -> None:
    images, targets = noise(10, size), np.arange(10) % 2  # more than one batch
    maps = grad_cam(make(), images, targets)
    assert maps is not None and maps.shape == (10, size, size) and maps.dtype == np.float32
    assert maps.max() == 1 and maps.std() > 0.05
    np.testing.assert_allclose(maps, by_hooks(make(), images, targets), atol=1e-4)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_quadrant_that_decides_is_where_the_map_is(row: int, column: int) -> None:
    images = np.full((1, 1, 32, 32), 20, dtype=np.uint8)
    quadrant = np.s_[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
    images[0, 0][quadrant] = 230
    expected = np.zeros((32, 32))
    expected[quadrant] = 1
    bright = grad_cam(Mean(), images, np.array([1]))
    dark = grad_cam(Mean(), images, np.array([0]))
    assert bright is not None and dark is not None
    np.testing.assert_array_equal(bright[0], expected)
    np.testing.assert_array_equal(dark[0], 1 - expected)


def test_a_trained_cnn_is_seen_to_look_at_the_quadrant_that_tells_the_classes_apart() -> None:
    model, generator = cnn(), np.random.default_rng(0)
    images, labels = generator.integers(0, 30, (32, 1, 32, 32)).astype(np.uint8), np.arange(32) % 2
    images[labels == 1, :, :16, 16:] += 150
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        optimizer.step()
    ill = images[labels == 1]
    with torch.no_grad():
        assert (model(torch.from_numpy(ill)).argmax(dim=1) == 1).all()
    maps = grad_cam(model, ill, np.ones(len(ill), dtype=np.int64))
    assert maps is not None
    inside = maps[:, :16, 16:].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    assert inside.min() > 0.7  # a quarter if it looked everywhere


def test_nothing_that_speaks_for_a_class_is_a_map_of_zeros() -> None:
    white = np.full((1, 1, 32, 32), 255, dtype=np.uint8)
    maps = grad_cam(Mean(), white, np.array([0]))
    assert maps is not None and not maps.any()


def test_a_model_without_a_layer_to_weigh_has_no_maps_and_no_images_give_none() -> None:
    assert grad_cam(Opaque(), noise(2, 32), np.array([0, 1])) is None
    empty = grad_cam(cnn(), noise(0, 32), np.empty(0, dtype=np.int64))
    assert empty is not None and empty.shape == (0, 32, 32)


@MODELS
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(make: Make, size: int, training: bool) -> None:
    model = make().train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    maps = grad_cam(model, noise(2, size), np.array([0, 1]))
    np.testing.assert_array_equal(maps, grad_cam(make(), noise(2, size), np.array([0, 1])))  # dropout or not
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@MODELS
def test_inference_mode_autocast_and_inference_tensors_change_nothing(make: Make, size: int) -> None:
    images, targets = noise(2, size), np.array([0, 1])
    expected = grad_cam(make(), images, targets)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        model = make()
        assert all(p.is_inference() for p in model.parameters())
        np.testing.assert_array_equal(grad_cam(model, images, targets), expected)
    np.testing.assert_array_equal(grad_cam(model, images, targets), expected)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, and labels."""
    n, k = draw(st.integers(0, 12)), draw(st.integers(2, 4))
    weights = draw(arrays(np.int64, (n, k), elements=st.integers(1, 4))).astype(np.float64)
    labels = draw(arrays(np.int64, n, elements=st.integers(0, k - 1)))
    return weights / weights.sum(axis=1, keepdims=True), labels


@given(scored(), st.integers(1, 6))
def test_most_wrong_is_what_sorting_all_wrong_images_gives(data: tuple[np.ndarray, np.ndarray], count: int) -> None:
    probabilities, labels = data
    said = [max(range(len(p)), key=lambda c: p[c]) for p in probabilities.tolist()]
    wrong = [i for i in range(len(labels)) if said[i] != labels[i]]
    assert most_wrong(*data, count).tolist() == sorted(wrong, key=lambda i: (-probabilities[i, said[i]], i))[:count]


@given(scored(), st.integers(1, 6))
def test_least_certain_is_what_sorting_all_margins_gives(data: tuple[np.ndarray, np.ndarray], count: int) -> None:
    def margin(i: int) -> float:
        second, first = sorted(data[0][i].tolist())[-2:]
        return first - second

    assert least_certain(data[0], count).tolist() == sorted(range(len(data[1])), key=lambda i: (margin(i), i))[:count]
