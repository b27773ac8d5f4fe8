"""The statistics of two stages: thresholds from validation alone, and what each system answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from xray_lightning.evaluation.answers import differences
from xray_lightning.evaluation.cascade import Scored, judged, sweep, systems, thresholds, verdict
from xray_lightning.evaluation.cascade_content import ALONE, CASCADE, MATCHED, OPEN

from .cascades import CLASSES, HEALTHY, drawn


@given(seed=st.integers(0, 500), asked=st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_the_thresholds_give_what_is_asked_and_no_less(seed: int, asked: float) -> None:
    sample = drawn(seed)
    ill = sample.labels != HEALTHY
    for p, t in zip((sample.screen, 1 - sample.diagnosis[:, HEALTHY]), thresholds(sample, HEALTHY, asked), strict=True):
        assert (p[ill] >= t).mean() >= asked
        higher = p[p > t]
        assert not len(higher) or (p[ill] > higher.min()).mean() < asked  # the next one would miss too many


@given(seed=st.integers(0, 500), low=st.floats(0.05, 0.95), more=st.floats(0, 0.05))
@settings(max_examples=40, deadline=None)
def test_more_sensitivity_never_flags_fewer(seed: int, low: float, more: float) -> None:
    sample = drawn(seed)
    flagged = [(sample.screen >= thresholds(sample, HEALTHY, asked)[0]).sum() for asked in (low, low + more)]
    assert flagged[0] <= flagged[1]


@given(seed=st.integers(0, 500), threshold=st.floats(0, 1), matched=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_each_system_answers_by_its_rule(seed: int, threshold: float, matched: float) -> None:
    screen, diagnosis, *_ = drawn(seed, 40)
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


@pytest.mark.parametrize(
    "wrong, words, holds",
    [
        (0.5, "is worse than", "does not hold"),
        (0.0, "is not shown to differ from", "does not hold"),
        (-0.5, "is better than", "holds on"),
    ],
)
def test_the_verdict_goes_by_the_interval(wrong: float, words: str, holds: str) -> None:
    labels = np.arange(200) % 4
    bad = np.where(np.arange(200) < abs(wrong) * 200, (labels + 1) % 4, labels)
    cascade, alone = (bad, labels) if wrong > 0 else (labels, bad)
    groups = [str(i) for i in range(200)]
    found = differences({CASCADE: cascade, ALONE: alone, MATCHED: alone}, labels, groups, 4, HEALTHY)
    told = verdict(found, 200)
    assert "On 200 images" in told and told.count(words) == 2 and holds in told


def test_a_cascade_that_beats_one_of_the_two_holds_in_part() -> None:
    labels = np.arange(200) % 4
    bad = np.where(np.arange(200) < 100, (labels + 1) % 4, labels)
    groups = [str(i) for i in range(200)]
    found = differences({CASCADE: labels, ALONE: bad, MATCHED: labels}, labels, groups, 4, HEALTHY)
    assert "holds in part" in verdict(found, 200)


def test_the_sweep_is_of_test_at_thresholds_of_validation() -> None:
    validation, test = drawn(1), drawn(2)
    for line in sweep(validation, test, HEALTHY, [0.8, 0.98]):
        points = thresholds(validation, HEALTHY, line["validation_sensitivity"])
        assert (line["threshold"], line["matched_threshold"]) == points
        answers = systems(test.screen, test.diagnosis, HEALTHY, *points)
        assert line["spared"]["value"] == (test.screen < points[0]).mean()
        for name in (CASCADE, OPEN, MATCHED):
            found = line["systems"][name]
            assert found["accuracy"]["value"] == accuracy_score(test.labels, answers[name])
            assert found["sensitivity"]["value"] == recall_score(test.labels != HEALTHY, answers[name] != HEALTHY)
            for value in (*found.values(), line["spared"]):
                assert value["low"] <= value["value"] <= value["high"]


def test_what_is_said_of_a_part_agrees_with_its_sweep() -> None:
    told = judged(drawn(1), drawn(2), CLASSES, HEALTHY, 0.93)
    (line,) = (line for line in told["sweep"] if line["validation_sensitivity"] == 0.93)
    assert told["spared"] == line["spared"]
    for name, found in line["systems"].items():
        assert found.items() <= told["systems"][name].items()
        matrix = np.array(told["confusion_matrices"][name])
        assert matrix.sum() == told["images"] == 120
        assert matrix.trace() / 120 == told["systems"][name]["accuracy"]["value"]
        assert (matrix[:, HEALTHY].sum() - matrix[HEALTHY, HEALTHY]) == pytest.approx(
            (1 - found["sensitivity"]["value"]) * (120 - told["counts"]["Healthy"])
        )


@pytest.mark.parametrize("label", [0, HEALTHY])
def test_a_part_of_one_class_alone_has_what_it_defines(label: int) -> None:
    test = drawn(2)
    rows = np.flatnonzero(test.labels == label)
    part = Scored(test.screen[rows], test.diagnosis[rows], test.labels[rows], [test.groups[i] for i in rows])
    told = judged(drawn(1), part, CLASSES, HEALTHY, 0.98)
    undefined = "sensitivity" if label == HEALTHY else "specificity"
    for found in told["systems"].values():
        assert found[undefined]["value"] is None and found["macro_f1"]["value"] is None
        assert found["accuracy"]["value"] is not None
    assert all(line["systems"][CASCADE][undefined]["value"] is None for line in told["sweep"])


def test_a_part_without_images_says_so() -> None:
    nothing = Scored(*(part[:0] for part in drawn(2)))
    told = judged(drawn(1), nothing, CLASSES, HEALTHY, 0.98)
    assert told["images"] == 0 and "knows all" in told["verdict"] and "systems" not in told
