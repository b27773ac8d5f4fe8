"""The images that a checkpoint is scored on: its own training's, or others."""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xray_lightning.arguments import check_arguments
from xray_lightning.config import build, plain
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.seen import Seen, seen
from xray_lightning.data.splits import ALL, SIDES, TEST
from xray_lightning.errors import XRayError, did_you_mean
from xray_lightning.inputs import set_up
from xray_lightning.models.checkpoint import load_data_module, refuse_missing_images
from xray_lightning.models.classifier import XRayClassifier

log = logging.getLogger(__name__)


def own_images(cfg: DictConfig, model: XRayClassifier) -> XRayDataModule:
    """One side of the split that the model was trained with, known by the images' contents."""
    if cfg.split not in SIDES:
        advice = "is for other images, with dataset=<data set>" if cfg.split == ALL else "is not valid"
        raise XRayError(
            f"split={cfg.split} {advice}. Of the checkpoint's own training there are {', '.join(SIDES)}, of which the "
            "model knows all but test."
        )
    if unknown := sorted(set(cfg.dataset) - {"root"}):
        raise XRayError(
            f"Of the images of the checkpoint's own training only dataset.root can be set, not dataset.{unknown[0]}. "
            "To score others: dataset=<data set> split=all."
        )
    check_arguments(cfg)
    data = load_data_module(
        model.card, cfg.split, root=cfg.dataset.root, cache_dir=str(cfg.paths.cache), cache=cfg.cache
    )
    set_up(data)
    refuse_missing_images(model.card, data, cfg.split)
    return data


def other_images(cfg: DictConfig, model: XRayClassifier) -> XRayDataModule:
    """Images of a data set that is configured anew, prepared as the model's training images were."""
    sides = (ALL, *SIDES)
    if cfg.split not in sides:
        raise XRayError(f"split={cfg.split} is not valid. {did_you_mean(cfg.split, sides)}")
    size = model.image_size
    if cfg.dataset.image_size not in (None, size):
        raise XRayError(f"dataset.image_size={cfg.dataset.image_size} cannot be set: the checkpoint needs {size}.")
    resize = model.card["data"]["arguments"]["resize"]
    dataset = {**plain(cfg.dataset), "image_size": size, "resize": resize, "augment": None}
    check_arguments(OmegaConf.create({"dataset": dataset, "trainer": plain(cfg.trainer)}))
    data: XRayDataModule = build(dataset, XRayDataModule)
    _fit_classes(data, model)
    data.scored = cfg.split
    set_up(data)
    if not len(data.rows_of(TEST)):
        raise XRayError(f"{data.root} has no {cfg.split} images. Choose another split, such as split=all.")
    return data


def _fit_classes(data: XRayDataModule, model: XRayClassifier) -> None:
    """Puts the classes in the model's order. Raises XRayError where they are not the model's."""
    if {*data.class_names} != {*model.class_names}:
        known = ", ".join(model.class_names)
        places = ", ".join(f"{name}: <folder>" for name in model.class_names)
        subset = f" Its other classes are left out with 'dataset.classes=[{known.replace(' ', '')}]'."
        fewer = subset if {*model.class_names} < {*data.class_names} else ""
        raise XRayError(
            f"The checkpoint tells apart {known}, but {data.name} has {', '.join(data.class_names)}.{fewer} To say "
            f"which folders hold its classes: dataset=folder dataset.root={data.root} 'dataset.folders={{{places}}}'."
        )
    data.class_names = list(model.class_names)


def images_seen(model: XRayClassifier, data: XRayDataModule) -> Seen:
    """How many of the images the model was trained on, which is also said on the terminal."""
    remembered: dict[str, Any] = model.card["data"]
    assert data.collection is not None
    kind, name = f"{type(data).__module__}.{type(data).__name__}", remembered["arguments"]["name"]
    # two hospitals may both have a patient 1
    own = (kind, data.name) == (f"{remembered['module']}.{remembered['class']}", name)
    found = seen(remembered, data.collection, data.rows_of(TEST), same_patients=own)
    level = logging.WARNING if found.trained or found.chosen else logging.INFO
    told = found.note or f"none of {found.n} images"
    log.log(level, "Of the images of its training: %s (%d of them the same files)", told, found.identical)
    return found
