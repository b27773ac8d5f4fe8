"""Cases of what runs leave behind and is read again: checkpoints, and the files of run and sweep folders."""

import json
import pickle
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import torch
from omegaconf import OmegaConf

from xray_lightning.artifacts import read_json
from xray_lightning.evaluation.report.__main__ import main as report
from xray_lightning.models.checkpoint import load_classifier
from xray_lightning.predictor import load
from xray_lightning.run import test, train
from xray_lightning.sweep import SweepCallback, failed_runs, show_sweep

from .mangle import ODD_VALUES, damaged, damaged_table, with_odd_values
from .oracle import Case
from .world import World

FILES = (
    *["metrics.json"] * 6, *["status.json"] * 2, *["predictions.csv"] * 2, "history.csv", "catalog.csv",
    ".hydra/config.yaml", ".hydra/overrides.yaml", "figures/roc.png", "../comparisons.csv", "../ensembles.csv",
)  # fmt: skip
YAML = (
    "- a\n- [", "a: 1\nb", "${x}", "a: ${b}", "[1,2]", "1", "null", "- 1\n- {}", "\t", "&a [*a]", "model: 1",
    "dataset: [a]", "model: {weights: [1]}", "!!python/object:os.system x",
)  # fmt: skip
TENSORS = (
    torch.tensor(1.0),
    torch.tensor([]),
    torch.full((2,), torch.nan),
    torch.zeros(2, 2, dtype=torch.int8),
    torch.ones(3, 3),
)


def checkpoints(rng: Random, world: World) -> Case:
    folder = world.fresh()
    file = folder / "some.ckpt"
    which = rng.randrange(2)
    how = rng.randrange(4)
    if how == 0:
        file.write_bytes(damaged(world.checkpoints[which].read_bytes(), rng))
        told = "damaged bytes"
    elif how == 1:
        other: Any = rng.choice(
            [None, 1, "a", [], {}, {"state_dict": {}}, torch.ones(2), {"xray_lightning": {}}, *ODD_VALUES]
        )
        with BytesIO() as stream:
            torch.save(other, stream) if rng.randrange(2) else pickle.dump(other, stream)
            file.write_bytes(stream.getvalue())
        told = f"{other!r:.60}"
    else:
        content = world.contents[which]
        parts = ["xray_lightning", "hyper_parameters", "state_dict"]
        part = rng.choice([*parts, parts[0], parts[0]])
        made, told = with_odd_values(content[part], rng, rng.choice([1, 1, 2, 4]), (*ODD_VALUES, *TENSORS))
        told = f"{part}: {told}"
        torch.save(content | {part: made}, file)
    image = world.images[0]

    def predict() -> None:
        load(file).predict(image)

    def ask() -> None:
        predictor = load(file, operating_point=rng.choice(["default", "sensitivity_95", "balanced"]))
        predictor.predict_bytes(image.name, image.read_bytes())

    def score() -> None:
        dataset = rng.choice(["checkpoint", "checkpoint", "pneumonia", "covid"])
        test(world.configured(folder, "test", f"ckpt={file}", "trainer=cpu", "figures=false", f"dataset={dataset}"))

    def look() -> None:
        load_classifier(file)

    use: Callable[[], None] = rng.choice([predict, ask, score, look])
    return Case(f"checkpoint {use.__name__}: {told}", use, [file, world.phantoms])


def run_folders(rng: Random, world: World) -> Case:
    """A sweep some of whose files are damaged: tables, comparisons, ensembles and reports of it."""
    folder = world.fresh()
    sweep = shutil.copytree(world.sweep, folder / "sweep", ignore=shutil.ignore_patterns("checkpoints", "csv"))
    for run in sweep.glob("*_s1"):
        shutil.copytree(world.sweep / run.name / "checkpoints", run / "checkpoints")
    told = [_spoilt(rng, sweep) for _ in range(rng.choice([1, 1, 2, 3]))]
    runs = sorted(p for p in sweep.iterdir() if p.is_dir())

    def tables() -> None:
        failed_runs(sweep)
        show_sweep(sweep)

    def reports() -> None:
        report([str(sweep), *map(str, runs)])

    def end() -> None:
        for run in runs:
            hydra = {"mode": "RUN", "runtime": {"output_dir": str(run)}}
            SweepCallback().on_run_end(OmegaConf.create({"hydra": hydra}))

    def go_on() -> None:
        words = [f"paths.run={sweep / 'pneumonia_cnn_s1'}", "seed=1"]
        train(world.configured(folder, "train", *words))

    use: Callable[[], None] = rng.choice([tables, tables, reports, reports, end, go_on])
    return Case(f"{use.__name__} of a sweep: {'; '.join(told)}", use, [world.sweep])


def _spoilt(rng: Random, sweep: Path) -> str:
    """Damages one file; says which, and how."""
    run = rng.choice(sorted(p for p in sweep.iterdir() if p.is_dir() and (p / "status.json").exists()) or [sweep])
    file = run / rng.choice(FILES)
    how = rng.randrange(10)
    name = str(file.relative_to(sweep))
    content = file.read_bytes() if file.is_file() else b""
    file.parent.mkdir(exist_ok=True)
    if how == 0 and file.is_file():
        file.unlink()
        file.mkdir()
        return f"{name} a folder"
    if file.is_dir():
        return f"{name} a folder"
    if how == 1 and file.is_file():
        file.unlink()
        return f"no {name}"
    if file.suffix == ".json" and how > 2 and (known := read_json(file)):
        made, told = with_odd_values(
            known, rng, rng.choice([1, 1, 3]), tuple(v for v in ODD_VALUES if not isinstance(v, bytes))
        )
        file.write_text(json.dumps(made), encoding="utf-8", errors="surrogateescape")
        return f"{name}: {told}"
    if file.suffix == ".csv" and how > 2 and content:
        file.write_bytes(damaged_table(content.decode(), rng))
        return f"{name} other cells"
    if file.suffix == ".yaml" and how > 2:
        file.write_text(rng.choice(YAML))
        return f"{name} other YAML"
    file.write_bytes(damaged(content or b"some text\nof no kind", rng))
    return f"{name} damaged"
