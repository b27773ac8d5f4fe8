"""One checkpoint at work: images in, calibrated probabilities and decisions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xray_lightning.config import auto_precision
from xray_lightning.data.decode import fit
from xray_lightning.data.incoming import Incoming
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.evaluation.calibration import temper
from xray_lightning.inputs import AUTOCAST
from xray_lightning.machine import settle
from xray_lightning.models.checkpoint import load_classifier
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.familiarity import familiarity_of

UNFAMILIAR = "it is not like the training images: the probabilities mean little"
NEGATIVE = "it looks like a negative, with light and dark swapped: the probabilities mean little"
NEGATIVE_DICOM = NEGATIVE + ". Look at its PhotometricInterpretation"
DEVICES = {"cpu": "cpu", "gpu": "cuda"}


@dataclass(frozen=True)
class Opinion:
    """What a network says of B images: calibrated probabilities (B, classes), whether each is familiar and whether its
    negative is, (B,) bool, and what it was given, (B, 1, S, S) uint8."""

    model: XRayClassifier
    inputs: np.ndarray
    probabilities: np.ndarray
    familiar: np.ndarray
    negative: np.ndarray

    def probabilities_of(self, row: int) -> dict[str, float]:
        return dict(zip(self.model.class_names, self.probabilities[row].tolist(), strict=True))

    def likeliest(self, row: int) -> str:
        return self.model.class_names[int(self.probabilities[row].argmax())]

    def only(self, row: int) -> "Opinion":
        """The opinion of one image."""
        own = slice(row, row + 1)
        return replace(
            self,
            inputs=self.inputs[own],
            probabilities=self.probabilities[own],
            familiar=self.familiar[own],
            negative=self.negative[own],
        )

    def warnings_of(self, row: int, image: Incoming) -> list[str]:
        if self.familiar[row]:
            return []
        if self.negative[row]:
            return [NEGATIVE_DICOM if image.is_dicom else NEGATIVE]
        return [UNFAMILIAR]


class Stage:
    """A checkpoint on a device, in the precision it was trained in, where the device has that."""

    def __init__(self, path: Path, model: XRayClassifier, device: str) -> None:
        self.path = path
        self.model = model.to(device)
        self.classes = model.class_names
        self.resize = model.card["data"]["arguments"]["resize"]
        self.familiarity = familiarity_of(model.card)
        precision = str(model.card["precision"])
        if precision == "16-mixed" and device == "cpu":
            precision = auto_precision("cpu")
        settle(precision)
        self.autocast = AUTOCAST[precision]

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "Stage":
        """Raises XRayError for a file that is no checkpoint, and a device that is not there."""
        if device not in (*DEVICES, "auto"):
            raise XRayError(f"device={device} is not valid. {did_you_mean(device, (*DEVICES, 'auto'))}")
        has_gpu = torch.cuda.is_available()
        if device == "gpu" and not has_gpu:
            raise XRayError("device=gpu: PyTorch finds no GPU on this machine. Use device=cpu.")
        chosen = DEVICES.get(device) or ("cuda" if has_gpu else "cpu")
        return cls(path, load_classifier(path), chosen)

    def thresholds(self, point: str) -> dict[str, float]:
        """Of each class judged, at an operating point of the checkpoint. Raises XRayError where it has none."""
        points: Mapping[str, Mapping[str, Mapping[str, float]]] = self.model.card["operating_points"]
        known = sorted({name for own in points.values() for name in own})
        if not points or any(point not in own for own in points.values()):
            raise XRayError(f"operating_point={point}: {self.path} has none of this name. {did_you_mean(point, known)}")
        return {name: own[point]["threshold"] for name, own in points.items()}

    def decide(self, p: Mapping[str, float], thresholds: Mapping[str, float], point: str) -> tuple[str, str]:
        """The answer, and why. Of more than two classes the default is the likeliest one."""
        if len(self.classes) == 2:
            ((positive, threshold),) = thresholds.items()
            called = p[positive] >= threshold
            sign = "≥" if called else "<"
            return self.classes[int(called)], f"p({positive}) {p[positive]:.3f} {sign} {threshold:.3f} ({point})"
        if point == "default":
            return max(p, key=p.__getitem__), "the likeliest class"
        reached = [name for name, threshold in thresholds.items() if p[name] >= threshold]
        return " + ".join(reached) or "none", f"classes that reach their threshold ({point})"

    def look(self, images: Sequence[Incoming]) -> Opinion:
        """At one batch."""
        size = self.model.image_size
        return self.judge(np.stack([fit(image.image, size, self.resize) for image in images])[:, None])

    @torch.inference_mode()
    def judge(self, inputs: np.ndarray) -> Opinion:
        """Of images that fit the network already, (B, 1, S, S) uint8."""
        logits, features = self._forward(inputs)
        raw = logits.cpu().double().softmax(dim=1).numpy()  # as scoring does
        familiar = negative = np.full(len(inputs), True)
        if self.familiarity is not None and features is not None:
            familiar = self.familiarity.is_familiar(features)
            negative = familiar.copy()
            if not familiar.all():
                inverse = self._forward(255 - inputs[~familiar])[1]
                assert inverse is not None
                negative[~familiar] = self.familiarity.is_familiar(inverse)
        calibrated = temper(raw, self.model.card["temperature"])
        return Opinion(self.model, inputs, calibrated, familiar, negative)

    def _forward(self, inputs: np.ndarray) -> tuple[Tensor, Tensor | None]:
        device = self.model.device
        images = torch.from_numpy(inputs).to(device)
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.model.look(images)
