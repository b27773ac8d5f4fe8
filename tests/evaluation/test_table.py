"""Tables of results: every digit for programs, a readable form for people."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xray_lightning.evaluation.table import COLUMNS, METRICS, READABLE, Row, readable, show_results, write_results

CONTRACT = ["dataset", "model", "seed", "state", "n", *METRICS, "seconds"]


def done(run: str = "pneumonia_cnn_s0", seed: int = 0, accuracy: float | None = 0.75, **more: Any) -> Row:
    scores = dict.fromkeys(METRICS, 1 / 3) | {"accuracy": accuracy}
    record = {
        "n": 624,
        "metrics": {name: {"value": value, "low": None, "high": None} for name, value in scores.items()},
        "reference": None,
        "notes": [],
    }
    return Row(run, "pneumonia", "cnn", seed, "done", 12.3, None, record | more)


def failed(error: str | None, run: str = "covid_cnn_s0") -> Row:
    return Row(run, "covid", "cnn", 0, "failed", 1.5, error, None)


def table_of(markdown: str) -> list[list[str]]:
    """Cells of the one table, which must have as many in each line."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(line.endswith("|") for line in lines)
    assert len({len(line) for line in cells}) == 1
    assert set(cells[1]) == {"---"}
    return [cells[0], *cells[2:]]


def csv_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_results_csv_starts_with_the_columns_of_the_contract(tmp_path: Path) -> None:
    write_results(tmp_path, [done()])
    header = (tmp_path / "results.csv").read_text().splitlines()[0].split(",")
    assert header[: len(CONTRACT)] == CONTRACT
    assert header == list(COLUMNS)
    assert header[len(CONTRACT) :] == ["run", "notes", "macro_f1"]
    assert METRICS == ("accuracy", "recall", "precision", "f1", "balanced_accuracy", "specificity", "auroc")


def test_results_csv_has_every_digit_and_no_derived_rows(tmp_path: Path) -> None:
    rows = [done(reference={"accuracy": 0.5}), done("pneumonia_cnn_s1", 1, accuracy=None)]
    write_results(tmp_path, rows)
    first, second = csv_of(tmp_path)
    assert float(first["recall"]) == 1 / 3 and first["n"] == "624" and first["seconds"] == "12.3"
    assert (first["seed"], first["run"], first["state"]) == ("0", "pneumonia_cnn_s0", "done")
    assert second["accuracy"] == "" and second["seed"] == "1"


def test_failed_runs_stand_in_both_tables_with_their_reason(tmp_path: Path) -> None:
    write_results(tmp_path, [done(), failed("No images in /data\nFetch them.")])
    row = csv_of(tmp_path)[1]
    assert (row["dataset"], row["state"], row["n"], row["accuracy"]) == ("covid", "failed", "", "")
    assert row["notes"] == "No images in /data"
    line = table_of((tmp_path / "results.md").read_text())[2]
    assert "failed" in line and "No images in /data" in line


@pytest.mark.parametrize("error", ["a | b", "a\nb", "a\r\nb | c", "|", "\n", "\nreason", "", None])
def test_markdown_is_well_formed_whatever_the_error(tmp_path: Path, error: str | None) -> None:
    write_results(tmp_path, [failed(error), done()])
    assert len(table_of((tmp_path / "results.md").read_text())) == 3
    assert len(csv_of(tmp_path)) == 2


def test_a_reason_that_begins_with_an_empty_line_is_shown() -> None:
    assert failed("\nreason").notes == "reason"


def test_the_reference_follows_runs_on_the_published_test_set_once() -> None:
    reference = {"accuracy": 0.7756, "recall": 0.9949}
    header, lines = readable([done(reference=reference), done("pneumonia_cnn_s1", 1, reference=reference)])
    references = [dict(zip(header, line, strict=True)) for line in lines if "reference" in line]
    assert len(references) == 1
    assert references[0]["accuracy"] == "0.7756" and references[0]["recall"] == "0.9949"
    assert references[0]["AUROC"] == "" and references[0]["model"] == "cnn"
    _, lines = readable([done()])
    assert not [line for line in lines if "reference" in line]


def test_seeds_are_summarised_with_mean_and_sample_standard_deviation() -> None:
    scores = [0.70, 0.75, 0.85]
    rows = [done(f"pneumonia_cnn_s{seed}", seed, accuracy) for seed, accuracy in enumerate(scores)]
    header, lines = readable([*rows, failed("x", "pneumonia_cnn_s3"), done("pneumonia_cnn_s0_lr=0.1")])
    cells = [dict(zip(header, line, strict=True)) for line in lines]
    (average,) = [c for c in cells if c["state"] == "mean"]
    (spread,) = [c for c in cells if c["state"] == "± sd"]
    assert average["accuracy"] == f"{np.mean(scores):.4f}"
    assert spread["accuracy"] == f"{np.std(scores, ddof=1):.4f}"
    assert "3 seeds" in average.values()


def test_every_metric_is_averaged_over_seeds_with_macro_f1_beside_f1(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(size=3).tolist() for name in (*METRICS, "macro_f1")}
    rows = [
        done(f"covid_cnn_s{i}", i, metrics={m: {"value": v[i], "low": None, "high": None} for m, v in values.items()})
        for i in range(3)
    ]
    header, lines = readable(rows)
    assert header[header.index("F1") + 1] == "macro F1"
    cells = {line[header.index("state")]: dict(zip(header, line, strict=True)) for line in lines}
    for name, of_seeds in values.items():
        heading = READABLE[name]
        assert cells["mean"][heading] == f"{np.mean(of_seeds):.4f}"
        assert cells["± sd"][heading] == f"{np.std(of_seeds, ddof=1):.4f}"
    write_results(tmp_path, rows)
    assert [float(row["macro_f1"]) for row in csv_of(tmp_path)] == values["macro_f1"]


def test_one_seed_has_no_summary_and_an_undefined_metric_is_left_out_of_it() -> None:
    assert len(readable([done()])[1]) == 1
    rows = [done(accuracy=None), done("pneumonia_cnn_s1", 1), done("pneumonia_cnn_s2", 2)]
    header, lines = readable(rows)
    average = dict(zip(header, lines[3], strict=True))
    assert average["accuracy"] == "0.7500" and lines[0][header.index("accuracy")] == ""


def test_notes_are_shown_in_every_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [done(notes=["synthetic radiographs", "random backbone"])]
    write_results(tmp_path, rows)
    assert csv_of(tmp_path)[0]["notes"] == "synthetic radiographs, random backbone"
    assert "synthetic radiographs, random backbone" in (tmp_path / "results.md").read_text()
    show_results(rows, tmp_path)
    shown = capsys.readouterr().out
    assert "synthetic radiographs" in shown and "random backbone" in shown


def test_the_terminal_shows_scores_reasons_and_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [done(), failed("[red] is no folder | at all\nsecond line")]
    write_results(tmp_path, rows)
    show_results(rows, tmp_path)
    shown = capsys.readouterr().out
    for part in (
        "0.7500",
        "[red] is no folder | at all",
        "results.md",
        "figures",
        "tensorboard --logdir",
        str(tmp_path),
    ):
        assert part in shown
