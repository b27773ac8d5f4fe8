"""Run folders that somebody else made: a page, or one message; never code, a traceback or a wait."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_lightning.errors import XRayError
from xray_lightning.evaluation.report.__main__ import main
from xray_lightning.evaluation.report.card import write_model_card
from xray_lightning.evaluation.report.page import write_report
from xray_lightning.evaluation.runs import gather
from xray_lightning.evaluation.table import write_results

from ..cascades import cascade_content
from .conftest import Maker, save_png
from .pages import Page, page_of

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`${x}|\u202e"
LAUGHS = "- &a [x, x]\n" + "".join(f"- &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghij"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.sampled_from([0.5, -1e300, EVIL, "", "\x1b[2J", "a\nb"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["value", "n", "name", EVIL]), inner),
    max_leaves=4,
)


def trained(make: Maker, record: dict[str, Any] | None = None) -> Path:
    run = make.run("pneumonia_cnn_s0", record or make.record(), figures=False)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    return run


def places(content: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be replaced in parsed JSON."""
    yield here
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict | list):
            yield from places(value, (*here, key))
        else:
            yield (*here, key)


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[place[0]] = replaced(content[place[0]], place[1:], value)
    return copy


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_its_files_is_a_page_or_one_message(tmp_path_factory: Any, data: st.DataObject) -> None:
    make = Maker(tmp_path_factory.mktemp("sweep") / "four")
    run = trained(make)
    for name in data.draw(st.sampled_from([("metrics.json",), ("status.json",), ("metrics.json", "status.json")])):
        content = json.loads((run / name).read_text())
        place = data.draw(st.sampled_from(list(places(content))))
        (run / name).write_text(json.dumps(replaced(content, place, data.draw(JSON))))
    for write in (write_report, write_model_card):
        try:
            written = write(run)
        except XRayError as error:
            assert "broken" in str(error)
        else:
            assert written is not None and EVIL not in written.read_text()
    write_results(make.root, gather(make.root))
    assert EVIL not in write_report(make.root).read_text() + (make.root / "results.md").read_text()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_cascade_s_file_is_a_page_or_one_message(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    folder, content = tmp_path_factory.mktemp("two"), cascade_content()
    place = data.draw(st.sampled_from(list(places(content))))
    (folder / "cascade.json").write_text(json.dumps(replaced(content, place, data.draw(JSON))))
    try:
        assert EVIL not in write_report(folder).read_text()
    except XRayError as error:
        assert "broken" in str(error)


@pytest.mark.parametrize("content", ["[" * 10**5, '{"a":' * 10**5, '{"n": 1e999}', '{"n": NaN}', "9" * 5000, "\ud800"])
def test_json_that_is_none_is_one_message(make: Maker, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(make)
    (run / "metrics.json").write_text(content, errors="surrogatepass")
    assert main([str(run)]) == 1 and "metrics.json is broken" in capsys.readouterr().err
    assert gather(make.root)[0].state == "failed"


@pytest.mark.parametrize(
    "overrides", [LAUGHS, "- &a [*a]\n", "- !!python/object/apply:os.mkdir [executed]\n", "{", "- 1\n- [", "5", "\0"]
)
def test_a_saved_configuration_is_text_and_never_built(
    make: Maker, overrides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = trained(make)
    evil = f"_target_: os.mkdir\n_args_: [executed]\nmodel: {{_target_: os.mkdir, path: executed}}\nx:\n{LAUGHS}"
    (run / ".hydra" / "config.yaml").write_text(evil)
    (run / ".hydra" / "overrides.yaml").write_text(overrides)
    assert write_model_card(run) is not None
    assert "os.mkdir" in page_of(run).text  # as text
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("name", ["comparisons.csv", "ensembles.csv"])
@pytest.mark.parametrize("content", ["a,b\n1,2\n", '"' + "x" * 200_000, "dataset,a,b\npneumonia\n", "\0", "dataset\n"])
def test_tables_that_are_none_are_left_out(four: Path, name: str, content: str) -> None:
    (four / name).write_text(content)
    assert page_of(four).text


def test_numbers_of_a_table_that_are_none_are_left_out(four: Path) -> None:
    text = (four / "comparisons.csv").read_text()
    (four / "comparisons.csv").write_text(text.replace("0.0246", EVIL).replace("-0.034", "nan"))
    assert "Differences between runs" in page_of(four).text


def picture(path: Path, size: tuple[int, int], kind: str) -> None:
    Image.new("1", size).save(path, kind)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + b" " * 300_000),
        lambda path: picture(path, (40_000, 40_000), "PNG"),
        lambda path: picture(path, (900, 900), "BMP"),
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 300_000),
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/etc/passwd"),
    ],
    ids=["PostScript", "bomb", "BMP", "damaged", "pipe", "folder", "link"],
)
def test_what_is_no_picture_is_left_out(make: Maker, write: Callable[[Path], object]) -> None:
    run = make.run("pneumonia_cnn_s0", make.record(), figures=False)
    save_png(run / "figures" / "roc.png")
    write(run / "figures" / "reliability.png")
    assert [image["alt"][:9] for image in page_of(run).images if image.get("src")] == ["ROC curve"]  # type: ignore[index]


def test_pipes_in_place_of_files_are_not_waited_for(make: Maker) -> None:
    run = trained(make)
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml", "status.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
    os.mkfifo(make.root / "comparisons.csv")
    os.mkfifo(run / "catalog.csv")
    write_report(run)
    write_model_card(run)
    gather(make.root)


def test_a_command_cannot_leave_its_block_in_the_card(make: Maker) -> None:
    record = make.record()
    record["environment"]["command"] = f"python train.py x='```\n````\n{EVIL}\n# heading'"
    written = write_model_card(trained(make, record))
    assert written is not None
    lines = written.read_text().splitlines()
    start = lines.index("`````")
    assert "# heading'" in lines[start : lines.index("`````", start + 1)]


def test_a_page_runs_its_own_script_alone(four: Path) -> None:
    text = write_report(four).read_text()
    assert "script-src 'sha256-" in text and "unsafe-inline'; script" in text and Page(text).text
