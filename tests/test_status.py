"""status.json: running, done or failed, and what a second run makes of it."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from xray_lightning.artifacts import write_json
from xray_lightning.errors import XRayError
from xray_lightning.status import alone, is_done, recorded

SETTINGS = {"dataset": {"name": "pneumonia", "classes": None}, "model": {"lr": 0.1, "channels": [1, 2]}, "seed": 0}


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def finish(folder: Path, settings: dict[str, Any] | None = None) -> None:
    with recorded(folder, settings or SETTINGS):
        write_json(folder / "metrics.json", {"n": 1})


def test_a_run_is_running_then_done_with_its_times(tmp_path: Path) -> None:
    with recorded(tmp_path / "run", SETTINGS):
        within = status(tmp_path / "run")
        sleep(0.15)
    after = status(tmp_path / "run")
    assert within["state"] == "running" and within["ended"] is None and within["seconds"] is None
    assert after["state"] == "done" and after["error"] is None
    assert after["settings"] == SETTINGS
    assert 0.1 <= after["seconds"] < 5
    begun, ended = (datetime.fromisoformat(after[key]) for key in ("started", "ended"))
    assert begun.utcoffset() is not None and begun <= ended
    assert after["started"] == within["started"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (XRayError("no images\nfetch them"), "no images\nfetch them"),
        (ValueError("wrong"), "ValueError: wrong"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "interrupted"),
    ],
)
def test_a_failed_run_says_why_and_the_error_goes_on(tmp_path: Path, error: BaseException, reason: str) -> None:
    with pytest.raises(type(error)), recorded(tmp_path, SETTINGS):
        raise error
    after = status(tmp_path)
    assert (after["state"], after["error"]) == ("failed", reason)
    assert after["ended"] is not None and after["seconds"] is not None


def test_a_job_that_looks_whether_a_run_is_held_does_not_keep_it_from_beginning(tmp_path: Path) -> None:
    looks = alone(tmp_path, "")
    looks.__enter__()
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(finish, tmp_path)
        sleep(0.1)
        looks.__exit__(None, None, None)
        begun.result(timeout=60)
    assert is_done(tmp_path, SETTINGS)


def test_only_a_finished_run_with_its_metrics_is_done(tmp_path: Path) -> None:
    assert not is_done(tmp_path, SETTINGS)
    with recorded(tmp_path, SETTINGS):
        assert not is_done(tmp_path, SETTINGS)
    assert not is_done(tmp_path, SETTINGS)
    finish(tmp_path)
    assert is_done(tmp_path, SETTINGS)
    (tmp_path / "metrics.json").write_text('{"n": ')
    assert not is_done(tmp_path, SETTINGS)


def test_a_failed_run_is_not_done_and_may_change_its_settings(tmp_path: Path) -> None:
    with pytest.raises(XRayError), recorded(tmp_path, SETTINGS):
        raise XRayError("no images")
    assert not is_done(tmp_path, SETTINGS | {"seed": 1})


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"state": 3}', '{"state": "done", "settings": null}']
)
def test_a_broken_status_is_not_done(tmp_path: Path, content: str) -> None:
    finish(tmp_path)
    (tmp_path / "status.json").write_text(content)
    assert not is_done(tmp_path, SETTINGS)


def test_a_finished_run_with_other_settings_is_refused_naming_each_difference(tmp_path: Path) -> None:
    finish(tmp_path)
    other = {"dataset": {"name": "pneumonia", "classes": None}, "model": {"lr": 0.2, "channels": [1, 3]}, "more": "x"}
    with pytest.raises(XRayError) as caught:
        is_done(tmp_path, other)
    message = str(caught.value)
    for difference in (
        "model.lr: 0.1 -> 0.2",
        "model.channels: [1, 2] -> [1, 3]",
        "seed: 0 -> None",
        "more: None -> x",
    ):
        assert difference in message
    assert str(tmp_path) in message and "another name" in message
    assert "dataset" not in message


def test_the_order_of_settings_does_not_matter(tmp_path: Path) -> None:
    finish(tmp_path)
    assert is_done(tmp_path, dict(reversed(SETTINGS.items())))
