"""How like the images of its training an image is to a network, so that it can be said of those that are not."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xray_lightning.data.pixels import Images
from xray_lightning.errors import XRayError
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.head import floored

DIRECTIONS = 64  # at most, in which features are told apart
FAMILIAR = 0.995  # share of validation images that count as familiar
MOST = 4096  # training images that the distance is fitted to
BATCH = 64


class Familiarity:
    """The Mahalanobis distance of an image's features from those of the training images, and how far is too far.

    Features are standardised; their covariance is that of probabilistic principal components: the variance in
    the leading directions, and one and the same in all others. `limit` is the distance that FAMILIAR of the
    validation images keep within. Sources: Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999;
    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", 2018.
    """

    KEYS = ("mean", "std", "directions", "variances", "rest", "limit")

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`: mean and std (D,), directions (D, K), variances (K,), rest and limit ()."""
        self.state = {key: state[key].float() for key in self.KEYS}

    @classmethod
    def fit(cls, features: Tensor, validation: Tensor) -> "Familiarity | None":
        """To training features (N, D), with the limit from validation features (M, D). None: too few to tell."""
        if len(features) < 3 or not len(validation):
            return None
        mean, std = features.mean(dim=0), floored(features.std(dim=0))
        scaled = (features - mean) / std
        count = min(DIRECTIONS, (len(features) - 1) // 2, features.shape[1] // 2)
        if count < 1 or not scaled.isfinite().all():
            return None
        variances, axes = _leading(scaled, count)
        rest = (scaled.square().sum() / (len(scaled) - 1) - variances.sum()) / (scaled.shape[1] - count)
        state = {
            "mean": mean,
            "std": std,
            "directions": axes,
            "variances": variances.clamp_min(1e-6),
            "rest": rest.clamp_min(1e-6),
            "limit": torch.tensor(torch.inf),
        }
        fitted = cls(state)
        fitted.state["limit"] = fitted.distance(validation).quantile(FAMILIAR)
        return fitted

    def distance(self, features: Tensor) -> Tensor:
        """(B, D) -> (B,), a root mean square: 1 is what training images have on average.

        Raises XRayError for features that are not as wide as the training images' were.
        """
        own = self.state
        if features.shape[1] != len(own["mean"]):
            raise XRayError("The checkpoint is damaged: its familiarity is of other features than its network has.")
        scaled = (features.float().cpu() - own["mean"]) / own["std"]
        along = scaled @ own["directions"]
        left = (scaled.square().sum(dim=1) - along.square().sum(dim=1)).clamp_min(0)
        squared = (along.square() / own["variances"]).sum(dim=1) + left / own["rest"]
        return (squared / scaled.shape[1]).sqrt()

    def is_familiar(self, features: Tensor) -> np.ndarray:
        """(B, D) -> (B,) bool."""
        return (self.distance(features) <= self.state["limit"]).numpy()

    def card(self) -> dict[str, Tensor]:
        """For a checkpoint; takes less than a megabyte."""
        return {key: value.clone() for key, value in self.state.items()}


def familiarity_of(card: Mapping[str, Any]) -> Familiarity | None:
    """What a checkpoint's card holds of it."""
    state = card.get("familiarity")
    return Familiarity(state) if state else None


@torch.inference_mode()
def features_of(model: XRayClassifier, inputs: Images, rows: np.ndarray) -> Tensor | None:
    """(N, D) of what the model reads, at the positions `rows` (N,); None where the model tells none."""
    parts = []
    for chosen in _batches(rows):
        features = model.look(torch.from_numpy(np.asarray(inputs[chosen])).to(model.device))[1]
        if features is None:
            return None
        parts.append(features.float().cpu())
    return torch.cat(parts) if parts else None


def evenly(rows: np.ndarray) -> np.ndarray:
    """At most MOST of the positions (N,), at equal distances."""
    return rows[np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(int)]


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _leading(scaled: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest variances and their directions (D, count) of centred rows (N, D)."""
    if 2 * len(scaled) < scaled.shape[1]:  # of few rows their own decomposition is many times faster
        _, singular, axes = torch.linalg.svd(scaled, full_matrices=False)
        return singular[:count].square() / (len(scaled) - 1), axes[:count].T
    variances, every = torch.linalg.eigh(scaled.T @ scaled / (len(scaled) - 1))  # from small to large
    return variances[-count:], every[:, -count:]
