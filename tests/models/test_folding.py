"""The network that is deployed gives what the model gives, with less."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from xray_lightning.models.cnn import CNNClassifier
from xray_lightning.models.folding import Whole, fold_batch_norms, fold_head
from xray_lightning.models.head import Standardise
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

CLASSES = ["NORMAL", "PNEUMONIA", "COVID"]
small_cnn = partial(CNNClassifier, name="cnn", class_names=CLASSES, image_size=32, channels=(3, 4, 5))
same = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-4)


def images_of(seed: int, size: int = 32, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def shaken(network: nn.Module, seed: int) -> None:
    """Random BatchNorm parameters and statistics, as far from those at the start as training makes them."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            for tensor, low, high in (
                (layer.weight, -1.5, 1.5),
                (layer.bias, -1.0, 1.0),
                (layer.running_mean, -1.0, 1.0),
                (layer.running_var, 0.2, 3.0),
            ):
                tensor.data.uniform_(low, high, generator=generator)


@settings(max_examples=25)
@given(batch_norm=st.booleans(), standardise=st.booleans(), mirror=st.booleans(), seed=st.integers(0, 10**6))
def test_the_cnn_is_the_same_function_of_ten_layers(
    batch_norm: bool, standardise: bool, mirror: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model = small_cnn(batch_norm=batch_norm, standardise=standardise, mirror=mirror, dropout=0.5)
    shaken(model, seed)
    network = model.for_inference()
    with torch.no_grad():
        same(network(images_of(seed)), model.eval()(images_of(seed)))
    kinds = [type(layer) for layer in network.modules()]
    assert not {nn.BatchNorm2d, nn.Dropout} & {*kinds}
    assert [kinds.count(kind) for kind in (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear)] == [3, 3, 3, 1]


def test_folding_leaves_the_model_as_it_was() -> None:
    model = small_cnn(batch_norm=True)
    shaken(model, 1)
    before = deepcopy(model.state_dict())
    network = model.for_inference()
    for parameter in network.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_batch_norm_that_follows_no_convolution_stays() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2))
    shaken(network, 2)
    folded = fold_batch_norms(network)
    assert isinstance(folded[2], nn.BatchNorm2d)  # type: ignore[index]
    images = images_of(2).float()
    torch.testing.assert_close(folded(images), network.eval()(images))


@settings(max_examples=25)
@given(width=st.integers(1, 6), rows=st.integers(2, 9), hidden=st.sampled_from([0, 4]), seed=st.integers(0, 10**6))
def test_standardisation_becomes_part_of_the_next_layer(width: int, rows: int, hidden: int, seed: int) -> None:
    torch.manual_seed(seed)
    deeper = [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.5)] if hidden else []
    head = nn.Sequential(Standardise(width), nn.Dropout(0.5), *deeper, nn.Linear(hidden or width, 2))
    features = torch.randn(rows, width) * 3 + 5
    head.train()(features)
    folded = fold_head(head)
    assert [type(layer) for layer in folded] == ([nn.Linear, nn.ReLU, nn.Linear] if hidden else [nn.Linear])
    same(folded(features), head.eval()(features))


@pytest.mark.parametrize(("stages", "hidden", "cached"), [([2, 3, 4], 0, True), ([2, 3, 4], 16, True), ([4], 0, False)])
def test_the_resnet_is_the_same_function_and_rounds_what_scoring_rounds(
    stages: list[int], hidden: int, cached: bool
) -> None:
    torch.manual_seed(0)
    model = FrozenResNet50Classifier(
        name="resnet50", class_names=CLASSES, image_size=64, stages=stages, hidden=hidden, cache_features=cached
    )
    shaken(model.backbone, 3)
    for layer in model.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.mul_(0.3)  # else values double from block to block
    images = images_of(3, size=64, count=6)
    features = model.embed(images)
    # statistics for Standardise: of this backbone's alone, which hardly differ, it would show nothing but rounding
    model.train().head(features + torch.randn_like(features))
    model.eval()
    with torch.no_grad():
        expected = model(features.half() if cached else features)
        found = model.for_inference()(images)
    same(found, expected, rtol=1e-2, atol=2e-3 * float(expected.abs().max()))


def test_a_model_without_a_network_of_its_own_is_taken_whole(make_cnn: Callable[..., CNNClassifier]) -> None:
    model = make_cnn(dropout=0.5).train()
    network = Whole(model.eval())
    torch.testing.assert_close(network(images_of(4)), model(images_of(4)))
