"""The command in headless Chromium, with real uploads: a radiograph, a DICOM file and one that is neither."""

import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig
from PIL import Image

from xray_lightning.run import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what playwright's own imports deprecate is not ours
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no browser here")
PLAIN = {"start_new_session": True, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.fixture
def serving(configure: Callable[..., DictConfig], tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    train(configure(run="trained"))
    words = [f"ckpt={tmp_path / 'trained/checkpoints/best.ckpt'}", "port=0", "upload_limit=1"]
    process = subprocess.Popen([sys.executable, "-m", "xray_lightning.serve", *words], cwd=tmp_path, **PLAIN)
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert "http://127.0.0.1:" in told, told + process.communicate(timeout=60)[1]
        yield told.split()[1], process
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_a_film_is_dropped_and_answered(
    serving: tuple[str, subprocess.Popen[str]], phantoms: Path, tmp_path: Path
) -> None:
    address, process = serving
    film = next((phantoms / "chest_xray/test/NORMAL").iterdir())
    (tmp_path / "<i>notes.txt").write_text("no image")
    (tmp_path / "large.png").write_bytes(b"x" * 1_100_000)
    before = {path for path in tmp_path.iterdir()}
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.set_input_files("#files", [film, tmp_path / "<i>notes.txt", tmp_path / "large.png"])
        page.get_by_text("3 files done").wait_for()
        cards = page.locator(".card")
        assert cards.count() == 3
        large, notes, answered = (cards.nth(n) for n in range(3))
        assert "larger than 1 MB" in large.inner_text()
        assert "<i>notes.txt" in notes.inner_text() and "no image" in notes.inner_text()
        assert film.name in answered.inner_text() and "PNEUMONIA" in answered.inner_text()
        assert answered.locator("tr.called th").all_inner_texts() == [answered.locator(".decision").inner_text()]
        shown = answered.locator("img.grey").evaluate("image => [image.naturalWidth, image.complete]")
        with Image.open(film) as image:
            assert shown == [image.width, True]
        assert answered.locator("img.heat").evaluate("image => image.naturalWidth") == 32
        answered.locator("input[type=range]").fill("80")
        assert answered.locator("img.heat").evaluate("image => image.style.opacity") == "0.8"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert all(url.startswith((address, "data:")) for url in asked)
        chromium.close()
    assert {path for path in tmp_path.iterdir()} == before
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[1]


@pytest.mark.parametrize(
    "word, told",
    [
        ("port=99999", "0 to 65535"),
        ("upload_limit=0", "megabytes"),
        ("upload_limit=many", "megabytes"),
        ("host=203.0.113.7", "listened on"),
        ("host=", "host= is not valid"),
        ("port=0", "no checkpoint"),
    ],
)
def test_what_cannot_be_served_is_told(word: str, told: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "xray_lightning.serve", "ckpt=gone.ckpt", word]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr
