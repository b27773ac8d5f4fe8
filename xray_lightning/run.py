"""One run: train(cfg) and test(cfg), which the scripts, the sweeps and the tests call."""

import logging
import os
import shlex
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from xray_lightning.arguments import check_arguments
from xray_lightning.artifacts import clear_results, keep, read_json
from xray_lightning.config import auto_precision, build, plain
from xray_lightning.data.catalog import write_catalog
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import TEST, TRAIN, VAL
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.evaluation.dashboard import log_outcome
from xray_lightning.evaluation.evidence import Judged, illustrate, judge
from xray_lightning.evaluation.report.card import write_model_card
from xray_lightning.evaluation.report.page import write_report
from xray_lightning.history import History
from xray_lightning.inputs import AUTOCAST, prepare_inputs, set_up
from xray_lightning.loggers import build_logger
from xray_lightning.machine import settle
from xray_lightning.models.checkpoint import data_card, load_classifier, remember_familiar
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.processes import first_alone, is_first, refuse_other_numbers, trainer_errors
from xray_lightning.resume import SETTINGS, LastCheckpoint, WholeFiles, left_off, settings_digest
from xray_lightning.scored import images_seen, other_images, own_images
from xray_lightning.settings import save_config, settings_of
from xray_lightning.status import is_done, recorded, refuse_failed

log = logging.getLogger(__name__)
for package in ("pytorch", "fabric"):  # their device tables and product tips
    logging.getLogger(f"lightning.{package}").setLevel(logging.WARNING)
# Lightning 2.6 calls PyTorch's pytree in a way that newer PyTorch announces to drop
warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
# A frozen backbone is in eval mode on purpose
warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
# It is what a run that goes on finds there
warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")


def train(cfg: DictConfig) -> dict[str, Any]:
    """Trains, chooses the best epoch on validation, and scores it once on test.

    Returns the content of metrics.json. A run folder that is done already is not run again; one whose run was stopped
    goes on after its last whole epoch, to the same result. Raises XRayError for what a user can mend.
    """
    folder = Path(cfg.paths.run)
    settings = settings_of(cfg)
    if is_done(folder, settings):
        log.info("%s is done already, nothing to do", folder)
        return read_json(folder / "metrics.json") or {}
    if _choice(cfg, "failed", ("again", "keep")) == "keep":
        refuse_failed(folder, settings)
    with recorded(folder, settings):
        if is_first():
            clear_results(folder)
            save_config(folder, cfg)
        check_arguments(cfg)
        _same_start(cfg.seed)
        trainer = _trainer(cfg, folder)
        with first_alone(trainer):
            data: XRayDataModule = build(cfg.dataset, XRayDataModule)
            if cfg.phantoms is not None:
                build(cfg.phantoms)
            set_up(data)
            if is_first():
                write_catalog(folder / "catalog.csv", data.rows, data.sides)
            model = build(
                cfg.model,
                XRayClassifier,
                class_names=data.class_names,
                image_size=data.image_size,
                class_weights=data.class_weights(),
            )
            model.card |= {
                "data": data_card(plain(cfg.dataset), data),
                "precision": str(trainer.precision),
                SETTINGS: settings_digest(settings),
            }
            prepare_inputs(model, data, trainer, [TRAIN, VAL, TEST])
        _fit(trainer, model, data, folder)
        best = load_classifier(_best_checkpoint(trainer))
        if trainer.is_global_zero:
            remember_familiar(_best_checkpoint(trainer), best.to(trainer.strategy.root_device), data)
        judged = judge(best, data, trainer, folder)
        if trainer.is_global_zero:
            keep(_best_checkpoint(trainer))  # a run that is done is not run again
    if trainer.is_global_zero:
        log_outcome(trainer, settings, judged.record)
        _show(judged, best, data, trainer, folder, figures=cfg.figures)
    return judged.record


