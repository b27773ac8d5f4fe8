"""Cases of command lines and configurations: what train, test and predict do with values of any kind."""

from functools import cache
from random import Random

from xray_lightning.config import dotted_keys
from xray_lightning.overrides import check_overrides
from xray_lightning.predict import predict
from xray_lightning.run import test, train
from xray_lightning.run_folders import sweep_overrides

from .oracle import Case
from .world import World

COMMANDS = ("train", "test", "predict", "export", "audit", "cache", "serve", "download")
GROUPS = ("dataset", "model", "trainer", "logger", "callbacks", "experiment", "recipe", "paths", "hydra")
VALUES = (
    "null", "true", "false", "on", "off", "0", "1", "-1", "2", "7", "0.5", "-0.5", "1.5", "nan", "inf", "-inf",
    "1e999", "1e-320", "1e15", "-1e15", "99999999999999999999", "2147483648", "''", "' '", "x", "X.y", "'a b'", "é",
    "'𝔛'", "..", "a/b", "'a\\nb'", "[]", "[1]", "[1,2]", "[1,2,3]", "[0,0,0]", "[-1,1,1]", "[null]", "['x']",
    "[[1]]", "[nan,nan]", "[1e15,1,1]", "{}", "{a:1}", "{'':1}", "{a:{b:[]}}", "'%s'", "'{}'", "\\$x", "'a*'", "'('",
    "'[a'", "auto", "best", "none", "???", "${nothing}", "${seed}", "${oc.env:HOME}", "${slug:", "cpu", "16-mixed",
    "val/nothing",
)  # fmt: skip
BROKEN = (
    "", "=", "a", "a=", "=a", "+", "~", "++", "a=b=c", "seed=", "seed==1", "-m", "--x", "seed=[", "seed={", "seed='",
    "a.b.c=1", "dataset=", "dataset=[covid]", "dataset=null", "~dataset", "~model", "~model.optimizer",
    "+dataset=covid", "dataset@x=covid", "model=cnn,resnet50", "seed=0,1", "seed=range(0,3)", "seed=choice(1,2)",
    "seed=interval(0,1)", "seed=glob(*)", "hydra=x", "hydra.run.dir=/proc/x", "hydra/launcher=nothing",
    "experiment=../demo", "experiment=demo,null", "é=1", "a b=1", "seed=1 2", "\udcff=1", "sweep=a/b", "sweep=..",
    "sweep=-x", "sweep=''", "sweep=0,1", "sweep=[1]", "run_name=a,b", "x" * 5000, "seed=" + "[" * 200,
    "model.channels=[1,2],[3]", "paths=null", "~paths", "paths.outputs=", "paths.outputs=null", "trainer=null",
    "trainer.devices=2", "trainer.strategy=ddp", "dataset=checkpoint", "dataset=folder", "+seed=1", "++seed=1",
    "+new.key=1",
)  # fmt: skip
# What runs for long, starts processes or fills memory because it was asked to, is no bad input
ONLY_WORDS = (
    "devices", "strategy", "num_nodes", "max_epochs", "max_steps", "views", "l2_steps", "images", "port", "host",
)  # fmt: skip
PATHS = ("paths.", "hydra", "phantoms.root", "cache_dir", "dirpath", "save_dir", "overlay")


@cache
def keys_of(world: World, config: str) -> list[str]:
    return [key for key in dotted_keys(world.keys(config)) if not any(path in key for path in PATHS)]


def override(rng: Random, keys: list[str]) -> str:
    """A key with an odd value, a key too many, or one too few."""
    key = rng.choice(keys)
    values = [v for v in VALUES if not v.strip("[]0123456789").startswith(("e", "-")) or not key.endswith(ONLY_WORDS)]
    if key.endswith(ONLY_WORDS):
        values = [v for v in values if not any(c.isdigit() for c in v) and v not in ("auto", "inf", "null")]
    value = rng.choice(values)
    how = rng.randrange(12)
    if how == 0:
        return f"~{key}"
    if how == 1:
        return f"+{key}.{rng.choice(['new', 'lr', '_target_', '_partial_', 'name'])}={value}"
    if how == 2:
        return f"++{key}={value}"
    return f"{key}={value}"


def overrides(rng: Random, world: World) -> Case:
    """A command line that is checked and not run."""
    config, folder = rng.choice(COMMANDS), world.fresh()
    keys = keys_of(world, config)
    words = world.words(folder, config)[:3]
    for _ in range(rng.choice([1, 1, 2, 4])):
        word = rng.choice(BROKEN) if rng.randrange(3) == 0 else override(rng, keys)
        if rng.randrange(8) == 0:
            word = f"{rng.choice(GROUPS)}={rng.choice([*VALUES, 'covid', 'resnet50', 'gpu', 'ddp', 'wandb'])}"
        if rng.randrange(8) == 0 and word:
            at = rng.randrange(len(word))
            word = word[:at] + rng.choice(["", "=", ",", "[", "'", "$", "\\", "\n", "é", "."]) + word[at + 1 :]
        words.append(word)

    def check() -> None:
        cfg = check_overrides(config, words)
        if rng.randrange(2):
            sweep_overrides(cfg, words)

    return Case(f"{config} {' '.join(words[3:])!r:.300}", check, [world.phantoms])


def training(rng: Random, world: World) -> Case:
    folder = world.fresh()
    keys = keys_of(world, "train")
    words = [override(rng, keys) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return Case(
        f"train.py {' '.join(words)!r}", lambda: train(world.configured(folder, "train", *words)), [world.phantoms]
    )


def testing(rng: Random, world: World) -> Case:
    folder, dataset = world.fresh(), rng.choice(["checkpoint", "checkpoint", "pneumonia", "covid", "folder"])
    given = [f"ckpt={rng.choice(world.checkpoints)}", f"dataset={dataset}", "trainer=cpu", "figures=false"]
    given += [f"split={rng.choice(['test', 'val', 'all'])}"]
    keys = keys_of(world, "test") + (["dataset.root", "dataset.classes", "dataset.name"] * 3)
    words = [override(rng, keys) for _ in range(rng.choice([1, 1, 2]))]
    return Case(
        f"test.py {' '.join(given + words)!r}",
        lambda: test(world.configured(folder, "test", *given, *words)),
        [world.phantoms, world.sweep],
    )


def predicting(rng: Random, world: World) -> Case:
    folder = world.fresh()
    ckpt = rng.choice([str(world.checkpoints[0]), f"[{','.join(map(str, world.checkpoints))}]"])
    given = [f"ckpt={ckpt}", f"input={rng.choice(world.images)}"]
    keys = [*keys_of(world, "predict"), "input", "ckpt", "operating_point", "batch_size", "device"]
    words = [override(rng, keys) for _ in range(rng.choice([1, 1, 2]))]
    return Case(
        f"predict {' '.join(words)!r}",
        lambda: predict(world.configured(folder, "predict", *given, *words)),
        [world.phantoms, world.sweep],
    )
