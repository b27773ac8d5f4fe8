"""The learning-rate schedule: linear rise, half a cosine down, and no surprise at its ends."""

import math

import pytest
import torch

from xray_lightning.models.schedule import WarmupCosine


def rates(total_steps: int, warmup: float, steps: int | None = None) -> list[float]:
    """The rate of each step, as a factor of the highest."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = WarmupCosine(optimizer, total_steps=total_steps, warmup=warmup)
    seen = []
    for _ in range(total_steps if steps is None else steps):
        seen.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        schedule.step()
    return seen


def test_rises_linearly_then_falls_as_half_a_cosine() -> None:
    seen = rates(100, 0.1)
    assert seen[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert seen[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 90)) for i in range(90)])
    assert max(seen) == 1 and 0 < seen[-1] < 1e-3


@pytest.mark.parametrize("total_steps", [1, 2, 3, 17])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_every_step_of_any_training_learns_and_none_exceeds_the_highest_rate(total_steps: int, warmup: float) -> None:
    seen = rates(total_steps, warmup)
    assert all(0 < rate <= 1 for rate in seen)
    assert max(seen) == pytest.approx(1)


def test_steps_after_the_last_do_not_learn() -> None:
    assert rates(10, 0.1, steps=15)[10:] == pytest.approx([0] * 5, abs=1e-12)
