"""Bad input, by the hundred: every outcome is success or a refusal in clear words, and no file of the user changes.

The same cases by the thousand: python bench/fuzz.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .kinds import KINDS
from .oracle import digest, outcome
from .world import World

PROJECT = Path(__file__).resolve().parent.parent.parent
CASES = {
    "overrides": 15,
    "train": 6,
    "test": 4,
    "images predicted": 12,
    "images trained on": 5,
    "checkpoints": 15,
    "run folders": 5,
}
USUAL = 8

pytestmark = pytest.mark.filterwarnings("ignore")  # of bad input much may be warned


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, here = tmp_path_factory.mktemp("world"), Path.cwd()
    os.chdir(folder)  # what a relative path of a case may make is made there
    yield World(folder)
    os.chdir(here)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_ends_in_success_or_a_clear_message(kind: str, world: World) -> None:
    @settings(
        max_examples=CASES.get(kind, USUAL),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def bad_input(rng: Random) -> None:
        outcome(KINDS[kind](rng, world))

    bad_input()


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "-m", "sweep=odd", b"dataset.root=\xff\xfe", "seed=[1,2],x", "model.channels=[1e999]"],
        ["-m", "xray_lightning.predict", "ckpt={ckpt}", "input={films}"],
        ["-m", "xray_lightning.evaluation.report", "{films}"],
    ],
    ids=["sweep", "predict", "report"],
)
def test_so_do_the_commands_themselves(world: World, words: list[str | bytes]) -> None:
    folder = world.fresh()
    films = folder / "films"
    films.mkdir()
    for name in (b"a\x01.png", b"\xff\xfe.png", b"new\nline.jpeg", b"\x1b[31m.dcm"):
        (Path(os.fsdecode(os.path.join(os.fsencode(films), name)))).write_bytes(b"\x89PNG\r\n\x1a\n")
    before = digest(films)
    filled = [w.format(films=films, ckpt=world.checkpoints[0]) if isinstance(w, str) else w for w in words]
    command = [sys.executable, *([PROJECT / filled[0]] if str(filled[0]).endswith(".py") else filled[:1]), *filled[1:]]
    environment = os.environ | {
        "XRAY_DATA": str(world.phantoms),
        "XRAY_CACHE": str(world.cache),
        "PYTHONPATH": str(PROJECT),
    }
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
    told = (ended.stdout + ended.stderr).decode(errors="replace")
    assert ended.returncode in (0, 1, 2) and "Traceback" not in told and "Error" in told
    assert digest(films) == before
