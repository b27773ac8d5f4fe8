"""Which images to look at, and where in them a network finds what speaks for a class."""

from copy import deepcopy

import numpy as np
import torch
from captum.attr import LayerGradCam
from torch.nn import functional as F

from xray_lightning.models.classifier import XRayClassifier

BATCH = 8  # images at a time: their largest feature maps in ResNet50 take 0.1 GB at 224 pixels


def most_wrong(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of at most `count` images that (N, K) probabilities and (N,) labels disagree on.

    Highest probability of the class that was wrongly predicted first; of equal ones the earlier position first.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1, initial=0), kind="stable")[:count]]


def least_certain(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Positions of at most `count` images, smallest margin between the two likeliest of (N, K) classes first.

    Of equal margins the earlier position first.
    """
    likeliest = np.sort(probabilities, axis=1)[:, -2:]
    return np.argsort(likeliest[:, 1] - likeliest[:, 0], kind="stable")[:count]


def grad_cam(model: XRayClassifier, images: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
    """What speaks for the classes `targets` (B,) int, and where: (B, S, S) float32 from 0 to 1, in float32 throughout.

    `images` are (B, 1, S, S) uint8. Each map is a share of its own maximum, so strengths of two images cannot be
    compared; it is zero everywhere if nothing speaks for the class. None for a model that names no layer for it.
    It runs on the model's device and on a copy of its network, so the model stays as it is.
    Source: Selvaraju et al., "Grad-CAM", 2017; bilinear from the layer's size to the image's.
    """
    with torch.inference_mode(False), torch.autocast(model.device.type, enabled=False):
        path = deepcopy(model.attribution())  # together, so that the layer stays a part of the network
        if path is None:
            return None
        network, layer = path
        network.eval().requires_grad_(False)  # captum starts the gradients at the layer, so nothing before is kept
        method = LayerGradCam(network, layer)
        maps = np.zeros((len(images), *images.shape[2:]), dtype=np.float32)
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            inputs = model.normalise(torch.from_numpy(images[part]).to(model.device))
            classes = torch.from_numpy(targets[part]).to(model.device)
            weighed = method.attribute(inputs, classes, relu_attributions=True).detach()
            whole = F.interpolate(weighed, size=images.shape[2:], mode="bilinear")[:, 0]
            peaks = whole.amax(dim=(1, 2), keepdim=True)
            maps[part] = torch.where(peaks > 0, whole / peaks, 0).cpu().numpy()
        return maps
