"""The statistics of two stages: thresholds from validation alone, and what each system answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from xray_lightning.evaluation.cascade import (
    ALONE,
    CASCADE,
    MATCHED,
    OPEN,
    against,
    scores,
    sweep,
    systems,
    thresholds,
    verdict,
)

HEALTHY = 1


def drawn(seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The screen's p, the diagnosis' p and labels of a screen and a diagnosis that are often right."""
    numbers = np.random.default_rng(seed)
    labels = np.r_[np.arange(4), numbers.integers(0, 4, count - 4)]
    diagnosis = np.exp(numbers.normal(size=(count, 4)) + 2 * np.eye(4)[labels])
    screen = 1 / (1 + np.exp(-numbers.normal(size=count) - np.where(labels == HEALTHY, -1, 1)))
    return screen, diagnosis / diagnosis.sum(axis=1, keepdims=True), labels


@given(seed=st.integers(0, 500), asked=st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_the_thresholds_give_what_is_asked_and_no_less(seed: int, asked: float) -> None:
    screen, diagnosis, labels = drawn(seed)
    ill = labels != HEALTHY
    for p, t in zip(
        (screen, 1 - diagnosis[:, HEALTHY]), thresholds(screen, diagnosis, labels, HEALTHY, asked), strict=True
    ):
        assert (p[ill] >= t).mean() >= asked
        higher = p[p > t]
        assert not len(higher) or (p[ill] > higher.min()).mean() < asked  # the next one would miss too many


@given(seed=st.integers(0, 500), low=st.floats(0.05, 0.95), more=st.floats(0, 0.05))
@settings(max_examples=40, deadline=None)
def test_more_sensitivity_never_flags_fewer(seed: int, low: float, more: float) -> None:
    sample = drawn(seed)
    flagged = [(sample[0] >= thresholds(*sample, HEALTHY, asked)[0]).sum() for asked in (low, low + more)]
    assert flagged[0] <= flagged[1]


@given(seed=st.integers(0, 500), threshold=st.floats(0, 1), matched=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_each_system_answers_by_its_rule(seed: int, threshold: float, matched: float) -> None:
    screen, diagnosis, _ = drawn(seed, 40)
    found = systems(screen, diagnosis, HEALTHY, threshold, matched)
    for i in range(40):
        diseases = [c for c in np.argsort(-diagnosis[i]) if c != HEALTHY]
        likeliest = int(np.argmax(diagnosis[i]))
        flagged = screen[i] >= threshold
        assert found[CASCADE][i] == (diseases[0] if flagged else HEALTHY)
        assert found[OPEN][i] == (likeliest if flagged else HEALTHY)
        assert found[ALONE][i] == likeliest
        assert found[MATCHED][i] == (diseases[0] if 1 - diagnosis[i, HEALTHY] >= matched else HEALTHY)
    everything = systems(screen, diagnosis, HEALTHY, 0.0, matched)
    assert np.array_equal(everything[OPEN], everything[ALONE])


def test_scores_are_those_of_scikit_learn() -> None:
    screen, diagnosis, labels = drawn(3)
    for answers in systems(screen, diagnosis, HEALTHY, 0.4, 0.6).values():
        found = scores(answers, labels, [str(i) for i in range(len(labels))], 4, HEALTHY)
        ill = labels != HEALTHY
        assert found["sensitivity"]["value"] == pytest.approx(recall_score(ill, answers != HEALTHY))
        assert found["specificity"]["value"] == pytest.approx(recall_score(~ill, answers == HEALTHY))
        assert found["accuracy"]["value"] == pytest.approx(accuracy_score(labels, answers))
        assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels, answers, average="macro"))
        for value in found.values():
            assert value["low"] is not None and value["high"] is not None and value["value"] is not None
            assert value["low"] <= value["value"] <= value["high"] and value["low"] < value["high"]


def test_what_is_not_there_has_no_score() -> None:
    _, _, labels = drawn(0)
    some = np.flatnonzero(labels == HEALTHY)
    found = scores(labels[some], labels[some], [str(i) for i in some], 4, HEALTHY)
    assert found["sensitivity"]["value"] is None and found["macro_f1"]["value"] is None
    assert found["specificity"]["value"] == 1


@pytest.mark.parametrize(
    "wrong, words", [(0.5, "is worse than"), (0.0, "is not shown to differ from"), (-0.5, "is better than")]
)
def test_the_verdict_goes_by_the_interval(wrong: float, words: str) -> None:
    labels = np.arange(200) % 4
    bad = np.where(np.arange(200) < abs(wrong) * 200, (labels + 1) % 4, labels)
    cascade, alone = (bad, labels) if wrong > 0 else (labels, bad)
    groups = [str(i) for i in range(200)]
    compared = against({CASCADE: cascade, ALONE: alone, MATCHED: alone}, labels, groups, 4)
    told = verdict(compared, 200)
    assert told.startswith("On 200 images") and told.count(words) == 2


def test_the_sweep_is_of_test_at_thresholds_of_validation() -> None:
    validation, test = drawn(1), drawn(2)
    for line in sweep(validation, test, HEALTHY, [0.8, 0.98]):
        threshold, matched = thresholds(*validation, HEALTHY, line["validation_sensitivity"])
        answers = systems(test[0], test[1], HEALTHY, threshold, matched)
        assert line["spared"] == (test[0] < threshold).mean()
        for name in (CASCADE, MATCHED):
            assert line[name]["accuracy"] == accuracy_score(test[2], answers[name])
            assert line[name]["sensitivity"] == recall_score(test[2] != HEALTHY, answers[name] != HEALTHY)
