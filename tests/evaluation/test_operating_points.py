"""Thresholds against naive loops and scikit-learn, and what they achieve on other images."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from xray_lightning.evaluation.operating_points import POINTS, Point, achieved, choose, net_benefit, operating_points
from xray_lightning.evaluation.proportions import grouped_wilson, newcombe, wilson

quick = settings(deadline=None, max_examples=80, database=None, derandomize=True)
scored = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({positive for _, positive in rows}) == 2
)


def columns(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """p (N,) with many ties, 0 and 1 among them, and positive (N,) bool."""
    return np.array([score / 12 for score, _ in rows]), np.array([positive for _, positive in rows])


def points(p: np.ndarray, positive: np.ndarray) -> dict[str, Point]:
    return choose(np.stack([1 - p, p], axis=1), positive.astype(np.int64), ["NORMAL", "PNEUMONIA"])["PNEUMONIA"]


def sensitivity(point: Point) -> float:
    return point["tp"] / (point["tp"] + point["fn"])


def specificity(point: Point) -> float:
    return point["tn"] / (point["tn"] + point["fp"])


@quick
@given(scored)
def test_counts_are_those_of_a_loop(rows: list[tuple[int, bool]]) -> None:
    p, positive = columns(rows)
    found = points(p, positive)
    assert tuple(found) == POINTS and found["default"]["threshold"] == 0.5
    for point in found.values():
        assert 0 <= point["threshold"] <= 1
        decided = [(score >= point["threshold"], actual) for score, actual in zip(p, positive, strict=True)]
        assert point["tp"] == decided.count((True, True)) and point["fn"] == decided.count((False, True))
        assert point["tn"] == decided.count((False, False)) and point["fp"] == decided.count((True, False))


@quick
@given(scored, st.sampled_from([95, 98]))
def test_the_promised_sensitivity_holds_and_no_higher_score_would_do(rows: list[tuple[int, bool]], goal: int) -> None:
    p, positive = columns(rows)
    point = points(p, positive)[f"sensitivity_{goal}"]
    assert 100 * point["tp"] >= goal * positive.sum()
    for higher in set(p[p > point["threshold"]].tolist()) - {p[p >= point["threshold"]].min()}:
        assert 100 * (p[positive] >= higher).sum() < goal * positive.sum()


@quick
@given(scored)
def test_balanced_is_the_best_of_the_roc_curve(rows: list[tuple[int, bool]]) -> None:
    p, positive = columns(rows)
    point = points(p, positive)["balanced"]
    fpr, tpr, _ = roc_curve(positive, p, drop_intermediate=False)
    best = (tpr + 1 - fpr) / 2
    assert (sensitivity(point) + specificity(point)) / 2 == pytest.approx(best.max())
    assert sensitivity(point) == pytest.approx(tpr[np.isclose(best, best.max())].max())


def test_thresholds_by_hand() -> None:
    positive = np.arange(30) >= 10
    p = np.arange(30) / 32
    found = points(p, positive)
    assert [found[name]["threshold"] * 32 for name in POINTS] == [16, 10.5, 9.5, 9.5]
    assert [found[name]["tp"] for name in POINTS] == [14, 19, 20, 20]
    assert points(p, ~positive)["balanced"] == {"threshold": 0, "tp": 10, "fn": 0, "tn": 0, "fp": 20}
    assert points(p + 1 / 32, ~positive)["sensitivity_98"]["threshold"] == 1 / 64


def test_no_image_flips_in_single_precision() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(500) < 0.4
    p = generator.beta(1 + positive, 2)
    for point in points(p, positive).values():
        single = p.astype(np.float32) >= np.float32(point["threshold"])
        np.testing.assert_array_equal(single, p >= point["threshold"])


@pytest.mark.parametrize("steps", [1, 2])
def test_scores_next_to_each_other_are_told_apart(steps: int) -> None:
    """Half-way between two neighbouring floats is rounded to one of them: of two pairs in a row, once downwards."""
    lower = 1 - steps * np.finfo(np.float64).epsneg
    above = np.nextafter(lower, 1)
    found = points(np.array([0.3, lower, above, above]), np.array([False, False, True, True]))
    assert found["balanced"] == {"threshold": above, "tp": 2, "fn": 0, "tn": 2, "fp": 0}


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    powers = np.exp(generator.normal(size=(count, 3)) + 1.5 * np.eye(3)[labels])
    return powers / powers.sum(axis=1, keepdims=True), labels, [f"patient{i // 2}" for i in range(count)]


NAMES = ["Covid", "Healthy", "Pneumonia"]


def test_more_classes_are_judged_against_the_rest_and_fit_a_checkpoint() -> None:
    probabilities, labels, _ = made_up(200, 1)
    found = choose(probabilities, labels, NAMES)
    assert list(found) == NAMES
    for c, name in enumerate(NAMES):
        assert found[name] == points(probabilities[:, c], labels == c)
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == found


def test_a_class_that_cannot_be_judged_has_only_its_default() -> None:
    probabilities, labels, _ = made_up(50, 2)
    found = choose(probabilities, labels.clip(max=1), NAMES)
    assert [len(found[name]) for name in NAMES] == [4, 4, 1]
    assert found["Pneumonia"]["default"]["tp"] == found["Pneumonia"]["default"]["fn"] == 0
    assert list(points(np.full(4, np.nan), np.arange(4) < 2)) == ["default"]


def test_what_test_images_achieve() -> None:
    validation, actual, _ = made_up(300, 3)
    probabilities, labels, groups = made_up(240, 4)
    chosen = choose(validation, actual, NAMES)
    found = operating_points(chosen, probabilities, labels, groups, NAMES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for c, name in enumerate(NAMES):
        for key, entry in found[name].items():
            point = chosen[name][key]
            (tn, fp), (fn, tp) = confusion_matrix(labels == c, probabilities[:, c] >= point["threshold"])
            shares = {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "ppv": tp / (tp + fp)}
            shares["npv"] = tn / (tn + fn)
            shares["accuracy"] = (tp + tn) / len(labels)
            assert {share: entry["test"][share]["value"] for share in shares} == pytest.approx(shares)
            assert all(v["low"] <= v["value"] <= v["high"] for v in entry["test"].values())
            promised = {"sensitivity": sensitivity(point), "specificity": specificity(point)}
            assert entry["validation"] == promised | {
                "n_positive": (actual == c).sum(),
                "n_negative": (actual != c).sum(),
            }
            counts = {"sensitivity": ("tp", "fn"), "specificity": ("tn", "fp")}
            for share, (hits, misses) in counts.items():
                there, here = wilson(point[hits], point[hits] + point[misses]), entry["test"][share]
                bounds = newcombe(here["value"], (here["low"], here["high"]), promised[share], there)
                found_gap = entry["gap"][share]
                assert found_gap["value"] == pytest.approx(shares[share] - promised[share])
                assert (found_gap["low"], found_gap["high"]) == pytest.approx(bounds)


def test_intervals_are_wilsons_over_the_groups_of_the_images_that_count() -> None:
    probabilities, labels, groups = made_up(240, 5)
    p, positive = probabilities[:, 0], labels == 0
    entry = achieved({"threshold": 0.4, "tp": 1, "fn": 0, "tn": 1, "fp": 0}, p, positive, groups)
    expected = grouped_wilson(p[positive] >= 0.4, [group for group, one in zip(groups, positive, strict=True) if one])
    assert (entry["test"]["sensitivity"]["low"], entry["test"]["sensitivity"]["high"]) == expected


def test_a_probability_at_the_threshold_is_called_positive() -> None:
    point = {"threshold": 0.5, "tp": 1, "fn": 0, "tn": 1, "fp": 0}
    test = achieved(point, np.array([0.5, 0.4]), np.array([True, False]), ["a", "b"])["test"]
    assert [test[share]["value"] for share in ("sensitivity", "specificity", "ppv", "npv", "accuracy")] == [1] * 5


def test_shares_of_no_images_are_null() -> None:
    point = {"threshold": 0.5, "tp": 0, "fn": 0, "tn": 3, "fp": 1}
    entry = achieved(point, np.array([0.1, 0.2]), np.array([False, False]), ["a", "b"])
    nothing = {"value": None, "low": None, "high": None}
    assert entry["test"]["sensitivity"] == entry["test"]["ppv"] == nothing
    assert entry["validation"] == {"sensitivity": None, "specificity": 0.75, "n_positive": 0, "n_negative": 4}
    gap = entry["gap"]
    assert gap["sensitivity"] == nothing
    assert gap["specificity"]["value"] == 0.25 and gap["specificity"]["low"] < 0 < gap["specificity"]["high"]


@quick
@given(scored)
def test_net_benefit_is_that_of_a_loop(rows: list[tuple[int, bool]]) -> None:
    p, positive = columns(rows)
    thresholds = np.arange(12) / 12
    model, everyone = net_benefit(p, positive, thresholds)
    for i, t in enumerate(thresholds):
        weights = np.where(positive, 1, -t / (1 - t))
        assert model[i] == pytest.approx(weights[p >= t].sum() / len(p))
        assert everyone[i] == pytest.approx(weights.sum() / len(p))
