"""Overrides from the command line, checked before anything runs: a typing error is answered with what is near."""

import itertools
from collections.abc import Sequence
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
        parsed = parse_overrides(overrides)
        _check_options(parsed)
        swept = [swept_values(o) for o in parsed]
        first = None
        for choice in itertools.islice(itertools.product(*swept), MOST_COMPOSITIONS):
            cfg = compose_config(config_name, list(choice))
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


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
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
        for value in swept_values(override):
            option = value.split("=", 1)[1]
            if option.startswith("["):
                first = option.strip("[] ").split(",")[0]
                raise XRayError(f"{key} takes one option, such as {key}={first}; with -m several, one run for each.")
            if option == "null" and key != "experiment":
                raise XRayError(f"{key} has no option 'null'. Use ~{key} to do without.")
            if option not in [*options, "null"]:
                raise XRayError(f"{key} has no option '{option}'. {did_you_mean(option, options)}")


def swept_values(override: Override) -> list[str]:
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


def compose_config(config_name: str, overrides: list[str]) -> DictConfig:
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
