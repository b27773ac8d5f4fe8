"""The ten-layer network: its layers, the sizes it takes, what it makes of grey values, and that it learns."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xray_lightning.errors import XRayError
from xray_lightning.models.cnn import CNNClassifier

Make = Callable[..., CNNClassifier]
Arrays = tuple[np.ndarray, np.ndarray]
TEN = {nn.Conv2d: 3, nn.ReLU: 3, nn.MaxPool2d: 3, nn.Linear: 1}
small = partial(CNNClassifier, name="cnn", channels=(1, 2, 1))
three = partial(st.lists, min_size=3, max_size=3)


def layers_of(*networks: nn.Module) -> Counter[type]:
    """What computes something once training is over, unlike metrics and dropout."""
    leaves = [m for network in networks for m in network.modules() if not list(m.children())]
    kinds = [type(m) for m in leaves if type(m).__module__.startswith("torch.nn")]
    return Counter(kind for kind in kinds if kind is not nn.Dropout)


def images_like(count: int, low: int = 0, high: int = 256) -> Tensor:
    return torch.randint(low, high, (count, 1, 32, 32), generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def predicted(model: CNNClassifier, images: Tensor) -> Tensor:
    return model.eval()(images)


def test_has_exactly_the_ten_layers(make_cnn: Make) -> None:
    model = make_cnn()
    assert layers_of(model) == TEN
    leaves = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert {id(p) for p in model.parameters()} == {id(p) for m in leaves for p in m.parameters()}


def test_batch_norms_can_be_folded_into_their_convolutions_after_training(
    make_cnn: Make, fit: Callable[..., object], bright_and_dark: Arrays
) -> None:
    model = make_cnn(batch_norm=True)
    fit(model, *bright_and_dark, max_steps=4)
    assert layers_of(model) == TEN | {nn.BatchNorm2d: 3}
    folded: list[nn.Module] = []
    for layer in model.eval().features:
        if isinstance(layer, nn.BatchNorm2d):
            assert isinstance(folded[-1], nn.Conv2d) and folded[-1].bias is None
            layer = fuse_conv_bn_eval(folded.pop(), layer)
        folded.append(layer)
    ten = nn.Sequential(*folded, nn.Flatten(), model.head)
    assert layers_of(nn.Sequential(*folded), model.head) == TEN
    images = torch.from_numpy(bright_and_dark[0])
    with torch.no_grad():
        torch.testing.assert_close(ten(model.normalise(images)), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_pooling_before_relu_is_the_function_and_the_gradient_of_the_usual_order(
    make_cnn: Make, batch_norm: bool
) -> None:
    model, size = make_cnn(batch_norm=batch_norm, kernel_size=(5, 3, 3), stride=(2, 1, 1)), 3 + batch_norm
    blocks = zip(*[iter(model.features)] * size, strict=True)
    usual = nn.Sequential(*(layer for *before, pool, relu in blocks for layer in (*before, relu, pool)))
    results = []
    for network in (model.features, usual):
        model.zero_grad()
        maps = network(model.normalise(images_like(4)))
        maps.square().sum().backward()
        results.append((maps.detach(), [p.grad.clone() for p in model.features.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert len(results[0][1]) == (9 if batch_norm else 6)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs)


@given(
    image_size=st.integers(1, 90),
    kernel_size=three(st.sampled_from([1, 3, 5, 7, 9])),
    stride=three(st.integers(1, 4)),
    channels=three(st.integers(1, 5)),
    classes=st.integers(2, 4),
    batch_norm=st.booleans(),
)
def test_any_size_gives_logits_or_the_smallest_that_does(image_size: int, classes: int, **sizes: Any) -> None:
    make = partial(small, class_names=[f"class {i}" for i in range(classes)], **sizes)
    try:
        model = make(image_size=image_size)
    except XRayError as error:
        least = least_named(error)
        assert least > image_size
        with pytest.raises(XRayError, match=rf"needs {least} or more"):
            make(image_size=least - 1)
        image_size, model = least, make(image_size=least)
    logits = model(torch.randint(0, 256, (1, 1, image_size, image_size), dtype=torch.uint8))  # in training mode
    assert logits.shape == (1, classes) and logits.isfinite().all()


def least_named(error: XRayError) -> int:
    assert str(error).startswith("dataset.image_size=")
    return int(str(error).partition("needs ")[2].split()[0])


@pytest.mark.parametrize(("stride", "least"), [((1, 1, 1), 8), ((2, 1, 1), 15), ((1000, 1000, 1000), 4_002_001_001)])
def test_the_smallest_size_is_told_at_once_for_any_stride(stride: Sequence[int], least: int) -> None:
    with pytest.raises(XRayError) as caught:
        small(class_names=["A", "B"], image_size=7, stride=stride)
    assert least_named(caught.value) == least


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ({"channels": (4, 4)}, "model.channels"),
        ({"channels": (4, 4, 4, 4)}, "model.channels"),
        ({"channels": ()}, "model.channels"),
        ({"channels": (4, 0, 4)}, "model.channels"),
        ({"kernel_size": (3, 2, 3)}, "model.kernel_size"),
        ({"kernel_size": (3, 3, -1)}, "model.kernel_size"),
        ({"kernel_size": (3,)}, "model.kernel_size"),
        ({"stride": (1, 0, 1)}, "model.stride"),
        ({"stride": (1, 1)}, "model.stride"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"dropout": -0.1}, "model.dropout"),
        ({"image_size": 7}, "dataset.image_size"),
        ({"label_smoothing": 1.5}, "model.label_smoothing"),
        ({"label_smoothing": -0.1}, "model.label_smoothing"),
    ],
)
def test_a_wrong_argument_is_named_with_its_config_key(make_cnn: Make, argument: dict[str, object], named: str) -> None:
    with pytest.raises(XRayError, match=rf"^{named}=.*(must|needs?|is not valid)"):
        make_cnn(**argument)


@pytest.mark.parametrize("standardise", [False, True])
def test_grey_values_of_any_type_mean_the_same(make_cnn: Make, standardise: bool) -> None:
    model, images = make_cnn(standardise=standardise), images_like(2)
    torch.testing.assert_close(model(images.byte()), model(images.double()), rtol=0, atol=0)


def test_a_standardised_image_is_scaled_by_its_own_statistics(make_cnn: Make) -> None:
    model, images = make_cnn(standardise=True), images_like(3)
    found = model.normalise(images).numpy()
    for image, scaled in zip(images.double().numpy(), found, strict=True):
        np.testing.assert_allclose(scaled, (image - image.mean()) / (image.std(ddof=1) + 8), rtol=1e-5, atol=1e-6)
    assert model.card["preprocessing"] == {"image_size": 32, "mean": "of each image", "std": "of each image"}


def test_standardised_predictions_follow_neither_brightness_nor_contrast(make_cnn: Make) -> None:
    own, images = make_cnn(standardise=True), images_like(8, 60, 180).float()
    fixed = make_cnn()
    fixed.load_state_dict(own.state_dict())
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    brighter, flatter = images + 40, mean + 0.7 * (images - mean)
    torch.testing.assert_close(predicted(own, brighter), predicted(own, images), rtol=1e-4, atol=1e-5)
    assert moved(own, brighter, images) < 1e-4 < moved(fixed, brighter, images)
    assert moved(own, flatter, images) < 0.4 * moved(fixed, flatter, images)


def moved(model: CNNClassifier, changed: Tensor, images: Tensor) -> float:
    """How far logits move, relative to how far they move when the images are emptied."""
    before = predicted(model, images)
    empty = predicted(model, images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images))
    return float((predicted(model, changed) - before).norm() / (empty - before).norm())


def test_an_even_image_stays_even_and_faint_noise_faint(make_cnn: Make) -> None:
    even = torch.full((1, 1, 32, 32), 90)
    normalise = make_cnn(standardise=True).normalise
    assert not normalise(even).any()
    assert normalise(even + images_like(1) % 2).abs().max() < 0.1


def test_predictions_of_mirror_images_are_equal_and_the_mean_of_both(make_cnn: Make) -> None:
    model, images = make_cnn(mirror=True), images_like(4)
    plain = make_cnn()
    plain.load_state_dict(model.state_dict())
    both = (predicted(plain, images) + predicted(plain, images.flip(3))) / 2
    torch.testing.assert_close(predicted(model, images), both)
    torch.testing.assert_close(predicted(model, images.flip(3)), both)
    assert not torch.allclose(predicted(plain, images), both, atol=1e-4)
    torch.testing.assert_close(model.train()(images), plain(images), rtol=0, atol=0)  # trained one image at a time


def test_dropout_is_of_training_alone(make_cnn: Make) -> None:
    model, images = make_cnn(dropout=0.5), images_like(2)
    plain = make_cnn()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(predicted(model, images), predicted(plain, images), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("own", [{}, {"batch_norm": True, "dropout": 0.2, "kernel_size": (5, 5, 3), "mirror": True}])
def test_learns_to_tell_bright_from_dark(
    make_cnn: Make, fit: Callable[..., object], bright_and_dark: Arrays, own: dict[str, Any]
) -> None:
    images, labels = bright_and_dark
    model = make_cnn(**own)
    fit(model, images, labels, max_steps=20)
    assert (predicted(model, torch.from_numpy(images)).argmax(dim=1).numpy() == labels).all()
