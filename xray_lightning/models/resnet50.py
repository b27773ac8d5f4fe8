"""ImageNet's ResNet50 with a frozen backbone and a new head."""

import hashlib
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from xray_lightning.data.augment import CropRotateJitter
from xray_lightning.data.batches import Batch
from xray_lightning.data.pixels import Images
from xray_lightning.errors import XRayError
from xray_lightning.models.backbone import FusedResNet, StageFeatures, layers_of
from xray_lightning.models.classifier import TRAINING_ONLY, XRayClassifier
from xray_lightning.models.features import FeatureStore, ImageSource, Views
from xray_lightning.models.folding import FixedScale, HalfPrecision, fold_batch_norms, fold_head
from xray_lightning.models.head import Standardise
from xray_lightning.models.weights import RANDOM, load_resnet50_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURES = (256, 512, 1024, 2048)  # of each stage
FEATURES_VERSION = 2  # of the way they are computed; another one never takes the features of this one
BATCH = {"cpu": 16}  # images that are computed together
GPU_BATCH = 512


class FrozenResNet50Classifier(XRayClassifier):
    """He et al., "Deep Residual Learning", 2016. The grey image enters as three equal channels.

    The backbone stays in eval mode and without gradients whatever Lightning sets, so neither its parameters
    nor its BatchNorm statistics move. Its features are the means over the maps of `stages`, of which 4 is the last.
    `forward` takes images or features (B, width). With `cache_features` the head trains on features computed once: of
    the plain images and, for each of `views`, of an augmented version of each, of which an epoch takes one. The head
    is linear, or has one layer of `hidden` units; `standardise` scales features by their statistics in training.
    """

    not_saved = (*TRAINING_ONLY, "weights", "fallback", "views")

    def __init__(
        self,
        weights: str = RANDOM,
        fallback: Literal["random"] | None = None,
        stages: Sequence[int] = (4,),
        standardise: bool = True,
        hidden: int = 0,
        feature_dropout: float = 0.0,
        dropout: float = 0.0,
        cache_features: bool = True,
        views: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(mean=IMAGENET_MEAN, std=IMAGENET_STD, **shared)
        self.save_hyperparameters(ignore=self.not_saved, logger=False)
        for key, share in (("dropout", dropout), ("feature_dropout", feature_dropout)):
            if not 0 <= share < 1:
                raise XRayError(f"model.{key}={share} is not valid. Give a share from 0 to below 1.")
        if hidden < 0:
            raise XRayError(f"model.hidden={hidden} is not valid. Give a number of units, or 0 for a linear head.")
        if not stages or not set(stages) <= {1, 2, 3, 4}:
            raise XRayError(f"model.stages={[*stages]} is not valid. Give some of 1 to 4, such as [3,4].")
        if views < 0 or (views and not cache_features):
            raise XRayError(
                f"model.views={views} is not valid. Give a number of augmented versions of each training image, or 0 "
                "for plain images alone; with model.cache_features=false, which augments anew in every epoch, only 0."
            )
        if self.image_size < 32:
            raise XRayError(f"dataset.image_size={self.image_size} is too small: ResNet50 needs 32 or more.")
        self.cache_features = cache_features
        self.views = views
        with torch.random.fork_rng(devices=[]):  # random weights, too, are the same for every seed
            torch.default_generator.manual_seed(0)  # of the CPU alone: GPUs' generators keep the run's seed
            self.backbone = resnet50(weights=None)
        self.backbone.fc = nn.Identity()
        self.card["weights"] = load_resnet50_weights(self.backbone, weights, fallback)
        self.backbone.requires_grad_(False).eval()
        self._fused: tuple[object, FusedResNet] | None = None
        self._digest: tuple[object, str] | None = None
        self.stages = sorted(set(stages))
        self.width = sum(FEATURES[stage - 1] for stage in self.stages)
        layers: list[nn.Module] = [Standardise(self.width)] * standardise + [nn.Dropout(feature_dropout)]
        if hidden:
            layers += [nn.Linear(self.width, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*layers, nn.Linear(hidden or self.width, len(self.class_names)))

    def train(self, mode: bool = True) -> "FrozenResNet50Classifier":
        """As for any module, but for the backbone, which stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def embed(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) with grey values 0 to 255 -> (B, width) features, means over feature maps.

        In the precision that autocast sets, float32 without it.
        """
        if not len(images):
            return images.new_zeros((0, self.width), dtype=torch.float32)
        device = images.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        with torch.no_grad(), torch.autocast(device, enabled=False):
            return self._backbone_in(dtype, images.shape[-1])(images)

    def _backbone_in(self, dtype: torch.dtype, size: int) -> FusedResNet:
        """The backbone as it runs fastest, made anew whenever its weights, device, precision or image size change."""
        made_for = (dtype, size, self._state_marks())
        if self._fused is None or self._fused[0] != made_for:
            fused = FusedResNet(self.backbone, IMAGENET_MEAN, IMAGENET_STD, size, dtype, self.stages)
            object.__setattr__(self, "_fused", (made_for, fused))  # no submodule: no checkpoint is to hold it
        assert self._fused is not None
        return self._fused[1]

    def _state_marks(self) -> list[tuple[int, int]]:
        """Where the backbone's tensors lie and how often each was written to: the same as long as they are."""
        tensors = self.backbone.state_dict(keep_vars=True).values()
        return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs if inputs.ndim == 2 else self.embed(inputs)
        with torch.autocast(features.device.type, enabled=False):  # float32 costs nothing here
            return self.head(features.float())

    def look(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features: those of the backbone, rounded where `prepare_inputs` keeps them so, for the same logits."""
        features = inputs if inputs.ndim == 2 else self.embed(inputs)
        features = features.half() if self.cache_features else features
        return self(features), features

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Of features in any case, so that `mixup` mixes those, not images."""
        inputs, labels = batch
        return super().training_step((inputs if inputs.ndim == 2 else self.embed(inputs), labels), batch_idx)

    def for_inference(self) -> nn.Module:
        """Backbone with its BatchNorms folded, features rounded where training kept them rounded, and the head."""
        stages = fold_batch_norms(StageFeatures(self.backbone, self.stages))
        rounded = [HalfPrecision()] * self.cache_features
        return nn.Sequential(FixedScale(self.mean, self.std), stages, *rounded, fold_head(self.head)).eval()

    def attribution(self) -> tuple[nn.Module, nn.Module]:
        """The backbone as torchvision wrote it, since `embed` takes no gradients, and the last map it reads."""
        last = layers_of(self.backbone)[self.stages[-1] - 1]
        return nn.Sequential(StageFeatures(self.backbone, self.stages), self.head), last

    def prepare_inputs(self, source: ImageSource, rows: np.ndarray) -> Images:
        """Features (N, width) float16 of the rows named, from the cache or computed now."""
        if not self.cache_features:
            return source.images
        return self._features(source, rows, "Computing backbone features")

    def prepare_training(self, source: ImageSource, rows: np.ndarray, augment: CropRotateJitter | None) -> Images:
        """As `prepare_inputs`; with `views` and `augment` ((1 + views) * N, width), plain images first, then views.

        Raises XRayError where it cannot be told what augments them.
        """
        if not self.views or augment is None:
            return self.prepare_inputs(source, rows)
        if not is_dataclass(augment):  # whose text tells all its settings, by which features are kept apart
            raise XRayError(
                f"model.views={self.views} asks for augmented images, but dataset.augment is {augment}. Give it a "
                "dataclass such as CropRotateJitter, or set model.views=0."
            )
        titles = [f"Computing features of view {view + 1} of {self.views}" for view in range(self.views)]
        plain = self._features(source, rows, "Computing backbone features")
        return Views([plain, *(self._features(source, rows, title, augment, v) for v, title in enumerate(titles))])

    def _features(
        self, source: ImageSource, rows: np.ndarray, title: str, augment: CropRotateJitter | None = None, view: int = 0
    ) -> np.ndarray:
        """Of the plain images or, with `augment`, of one view: the same one for every seed, so that runs share it."""
        device, count = self.device, len(source.images)
        what = "plain" if augment is None else f"view {view} by {augment}"
        what = f"stages {self.stages}, {what}"
        how = f"{source.autocast or torch.float32} on {device.type}"
        key = f"{FEATURES_VERSION}:{source.fingerprint}:{self.backbone_digest()}:{how}:{what}"
        draws = None if augment is None else augment.draws(count, view)

        @torch.inference_mode()
        def embed(some: np.ndarray) -> Tensor:
            images = torch.from_numpy(source.images[some])
            cuda = device.type == "cuda"  # where the host need not wait for a copy from pinned memory
            images = (images.pin_memory() if cuda else images).to(device, non_blocking=cuda)
            if augment is not None and draws is not None:
                images = augment(images, draws[torch.from_numpy(some)].to(device))
            with torch.autocast(device.type, dtype=source.autocast, enabled=source.autocast is not None):
                return self.embed(images)

        about = {"root": source.root, "how": f"{self.card['weights']}, {how}, {what}"}
        store = FeatureStore(source.cache_dir, key, rows=count, width=self.width, **about)
        try:
            return store.filled(rows, embed, BATCH.get(device.type, GPU_BATCH), title)
        finally:
            self._fused = None  # which takes as much memory as the backbone itself

    def backbone_digest(self) -> str:
        """Names the backbone by its weights, so that features of other weights are never taken for its own."""
        marks = self._state_marks()
        if self._digest is None or self._digest[0] != marks:
            digest = hashlib.blake2b(digest_size=12)
            for key, value in self.backbone.state_dict().items():
                digest.update(key.encode())
                digest.update(value.cpu().contiguous().numpy())
            self._digest = marks, digest.hexdigest()
        return self._digest[1]
