"""What a run was asked for: the settings that its result depends on, and its configuration as it was."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from xray_lightning.artifacts import atomic_write
from xray_lightning.config import plain
from xray_lightning.data.examine import digest_of


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """What a result depends on, as plain data: without what is only shown, and with paths written one way."""
    chosen = {key: plain(cfg.get(key)) for key in ("dataset", "model", "trainer", "callbacks", "phantoms", "seed")}
    for group, shown in (
        ("dataset", ["cache_dir", "cache"]),
        ("trainer", ["enable_progress_bar", "log_every_n_steps"]),
        ("callbacks", ["progress_bar", "last_checkpoint"]),
        ("phantoms", ["root"]),
    ):
        chosen[group] = {k: v for k, v in (chosen[group] or {}).items() if k not in shown}
    for callback in chosen["callbacks"].values():
        callback.pop("dirpath", None)
    if chosen["phantoms"]:
        del chosen["dataset"]["root"]  # phantoms are the same wherever they lie
    for key in ("split_file", "table"):  # what they say counts, not where they lie
        if chosen["dataset"].get(key):
            chosen["dataset"][key] = _content(Path(chosen["dataset"][key]), Path(chosen["dataset"].get("root") or "."))
    for group, key in (("dataset", "root"), ("model", "weights")):
        if chosen[group].get(key) and Path(chosen[group][key]).exists():
            chosen[group][key] = str(Path(chosen[group][key]).resolve())
    return chosen


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
