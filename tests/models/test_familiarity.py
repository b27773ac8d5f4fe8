"""How far from training is too far."""

import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_lightning.models.familiarity import FAMILIAR, Familiarity, evenly
from xray_lightning.models.head import floored


def draw(seed: int, count: int, width: int) -> torch.Tensor:
    numbers = np.random.default_rng(seed)
    mixed = numbers.normal(size=(count, width)) @ numbers.normal(size=(width, width)) + 3
    return torch.from_numpy(mixed).float()


@given(seed=st.integers(0, 1000), width=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_the_distance_is_mahalanobis_under_the_covariance_of_probabilistic_components(seed: int, width: int) -> None:
    training, validation = draw(seed, 60, width).split([40, 20])
    fitted = Familiarity.fit(training, validation)
    assert fitted is not None
    own = {key: value.double().numpy() for key, value in fitted.state.items()}
    w = own["directions"]
    covariance = w @ np.diag(own["variances"]) @ w.T + own["rest"] * (np.eye(width) - w @ w.T)
    scaled = ((validation - training.mean(dim=0)) / floored(training.std(dim=0))).double().numpy()
    expected = np.sqrt(np.einsum("nd,de,ne->n", scaled, np.linalg.inv(covariance), scaled) / width)
    assert np.allclose(fitted.distance(validation).numpy(), expected, rtol=0.01)
    assert np.isclose(fitted.state["limit"], np.quantile(fitted.distance(validation).numpy(), FAMILIAR), rtol=1e-4)


def test_what_lies_elsewhere_is_not_familiar() -> None:
    training, validation, other = draw(0, 900, 80).split([500, 200, 200])
    fitted = Familiarity.fit(training, validation)
    assert fitted is not None
    assert fitted.is_familiar(other).mean() > 0.9
    away = other.flip(1) * 4
    assert fitted.is_familiar(away).mean() < 0.05
    assert 0.8 < float(fitted.distance(training).square().mean()) < 1.2


def test_it_survives_a_checkpoint_and_stays_small() -> None:
    fitted = Familiarity.fit(*draw(1, 700, 512).split([500, 200]))
    assert fitted is not None
    file = io.BytesIO()
    torch.save(fitted.card(), file)
    assert len(file.getvalue()) < 1e6
    file.seek(0)
    again = Familiarity(torch.load(file, weights_only=True))
    some = draw(2, 9, 512)
    assert torch.equal(again.distance(some), fitted.distance(some))


def test_too_few_or_broken_features_tell_nothing() -> None:
    assert Familiarity.fit(draw(0, 2, 4), draw(0, 2, 4)) is None
    assert Familiarity.fit(draw(0, 20, 4), draw(0, 0, 4)) is None
    assert Familiarity.fit(torch.full((20, 4), torch.nan), draw(0, 9, 4)) is None


@given(st.integers(1, 9000))
def test_training_images_are_taken_evenly(count: int) -> None:
    rows = evenly(np.arange(count))
    assert len(rows) == min(count, 4096) and rows[0] == 0 and len(np.unique(rows)) == len(rows)


@given(seed=st.integers(0, 100), count=st.integers(5, 20))
@settings(max_examples=10, deadline=None)
def test_few_rows_are_decomposed_by_another_way_to_the_same_end(seed: int, count: int) -> None:
    training, validation = draw(seed, count + 10, 50).split([count, 10])
    fitted = Familiarity.fit(training, validation)
    assert fitted is not None
    scaled = ((training - training.mean(dim=0)) / floored(training.std(dim=0))).double().numpy()
    variances = np.linalg.eigvalsh(scaled.T @ scaled / (count - 1))
    kept = len(fitted.state["variances"])
    assert np.allclose(np.sort(fitted.state["variances"].numpy()), variances[-kept:], rtol=1e-3)
    assert np.isclose(float(fitted.state["rest"]), variances[:-kept].mean(), rtol=1e-3)
    directions = fitted.state["directions"].numpy()
    assert np.allclose(directions.T @ directions, np.eye(kept), atol=1e-4)
