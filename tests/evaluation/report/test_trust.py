"""What a report says of promises that test did not keep, and of images that are no test."""

from typing import Any

import pytest

from .conftest import Maker
from .pages import page_of


def judged(make: Maker, model: str = "cnn", **rates: tuple[float, float, float]) -> dict[str, Any]:
    """A two-class record whose log-loss gets worse, with the test rates given as (value, low, high)."""
    record = make.record(model=model)
    before, after = record["calibration"]["before"], record["calibration"]["after"]
    before["log_loss"]["value"], after["log_loss"]["value"] = 0.334, 0.371
    point = record["operating_points"]["PNEUMONIA"]["sensitivity_95"]
    for rate, found in rates.items():
        point["test"][rate] = dict(zip(("value", "low", "high"), found, strict=True))
    return record


def test_a_temperature_that_made_test_worse_is_told(make: Maker) -> None:
    make.run("pneumonia_cnn_s0", judged(make))
    better = judged(make, "resnet50")
    better["calibration"]["after"]["log_loss"]["value"] = 0.3341
    make.run("pneumonia_resnet50_s0", better)
    text = page_of(make.root).text
    assert "On pneumonia, the temperature fitted on validation made the log-loss of cnn on test worse" in text
    assert "(0.334 to 0.371)" in text and "0.334 to 0.334" not in text


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        (((0.01, 0.03), (-0.2, 0.1)), "The sensitivity of cnn lies above what validation promised"),
        (((-0.1, 0.03), (-0.3, -0.1)), "The specificity of cnn lies below what validation promised"),
        (((-0.1, -0.03), (0.1, 0.2)), "The sensitivity of cnn lies below and the specificity of cnn lies above what"),
        (((-0.1, 0.1), (None, None)), ""),
    ],
)
def test_a_promise_is_set_beside_what_test_gave(make: Maker, gaps: tuple[Any, Any], told: str) -> None:
    record = judged(make, sensitivity=(0.97, 0.96, 0.98), specificity=(0.65, 0.6, 0.7))
    point = record["operating_points"]["PNEUMONIA"]["sensitivity_95"]
    for rate, (low, high) in zip(("sensitivity", "specificity"), gaps, strict=True):
        point["gap"][rate] = {"value": 0.0, "low": low, "high": high}
    text = page_of(make.run("pneumonia_cnn_s0", record)).text
    assert "test gave cnn sensitivity 0.970 (0.960–0.980) against 0.950 and specificity 0.650" in text
    assert "(0.600–0.700) against 0.900 on validation" in text
    assert told in text and ("the difference excludes 0" in text) == bool(told)


def test_of_many_runs_the_promises_are_ranges(make: Maker) -> None:
    for seed, value in enumerate((0.91, 0.93, 0.97, 0.99)):
        record = judged(make, sensitivity=(value, value - 0.005, value + 0.005), specificity=(0.5, 0.4, 0.6))
        gap = {"value": value - 0.95, "low": value - 0.96, "high": value - 0.94}
        record["operating_points"]["PNEUMONIA"]["sensitivity_95"]["gap"]["sensitivity"] = gap
        make.run(f"pneumonia_cnn_s{seed}", record | {"seed": seed})
    text = page_of(make.root).text
    assert "test gave 4 runs sensitivity 0.910 to 0.990" in text and "0.500 to 0.500" in text
    assert "The sensitivity of cnn · seed 2 and cnn · seed 3 lies above" in text
    assert "the specificity of 4 of these runs lies above what validation promised" in text


