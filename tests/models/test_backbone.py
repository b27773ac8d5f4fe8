"""The backbone as it runs fastest is the function of torchvision's network, in each precision."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet50

from xray_lightning.models import backbone
from xray_lightning.models.backbone import FusedResNet, StageFeatures
from xray_lightning.models.resnet50 import IMAGENET_MEAN, IMAGENET_STD

SIZE = 40


@pytest.fixture(scope="module")
def network() -> ResNet:
    """With BatchNorm statistics of real batches, so that activations keep the size they have after training."""
    torch.manual_seed(0)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    network(normalised(greys(16).float()))
    return network.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def greys(count: int, size: int = SIZE) -> Tensor:
    shape = (count, 1, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, dtype=images.dtype).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std


def exact(network: ResNet, images: Tensor) -> Tensor:
    try:
        return network.double()(normalised(images.double()))
    finally:
        network.float()


def exact_means(network: ResNet, images: Tensor) -> dict[int, Tensor]:
    """Of each stage's maps, as torchvision's network passes them on."""
    means: dict[int, Tensor] = {}
    handles = [
        network.get_submodule(f"layer{stage}").register_forward_hook(
            lambda _, __, maps, stage=stage: means.update({stage: maps.mean(dim=(2, 3))})
        )
        for stage in (1, 2, 3, 4)
    ]
    exact(network, images)
    for handle in handles:
        handle.remove()
    return means


def fused(
    network: ResNet, dtype: torch.dtype = torch.float32, size: int = SIZE, stages: Sequence[int] = (4,)
) -> FusedResNet:
    return FusedResNet(network, IMAGENET_MEAN, IMAGENET_STD, size, dtype, stages)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).square().mean().sqrt())


@pytest.mark.parametrize("size", [32, SIZE, 51])
def test_in_float32_it_is_as_exact_as_the_network_itself(network: ResNet, size: int) -> None:
    images = greys(4, size)
    expected = exact(network, images)
    found = fused(network, size=size)(images)
    assert found.dtype == torch.float32 and found.shape == (4, 2048)
    assert error(found, expected) < 3 * error(network(normalised(images.float())), expected) < 1e-3 * expected.std()


def test_in_bfloat16_it_is_as_exact_as_autocast(network: ResNet) -> None:
    images = greys(8)
    expected = exact(network, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        usual = network(normalised(images.float()))
    found = fused(network, torch.bfloat16)(images)
    assert found.dtype == torch.float32
    assert 0 < error(found, expected) < 1.5 * error(usual, expected)


@pytest.mark.parametrize("stages", [[1], [3], [2, 3], [1, 4], [1, 2, 3, 4], [4, 2], [3, 1, 3]], ids=str)
def test_means_over_the_maps_of_any_stages_stand_side_by_side(network: ResNet, stages: list[int]) -> None:
    images = greys(3)
    means = exact_means(network, images)
    expected = torch.cat([means[stage] for stage in sorted(set(stages))], dim=1)
    quick = fused(network, stages=stages)(images)
    network.double()
    slow = StageFeatures(network, stages)(normalised(images.double()))
    network.float()
    assert quick.dtype == slow.dtype == torch.float32 and quick.shape == slow.shape == expected.shape
    assert error(quick, expected) < 1e-3 * expected.std()
    torch.testing.assert_close(slow.double(), expected, rtol=1e-6, atol=1e-6)


@torch.enable_grad()
def test_gradients_pass_through_the_features_of_every_stage(network: ResNet) -> None:
    images = normalised(greys(1).float()).requires_grad_()
    features = StageFeatures(network, [2, 3, 4])(images)
    for part in features.split([512, 1024, 2048], dim=1):
        (slope,) = torch.autograd.grad(part.sum(), images, retain_graph=True)
        assert slope.isfinite().all() and slope.abs().sum() > 0


def test_borders_are_padded_with_what_the_network_takes_for_zero(network: ResNet) -> None:
    """A white image differs from its border: a plain fold of the normalisation into the bias would be wrong there."""
    white = torch.full((1, 1, SIZE, SIZE), 255, dtype=torch.uint8)
    fast, expected = fused(network), exact(network, white)
    assert error(fast(white), expected) < 1e-3 * expected.std()
    fast.offset = fast.offset[..., 10:11, 10:11].expand_as(fast.offset)  # that of the middle, everywhere
    assert error(fast(white), expected) > 0.05 * expected.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_in_one_pass_and_one_by_one_are_equally_exact(
    network: ResNet, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    images, fast = greys(4), fused(network, dtype)
    expected = exact(network, images)
    at_once = error(fast(images), expected)
    monkeypatch.setattr(backbone, "_in_one_pass", lambda maps: False)
    one_by_one = error(fast(images), expected)
    assert 0 < at_once < 3 * one_by_one < 9 * at_once


def test_images_are_computed_in_parts_that_fit_the_cache(network: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    images, fast, seen = greys(7), fused(network), []
    whole = fast(images)
    fast.first.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for pixels, parts in ((3 * SIZE * SIZE, [3, 3, 1]), (1, [1] * 7)):
        seen.clear()
        monkeypatch.setitem(backbone.PIXELS, "cpu", pixels)
        assert error(fast(images), whole.double()) < 1e-3 * whole.std()
        assert seen == parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_maps_are_channels_last(network: ResNet, dtype: torch.dtype) -> None:
    fast, strides = fused(network, dtype), []
    for module in fast.modules():
        if isinstance(module, backbone.FusedConv):
            module.register_forward_hook(lambda module, inputs, output: strides.append(output.stride(1)))
    fast(greys(2))
    assert strides == [1] * 53


def test_half_precision_of_gpus_is_nearly_as_exact(network: ResNet) -> None:
    images = greys(2)
    expected = exact(network, images)
    coarser = error(fused(network, torch.bfloat16)(images), expected)
    assert 0 < error(fused(network, torch.float16)(images), expected) < 0.5 * coarser


def test_grey_values_of_any_dtype_mean_the_same(network: ResNet) -> None:
    images, fast = greys(2), fused(network)
    for dtype in (torch.int64, torch.float32, torch.float64):
        assert torch.equal(fast(images.to(dtype)), fast(images))


def test_the_network_is_left_as_it_was(network: ResNet) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused(network, torch.bfloat16)(greys(1))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
