"""The ten-layer network: its layers, the sizes it takes, and that it learns."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from xray_lightning.errors import XRayError
from xray_lightning.models.cnn import CNNClassifier


def test_has_exactly_the_ten_layers(make_cnn: Callable[..., CNNClassifier]) -> None:
    model = make_cnn()
    leaves = [m for m in model.modules() if not list(m.children())]
    layers = Counter(type(m) for m in leaves if type(m).__module__.startswith("torch.nn"))
    assert layers == {nn.Conv2d: 3, nn.ReLU: 3, nn.MaxPool2d: 3, nn.Linear: 1}
    owners = {id(p) for m in leaves if isinstance(m, nn.Conv2d | nn.Linear) for p in m.parameters()}
    assert {id(p) for p in model.parameters()} == owners


def test_pooling_before_relu_is_the_function_and_the_gradient_of_the_usual_order(
    make_cnn: Callable[..., CNNClassifier],
) -> None:
    model = make_cnn(image_size=32)
    layers = list(model.features)
    usual = nn.Sequential(
        *(layer for conv, pool, relu in zip(*[iter(layers)] * 3, strict=True) for layer in (conv, relu, pool))
    )
    images = torch.randint(0, 256, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    results = []
    for network in (model.features, usual):
        model.zero_grad()
        maps = network(model.normalise(images))
        maps.square().sum().backward()
        results.append((maps.detach(), [p.grad.clone() for p in model.features.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert len(results[0][1]) == 6
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("image_size", [8, 9, 15, 16, 31, 50])
@pytest.mark.parametrize(("channels", "kernel_size"), [((1, 1, 1), 1), ((2, 5, 3), 3), ((4, 2, 6), 7)])
@pytest.mark.parametrize("classes", [2, 4])
def test_any_size_and_width_gives_logits(
    make_cnn: Callable[..., CNNClassifier],
    image_size: int,
    channels: tuple[int, int, int],
    kernel_size: int,
    classes: int,
) -> None:
    names = [f"class {i}" for i in range(classes)]
    model = make_cnn(image_size=image_size, channels=channels, kernel_size=kernel_size, class_names=names)
    logits = model(torch.randint(0, 256, (3, 1, image_size, image_size), dtype=torch.uint8))
    assert logits.shape == (3, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ({"channels": (4, 4)}, "model.channels"),
        ({"channels": (4, 4, 4, 4)}, "model.channels"),
        ({"channels": ()}, "model.channels"),
        ({"channels": (4, 0, 4)}, "model.channels"),
        ({"kernel_size": 2}, "model.kernel_size"),
        ({"kernel_size": -1}, "model.kernel_size"),
        ({"image_size": 7}, "dataset.image_size"),
        ({"label_smoothing": 1.5}, "model.label_smoothing"),
        ({"label_smoothing": -0.1}, "model.label_smoothing"),
    ],
)
def test_a_wrong_argument_is_named_with_its_config_key(
    make_cnn: Callable[..., CNNClassifier], argument: dict[str, object], named: str
) -> None:
    with pytest.raises(XRayError, match=rf"^{named}=.*(must|needs?|is not valid)"):
        make_cnn(**argument)


def test_grey_values_of_any_type_mean_the_same(make_cnn: Callable[..., CNNClassifier]) -> None:
    model = make_cnn()
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model(images), model(images.double()), rtol=0, atol=0)


def test_learns_to_tell_bright_from_dark(
    make_cnn: Callable[..., CNNClassifier],
    fit: Callable[..., object],
    bright_and_dark: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = bright_and_dark
    model = make_cnn()
    fit(model, images, labels, max_steps=20)
    assert (model(torch.from_numpy(images)).argmax(dim=1).numpy() == labels).all()
