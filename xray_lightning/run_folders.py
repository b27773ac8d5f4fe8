"""Where runs go: what a sweep, or a run that goes on, adds to its command line."""

import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from xray_lightning.config import CONF, slug
from xray_lightning.errors import XRayError
from xray_lightning.overrides import compose_config, parse_overrides, swept_values
from xray_lightning.processes import asks_for_several, is_placed, started
from xray_lightning.status import is_held, unfinished

NAMED = ("dataset", "model", "seed", "sweep")  # in every run's name, or no part of it


def run_folder(config_name: str, overrides: Sequence[str]) -> Path:
    """Where the run of a command line that has been checked is to be written, now."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Path(compose(config_name, list(overrides), return_hydra_config=True).hydra.run.dir)


def swept_params(config_name: str, overrides: Sequence[str]) -> list[str]:
    """The values that hydra.sweeper.params sweeps over, as overrides before those of the command line.

    Raises XRayError for an interval without a search, which alone can draw from it.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parsed = parse_overrides(overrides)
        first = [swept_values(o)[0] for o in parsed]
        sweeper = compose(config_name, first, return_hydra_config=True).hydra.sweeper
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    for override in [*parse_overrides(params), *parsed]:
        if isinstance(override.value(), IntervalSweep) and sweeper._target_.endswith("BasicSweeper"):
            raise XRayError(f"{override.input_line}: only a search draws from an interval: hydra/sweeper=optuna.")
    return params


def sweep_overrides(cfg: DictConfig, overrides: Sequence[str]) -> tuple[list[str], Path]:
    """What a sweep adds to its command line, and its folder.

    An unnamed sweep gets the time as a name that no other has. Whatever else is swept than data set, model
    and seed becomes part of the run folders' names.
    """
    parsed = parse_overrides(overrides)
    if cfg.get("resume") and cfg.sweep is None:
        raise XRayError(
            "A sweep goes on by its name: sweep=<name> in place of resume=true. They are in outputs/sweeps."
        )
    if "trainer" not in cfg:
        raise XRayError("This command does one thing at a time: run it without -m, once for each value.")
    if started() > 1 or any(asks_for_several(trainer) for trainer in _trainers(cfg, parsed)):
        raise XRayError(
            "A sweep (-m) runs each job on one device, in one process: trainer.devices, trainer.num_nodes and "
            "trainer.strategy cannot be set, and srun or torchrun may start it once. Run the jobs one by one, without "
            "-m, to spread each over several devices."
        )
    for override in parsed:
        if override.key_or_group == "run_name" or (override.key_or_group == "sweep" and override.is_sweep_override()):
            raise XRayError(f"{override.key_or_group} cannot be set so in a sweep (-m): each run gets its own name.")
        if override.key_or_group.startswith("hydra.sweep."):  # its lock and its tables would be elsewhere
            raise XRayError(
                f"{override.key_or_group} cannot be set in a sweep (-m): paths.outputs=<folder> and sweep=<name> say "
                "where it is."
            )
    sweeps = Path(cfg.paths.outputs) / "sweeps"
    added = []
    name = cfg.sweep
    if name is None:
        name = _new_folder(sweeps).name
        added.append(f"sweep={name}")
    elif slug(name) != str(name):
        raise XRayError(
            f"sweep={name} cannot name a folder. Use letters, digits, '_', '-' and '.', such as {slug(name)}."
        )
    parts = list(_name_parts(parsed))
    if parts:
        added.append("run_name='" + "_".join([OmegaConf.to_container(cfg)["run_name"], *parts]) + "'")  # type: ignore[index, call-overload]
    return added, sweeps / str(name)


def resume_overrides(config_name: str, overrides: Sequence[str]) -> list[str]:
    """What makes a single run go on in the folder of the newest one with the same settings that is not done.

    Raises XRayError where there is none, or where a process is still at it.
    """
    from xray_lightning.settings import settings_of  # and NumPy, which other commands need not wait for

    if is_placed(overrides):
        return []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose_config(config_name, [*overrides, "paths.run=."])  # the settings do not depend on it
    if cfg.resume is not True:
        raise XRayError(f"resume={cfg.resume} is not valid. Give true or false.")
    settings, runs = settings_of(cfg), Path(cfg.paths.outputs) / "runs"
    begun = [status.parent for status in runs.glob("*/status.json") if unfinished(status.parent, settings)]
    if not begun:
        raise XRayError(
            f"Of the runs in {runs} none with these settings is left to go on with. Give the very command that was "
            "interrupted, or leave resume out to begin a new run."
        )
    newest = max(begun, key=lambda folder: (folder / "status.json").stat().st_mtime)
    if is_held(newest):
        raise XRayError(f"{newest} is still being run by another process. Wait for it, or stop it first.")
    return [f"hydra.run.dir={_quoted(str(newest))}"]


def _quoted(text: str) -> str:
    """As one value in Hydra's grammar, whatever letters it has. See hydra.cc, "Extended Override syntax"."""
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)  # backslashes count before a quote alone
    trailing = len(text) - len(text.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def _trainers(cfg: DictConfig, parsed: Sequence[Override]) -> Iterator[DictConfig]:
    """The trainers that a sweep's jobs may get, as far as devices go."""
    yield cfg.trainer
    for override in parsed:
        key = override.get_key_element().lstrip("+")
        if override.is_sweep_override() and key == "trainer":
            with initialize_config_dir(str(CONF), version_base="1.3"):
                yield from (compose("train", [f"trainer={option}"]).trainer for option in _swept(override))
        elif override.is_sweep_override() and key.startswith("trainer."):
            yield from (OmegaConf.from_dotlist([f"{key}={value}"]).trainer for value in _swept(override))


def _swept(override: Override) -> list[str]:
    return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []


def _new_folder(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in itertools.chain([""], (f"-{n}" for n in itertools.count(2))):
        folder = parent / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def _name_parts(parsed: Sequence[Override]) -> Iterator[str]:
    for override in parsed:
        key = override.get_key_element().lstrip("+")
        if override.is_sweep_override() and key not in NAMED:
            leaf = slug(key.rsplit(".", 1)[-1].rsplit("/", 1)[-1])
            group = "/" in key or ("." not in key and (CONF / key).is_dir())
            value = f"${{hydra:runtime.choices.{key}}}" if group else f"${{{key}}}"
            yield f"{leaf}=${{slug:{value}}}"
