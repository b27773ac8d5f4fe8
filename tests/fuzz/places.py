"""Cases of folders, of tables and split files that list images, and of what is left in a damaged cache."""

import os
import shutil
from pathlib import Path
from random import Random

import numpy as np
import torch

from xray_lightning.config import build
from xray_lightning.inputs import set_up
from xray_lightning.models.features import FeatureStore
from xray_lightning.predict import predict
from xray_lightning.run import train

from .mangle import damaged, damaged_table
from .oracle import Case
from .pictures import name
from .world import World, is_root

CLASSES = (
    "train",
    "test",
    "val",
    "NORMAL",
    "PNEUMONIA",
    "COVID",
    "Normal",
    "images",
    "masks",
    "a b",
    "é",
    ".hidden",
    "-x",
    "x" * 200,
)


def odd_tree(rng: Random, root: Path, world: World) -> str:
    """Fills `root` with folders, images, links and things that are neither; says with what."""
    told = []
    places = [root]
    if rng.randrange(8):
        root.mkdir()
    elif rng.randrange(2):
        root.write_bytes(b"no folder")
        return "a file in place of the root"
    else:
        return "no root"
    if rng.randrange(3) == 0:
        shutil.copytree(world.pneumonia, root, dirs_exist_ok=True)
        places += [p for p in sorted(root.rglob("*")) if p.is_dir()]
        told.append("chest_xray")
    for _ in range(rng.choice([1, 3, 10])):
        parent = rng.choice(places)
        target = parent / rng.choice(CLASSES)
        how = rng.randrange(10)
        try:
            if how < 4:
                target.mkdir()
                places.append(target)
                for image in rng.sample(world.images, rng.choice([0, 1, 4])):
                    shutil.copy(image, target)
            elif how == 4:
                target.write_bytes(b"a file")
            elif how == 5:
                target.symlink_to(rng.choice([".", "..", "nowhere", target.name, str(root), str(parent)]))
            elif how == 6:
                with open(os.path.join(os.fsencode(parent), name(rng)), "wb") as file:
                    file.write(world.images[0].read_bytes())
            elif how == 7:
                os.mkfifo(parent / f"pipe{rng.randrange(9)}.png")
            elif how == 8:
                (parent / f"folder{rng.randrange(9)}.png").mkdir()
            elif not is_root():
                parent.chmod(rng.choice([0, 0o444]))
        except OSError:
            continue
        told.append(f"{how}:{target.relative_to(root)}")
    return " ".join(told)


def folders(rng: Random, world: World) -> Case:
    """A data set, or the input of a prediction, in a folder of any kind."""
    folder = world.fresh()
    root = folder / rng.choice(["set", "a b", "é", "x=y", "-a", "a'b", "a\nb", "a[1]", "$x"])
    told = odd_tree(rng, root, world)
    if rng.randrange(4) == 0:
        cfg = world.configured(folder, "predict", f"ckpt={world.checkpoints[0]}", "input=x")
        cfg.input = str(root) + rng.choice(["", "/*", "/**", "/**/*.jpeg", "/[", "/nothing"])
        return Case(f"predict {cfg.input!r}: {told}", lambda: predict(cfg), [root])
    kind = rng.choice(["pneumonia", "covid", "covid_screen", "folder", "folder"])
    cfg = world.configured(
        folder, "train", f"dataset={kind}", f"paths.cache={folder / 'cache'}", f"cache={rng.choice(['on', 'off'])}"
    )
    cfg.dataset.root = str(root)
    return Case(f"dataset={kind} in {root.name!r}: {told}", lambda: set_up(build(cfg.dataset)), [root])


def split_files(rng: Random, world: World) -> Case:
    folder = world.fresh()
    file = folder / "split.csv"
    text = (world.sweep / "pneumonia_cnn_s0/catalog.csv").read_text()
    file.write_bytes(damaged_table(text, rng))
    words = [f"dataset.split_file={file}", f"dataset.on_leak={rng.choice(['warn', 'refuse'])}"]
    cfg = world.configured(folder, "train", *words)
    run = (lambda: train(cfg)) if rng.randrange(8) == 0 else (lambda: set_up(build(cfg.dataset)))
    return Case(f"split file {file.read_bytes()[:80]!r}…", run, [world.pneumonia, file])


def tables(rng: Random, world: World) -> Case:
    folder = world.fresh()
    file = folder / "table.csv"
    lines = [f"{f.relative_to(world.pneumonia)},{f.parent.name},p{i},{f.parts[-3]}" for i, f in enumerate(world.images)]
    columns = [i for i in range(4) if i == 0 or rng.randrange(4)]
    whole = [",".join(line.split(",")[i] for i in columns) for line in ["path,label,patient,split", *lines]]
    file.write_bytes(damaged_table("\n".join(whole), rng))
    words = ["dataset=folder", f"dataset.root={world.pneumonia}", f"dataset.table={file}", "dataset.on_leak=warn"]
    words += [f"dataset.patient_pattern={rng.choice(['null', 'x', 'person(', '.*', '^(p)?'])!r}"] * (
        rng.randrange(3) == 0
    )
    cfg = world.configured(folder, "train", *words)
    return Case(f"table {file.read_bytes()[:80]!r}…", lambda: set_up(build(cfg.dataset)), [world.pneumonia, file])


def caches(rng: Random, world: World) -> Case:
    """Damage to one or two files of a cache that holds everything already."""
    folder = world.fresh()
    cache = shutil.copytree(_filled(world), folder / "cache")
    told = []
    for _ in range(rng.choice([1, 2])):
        file = rng.choice(sorted(p for p in cache.rglob("*") if p.is_file()))
        how = rng.randrange(6)
        if how == 0:
            file.unlink()
            file.mkdir()
        elif how == 1:
            file.unlink()
            file.symlink_to(rng.choice([file.name, "nowhere", "/dev/null"]))
        else:
            file.write_bytes(damaged(file.read_bytes(), rng))
        told.append(f"{file.relative_to(cache)} ({how})")
        if how < 2:
            break

    def again() -> None:
        data = build(world.configured(folder, "train", f"paths.cache={cache}").dataset)
        set_up(data)
        data.images[:]
        _features(cache)

    return Case(f"cache: {', '.join(told)}", again, [world.pneumonia])


def _filled(world: World) -> Path:
    cache = world.root / "filled"
    if not cache.is_dir():
        set_up(build(world.configured(world.fresh(), "train", f"paths.cache={cache}").dataset))
        _features(cache)
    return cache


def _features(cache: Path) -> None:
    store = FeatureStore(cache / "features", "fuzz", rows=20, width=4)
    store.filled(np.arange(20), lambda rows: torch.ones(len(rows), 4), 8, "Features")
