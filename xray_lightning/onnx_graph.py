"""A classifier as one ONNX model: grey images in, calibrated probabilities out, and what it is in its metadata."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xray_lightning.errors import XRayError
from xray_lightning.models.classifier import XRayClassifier

if TYPE_CHECKING:
    import onnx

OPSET = 20
IMAGES, PROBABILITIES = "images", "probabilities"  # names of the input and of the output
NEEDED = ("onnx", "onnxruntime", "onnxscript")
NOTICE = "research software, not a medical device"


def need_onnx() -> None:
    """Raises XRayError where the packages of the extra `export` are not installed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise XRayError(f'Export needs {", ".join(missing)}. To install: pip install "xray-lightning[export]"')


class Deployed(nn.Module):
    """uint8 images (B, 1, S, S) -> float32 probabilities (B, classes): softmax of the logits over `temperature`."""

    def __init__(self, model: XRayClassifier) -> None:
        super().__init__()
        self.network = model.for_inference()
        self.temperature = float(model.card["temperature"])

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(images).float() / self.temperature).softmax(dim=1)


def onnx_graph(model: XRayClassifier) -> "onnx.ModelProto":
    """The model with everything from uint8 on inside, for batches of any size, with `metadata`. Checked by ONNX.

    Raises XRayError for a network with an operator that cannot be exported.
    """
    import onnx

    images = torch.zeros(2, 1, model.image_size, model.image_size, dtype=torch.uint8)  # 0 and 1 would be taken as fixed
    try:
        with _quiet():
            program = torch.onnx.export(
                Deployed(model).eval(),
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[PROBABILITIES],
                dynamic_shapes={IMAGES: {0: torch.export.Dim("batch", min=1)}},
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise XRayError(
            f"{type(model).__name__} cannot be exported: {_cause(error)}. Give it a for_inference() of operators that "
            "torch.onnx.export takes."
        ) from error
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    onnx.helper.set_model_props(graph, metadata(model))
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes for its developers: what it gives is checked, and compared with the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def metadata(model: XRayClassifier) -> dict[str, str]:
    """What whoever runs the file has to know, as text; lists and mappings as JSON."""
    card: dict[str, Any] = model.card
    trained_on: dict[str, Any] = card.get("data", {}).get("arguments", {})
    resize = {"mode": trained_on.get("resize", "stretch"), "size": model.image_size}
    resize |= {"filter": "Pillow Image.Resampling.BILINEAR, which is antialiased", "in_graph": False}
    return {
        "classes": json.dumps(model.class_names, ensure_ascii=False),
        "model": model.name,
        "xray_lightning": version("xray-lightning"),
        "image_size": str(model.image_size),
        "input": "uint8 (batch, 1, image_size, image_size), grey values 0 to 255, resized before",
        "resize": json.dumps(resize),
        "temperature": repr(float(card["temperature"])),
        "operating_points": json.dumps(card["operating_points"], ensure_ascii=False),
        "trained_on": str(trained_on.get("name", "unknown")),
        "notice": NOTICE,
    }
