"""Features by their own statistics: those of all rows seen, whatever the batches were."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from xray_lightning.models.head import Standardise, floored


@st.composite
def batches(draw: st.DrawFn) -> list[np.ndarray]:
    """Of at least one row each. Whole numbers, so that a feature varies clearly or not at all."""
    count, width = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    rows = draw(arrays(np.float32, (count, width), elements=st.integers(-50, 50).map(float)))
    cuts = draw(st.sets(st.integers(1, count - 1))) if count > 1 else ()
    return np.split(rows + np.float32(draw(st.sampled_from([0, 1000]))), sorted(cuts))


def after(seen: list[np.ndarray]) -> Standardise:
    module = Standardise(seen[0].shape[1])
    for batch in seen:
        module(torch.from_numpy(batch.astype(np.float32)))
    return module.eval()


def by_numpy(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and what is divided by: no deviation below a tenth of the median one, or 1 if that is zero."""
    std = rows.std(axis=0)
    median = np.sort(std)[(len(std) - 1) // 2]
    return rows.mean(axis=0), np.maximum(std, 0.1 * median if median > 0 else 1.0)


@given(batches())
def test_statistics_are_of_all_rows_seen_whatever_the_batches(seen: list[np.ndarray]) -> None:
    rows = np.concatenate(seen).astype(np.float64)
    mean, std = by_numpy(rows)
    new = np.array([[3.0], [-7.5], [0.0]]) + mean
    found = after(seen)(torch.from_numpy(new.astype(np.float32)))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), (new - mean) / std, rtol=2e-3, atol=2e-3)


def test_one_batch_and_single_rows_give_the_same() -> None:
    rows = np.random.default_rng(0).normal(5, 3, (40, 7)).astype(np.float32)
    new = torch.from_numpy(rows[:5])
    torch.testing.assert_close(after([rows])(new), after(list(rows[:, None]))(new), rtol=1e-5, atol=1e-5)


def test_many_epochs_of_the_same_rows_change_nothing() -> None:
    rows = np.random.default_rng(1).gamma(2, size=(64, 5)).astype(np.float32)
    new = torch.from_numpy(rows)
    torch.testing.assert_close(after(np.split(rows, 8) * 200)(new), after([rows])(new), rtol=1e-4, atol=1e-4)


def test_in_training_a_batch_counts_before_it_is_scaled() -> None:
    rows = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    mean, std = by_numpy(rows.astype(np.float64))
    found = Standardise(4)(torch.from_numpy(rows))
    np.testing.assert_allclose(found.numpy(), (rows - mean) / std, rtol=1e-4, atol=1e-5)
    assert not Standardise(4)(torch.from_numpy(rows[:1])).any()  # a single row is its own mean


def test_nothing_moves_in_eval_mode() -> None:
    rows = np.random.default_rng(3).normal(size=(9, 4)).astype(np.float32)
    module, other = after([rows]), torch.full((2, 4), 100.0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    first = module(other)
    assert torch.equal(module(other), first)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_before_any_training_features_are_as_they_are() -> None:
    features = torch.randn(3, 4)
    assert torch.equal(Standardise(4).eval()(features), features)


def test_a_state_dict_holds_all_and_training_goes_on_from_it() -> None:
    rows = np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32)
    first, new = after([rows[:12]]), torch.from_numpy(rows)
    second = Standardise(3)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.eval()(new), first(new), rtol=0, atol=0)
    second.train()(new[12:])
    torch.testing.assert_close(second.eval()(new), after([rows])(new))
    assert not list(second.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_gradients_pass_scaled_and_leave_the_statistics_out(training: bool) -> None:
    rows = np.random.default_rng(5).normal(size=(20, 3)).astype(np.float32)
    module = after([rows]).train(training)  # the same rows once more change no statistic
    features = torch.from_numpy(rows).requires_grad_()
    module(features).sum().backward()
    _, std = by_numpy(rows.astype(np.float64))
    assert features.grad is not None
    np.testing.assert_allclose(features.grad, np.broadcast_to(1 / std, rows.shape), rtol=1e-4)


@pytest.mark.parametrize(
    ("std", "expected"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([0.01, 2.0, 3.0], [0.2, 2.0, 3.0]),
        ([0.0, 2.0, 3.0], [0.2, 2.0, 3.0]),
        ([0.0, 0.0, 3.0], [1.0, 1.0, 3.0]),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    ],
)
def test_deviations_have_a_floor(std: list[float], expected: list[float]) -> None:
    found: Tensor = floored(torch.tensor(std))
    torch.testing.assert_close(found, torch.tensor(expected))