@pytest.mark.parametrize(("split", "seen"), [("val", None), ("all", {"trained": 30, "chosen": 5, "identical": 2})])
def test_other_images_are_not_called_test_images(make: Maker, split: str, seen: dict[str, int] | None) -> None:
    notes = ["trained on pneumonia and scored on lungs"]
    notes += ["30 of 90 images or their patients were trained on and 5 of 90 were validated on"] * bool(seen)
    record = judged(make) | {"split": split, "seen": seen, "seed": None, "n": 90, "reference": None, "notes": notes}
    page = page_of(make.run("pneumonia_cnn_s0", record))
    told = page.text + " ".join(str(image["alt"]) for image in page.images)
    assert "test images" not in told and "on test" not in told and "test set" not in told
    assert ("of 90 validation images" in told) == (split == "val")
    _, row = page.table(1)
    assert (row["cells"][1]["text"], row["cells"][1]["key"]) == ("—", None)
    sentence = (
        "trained on 30 of these 90 images or their patients (2 as the same files); 5 more were used for validation"
    )
    assert (sentence in page.text) == bool(seen) and "were validated on" not in page.text
    assert ("these images gave cnn sensitivity" in page.text) == bool(seen)


def test_images_that_were_never_seen_are_told_so(make: Maker) -> None:
    seen = {"trained": 0, "chosen": 0, "identical": 0}
    record = make.record(seen=seen, split="all", seed=None)
    text = page_of(make.run("pneumonia_cnn_s0", record)).text
    assert f"None of these {record['n']} images or their patients is known to have been used" in text


def test_a_sweep_shows_one_threshold_a_class_and_each_section_all(make: Maker) -> None:
    for model in ("cnn", "resnet50"):
        make.run(f"covid_{model}_s0", make.record("covid", model))
        make.run(f"pneumonia_{model}_s0", make.record("pneumonia", model))
    page = page_of(make.root)
    assert "only the threshold for sensitivity 0.95 is here; each run's section has all" in page.text
    tables = [list(page.table(n)) for n in range(1, page.tables + 1)]
    whole, *own = [rows[1:] for rows in tables if "threshold" in [cell["text"] for cell in rows[0]["cells"]]]
    assert len(whole) == 2 * 4 + 2 * 4 and sorted(map(len, own)) == [4, 4, 16, 16]
    points = [row["cells"][2]["text"] for row in whole if row["cells"][0]["small"] == "covid"]
    assert set(points) == {"sensitivity 0.95"}


def test_a_run_shows_every_threshold_once(make: Maker) -> None:
    page = page_of(make.run("covid_cnn_s0", make.record("covid")))
    heads = [[cell["text"] for cell in next(page.table(n))["cells"]] for n in range(1, page.tables + 1)]
    (number,) = (i + 1 for i, head in enumerate(heads) if "threshold" in head)
    assert len(list(page.table(number))) == 1 + 16 and "each run's" not in page.text


def test_cautions_stand_where_they_belong(make: Maker) -> None:
    texts = {
        (dataset, model): page_of(make.run(f"{dataset}_{model}_s0", make.record(dataset, model))).text
        for dataset, model in (("pneumonia", "cnn"), ("covid", "resnet50"))
    }
    two, four = texts.values()
    assert "Grad-CAM shows, coarsely" in two and "Grad-CAM shows, coarsely" in four
    assert "locates little" in two and "locates little" not in four
    assert "shows the probability of PNEUMONIA, whereas ECE" in two and "whereas ECE" not in four


@pytest.mark.parametrize(
    ("leaked", "told"), [({}, "no group is on two sides"), ({"test": 3}, "3 test images have one")]
)
def test_the_audit_of_the_data_is_told(make: Maker, leaked: dict[str, int], told: str) -> None:
    found = {"images": 90, "groups": 80, "patients_known": 70, "identical": 1, "near_identical": 2, "leaked": leaked}
    text = page_of(make.run("pneumonia_cnn_s0", make.record(audit=found))).text
    assert "90 images in 80 groups by patient" in text and "1 pair of identical files and 2 of twins" in text
    assert told in text
    scored = make.record(audit=found, split="all", seen={"trained": 0, "chosen": 0, "identical": 0})
    assert told not in page_of(make.run("again", scored)).text
