"""What answers are worth, and how they differ: against scikit-learn, SciPy and the intervals of a run's record."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from xray_lightning.evaluation.answers import differences, macro_f1, scores, shares
from xray_lightning.evaluation.cascade import systems
from xray_lightning.evaluation.record import judged

from .cascades import HEALTHY, drawn

SAMPLE = drawn(3)
ANSWERS = systems(SAMPLE.screen, SAMPLE.diagnosis, HEALTHY, 0.4, 0.6)
FIRST, *OTHERS = ANSWERS


def test_scores_are_those_of_scikit_learn() -> None:
    labels, ill = SAMPLE.labels, SAMPLE.labels != HEALTHY
    for name, found in scores(ANSWERS, labels, SAMPLE.groups, 4, HEALTHY).items():
        answers = ANSWERS[name]
        assert found["sensitivity"]["value"] == pytest.approx(recall_score(ill, answers != HEALTHY))
        assert found["specificity"]["value"] == pytest.approx(recall_score(~ill, answers == HEALTHY))
        assert found["accuracy"]["value"] == pytest.approx(accuracy_score(labels, answers))
        assert found["macro_f1"]["value"] == pytest.approx(f1_score(labels, answers, average="macro"))
        for value in found.values():
            assert value["low"] is not None and value["high"] is not None and value["value"] is not None
            assert value["low"] <= value["value"] <= value["high"] and value["low"] < value["high"]


def test_intervals_are_those_of_a_run_with_the_same_answers() -> None:
    found = scores(ANSWERS, SAMPLE.labels, SAMPLE.groups, 4, HEALTHY)
    for name, answers in ANSWERS.items():
        metrics, _ = judged(np.eye(4)[answers] * 0.9 + 0.025, SAMPLE.labels, SAMPLE.groups)
        for metric in ("accuracy", "macro_f1"):
            assert found[name][metric] == pytest.approx(metrics[metric])


@given(seed=st.integers(0, 500), threshold=st.floats(0, 1), matched=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_differences_are_of_the_scores_and_their_test_is_mcnemars(seed: int, threshold: float, matched: float) -> None:
    sample = drawn(seed, 60)
    answers = systems(sample.screen, sample.diagnosis, HEALTHY, threshold, matched)
    of_each = {name: shares(given, sample.labels, sample.groups, HEALTHY) for name, given in answers.items()}
    right = {name: given == sample.labels for name, given in answers.items()}
    for found in differences(answers, sample.labels, sample.groups, 4, HEALTHY):
        assert found["a"] == FIRST
        for metric in ("sensitivity", "specificity", "accuracy"):
            first, other = (of_each[found[side]][metric]["value"] for side in "ab")
            assert first is not None and other is not None
            assert found[metric]["value"] == pytest.approx(first - other, abs=1e-12)
            if found[metric]["low"] is not None:
                assert found[metric]["low"] <= found[metric]["value"] <= found[metric]["high"]
        one, two = right[FIRST] & ~right[found["b"]], right[found["b"]] & ~right[FIRST]
        k, n = int(one.sum()), int(one.sum() + two.sum())
        assert (found["accuracy"]["only_a"], found["accuracy"]["only_b"]) == (k, n - k)
        assert found["accuracy"]["mcnemar"] == pytest.approx(binomtest(k, n).pvalue if n else 1)


def test_the_difference_in_macro_f1_is_by_the_same_resamples() -> None:
    found = macro_f1(ANSWERS, SAMPLE.labels, SAMPLE.groups, 4)
    for other in OTHERS:
        pair, first, second = found[FIRST, other], found[FIRST]["value"], found[other]["value"]
        assert first is not None and second is not None
        assert pair["value"] == pytest.approx(first - second)
        if pair["low"] is not None and pair["high"] is not None:
            widths = [(found[name]["high"] or 0) - (found[name]["low"] or 0) for name in (FIRST, other)]
            assert pair["high"] - pair["low"] < sum(widths)  # paired, so narrower than two apart
    same = macro_f1({"a": ANSWERS[FIRST], "b": ANSWERS[FIRST]}, SAMPLE.labels, SAMPLE.groups, 4)
    assert same["a", "b"] == {"value": 0.0, "low": None, "high": None}


def test_what_is_not_there_has_no_score() -> None:
    some = np.flatnonzero(SAMPLE.labels == HEALTHY)
    labels, groups = SAMPLE.labels[some], [SAMPLE.groups[i] for i in some]
    both = {"a": labels, "b": labels}
    found = scores(both, labels, groups, 4, HEALTHY)["a"]
    assert found["sensitivity"]["value"] is None and found["macro_f1"]["value"] is None
    assert found["specificity"]["value"] == 1
    (pair,) = differences(both, labels, groups, 4, HEALTHY)
    assert pair["sensitivity"]["value"] is None and pair["sensitivity"]["mcnemar"] is None
    assert pair["accuracy"]["value"] == 0 and json.dumps(pair, allow_nan=False)
