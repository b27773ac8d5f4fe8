"""What a run was asked for: the settings that its result depends on, and its configuration as it was."""

from math import isfinite
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from xray_lightning.artifacts import atomic_write
from xray_lightning.config import plain
from xray_lightning.data.examine import digest_of
from xray_lightning.errors import XRayError


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """What a result depends on, as plain data: without what is only shown, and with paths written one way."""
    groups = ("dataset", "model", "trainer", "callbacks", "phantoms")
    chosen: dict[str, Any] = {group: _keys_of(cfg, group) for group in groups} | {"seed": plain(cfg.get("seed"))}
    for group, shown in (
        ("dataset", ["cache_dir", "cache"]),
        ("trainer", ["enable_progress_bar", "log_every_n_steps"]),
        ("callbacks", ["progress_bar", "last_checkpoint"]),
        ("phantoms", ["root"]),
    ):
        chosen[group] = {k: v for k, v in chosen[group].items() if k not in shown}
    for name in chosen["callbacks"]:
        chosen["callbacks"][name] = {k: v for k, v in _keys_of(cfg.callbacks, name).items() if k != "dirpath"}
    if chosen["phantoms"]:
        chosen["dataset"].pop("root", None)  # phantoms are the same wherever they lie
    for key in ("split_file", "table"):  # what they say counts, not where they lie
        if chosen["dataset"].get(key):
            root = Path(str(chosen["dataset"].get("root") or "."))
            chosen["dataset"][key] = _content(Path(str(chosen["dataset"][key])), root)
    for group, key in (("dataset", "root"), ("model", "weights")):
        if chosen[group].get(key) and Path(str(chosen[group][key])).exists():
            chosen[group][key] = str(Path(str(chosen[group][key])).resolve())
    return _as_json(chosen)


def _keys_of(cfg: DictConfig, group: str) -> dict[str, Any]:
    found = plain(cfg.get(group))
    if isinstance(found, dict | None):
        return found or {}
    raise XRayError(
        f"{group}={found!r} is not valid: it takes keys of its own, which --cfg job shows. ~{group} is without."
    )


def _as_json(node: Any) -> Any:
    """JSON has no word for numbers such as nan, which are refused later, and by then are in status.json."""
    if isinstance(node, dict):
        return {key: _as_json(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_as_json(value) for value in node]
    return str(node) if isinstance(node, float) and not isfinite(node) else node


def _content(file: Path, root: Path) -> str:
    found = next((f for f in (file, root / file) if f.is_file()), None)
    return digest_of(found.read_bytes()) if found else str(file)


def save_config(folder: Path, cfg: DictConfig) -> None:
    """What Hydra writes into .hydra, but once it is known that the run may start: a finished run keeps its own."""
    parts: dict[str, Any] = {"config": cfg}
    if HydraConfig.initialized():
        parts |= {"hydra": HydraConfig.instance().cfg, "overrides": HydraConfig.get().overrides.task}
    for name, part in parts.items():
        with atomic_write(folder / ".hydra" / f"{name}.yaml") as file:
            file.write(OmegaConf.to_yaml(part))
