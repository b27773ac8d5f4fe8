"""ImageNet's ResNet50 with a frozen backbone and a new head."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from xray_lightning.data.pixels import Images
from xray_lightning.errors import XRayError
from xray_lightning.models.classifier import TRAINING_ONLY, XRayClassifier
from xray_lightning.models.features import FeatureStore
from xray_lightning.models.weights import RANDOM, load_resnet50_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURES = 2048


class FrozenResNet50Classifier(XRayClassifier):
    """He et al., "Deep Residual Learning", 2016. The grey image enters as three equal channels.

    The backbone stays in eval mode and without gradients whatever Lightning sets, so neither its parameters
    nor its BatchNorm statistics move. `forward` takes images or their features (B, 2048).
    """

    def __init__(
        self,
        weights: str = RANDOM,
        fallback: Literal["random"] | None = None,
        dropout: float = 0.0,
        cache_features: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(mean=IMAGENET_MEAN, std=IMAGENET_STD, **shared)
        self.save_hyperparameters(ignore=[*TRAINING_ONLY, "weights", "fallback"], logger=False)
        if not 0 <= dropout <= 1:
            raise XRayError(f"model.dropout={dropout} is not valid. Give a share from 0 to 1.")
        if self.image_size < 32:
            raise XRayError(f"dataset.image_size={self.image_size} is too small: ResNet50 needs 32 or more.")
        self.cache_features = cache_features
        self.backbone = resnet50(weights=None)
        self.backbone.fc = nn.Identity()
        self.card["weights"] = load_resnet50_weights(self.backbone, weights, fallback)
        self.backbone.requires_grad_(False).eval()
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(FEATURES, len(self.class_names)))

    def train(self, mode: bool = True) -> "FrozenResNet50Classifier":
        """As for any module, but for the backbone, which stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def embed(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) with grey values 0 to 255 -> (B, 2048) features, the mean over the last feature map."""
        with torch.no_grad():
            return self.backbone(self.normalise(images).contiguous(memory_format=torch.channels_last))

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs if inputs.ndim == 2 else self.embed(inputs)
        return self.head(features.float())

    def prepare_inputs(
        self,
        pixels: Images,
        fingerprint: str,
        rows: np.ndarray,
        autocast: torch.dtype | None,
        cache_dir: Path,
    ) -> Images:
        """Features (N, 2048) float16 of the rows named, from the cache or computed now."""
        if not self.cache_features:
            return pixels
        key = f"{fingerprint}:{self.backbone_digest()}:{autocast}:{self.device.type}"
        store = FeatureStore(cache_dir, key, rows=len(pixels), width=FEATURES)

        def embed(chunk: np.ndarray) -> np.ndarray:
            images = torch.from_numpy(chunk).to(self.device)
            with torch.autocast(self.device.type, dtype=autocast, enabled=autocast is not None):
                return self.embed(images).half().cpu().numpy()

        return store.filled(pixels, rows, embed)

    def backbone_digest(self) -> str:
        """Names the backbone by its weights, so that features of other weights are never taken for its own."""
        digest = hashlib.blake2b(digest_size=12)
        for key, value in self.backbone.state_dict().items():
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
