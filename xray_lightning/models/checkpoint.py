"""Reading checkpoints, which are untrusted input: nothing in them is executed."""

from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from xray_lightning.arguments import check_call
from xray_lightning.artifacts import atomic_write
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.seen import memory
from xray_lightning.data.splits import TEST, TRAIN, VAL, images_of
from xray_lightning.errors import XRayError
from xray_lightning.models.card import what_is_wrong
from xray_lightning.models.classifier import CARD, CARD_FORMAT, XRayClassifier
from xray_lightning.models.familiarity import Familiarity, evenly, features_of
from xray_lightning.models.plain import Unreadable, read_plain

T = TypeVar("T")
NOT_KEPT = ("_target_", "cache_dir", "cache", "augment", "split_file", "kaggle")  # of the machine, or of training alone


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of this program. Raises XRayError for any other file."""
    if not path.is_file():
        near = sorted(path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        found = f" There is {', '.join(p.name for p in near)}." if near else ""
        raise XRayError(
            f"There is no checkpoint {path}.{found} Runs keep theirs in <run folder>/checkpoints/best.ckpt."
        )
    try:
        content = read_plain(path)
    except Unreadable as problem:
        raise XRayError(
            f"{path} cannot be read as a checkpoint ({problem}). It is damaged or no checkpoint."
        ) from problem
    card = content.get(CARD) if isinstance(content, dict) else None
    if not isinstance(card, dict) or "state_dict" not in content or "hyper_parameters" not in content:
        raise XRayError(f"{path} was not written by xray-lightning: it has no '{CARD}' entry.")
    if card.get("format") != CARD_FORMAT:
        raise XRayError(
            f"{path} has checkpoint format {str(card.get('format'))[:40]}; this version reads {CARD_FORMAT}. "
            "Install the version of xray-lightning that wrote it."
        )
    return content


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all. Raises OSError where there is no room, which torch.save would hide in another error."""
    buffer = BytesIO()
    torch.save(content, buffer)
    with atomic_write(path, "wb", sync=False) as file:
        file.write(buffer.getbuffer())


def load_classifier(path: Path) -> XRayClassifier:
    """Rebuilds a classifier from its checkpoint alone, on the CPU and in eval mode. Raises XRayError where it is none
    of this version's."""
    content = read_checkpoint(path)
    card = content[CARD]
    kind = _own_class(card.get("module"), card.get("class"), XRayClassifier, "xray_lightning.models.")  # type: ignore[type-abstract]
    try:
        model = _built(kind, content["hyper_parameters"], content["state_dict"])
        model.on_load_checkpoint(content)
        if problem := what_is_wrong(card):
            raise ValueError(problem)
        own = (model.class_names, model.image_size)
        if (card["classes"], card["data"]["arguments"]["image_size"]) != own:
            raise ValueError("its card is of another network")
    except Exception as error:  # of what others wrote there, constructors raise whatever they stumble over
        raise XRayError(f"{path} does not fit this version's {kind.__name__}: {str(error)[:300]}") from error
    return model.eval()


def _built(kind: type[XRayClassifier], arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> XRayClassifier:
    """The network with its weights. Before it takes memory, its shapes are compared with those of the weights."""
    check_call(kind, arguments, kind.__name__)
    if foreign := sorted({*arguments} & {*kind.not_saved}):
        raise ValueError(f"{', '.join(foreign)} is never in a checkpoint")
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in kind(**arguments).state_dict().items()}
    if expected != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise ValueError("its weights are not those of a network with its arguments")
    model = kind(**arguments)
    model.load_state_dict(state)
    return model


def remember_familiar(path: Path, model: XRayClassifier, data: XRayDataModule) -> None:
    """Adds to a checkpoint, and to the card of its `model`, by which distance training images are known to it.

    `data` holds the images, or features, of training and validation.
    """
    training = features_of(model, data.train_inputs, evenly(data.rows_of(TRAIN)))
    validation = features_of(model, data.inputs, data.rows_of(VAL))
    fitted = Familiarity.fit(training, validation) if training is not None and validation is not None else None
    if fitted is None:
        return
    model.card["familiarity"] = fitted.card()
    content = read_checkpoint(path)
    content[CARD]["familiarity"] = model.card["familiarity"]
    write_checkpoint(path, content)


def data_card(arguments: Mapping[str, Any], data: XRayDataModule) -> dict[str, Any]:
    """What a checkpoint keeps of its data: the `dataset` configuration, classes, and what `memory` tells of images."""
    kept = {k: v for k, v in arguments.items() if k not in NOT_KEPT} | {"classes": data.class_names}
    module, _, name = arguments["_target_"].rpartition(".")
    assert data.collection is not None, "set up before"
    return {"module": module, "class": name, "arguments": kept, "leaked": data.leaked} | memory(
        data.collection, data.sides
    )


def refuse_missing_images(card: Mapping[str, Any], data: XRayDataModule, side: str) -> None:
    """Raises XRayError unless the folder has all images of one side of the training, with the same contents."""
    before, now = Counter(card["data"]["images"][side]), Counter(images_of(TEST, data.rows, data.sides))
    if before != now:
        raise XRayError(
            f"{(before - now).total()} of {before.total()} {side} images of the checkpoint's training are not in "
            f"{data.root}, or have other contents. Other images may have been trained on, so none are taken instead. "
            "Say where the same images are with dataset.root=<folder>."
        )


def load_data_module(card: Mapping[str, Any], side: str = TEST, **now: Any) -> XRayDataModule:
    """The data module a classifier was trained with, for the images of one side of its training's split alone.

    They are known by their contents, so files may have been added, renamed or moved since. `now` says what is
    different today, such as `root` and `cache_dir`; None: as it was.
    """
    saved = card.get("data")
    kinds = {"arguments": dict, "images": dict, "leaked": dict}
    if not isinstance(saved, dict) or not all(isinstance(saved.get(k), kind) for k, kind in kinds.items()):
        raise XRayError("The checkpoint does not say which data it was trained on.")
    kind = _own_class(saved.get("module"), saved.get("class"), XRayDataModule, "xray_lightning.data.")
    if foreign := sorted({*saved["arguments"]} & {*NOT_KEPT}):
        raise XRayError(f"The checkpoint's data have {', '.join(foreign)}, which no checkpoint of this program has.")
    arguments = saved["arguments"] | {k: v for k, v in now.items() if v is not None}
    try:
        check_call(kind, saved["arguments"], kind.__name__, "dataset.")
    except XRayError as error:
        raise XRayError(f"The checkpoint's data do not fit this version's {kind.__name__}: {error}") from error
    check_call(kind, arguments, kind.__name__, "dataset.")
    try:
        data = kind(**arguments | {"augment": None, "on_bad_image": "skip"})  # a bad test image is missed below
    except XRayError:
        raise
    except Exception as error:  # see load_classifier
        raise XRayError(f"The checkpoint's data do not fit this version's {kind.__name__}: {error}") from error
    data.scored, data.known_test, data.leaked = side, saved["images"][side], saved["leaked"]
    return data


def _own_class(module: object, name: object, base: type[T], package: str) -> type[T]:
    """Only classes of this package are taken by name: a checkpoint must not choose what is imported."""
    if str(module).startswith(package):
        try:
            kind = getattr(import_module(str(module)), str(name), None)
        except (ImportError, ValueError):
            kind = None
        if isinstance(kind, type) and issubclass(kind, base):
            return kind
    asked = f"{module}.{name}"[:200]
    raise XRayError(f"The checkpoint asks for {asked}, which is no {base.__name__} in {package}*.")
