"""One run: train(cfg) and test(cfg), which the scripts, the sweeps and the tests call."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from xray_lightning.arguments import check_arguments
from xray_lightning.artifacts import atomic_write, read_json
from xray_lightning.config import auto_precision, build, plain
from xray_lightning.data.catalog import write_catalog
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.examine import digest_of
from xray_lightning.data.splits import TEST, TRAIN, VAL
from xray_lightning.environment import environment
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.dashboard import log_examples, log_outcome
from xray_lightning.evaluation.record import test_record, write_record
from xray_lightning.machine import settle
from xray_lightning.models.checkpoint import (
    data_card,
    load_classifier,
    load_data_module,
    refuse_missing_test_images,
)
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.features import ImageSource, Views
from xray_lightning.status import is_done, recorded

log = logging.getLogger(__name__)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its device tables and product tips
# Lightning 2.6 calls PyTorch's pytree in a way that newer PyTorch announces to drop
warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
# A frozen backbone is in eval mode on purpose
warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def train(cfg: DictConfig) -> dict[str, Any]:
    """Trains, chooses the best epoch on validation, and scores it once on test.

    Returns the content of metrics.json. A run folder that is done already is not run again. Raises XRayError
    for what a user can mend.
    """
    folder = Path(cfg.paths.run)
    settings = _settings(cfg)
    if is_done(folder, settings):
        log.info("%s is done already, nothing to do", folder)
        return read_json(folder / "metrics.json") or {}
    with recorded(folder, settings):
        _save_config(folder, cfg)
        check_arguments(cfg)
        _same_start(cfg.seed)
        trainer = _trainer(cfg, folder)
        data: XRayDataModule = build(cfg.dataset)
        if cfg.phantoms is not None:
            build(cfg.phantoms)
        _set_up(data)
        write_catalog(folder / "catalog.csv", data.rows, data.sides)
        model = build(
            cfg.model,
            class_names=data.class_names,
            image_size=data.image_size,
            class_weights=data.class_weights(),
        )
        model.card |= {
            "data": data_card(plain(cfg.dataset), data),
            "precision": str(trainer.precision),
        }
        _prepare_inputs(model, data, trainer, [TRAIN, VAL, TEST])
        _fit(trainer, model, data)
        log_examples(trainer, data)
        best = load_classifier(_best_checkpoint(trainer))
        return _score(best, data, trainer, folder, settings)


def test(cfg: DictConfig) -> dict[str, Any]:
    """Scores a checkpoint on the test images of its own training. Returns the content of metrics.json."""
    folder = Path(cfg.paths.run)
    with recorded(folder, {"ckpt": str(cfg.ckpt)}):
        _save_config(folder, cfg)
        if unknown := sorted(set(cfg.dataset) - {"root"}):
            raise XRayError(
                f"test.py scores the test images of the checkpoint's own training, so dataset.{unknown[0]} cannot be "
                "set. Only dataset.root can: where these images are now."
            )
        check_arguments(cfg)
        model = load_classifier(Path(cfg.ckpt))
        data = load_data_module(model.card, root=cfg.dataset.root, cache_dir=str(cfg.paths.cache), cache=cfg.cache)
        _set_up(data)
        refuse_missing_test_images(model.card, data)
        trainer = _trainer(cfg, folder, precision=cfg.trainer.precision or _own_precision(model, cfg))
        _prepare_inputs(model, data, trainer, [TEST])
        return _score(model, data, trainer, folder, {})


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What a result depends on, as plain data: without what is only shown, and with paths written one way."""
    chosen = {key: plain(cfg.get(key)) for key in ("dataset", "model", "trainer", "callbacks", "phantoms", "seed")}
    for group, shown in (
        ("dataset", ["cache_dir", "cache"]),
        ("trainer", ["enable_progress_bar", "log_every_n_steps"]),
        ("callbacks", ["progress_bar"]),
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


def _save_config(folder: Path, cfg: DictConfig) -> None:
    """What Hydra writes into .hydra, but once it is known that the run may start: a finished run keeps its own."""
    parts: dict[str, Any] = {"config": cfg}
    if HydraConfig.initialized():
        parts |= {"hydra": HydraConfig.instance().cfg, "overrides": HydraConfig.get().overrides.task}
    for name, part in parts.items():
        with atomic_write(folder / ".hydra" / f"{name}.yaml") as file:
            file.write(OmegaConf.to_yaml(part))


def _same_start(seed: int) -> None:
    """Makes a job's result independent of the jobs that ran before it in the same process."""
    if not 0 <= seed < 2**32:
        raise XRayError(f"seed={seed} is not valid. Give a whole number from 0 to {2**32 - 1}.")
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = False
    seed_everything(seed, workers=True, verbose=False)


def _set_up(data: XRayDataModule) -> None:
    data.setup()
    for side, counts in data.counts().items():
        described = ", ".join(f"{count} {name}" for name, count in counts.items())
        log.info("%s %s: %d images (%s)", data.name, side, sum(counts.values()), described)
    if data.collection is not None and data.known_test is None:
        groups = {row.group for row in data.rows}
        log.info("%s: %d groups by patient, copies and near-identical images", data.name, len(groups))
    if data.synthetic:
        log.warning("These are synthetic radiographs: the scores say nothing about real X-rays.")


def _trainer(cfg: DictConfig, folder: Path, **fixed: Any) -> Trainer:
    callbacks = [build(c) for c in (cfg.get("callbacks") or {}).values()]
    logger = build(cfg.logger) if cfg.get("logger") else False
    try:
        trainer: Trainer = build(
            cfg.trainer,
            callbacks=callbacks,
            logger=logger,
            default_root_dir=str(folder),
            **fixed,
        )
    except Exception as error:  # Hydra wraps what the constructor raises
        cause = error.__cause__ or error
        if not isinstance(cause, MisconfigurationException | ValueError | RuntimeError):
            raise
        raise XRayError(
            f"The trainer cannot be set up: {cause}\n"
            "Choose a device and precision that this machine has, such as trainer=auto or trainer=cpu."
        ) from error
    if str(trainer.precision) not in AUTOCAST:
        raise XRayError(
            f"trainer.precision={trainer.precision} is not supported: weights are kept in float32. Give one of "
            f"{', '.join(AUTOCAST)}."
        )
    settle(str(trainer.precision))
    return trainer


def _prepare_inputs(model: XRayClassifier, data: XRayDataModule, trainer: Trainer, sides: list[str]) -> None:
    model.to(trainer.strategy.root_device)
    autocast = AUTOCAST[str(trainer.precision)]
    root = str(data.root.resolve())
    source = ImageSource(data.images, data.fingerprint, data.cache_dir / "features", autocast, root)
    if TRAIN in sides:
        data.train_inputs = model.prepare_training(source, data.rows_of(TRAIN), data.augment)
        plain_features = data.train_inputs.ndim == 2 and not isinstance(data.train_inputs, Views)
        if plain_features and data.augment is not None:
            log.info("%s trains on cached features of plain images: dataset.augment is not used.", model.name)
            data.augment = None
    data.inputs = model.prepare_inputs(source, np.concatenate([data.rows_of(s) for s in sides if s != TRAIN]))


def _fit(trainer: Trainer, model: XRayClassifier, data: XRayDataModule) -> None:
    try:
        trainer.fit(model, datamodule=data)
    except (MisconfigurationException, RuntimeError) as error:
        monitors = "conditioned on metric" in str(error)  # early stopping, of what nobody logs
        if not monitors and not isinstance(error, MisconfigurationException):
            raise
        raise XRayError(f"Training cannot go on: {error}") from error


def _best_checkpoint(trainer: Trainer) -> Path:
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
    if not path:
        raise XRayError(
            "Training ended without a checkpoint to test: callbacks.best_checkpoint must be there, "
            "trainer.fast_dev_run off, and trainer.max_epochs at least 1."
        )
    return Path(path)


def _score(
    model: XRayClassifier, data: XRayDataModule, trainer: Trainer, folder: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    trainer.test(model, datamodule=data, verbose=False)
    probabilities, labels = model.test_metrics.gathered()
    order = data.rows_of(TEST)
    rows = np.concatenate([order[rank :: trainer.world_size] for rank in range(trainer.world_size)])
    record = test_record(
        data, model, probabilities, labels, environment=environment(model.device, str(trainer.precision))
    )
    if trainer.is_global_zero:
        figure = write_record(folder, data, rows, record, probabilities)
        if settings:
            log_outcome(trainer, settings, record, figure)
    return record


def _own_precision(model: XRayClassifier, cfg: DictConfig) -> str:
    """The precision the model was trained in, so that it gets the same scores; the device's own elsewhere."""
    own, here = str(model.card["precision"]), auto_precision(cfg.trainer.accelerator)
    return here if own == "16-mixed" and here != own else own
