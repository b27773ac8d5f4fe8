"""Features of a frozen ResNet50, the means over its last maps: ways to compute them, in images per second.

    [XRAY_RESNET50_WEIGHTS=<file>] python bench/features.py [device] [images]

`device` is cpu or cuda, by default the best there is. Every way begins with grey uint8 images of 224x224 on the device
and normalises them itself. All ways are called in turn, and of each the best call counts; the first one, in which
torch.compile compiles without its caches, is told apart. All run with the malloc and threads that a run has. The last
row is timed once: what a run does with so many `images` (512 on a CPU, 16384 on a GPU), reading them from a memory map
and writing and marking their features on disk, and with what is done once, such as naming the backbone by its weights.

Without weights they are random, which speed does not depend on. Errors are differences from float64 on 8 images,
relative to the standard deviation of the features; the last row's features have been stored, in float16.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import now, table
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from xray_lightning.artifacts import RowsFile
from xray_lightning.config import auto_precision
from xray_lightning.machine import settle
from xray_lightning.models.backbone import FusedResNet
from xray_lightning.models.features import ImageSource
from xray_lightning.models.resnet50 import BATCH, GPU_BATCH, IMAGENET_MEAN, IMAGENET_STD, FrozenResNet50Classifier
from xray_lightning.models.weights import RANDOM
from xray_lightning.run import AUTOCAST

SIZE = 224
ROUNDS = 5  # calls of each way after its first
JUDGED = 8  # images whose features are compared with float64
USUAL_BATCH = {"cpu": 32}  # images in a call; on a GPU as many as ours
END_TO_END = {"cpu": 512}  # images; on a GPU:
GPU_END_TO_END = 16384
OURS = "ours"

Way = Callable[[Tensor], Tensor]  # (B, 1, S, S) uint8 -> (B, 2048)


class Usual(nn.Module):
    """Three equal channels, normalised, into torchvision's network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, greys: Tensor) -> Tensor:
        images = greys.to(self.mean.dtype).expand(-1, 3, -1, -1)
        return self.network((images / 255 - self.mean) / self.std)


def films(count: int) -> Tensor:
    """(count, 1, S, S) uint8 on the CPU: smooth as radiographs are, and of different exposures."""
    rng = torch.Generator().manual_seed(0)
    clouds = F.interpolate(torch.rand(count, 1, 9, 9, generator=rng), (SIZE, SIZE), mode="bicubic")
    exposure = 0.5 + torch.rand(count, 1, 1, 1, generator=rng)
    return (255 * clouds * exposure).clamp(0, 255).byte()


def calm(network: nn.Module, images: Tensor) -> None:
    """Makes a random network behave as a trained one does, or features blow up, and rounding errors with them."""
    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)  # each block adds a little
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # so that one pass sets the statistics
    network.train()
    Usual(network)(images)
    network.eval()


def ways(network: nn.Module, device: torch.device, half: torch.dtype) -> dict[str, Way]:
    contiguous = Usual(deepcopy(network)).to(device)
    channels_last = Usual(deepcopy(network)).to(device, memory_format=torch.channels_last)

    def in_half(way: Way, images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=half):
            return way(images)

    def ours(dtype: torch.dtype) -> Way:
        return FusedResNet(network, IMAGENET_MEAN, IMAGENET_STD, SIZE, dtype)

    return {
        "torchvision, float32": contiguous,
        "float32, channels last": channels_last,
        "float32, channels last, compiled": torch.compile(channels_last),
        f"{short(half)} autocast, channels last": partial(in_half, channels_last),
        f"{short(half)} autocast, channels last, compiled": partial(in_half, torch.compile(channels_last)),
        f"{OURS}, float32": ours(torch.float32),
        f"{OURS}, {short(half)}": ours(half),
    }


def short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "float32")


def first_call(way: Way, images: Tensor, exact: Tensor) -> list[str]:
    """Cells: its seconds and the errors of the features, or why there are none."""
    try:
        start = now()
        features = way(images)
        seconds = now() - start
    except Exception as error:  # PyTorch has one of its own for each compiler that it looks for
        if "compiler" not in str(error).lower():
            raise
        return ["no compiler"]
    return [f"{seconds:.1f}", *errors(features, exact)]


def errors(features: Tensor, exact: Tensor) -> list[str]:
    difference = (features[:JUDGED].double().cpu() - exact) / exact.std()
    return [f"{difference.square().mean().sqrt():.1e}", f"{difference.abs().max():.1e}"]


def best_speeds(calls: dict[str, tuple[Way, Tensor]]) -> dict[str, float]:
    """Images a second. In turn, so that what else the machine does meets all alike."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, (way, images) in calls.items():
            start = now()
            way(images)
            best[name] = max(best.get(name, 0), len(images) / (now() - start))
    return best


def end_to_end(
    model: FrozenResNet50Classifier, images: Tensor, count: int, autocast: torch.dtype | None
) -> tuple[float, Tensor]:
    """Images a second, and the first features."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "pixels.npy"
        rows = RowsFile(path.with_suffix(".part"), (SIZE, SIZE), np.uint8)
        for row in range(count):
            rows.append(images[row % len(images), 0].numpy())
        rows.finish(path)
        source = ImageSource(np.load(path, mmap_mode="r")[:, None], "films", Path(temporary) / "features", autocast)
        start = now()
        features = model.prepare_inputs(source, np.arange(count))
        return count / (now() - start), torch.from_numpy(np.array(features[:JUDGED]))


@torch.no_grad()
def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else END_TO_END.get(device.type, GPU_END_TO_END)
    settle("32-true")
    own = AUTOCAST.get(auto_precision(device.type))
    chunk = BATCH.get(device.type, GPU_BATCH)
    batch, images = USUAL_BATCH.get(device.type, chunk), films(chunk)
    weights = os.environ.get("XRAY_RESNET50_WEIGHTS", RANDOM)
    model = FrozenResNet50Classifier(weights, name="resnet50", class_names=["no", "yes"], image_size=SIZE)
    if weights == RANDOM:
        calm(model.backbone, images[:32])
    exact = Usual(deepcopy(model.backbone)).double()(images[:JUDGED])
    with tempfile.TemporaryDirectory() as compiled:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled
        calls = {
            name: (way, images[: chunk if name.startswith(OURS) else batch].to(device))
            for name, way in ways(model.to(device).backbone, device, own or torch.bfloat16).items()
        }
        cells = {name: first_call(*call, exact) for name, call in calls.items()}
        speeds = best_speeds({name: call for name, call in calls.items() if len(cells[name]) > 1})
    whole = f"{OURS}, {short(own or torch.float32)}, {count} images end to end"
    speeds[whole], features = end_to_end(model, images, count, own)
    cells[whole] = ["", *errors(features, exact)]
    print(f"{batch} images in a call, {chunk} in ours; {device}, {torch.get_num_threads()} threads")
    usual = next(iter(speeds.values()))
    rows = []
    for name, more in cells.items():
        speed = speeds.get(name)
        rows.append([name, f"{speed:.1f}" if speed else "", f"{speed / usual:.2f}" if speed else "", *more])
    table(["way", "images/s", "times the first", "first call (s)", "RMS error", "largest error"], rows)


if __name__ == "__main__":
    main()
