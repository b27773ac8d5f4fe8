"""Cases of runs that were stopped, in whose folder somebody else has been, and that are gone on with."""

import json
import pickle
import shutil
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import torch

from xray_lightning.artifacts import read_json
from xray_lightning.run import train

from .mangle import ODD_VALUES, damaged, damaged_table, with_odd_values
from .oracle import Case
from .world import STOPPED, World

FILES = (
    *["checkpoints/last.ckpt"] * 12, *["status.json"] * 3, *["history.csv"] * 2, "checkpoints/best.ckpt",
    "csv/metrics.csv", "catalog.csv", ".hydra/config.yaml", ".lock",
)  # fmt: skip
PARTS = (
    *["loops"] * 6, *["callbacks"] * 6, *["optimizer_states"] * 3, *["lr_schedulers"] * 2, *["state_dict"] * 2,
    "xray_lightning", "hyper_parameters", "epoch", "global_step", "pytorch-lightning_version",
)  # fmt: skip
TENSORS = (
    torch.tensor(1.0), torch.tensor(-(2**40)), torch.tensor([]), torch.zeros(0, 3), torch.full((2,), torch.nan),
    torch.tensor(torch.inf), torch.ones(3, 3, dtype=torch.int8), torch.ones(2, dtype=torch.complex64),
    torch.tensor(True), torch.zeros(5056, dtype=torch.uint8), torch.nn.Parameter(torch.ones(2)),
)  # fmt: skip
NUMBERS = (-(2**40), 2**40, 1e18, -1e18, 2, 4, 1.5)


def stopped_runs(rng: Random, world: World) -> Case:
    """Training goes on beside a folder that it has nothing to do with, and whose files the damage names."""
    folder = world.fresh()
    run = shutil.copytree(world.stopped, folder / "run")
    other = folder / "other"
    other.mkdir()
    (other / "precious.ckpt").write_bytes(b"mine")
    told = [_spoilt(rng, run, other / "precious.ckpt") for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    cfg = world.configured(folder, "train", *STOPPED)
    return Case(f"going on: {'; '.join(told)}", lambda: train(cfg), [world.phantoms, world.stopped, other])


def _spoilt(rng: Random, run: Path, foreign: Path) -> str:
    """Damages one file; says which, and how."""
    name = rng.choice(FILES)
    file, how = run / name, rng.randrange(12)
    if how < 4:
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        if how == 1:
            file.mkdir()
        elif how == 2:
            file.symlink_to(rng.choice([foreign, foreign.parent, Path("nowhere"), Path(file.name)]))
        elif how == 3:
            shutil.copy(run / rng.choice(["checkpoints/best.ckpt", "status.json", "catalog.csv"]), file)
        return f"{name} {('gone', 'a folder', 'a link', 'another file')[how]}"
    if not file.is_file():
        return f"no {name}"
    if file.suffix == ".ckpt" and how > 4:
        return f"{name}: {_spoilt_checkpoint(rng, file, foreign)}"
    if file.suffix == ".json" and how > 5 and (known := read_json(file)):
        odd = tuple(v for v in (*ODD_VALUES, *NUMBERS) if not isinstance(v, bytes))
        made, told = with_odd_values(known, rng, rng.choice([1, 1, 3]), odd)
        file.write_text(json.dumps(made), encoding="utf-8", errors="surrogateescape")
        return f"{name}: {told}"
    if file.suffix == ".csv" and how > 5:
        file.write_bytes(damaged_table(file.read_text(errors="surrogateescape") or "a", rng))
        return f"{name} other cells"
    file.write_bytes(damaged(file.read_bytes(), rng))
    return f"{name} damaged"


def _spoilt_checkpoint(rng: Random, file: Path, foreign: Path) -> str:
    try:
        content: Any = torch.load(file, weights_only=True)
        part = rng.choice([p for p in PARTS if p in content])
    except Exception:  # it is another file by now
        return "as it is"
    paths = (str(foreign), "../../other/precious.ckpt", f"{file.parent}/..", f"{file.parent}/x.ckpt", "memory://x.ckpt")
    odd = (*ODD_VALUES, *NUMBERS, *NUMBERS, *TENSORS, *paths)
    how = rng.randrange(12)
    if how == 0:
        content = rng.choice([[content], {"state_dict": content}, content[part], rng.choice(odd)])
        told = "other content"
    elif how == 1:
        del content[part]
        told = f"without {part}"
    elif how == 2:
        content[part] = content[rng.choice(sorted(content))]
        told = f"another part for {part}"
    else:
        holder, told = with_odd_values({part: content[part]}, rng, rng.choice([1, 1, 1, 2, 4]), odd)
        content.pop(part)
        content |= holder
    with BytesIO() as stream:
        torch.save(content, stream) if rng.randrange(40) else pickle.dump(content, stream)
        file.write_bytes(stream.getvalue())
    return told
