"""Faults injected into a small sweep on phantoms, and whether it still ends with the numbers of an undisturbed one.

    python bench/faults.py                                every rename, every training step: 200 faults, an hour or two
    python bench/faults.py --every 25 --models cnn        each 25th of them, with one run in the sweep

Each fault strikes a process of its own, which then is started again by the same command. A row of the table is a kind
of fault: how often it struck, and how often metrics, predictions, history and weights were equal to the last bit.
"""

import argparse
import errno
import json
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a process that has started threads must not fork
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))
import train
from xray_lightning.history import History
from xray_lightning.models.checkpoint import read_checkpoint
from xray_lightning.run import train as _  # noqa: F401 - its imports take seconds, which no child should wait for

COMMAND = [
    "-m",
    "dataset=pneumonia",
    "logger=csv",
    "experiment=demo",
    "phantoms.images=40",
    "dataset.batch_size=8",
    "dataset.image_size=32",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "figures=false",
    "model.dropout=0.2",
    "model.mixup=0.4",
    "sweep=faulty",
    "callbacks.last_checkpoint.every_seconds=0",
]
Strike = Callable[[], None]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Countdown:
    """Strikes when it is called for the `moment`-th time, or never; counts how often that is."""

    def __init__(self, moment: int | None, strike: Strike) -> None:
        self.left, self.strike, self.passed = moment, strike, 0

    def __call__(self) -> None:
        self.passed += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.strike()


def around_rename(count: Countdown, *, before: bool) -> None:
    rename = os.replace

    def replace(*args: Any, **kwargs: Any) -> None:
        if before:
            count()
        rename(*args, **kwargs)
        if not before:
            count()

    os.replace = replace


def at_step(count: Countdown) -> None:
    ended = History.on_train_batch_end

    def on_train_batch_end(self: History, *args: Any) -> None:
        count()
        ended(self, *args)

    History.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]


def at_write(count: Countdown) -> None:
    make = tempfile.mkstemp

    def mkstemp(*args: Any, **kwargs: Any) -> tuple[int, str]:
        count()
        return make(*args, **kwargs)

    tempfile.mkstemp = mkstemp  # type: ignore[assignment]


Install = Callable[[Countdown], None]
FAULTS: dict[str, tuple[Install, Strike]] = {
    "SIGKILL between write and rename": (lambda c: around_rename(c, before=True), kill),
    "SIGKILL after a rename": (lambda c: around_rename(c, before=False), kill),
    "SIGKILL after a training step": (at_step, kill),
    "SIGTERM after a training step": (at_step, terminate),
    "Ctrl-C after a training step": (at_step, interrupt),
    "disk full at a write": (at_write, fill_disk),
}


def run(folder: Path, cache: Path, *counts: tuple[Install, Countdown]) -> int:
    """Runs the command in a child process; returns its wait status. What it prints goes to <folder>/log, and how often
    each of `counts` was passed to <folder>/passed."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 70
    try:
        out = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(folder)
        sys.argv = ["train.py", *COMMAND, f"paths.cache={cache}"]
        for install, count in counts:
            install(count)
        train.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        (folder / "passed").write_text(json.dumps([count.passed for _, count in counts]))
        os._exit(status)


def outcome(folder: Path) -> dict[str, Any]:
    """All that must not differ, by file."""
    found: dict[str, Any] = {}
    for run_folder in sorted((folder / "outputs/sweeps/faulty").glob("*_s0")):
        record = json.loads((run_folder / "metrics.json").read_text())
        record.pop("environment")
        weights = read_checkpoint(run_folder / "checkpoints/best.ckpt")["state_dict"]
        found |= {
            f"{run_folder.name}/metrics.json": record,
            f"{run_folder.name}/predictions.csv": (run_folder / "predictions.csv").read_bytes(),
            f"{run_folder.name}/history.csv": (run_folder / "history.csv").read_bytes(),
            f"{run_folder.name}/best.ckpt": {k: v.numpy().tobytes() for k, v in weights.items()},
        }
    return found


def strike_and_go_on(work: Path, cache: Path, name: str, moment: int, whole: dict[str, Any]) -> str:
    """What became of one fault: equal, or what went wrong."""
    install, strike = FAULTS[name]
    with tempfile.TemporaryDirectory(dir=work) as made:
        folder = Path(made)
        run(folder, cache, (install, Countdown(moment, strike)))
        first = (folder / "log").read_text()
        if "Traceback" in first:
            return f"traceback at {moment}: {first[-300:]}"
        status = run(folder, cache)
        if status:
            return f"not gone on with at {moment}, status {status}: {(folder / 'log').read_text()[-300:]}"
        found = outcome(folder)
        differing = sorted(k for k in whole.keys() | found.keys() if whole.get(k) != found.get(k))
        return f"differs at {moment}: {', '.join(differing)}" if differing else "equal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="of the moments, each n-th")
    parser.add_argument("--models", default="cnn,resnet50", help="of the sweep's runs")
    every, models = vars(parser.parse_args()).values()
    COMMAND.append(f"model={models}")
    torch.set_num_threads(1)
    worst = 0
    with tempfile.TemporaryDirectory() as made:
        work, cache = Path(made), Path(made) / "cache"
        (work / "whole").mkdir()
        if run(work / "whole", cache, *((install, Countdown(None, kill)) for install, _ in FAULTS.values())):
            raise SystemExit((work / "whole/log").read_text())
        whole = outcome(work / "whole")
        passed = json.loads((work / "whole/passed").read_text())
        told = f"Faults in a sweep, model={models}"
        table = Table("fault", "moments", "tried", "equal", title=told, title_justify="left")
        for name, moments in zip(FAULTS, passed, strict=True):
            (work / name).mkdir()
            tried = range(1 + (every // 2) % moments, moments + 1, every)
            found = Counter(strike_and_go_on(work, cache, name, moment, whole) for moment in tried)
            table.add_row(name, str(moments), str(len(tried)), str(found["equal"]))
            for told in found.keys() - {"equal"}:
                worst = 1
                print(f"{name}: {told}", file=sys.stderr)
        Console().print(table)
    return worst


if __name__ == "__main__":
    sys.exit(main())