def test(cfg: DictConfig) -> dict[str, Any]:
    """Scores a checkpoint on images of its own training's split, or of other data with the same classes.

    Returns the content of metrics.json. Raises XRayError for what a user can mend.
    """
    folder = Path(cfg.paths.run)
    settings = {"ckpt": str(cfg.ckpt)}
    is_done(folder, settings)  # refuses the folder of a training, or of another checkpoint
    with recorded(folder, settings):
        if is_first():
            clear_results(folder)
            save_config(folder, cfg)
        check_arguments(OmegaConf.masked_copy(cfg, "trainer"))  # those of images depend on the model
        model = load_classifier(Path(str(cfg.ckpt)))
        own = "_target_" not in cfg.dataset
        trainer = _trainer(cfg, folder, precision=cfg.trainer.precision or _own_precision(model, cfg))
        with first_alone(trainer):
            data = own_images(cfg, model) if own else other_images(cfg, model)
            seen = None if own else images_seen(model, data)
            prepare_inputs(model, data, trainer, [TEST])
        judged = judge(model, data, trainer, folder, split=cfg.split, seen=seen, checkpoint=str(cfg.ckpt))
    if trainer.is_global_zero:
        _show(judged, model, data, trainer, folder, figures=cfg.figures)
    return judged.record


def _show(
    judged: Judged, model: XRayClassifier, data: XRayDataModule, trainer: Trainer, folder: Path, *, figures: bool
) -> None:
    """What people look at, of a run that is done: whatever goes wrong here must not cost its results."""
    try:
        if figures:
            illustrate(judged, model, data, trainer, folder)
        write_model_card(folder)
        write_report(folder)
    except Exception as error:
        again = f"python -m xray_lightning.evaluation.report {shlex.quote(str(folder))}"
        told = "The scores are complete, but not figures and report (%s). To make the report again: %s"
        log.error(told, error, again, exc_info=not isinstance(error, OSError))  # a full disk is no fault of the program


def _choice(cfg: DictConfig, key: str, valid: tuple[str, ...]) -> str:
    if cfg[key] not in valid:
        raise XRayError(f"{key}={cfg[key]} is not valid. {did_you_mean(cfg[key], valid)}")
    return str(cfg[key])


def _same_start(seed: int) -> None:
    """Makes a job's result independent of the jobs that ran before it in the same process."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise XRayError(f"seed={seed} is not valid. Give a whole number from 0 to {2**32 - 1}.")
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = False
    seed_everything(seed, verbose=False)
    del os.environ["PL_GLOBAL_SEED"]  # by which Lightning would seed again, but only where there are several processes


def _trainer(cfg: DictConfig, folder: Path, **fixed: Any) -> Trainer:
    logger = build_logger(cfg.get("logger"))
    with trainer_errors():
        callbacks = [build(c, Callback) for c in (cfg.get("callbacks") or {}).values() if c is not None]
        if "model" in cfg:
            callbacks.append(History(folder / "history.csv"))
        trainer: Trainer = build(
            cfg.trainer,
            Trainer,
            callbacks=callbacks,
            logger=logger,
            default_root_dir=str(folder),
            plugins=[WholeFiles()],
            **fixed,
        )
    refuse_other_numbers(trainer, cfg)
    if str(trainer.precision) not in AUTOCAST:
        raise XRayError(
            f"trainer.precision={trainer.precision} is not supported: weights are kept in float32. Give one of "
            f"{', '.join(AUTOCAST)}."
        )
    settle(str(trainer.precision))
    return trainer


def _fit(trainer: Trainer, model: XRayClassifier, data: XRayDataModule, folder: Path) -> None:
    last = next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)), None)
    start = left_off(folder, model) if last else None  # without it random numbers would be others
    try:
        trainer.fit(model, datamodule=data, ckpt_path=start)
    except (XRayError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if start and last and not last.is_under_way:  # what others wrote there fails wherever it is used
            raise XRayError(
                f"{start} cannot be gone on from ({error!r:.500}). Where it is damaged, or not of this program, remove "
                "it, and this run begins again. debug=true shows what happened."
            ) from error
        monitors = isinstance(error, RuntimeError) and "conditioned on metric" in str(error)  # of what nobody logs
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


def _own_precision(model: XRayClassifier, cfg: DictConfig) -> str:
    """The precision the model was trained in, so that it gets the same scores; the device's own elsewhere."""
    own, here = str(model.card["precision"]), auto_precision(cfg.trainer.accelerator)
    return here if own == "16-mixed" and here != own else own
