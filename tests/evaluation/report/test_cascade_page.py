"""The page of a two-stage system as text: the verdict first, every number the file's, and no markup of others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xray_lightning.errors import XRayError
from xray_lightning.evaluation.cascade_content import ALL, CASCADE, UNSEEN
from xray_lightning.evaluation.cascade_figures import draw_cascade
from xray_lightning.evaluation.report.__main__ import main
from xray_lightning.evaluation.report.page import write_report

from ..cascades import CLASSES, cascade_content
from .conftest import save_png
from .pages import Page, page_of


def written(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "cascade.json").write_text(json.dumps(content))
    return folder


def test_the_verdict_stands_first_and_the_headline_before_all_images(tmp_path: Path) -> None:
    content = cascade_content()
    text = page_of(written(tmp_path / "two", content)).text
    verdicts = [content["test"][part]["verdict"] for part in (UNSEEN, ALL)]
    letters = "".join(text.split())  # an interval that does not break is an element of its own
    places = [letters.index("".join(verdict.split())) for verdict in verdicts]
    assert places == sorted(places) and places[1] < letters.index("Twostagesandone")
    assert "100 test images of covid that the screen does not know" in text
    assert "120 test images of covid, of which the screen knows 20" in text
    spared = content["test"][UNSEEN]["spared"]
    ends = f"{100 * spared['low']:.1f}–{100 * spared['high']:.1f} %"
    assert f"does not flag {100 * spared['value']:.1f} % ({ends}) of the images" in text


def test_every_number_of_the_tables_is_the_file_s(tmp_path: Path) -> None:
    content = cascade_content()
    page = page_of(written(tmp_path / "two", content))
    shown = {cell["key"] for row in page.rows for cell in row["cells"]}
    for part in content["test"].values():
        values = [value for found in part["systems"].values() for value in found.values()]
        values += [part["spared"], *(line["spared"] for line in part["sweep"])]
        values += [found[m] for found in part["differences"] for m in ("sensitivity", "specificity", "accuracy")]
        assert {str(value["value"]) for value in values} <= shown
        assert {str(found["accuracy"]["mcnemar"]) for found in part["differences"]} <= shown
        assert {str(n) for m in part["confusion_matrices"].values() for row in m for n in row} <= shown
    systems = {row["cells"][0]["text"]: row["cells"][1:] for row in page.table(1)}
    for name, found in content["test"][UNSEEN]["systems"].items():
        for cell, value in zip(systems[name], found.values(), strict=False):
            assert (cell["text"], cell["small"]) == (f"{value['value']:.3f}", f"{value['low']:.3f}–{value['high']:.3f}")
    for told in (f"{content['threshold']:.4f}", f"{content['matched_threshold']:.4f}", "Synthetic radiographs"):
        assert told in page.text
    assert "7 more, which it knows, were left out" in page.text


@pytest.mark.parametrize(
    ("known", "told", "tables"), [(0, "of which the screen knows none", 1), (120, "The screen knows all", 1)]
)
def test_images_are_told_of_once(tmp_path: Path, known: int, told: str, tables: int) -> None:
    page = page_of(written(tmp_path / "two", cascade_content(known)))
    heads = [row["cells"][0]["text"] for row in page.rows]
    assert told in page.text and heads.count("system") == tables


def test_figures_lie_in_the_page_the_sweep_of_the_headline_first(tmp_path: Path) -> None:
    folder = written(tmp_path / "two", cascade_content())
    assert page_of(folder).images == [] and "Figures" not in page_of(folder).text
    for stem in ("confusion_alone_all", "sweep_all", "sweep_unseen", "of_something_else"):
        save_png(folder / "figures" / f"{stem}.png")
    images = [image for image in page_of(folder).images if image.get("src")]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    alts = [str(image["alt"]).split(",")[0] for image in images]
    assert alts == ["Sweep over the screen's sensitivity"] * 2 + ["Confusion matrix of the diagnosis alone"]
    assert "does not know" in str(images[0]["alt"])


def test_names_are_shown_as_they_are_and_never_as_markup(tmp_path: Path) -> None:
    evil = '<script>alert("&")</script>'
    content = cascade_content(notes=[evil], dataset=evil, healthy=evil, classes=[evil, *CLASSES[1:]])
    content["environment"] |= {"command": evil, "device": evil}
    content["screen"] |= {"checkpoint": evil, "model": evil, "dataset": evil, "classes": [evil, evil]}
    for part in content["test"].values():
        part["counts"] = {evil: 3, "Pneumonia": 0}
        part["verdict"] = evil
    folder = written(tmp_path / "two", content)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(evil)
    text = write_report(folder).read_text()
    assert evil not in text and text.count("<script>") == 1
    assert Page(text).text.count(evil) > 15


def test_the_command_makes_figures_and_page_again_without_torch(tmp_path: Path) -> None:
    folder = written(tmp_path / "two", cascade_content())
    draw_cascade(cascade_content(), folder / "figures")
    first = write_report(folder).read_bytes()
    (folder / "report.html").unlink()
    missing, other = folder / "figures" / "sweep_all.png", folder / "figures" / "confusion_alone_unseen.png"
    missing.unlink()
    save_png(other)  # of other numbers
    code = "import sys; from xray_lightning.evaluation.report.__main__ import main; main(sys.argv[1:]);"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(folder / "report.html"), "False"]
    assert (folder / "report.html").read_bytes() == first and missing.is_file()


def changed(content: dict[str, Any], *place: Any, to: Any) -> str:
    node: Any = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = to
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"screen": "a.ckpt", "sweep": []}',
        changed(cascade_content(), "test", ALL, "spared", to=7),
        changed(cascade_content(), "test", ALL, "systems", CASCADE, "accuracy", "value", to=1.5),
        changed(cascade_content(), "test", UNSEEN, "confusion_matrices", CASCADE, 0, to=[1, 2, 3]),
        changed(cascade_content(), "test", UNSEEN, "confusion_matrices", CASCADE, 0, 0, to=10**30),
        changed(cascade_content(), "test", ALL, "systems", "another", to={}),
        changed(cascade_content(), "test", ALL, "differences", 0, "b", to="diagnosis alone"),
        changed(cascade_content(), "test", UNSEEN, to={"images": 3}),
        changed(cascade_content(), "diagnosis", "model", to="\x1b[2J"),
    ],
)
def test_a_file_that_is_broken_or_of_an_earlier_version_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "cascade.json").write_text(text)
    with pytest.raises(XRayError, match="broken or of an earlier version"):
        write_report(tmp_path)
    assert main([str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "cascade.json is broken" in told.err and not told.out
    assert not (tmp_path / "figures").exists()
