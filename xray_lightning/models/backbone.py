"""torchvision's ResNet50 as its features are computed: the same function with less work."""

import platform
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

MIDDLE = 128.0  # grey value that enters the network as zero: half precision holds 8-bit values, over it, exactly
PIXELS = {"cpu": 8 * 224 * 224}  # of images at a time: so many that their feature maps stay in the processor's cache
GPU_PIXELS = 256 * 224 * 224  # enough to keep a GPU busy; their largest maps take 1.2 GB in half precision


class FusedResNet(nn.Module):
    """A ResNet of bottleneck blocks in eval mode, without its `fc`: grey images in, means over its stages' maps out.

    Each BatchNorm is folded into its convolution. The three equal channels that a grey image would be copied to, and
    their normalisation (x / 255 - mean) / std, are folded into the first one, which is left with one input channel;
    what they add, less at the borders because there zeros follow, is a map that depends on the image size alone.
    """

    offset: Tensor

    def __init__(
        self,
        network: ResNet,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
        dtype: torch.dtype,
        stages: Sequence[int] = (4,),
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.stages = stages
        first = FusedConv(network.conv1, network.bn1, relu=False)
        scale = 1 / torch.tensor(std).to(first.weight).view(1, -1, 1, 1)
        constant = (MIDDLE / 255 - torch.tensor(mean).to(scale).view(1, -1, 1, 1)) * scale
        offset = F.conv2d(constant.expand(-1, -1, size, size), first.weight, first.bias, first.stride, first.padding)
        self.register_buffer("offset", _channels_last(offset.to(dtype)))
        first.weight = (first.weight * scale * (MIDDLE / 255)).sum(dim=1, keepdim=True)
        first.bias = torch.zeros_like(first.bias)
        self.first = first
        self.pool = network.maxpool
        used = layers_of(network)[: max(stages)]
        self.layers = nn.ModuleList(nn.Sequential(*map(FusedBottleneck, layer)) for layer in used)
        for module in self.modules():
            if isinstance(module, FusedConv):
                module.store_as(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) with grey values 0 to 255 of any dtype -> (B, features) float32, one stage after the other."""
        pixels = PIXELS.get(images.device.type, GPU_PIXELS)
        return torch.cat([self._features(part) for part in images.split(max(1, pixels // images[0].numel()))])

    def _features(self, images: Tensor) -> Tensor:
        grey = _channels_last((images.float() / MIDDLE - 1).to(self.dtype))
        maps = self.pool(self.first(grey).add_(self.offset).relu_())
        return pooled(maps, self.layers, self.stages)


class StageFeatures(nn.Module):
    """What `FusedResNet` computes from normalised images (B, 3, S, S), by the network as it is, with gradients."""

    def __init__(self, network: ResNet, stages: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.layers = nn.ModuleList(layers_of(network)[: max(stages)])
        self.stages = stages

    def forward(self, images: Tensor) -> Tensor:
        return pooled(self.stem(images), self.layers, self.stages)


def layers_of(network: ResNet) -> list[nn.Sequential]:
    return [network.layer1, network.layer2, network.layer3, network.layer4]


def pooled(maps: Tensor, layers: Iterable[nn.Module], stages: Sequence[int]) -> Tensor:
    """The means over the maps of `stages`, counted from 1, side by side: (B, features) float32."""
    means = []
    for stage, layer in enumerate(layers, start=1):
        maps = layer(maps)
        if stage in stages:
            means.append(maps.float().mean(dim=(2, 3)))
    return torch.cat(means, dim=1)


class FusedBottleneck(nn.Module):
    """Three convolutions and the shortcut around them."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.reduce = FusedConv(block.conv1, block.bn1)
        self.spatial = FusedConv(block.conv2, block.bn2)
        self.expand = FusedConv(block.conv3, block.bn3)
        self.shortcut = None
        if block.downsample is not None:
            self.shortcut = FusedConv(block.downsample[0], block.downsample[1], relu=False)

    def forward(self, maps: Tensor) -> Tensor:
        around = maps if self.shortcut is None else self.shortcut(maps)
        return self.expand(self.spatial(self.reduce(maps)), added_to=around)


class FusedConv(nn.Module):
    """Convolution, BatchNorm of eval mode, the addition of a shortcut, and ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, relu: bool = True) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None and conv.groups == 1
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias.detach())
        self.stride, self.padding, self.relu = conv.stride, conv.padding, relu

    def store_as(self, dtype: torch.dtype) -> None:
        self.weight = _channels_last(self.weight.to(dtype))
        self.bias = self.bias.to(dtype)

    def forward(self, maps: Tensor, added_to: Tensor | None = None) -> Tensor:
        if _in_one_pass(maps):
            return self._in_one_pass(maps, added_to)
        result = F.conv2d(maps, self.weight, self.bias, self.stride, self.padding)
        if added_to is not None:
            result += added_to
        return result.relu_() if self.relu else result

    def _in_one_pass(self, maps: Tensor, added_to: Tensor | None) -> Tensor:
        """The operators that torch.compile uses on CPUs; as fast as its result, and without a C++ compiler."""
        place = (self.weight, self.bias, self.padding, self.stride, (1, 1), 1)
        last = "relu" if self.relu else "none"
        if added_to is None:
            return torch.ops.mkldnn._convolution_pointwise(maps, *place, last, [], "")
        return torch.ops.mkldnn._convolution_pointwise.binary(maps, added_to, *place, "add", 1.0, last, [], "")


def _channels_last(tensor: Tensor) -> Tensor:
    """Also of one channel or pixel: `contiguous` leaves those as they are, and convolutions go by their strides."""
    n, c, h, w = tensor.shape
    return tensor.new_empty_strided((n, c, h, w), (h * w * c, 1, w * c, c)).copy_(tensor)


def _in_one_pass(maps: Tensor) -> bool:
    """Whether oneDNN's fused operators are there, and fast: they are no public interface, so all is asked for."""
    known = maps.device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
    if not (known and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return False
    return maps.dtype == torch.float32 or (
        maps.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
