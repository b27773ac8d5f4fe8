"""Overrides from the command line, checked before anything runs: a typing error is answered with what is near."""

import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xray_lightning.config import CONF, dotted_keys, is_folder_name, slug
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.processes import asks_for_several, is_placed, started
from xray_lightning.status import is_held, unfinished

NAMED = ("dataset", "model", "seed", "sweep")  # in every run's name, or no part of it
OF_CHECKPOINTS = ("test", "export")  # commands that take dataset=checkpoint
INDISPENSABLE = ("dataset", "model", "trainer", "paths")
CANNOT_COMPOSE = (HydraException, OmegaConfBaseException, ValueError)
ROOM = 2**17  # bytes that a command needs before it has begun, for Hydra's copy of the configuration
MOST_COMPOSITIONS = 64  # of swept groups that are looked through; a wrong key shows in the first few


def check_overrides(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes the configuration for each choice of groups, and returns the first.

    Raises XRayError for an override that Hydra cannot read, a group or key that does not exist, or an option
    that a group does not have.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parsed = _parse(overrides)
        _check_options(parsed)
        swept = [_values(o) for o in parsed]
        first = None
        for choice in itertools.islice(itertools.product(*swept), MOST_COMPOSITIONS):
            cfg = _compose(config_name, list(choice))
            first = cfg if first is None else first
    assert first is not None
    if config_name not in OF_CHECKPOINTS and "dataset" in first and "_target_" not in first.dataset:
        raise XRayError("dataset=checkpoint is for test.py, which takes it by itself. Choose another data set.")
    if "run_name" in first:
        _check_run_name(first)
        _check_outputs(first)
    if missing := [key for key in first if OmegaConf.is_missing(first, key)]:
        key = str(missing[0])
        raise XRayError(f"{key} must be given: {key}=<value>. --help shows examples.")
    if config_name == "test" and first.ckpt is None and not any((first.cascade.screen, first.cascade.diagnose)):
        raise XRayError(
            "ckpt must be given: ckpt=<value>; or cascade.screen and cascade.diagnose. --help shows examples."
        )
    return first


def _check_run_name(cfg: DictConfig) -> None:
    if "${hydra:" in str(cfg._get_node("run_name")):
        return  # known when the run begins
    try:
        name = str(cfg.run_name)
    except OmegaConfBaseException as error:
        raise XRayError(str(error).splitlines()[0]) from error
    if not is_folder_name(name):
        raise XRayError(
            f"run_name={name} cannot name a folder. Use letters, digits, '_', '-' and '.', such as {slug(name)}."
        )


def _check_outputs(cfg: DictConfig) -> None:
    """The folder that runs write to, before Hydra makes one in it."""
    if not isinstance(cfg.paths.outputs, str):
        raise XRayError(f"paths.outputs={cfg.paths.outputs} names no folder. Set paths.outputs=<folder>.")
    refuse_unwritable(Path(cfg.paths.outputs), "paths.outputs")


def refuse_unwritable(folder: Path, key: str) -> None:
    """Makes the folder. Raises XRayError where nothing can be written to it, of which Hydra shows a traceback."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(ROOM))
            probe.flush()
    except OSError as error:
        raise XRayError(f"{folder} cannot be written to ({error.strerror}). Set {key}=<folder>.") from error


def _parse(overrides: Sequence[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None  # for glob()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise XRayError(
            f"{str(error).splitlines()[0]}\nOverrides have the form key=value or group=option. A value with spaces, "
            "brackets or = in it needs two pairs of quotes: 'key=\"value\"'."
        ) from error


def _check_options(parsed: Sequence[Override]) -> None:
    loader = GlobalHydra.instance().config_loader()
    for override in parsed:
        key = override.key_or_group
        if override.is_delete() and key in INDISPENSABLE:
            raise XRayError(f"{key} cannot be left out. Choose {key}=<option>; --help lists them.")
        options = [] if key.startswith("hydra") else loader.get_group_options(key)
        if override.is_delete() and not options and key.isidentifier() and key != "hydra":
            raise XRayError(f"{key} cannot be left out. Give {key}=<value>, or leave it as it is.")
        if not options or override.is_delete():
            continue
        for value in _values(override):
            option = value.split("=", 1)[1]
            if option.startswith("["):
                first = option.strip("[] ").split(",")[0]
                raise XRayError(f"{key} takes one option, such as {key}={first}; with -m several, one run for each.")
            if option == "null" and key != "experiment":
                raise XRayError(f"{key} has no option 'null'. Use ~{key} to do without.")
            if option not in [*options, "null"]:
                raise XRayError(f"{key} has no option '{option}'. {did_you_mean(option, options)}")


def _values(override: Override) -> list[str]:
    """The override once for each value it sweeps over; other than for groups the first value will do."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    key = text.split("=", 1)[0]
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}"]
    values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    is_group = bool(GlobalHydra.instance().config_loader().get_group_options(override.key_or_group))
    if not values:
        raise XRayError(f"{text} matches no option. glob() is for groups, such as model=glob(*).")
    return values if is_group else values[:1]


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        return compose(config_name, overrides)
    except CANNOT_COMPOSE as error:
        _explain_unknown_key(config_name, overrides)
        raise XRayError(str(error).split("\nSet the environment variable")[0]) from error


def _explain_unknown_key(config_name: str, overrides: Sequence[str]) -> None:
    """Raises XRayError where an override's key is the reason why the configuration cannot be composed."""
    try:
        keys = list(dotted_keys(compose(config_name, [o for o in overrides if _is_group(o)])))
    except CANNOT_COMPOSE:
        return
    for override in overrides:
        key = override.split("=", 1)[0]
        if _is_group(override) or key[0] in "+~" or key.startswith("hydra") or key in keys:
            continue
        raise XRayError(
            f"There is no key '{key}' with {_choices(overrides)}. {did_you_mean(key, keys)}\n"
            "--cfg job shows every key; +key=value adds one."
        )


def _is_group(override: str) -> bool:
    key = override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]
    return bool(GlobalHydra.instance().config_loader().get_group_options(key))


def _choices(overrides: Sequence[str]) -> str:
    return ", ".join(o for o in overrides if _is_group(o)) or "the default groups"


def run_folder(config_name: str, overrides: Sequence[str]) -> Path:
    """Where the run of a command line that has been checked is to be written, now."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Path(compose(config_name, list(overrides), return_hydra_config=True).hydra.run.dir)


def swept_params(config_name: str, overrides: Sequence[str]) -> list[str]:
    """The values that hydra.sweeper.params sweeps over, as overrides before those of the command line.

    Raises XRayError for an interval without a search, which alone can draw from it.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parsed = _parse(overrides)
        first = [_values(o)[0] for o in parsed]
        sweeper = compose(config_name, first, return_hydra_config=True).hydra.sweeper
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    for override in [*_parse(params), *parsed]:
        if isinstance(override.value(), IntervalSweep) and sweeper._target_.endswith("BasicSweeper"):
            raise XRayError(f"{override.input_line}: only a search draws from an interval: hydra/sweeper=optuna.")
    return params


def sweep_overrides(cfg: DictConfig, overrides: Sequence[str]) -> tuple[list[str], Path]:
    """What a sweep adds to its command line, and its folder.

    An unnamed sweep gets the time as a name that no other has. Whatever else is swept than data set, model
    and seed becomes part of the run folders' names.
    """
    parsed = _parse(overrides)
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
        cfg = _compose(config_name, [*overrides, "paths.run=."])  # the settings do not depend on it
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
