"""report.html as text: what it says is what the files hold, whatever is missing from them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xray_lightning.errors import XRayError
from xray_lightning.evaluation.report.__main__ import main
from xray_lightning.evaluation.report.page import write_report
from xray_lightning.status import alone

from .conftest import Maker, save_png
from .pages import Page, page_of


def record_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text()))


def test_every_number_of_the_results_is_the_record_s(four: Path) -> None:
    header, *rows = page_of(four).table(1)
    names = [
        cell["text"].lower().replace("-", "_").replace("bal. acc.", "balanced_accuracy") for cell in header["cells"]
    ]
    runs = [row["cells"] for row in rows if row["kind"] == "run"]
    assert len(runs) == 4
    for cells, folder in zip(runs, sorted(four.glob("*_s0")), strict=True):
        record = record_of(folder)
        assert (cells[0]["text"], cells[0]["small"]) == (record["model"], record["dataset"])
        assert cells[3]["text"] == str(record["n"])
        for name, cell in list(zip(names, cells, strict=True))[4:-1]:
            found = record["metrics"][name]
            assert float(cell["key"]) == found["value"]
            assert cell["text"] == f"{found['value']:.4f}"
            assert cell["small"] == f"{found['low']:.3f}–{found['high']:.3f}"
        assert (cells[-1]["text"], cells[-1]["key"]) == ("149 s", "149.0")


def test_reference_and_mean_over_seeds_are_rows_of_their_own(make: Maker) -> None:
    for seed in (0, 1):
        record = make.record(seed=seed)
        record["metrics"]["accuracy"]["value"] = 0.8 + 0.1 * seed
        make.run(f"pneumonia_cnn_s{seed}", record)
    rows = list(page_of(make.root).table(1))[1:]
    assert [row["kind"] for row in rows] == ["run", "run", "reference", "mean"]
    assert rows[2]["cells"][4]["text"] == "0.7756" and rows[2]["cells"][5]["text"] == ""
    assert (rows[3]["cells"][4]["text"], rows[3]["cells"][4]["small"]) == ("0.8500", "± 0.0707")


def test_numbers_of_the_further_tables_are_the_record_s(make: Maker) -> None:
    record = make.record()
    page = page_of(make.run("pneumonia_cnn_s0", record))
    shown = {cell["key"] for row in page.rows for cell in row["cells"]}
    expected = [
        *record["metrics"].values(),
        *record["calibration"]["before"].values(),
        record["subgroups"][0]["recall"],
    ]
    expected += [v for c in record["per_class"].values() for name, v in c.items() if name != "n"]
    points = record["operating_points"]["PNEUMONIA"].values()
    expected += [v for point in points for v in point["test"].values()]
    assert {str(v["value"]) for v in expected} <= shown
    assert {str(point["threshold"]) for point in points} | {"-0.01234"} <= shown
    assert {str(n) for row in record["confusion_matrix"] for n in row} <= shown


def test_differences_are_those_of_comparisons_csv(four: Path) -> None:
    page = page_of(four)
    _, row = page.table(2)
    texts = [(cell["text"], cell["small"]) for cell in row["cells"]]
    assert "McNemar's exact p takes images as independent: with several images a patient it is too small." in page.text
    assert texts[:4] == [
        ("pneumonia · cnn", ""), ("pneumonia · resnet50", ""), ("−0.034", "−0.060 to −0.010"), ("0.012", "")
    ]  # fmt: skip
    assert texts[4:] == [("0.025", ""), ("+0.011", "−0.002 to 0.024"), ("< 0.001", ""), ("< 0.001", ""), ("0.009", "")]
    assert "differ by 0.034 in accuracy (p = 0.025) and by 0.011 in AUROC (p < 0.001)" in page.text


def test_ensembles_stand_apart_from_the_runs_as_in_their_csv(four: Path) -> None:
    assert "Ensembles of seeds" not in page_of(four).text
    header = "dataset,model,setting,seeds,n,accuracy,accuracy_low,accuracy_high,auroc,log_loss,macro_f1,notes\n"
    lines = "covid,cnn,lr=0.1,3,90,0.81234,0.7,0.9,,0.5,0.8,\npneumonia,cnn,,2,60,0.9,,,0.95,0.3,0.9,\n"
    (four / "ensembles.csv").write_text(header + lines)
    page = page_of(four)
    assert len([row for row in page.table(1) if row["kind"] == "run"]) == 4
    names, first, second = (row["cells"] for row in page.table(2))
    columns = {cell["text"]: i for i, cell in enumerate(names)}
    assert (first[0]["text"], first[0]["small"], second[0]["small"]) == ("cnn", "covid · lr=0.1", "pneumonia")
    assert [first[columns[name]]["text"] for name in ("seeds", "n", "log-loss")] == ["3", "90", "0.5000"]
    assert first[columns["accuracy"]] == {"text": "0.8123", "small": "0.700–0.900", "key": "0.81234"}
    assert first[columns["AUROC"]]["text"] == "—" and second[columns["AUROC"]]["text"] == "0.9500"
    assert page.text.index("Ensembles of seeds") < page.text.index("Differences between runs")
    assert "as many networks at inference as there are seeds, and its score is not the recipe's" in page.text


@pytest.mark.parametrize("content", [None, "", "dataset,a,b\n"])
def test_without_comparisons_the_report_says_so(four: Path, content: str | None) -> None:
    (four / "comparisons.csv").unlink()
    if content is not None:
        (four / "comparisons.csv").write_text(content)
    assert "These runs were not compared" in page_of(four).text


def test_names_are_shown_as_they_are_and_never_as_markup(make: Maker) -> None:
    evil = '<script>alert("&")</script>'
    record = make.record(notes=[evil], bad_images={f"a/{evil}.png": evil})
    record |= {"dataset": evil, "model": evil}
    record["classes"] = [evil, "B"]
    record["per_class"] = {evil: record["per_class"]["NORMAL"]}
    record["environment"]["command"] = evil
    make.run("x_y_s0", record, error=evil)
    for folder in (make.root, make.root / "x_y_s0"):
        text = write_report(folder).read_text()
        assert evil not in text and text.count("<script>") == 1
        assert Page(text).text.count(evil) > 5


def test_what_is_missing_is_left_out(make: Maker) -> None:
    record = make.record(reference=None, validation=None, subgroups=[], notes=[])
    for key in ("calibration", "operating_points", "interval", "environment", "groups", "bad_images"):
        del record[key]
    record["metrics"]["auroc"] = {"value": None, "low": None, "high": None}
    page = page_of(make.run("pneumonia_cnn_s0", record, figures=False))
    assert "Calibration" not in page.text and "Subgroups" not in page.text and page.images == []
    results = list(page.table(1))
    assert results[1]["cells"][10] == {"text": "—", "small": "", "key": None}
    assert "not a medical device" in page.text


def test_failed_and_running_runs_are_told(make: Maker) -> None:
    make.run("covid_cnn_s0", error="no such folder\nFetch it")
    make.run("covid_resnet50_s0", state="running", ended=None, seconds=None)
    with alone(make.root / "covid_resnet50_s0", "held"):
        page = page_of(make.root)
    states = {row["cells"][0]["text"]: row["cells"][2]["text"] for row in page.table(1)}
    assert states == {"run": "state", "cnn": "failed", "resnet50": "running"}
    assert "2 runs on 1 data set: 1 failed, 1 running." in page.text
    assert "no such folder Fetch it" in page.text


def test_figures_lie_in_the_file_and_their_alt_texts_say_the_numbers(four: Path) -> None:
    images = [image for image in page_of(four).images if image.get("src")]
    assert len(images) == 4 * 5 + 1
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    record = record_of(four / "pneumonia_cnn_s0")
    alts = [str(image["alt"]) for image in images]
    (roc,) = (alt for alt in alts if alt.startswith("ROC curve of pneumonia · cnn"))
    assert f"{record['metrics']['auroc']['value']:.3f}" in roc
    assert len(set(alts)) == len(alts)


def test_many_runs_are_linked(make: Maker) -> None:
    for seed in range(13):
        make.run(f"covid_cnn_s{seed}", make.record("covid", seed=seed))
    write_report(make.root / "covid_cnn_s3")
    text = write_report(make.root).read_text()
    assert "data:image" not in text and 'href="covid_cnn_s3/report.html"' in text
    assert "covid_cnn_s4/report.html" not in text


def test_again_it_is_the_same_to_the_last_byte(four: Path) -> None:
    first = write_report(four).read_bytes()
    assert write_report(four).read_bytes() == first
    assert re.search(rb"(src|href)=.(https?:|//|file:)", first) is None


def test_wrong_folders_end_in_one_line(tmp_path: Path, make: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.json").write_text("{")
    failed = make.run("covid_cnn_s0", error="disk full")
    wrong = {tmp_path / "none": "is no folder", tmp_path: "neither a run", tmp_path / "broken": "broken",
             failed: "disk full"}  # fmt: skip
    for folder, reason in wrong.items():
        with pytest.raises(XRayError, match=reason):
            write_report(folder)
        assert main([str(folder)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and reason in err
    save_png(make.root / "covid_cnn_s0" / "figures" / "x.png")
    assert main([str(tmp_path / "none"), str(make.root)]) == 1
    assert capsys.readouterr().out == f"{make.root / 'report.html'}\n"


def test_the_command_makes_a_runs_page_without_torch(four: Path) -> None:
    code = "import sys; from xray_lightning.evaluation.report.__main__ import main; main(sys.argv[1:]);"
    code += "print('torch' in sys.modules)"
    run = four / "pneumonia_cnn_s0"
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(run / "report.html"), "False"]
