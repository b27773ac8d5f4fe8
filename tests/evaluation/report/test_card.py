"""MODEL_CARD.md: of runs with a checkpoint only, its numbers the record's, names never Markdown."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from xray_lightning.errors import XRayError
from xray_lightning.evaluation.report.card import write_model_card

from .conftest import Maker

CATALOG = (
    "path,label,class_name,patient,source,group,split\n"
    "a.png,0,NORMAL,p1,,g1,train\nb.png,1,PNEUMONIA,p1,,g1,train\n"
    "c.png,1,PNEUMONIA,,Kermany,g2,val\nd.png,0,NORMAL,,,g3,test\ne.png,0,NORMAL,,,g4,unused\n"
)


def card_of(
    make: Maker,
    record: dict[str, Any] | None = None,
    catalog: str = CATALOG,
    dataset: dict[str, Any] | None = None,
    **model: Any,
) -> str:
    record = record or make.record(notes=[])
    data = {"name": record["dataset"], "image_size": 224} | (dataset or {})
    settings = {"dataset": data, "model": model, "seed": 0}
    run = make.run("pneumonia_cnn_s0", record, settings=settings)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    if catalog:
        (run / "catalog.csv").write_text(catalog)
    written = write_model_card(run)
    assert written == run / "MODEL_CARD.md"
    return written.read_text()


def tables(text: str) -> list[list[list[str]]]:
    """Cells of each table, of which every line must have as many as its first."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = [[c.strip() for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in block.splitlines()]
        assert len({len(line) for line in lines}) == 1, block
        assert all(set(cell) <= {"-", ":"} for cell in lines[1])
        found.append([lines[0], *lines[2:]])
    return found


def test_a_run_without_a_checkpoint_has_no_card(make: Maker) -> None:
    run = make.run("pneumonia_cnn_s0", make.record())
    assert write_model_card(run) is None
    assert not (run / "MODEL_CARD.md").exists()


def test_a_broken_record_is_refused(make: Maker) -> None:
    card_of(make)
    run = make.root / "pneumonia_cnn_s0"
    (run / "metrics.json").write_text("{}")
    with pytest.raises(XRayError, match="broken"):
        write_model_card(run)


def test_its_numbers_are_the_record_s(make: Maker) -> None:
    record = make.record()
    shown = {cell for table in tables(card_of(make, record)) for line in table for cell in line}
    found = [*record["metrics"].values(), record["subgroups"][0]["recall"]]
    found += [v for c in record["per_class"].values() for name, v in c.items() if name != "n"]
    found += [v for side in ("before", "after") for v in record["calibration"][side].values()]
    tested = [p["test"] for p in record["operating_points"]["PNEUMONIA"].values()]
    rates = [test[m] for test in tested for m in ("sensitivity", "specificity")]
    assert {f"{v['value']:.3f} ({v['low']:.3f}–{v['high']:.3f})" for v in rates} <= shown
    assert {f"{v['value']:.4f} ({v['low']:.3f}–{v['high']:.3f})" for v in found} <= shown
    assert {"0.7756", "0.8472"} <= shown  # the reference's
    assert {str(n) for row in record["confusion_matrix"] for n in row} <= shown


def test_it_says_what_choices_were_made_on(make: Maker) -> None:
    text = card_of(make)
    assert "Epoch: 7, the lowest val/log\\_loss" in text or "Epoch: 7, the lowest val/log_loss" in text
    assert "Temperature: 1.310" in text and "scored the test images once" in text


def test_it_counts_the_catalog(make: Maker) -> None:
    text = card_of(make)
    assert "train: 2 images of 1 group; patient known for 2\n" in text
    assert "validation: 1 image of 1 group; patient known for 0; sources Kermany 1\n" in text
    assert "train: " not in card_of(Maker(make.root / "other"), catalog="")


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ({}, False),
        ({"validation": "random"}, False),
        ({"validation": "block"}, True),
        ({"validation": "block", "split": "reference"}, True),
        ({"validation": "block", "split_file": "catalog.csv"}, False),
    ],
)
def test_it_says_that_validation_is_a_block(make: Maker, dataset: dict[str, Any], told: bool) -> None:
    assert ("\nValidation: a block of ID numbers in each class" in card_of(make, dataset=dataset)) == told


@pytest.mark.parametrize(
    ("dataset", "told"), [("pneumonia", "one to five years"), ("covid", "source of an image tells much of its class")]
)
def test_limits_are_those_of_the_data_set_unless_it_is_synthetic(make: Maker, dataset: str, told: str) -> None:
    assert told in card_of(make, make.record(dataset, notes=[]))
    synthetic = card_of(Maker(make.root / "other"), make.record(dataset))
    assert told not in synthetic and "images are synthetic" in synthetic


def test_another_data_set_gets_no_facts_that_are_not_known(make: Maker) -> None:
    text = card_of(make, make.record(notes=[]) | {"dataset": "lungs"})
    assert "Source, people and labels: not available" in text and "Kermany et al." not in text


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (None, "trained from scratch"),
        ("IMAGENET1K_V2", "torchvision's ResNet50 weights IMAGENET1K_V2"),
        ("/somewhere/own_weights.pth", "own_weights.pth; its source and licence are not recorded"),
    ],
)
def test_it_says_where_weights_come_from(make: Maker, weights: str | None, told: str) -> None:
    text = card_of(make, weights=weights)
    assert told in text and "/somewhere" not in text


def test_a_random_backbone_is_told(make: Maker) -> None:
    text = card_of(make, make.record(notes=["random backbone"]), weights="IMAGENET1K_V1")
    assert "random weights" in text and "torchvision's" not in text


def test_names_are_never_markup(make: Maker) -> None:
    evil = "a|b<img src=x>*c*`d`# e"
    record = make.record(notes=[f"{evil}\n# e"])
    record["classes"] = [evil, "B"]
    record["per_class"] = {evil: record["per_class"]["NORMAL"]}
    record["subgroups"][0]["value"] = evil
    text = card_of(make, record)
    assert "<img" not in text.replace("\\<img", "") and "\n# e" not in text
    tables(text)


def test_claim_items_rise_and_name_what_is_not_available(make: Maker) -> None:
    claim = tables(card_of(make))[-1]
    items = [int(line[0]) for line in claim[1:]]
    assert items == list(range(3, 43))  # title and abstract are of articles
    assert any(answer.startswith("not available") for _, _, answer in claim[1:])
    assert all(subject and answer for _, subject, answer in claim[1:])


def test_what_is_missing_is_left_out_and_again_is_the_same(make: Maker) -> None:
    record = make.record(reference=None, validation=None, subgroups=[], operating_points={})
    del record["interval"], record["calibration"]
    text = card_of(make, record)
    assert "### Calibration" not in text and "### Subgroups" not in text and "### Operating points" not in text
    run = Path(make.root / "pneumonia_cnn_s0")
    assert json.loads((run / "metrics.json").read_text()) == record
    again = write_model_card(run)
    assert again is not None and again.read_text() == text


def test_it_says_which_promises_test_did_not_keep(make: Maker) -> None:
    record = make.record()
    record["calibration"]["before"]["log_loss"]["value"], record["calibration"]["after"]["log_loss"]["value"] = 0.3, 0.4
    gap = record["operating_points"]["PNEUMONIA"]["sensitivity_95"]["gap"]
    gap["sensitivity"] = {"value": -0.05, "low": -0.1, "high": -0.01}
    text = card_of(make, record)
    assert "made the log-loss of cnn on test worse (0.300 to 0.400)" in text
    assert "The sensitivity of cnn lies below" in text
