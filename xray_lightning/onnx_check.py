"""What an ONNX model gives, and how fast, beside what the checkpoint gives."""

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from xray_lightning.config import plain
from xray_lightning.data.anatomy import dice
from xray_lightning.data.findings import FINDINGS
from xray_lightning.data.phantoms import radiograph
from xray_lightning.data.splits import TEST
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.calibration import temper
from xray_lightning.evaluation.metrics import scalar_metrics
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.models.features import ImageSource
from xray_lightning.onnx_graph import IMAGES, PROBABILITIES
from xray_lightning.scored import own_images

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)
BATCH = 32
GENERATED = 32  # images where there are no real ones
SMALLEST_FILM = 32  # pixels a side that a synthetic film needs
SPEED_SECONDS = 1.0  # that each speed is measured for

Predict = Callable[[np.ndarray], np.ndarray]  # (B, 1, S, S) uint8 -> (B, classes)


@dataclass(frozen=True)
class Sample:
    """Images (N, 1, S, S) uint8, what they are, and for real ones the labels (N,) int64 and what PyTorch computes."""

    what: str
    images: np.ndarray
    expected: np.ndarray  # (N, classes) calibrated probabilities, as test.py gives them
    labels: np.ndarray | None


def real_sample(cfg: DictConfig, model: XRayClassifier, split: str, most: int | None) -> Sample:
    """Up to `most` images of one side of the checkpoint's own training, evenly spread. XRayError without them."""
    asked = {"split": split, "dataset": plain(cfg.dataset), "cache": cfg.cache, "paths": {"cache": cfg.paths.cache}}
    data = own_images(OmegaConf.create(asked), model)
    rows = data.rows_of(TEST)
    if most is not None and len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    root = str(data.root.resolve())
    source = ImageSource(data.images, data.fingerprint, data.cache_dir / "features", None, root)
    what = f"{len(rows)} {split} images of {data.name}"
    return Sample(what, np.asarray(data.images[rows]), _expected(model, source, rows), data.labels[rows])


def generated_sample(model: XRayClassifier) -> Sample:
    """Synthetic radiographs, where there are no real ones."""
    size = max(model.image_size, SMALLEST_FILM)
    findings = [*FINDINGS]
    films = []
    for number in range(GENERATED):
        person, pose = dice(f"export/{number}"), dice(f"export/{number}/pose")
        film, _ = radiograph(person, pose, (size, size), number % 2 == 0, findings[number % len(findings)])
        films.append(film[: model.image_size, : model.image_size])
    images = np.stack(films)[:, None]
    with TemporaryDirectory() as folder:
        source = ImageSource(images, "generated", Path(folder), None)
        expected = _expected(model, source, np.arange(len(images)))
    return Sample(f"{GENERATED} generated images", images, expected, None)


@torch.inference_mode()
def _expected(model: XRayClassifier, source: ImageSource, rows: np.ndarray) -> np.ndarray:
    """As test.py scores: from features that were computed once, where the model has such, in float32."""
    inputs = model.prepare_inputs(source, rows)
    logits = [model(torch.from_numpy(np.array(inputs[some]))) for some in _batches(rows)]
    probabilities = torch.cat(logits).double().softmax(dim=1).numpy()
    return temper(probabilities, model.card["temperature"])


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(BATCH, len(rows), BATCH))


def session_of(graph: "onnx.ModelProto") -> "InferenceSession":
    """On the CPU, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def predictor(graph: "onnx.ModelProto") -> Predict:
    session = session_of(graph)
    return lambda images: session.run([PROBABILITIES], {IMAGES: images})[0]


def predict_all(predict: Predict, images: np.ndarray) -> np.ndarray:
    return np.concatenate([predict(images[some]) for some in _batches(np.arange(len(images)))])


def torch_predictor(model: XRayClassifier) -> Predict:
    """The checkpoint on images, without calibration, for its speed."""

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(images)).softmax(dim=1).numpy()

    return predict


@dataclass(frozen=True)
class Difference:
    largest: float  # of the probabilities, in absolute value
    mean: float
    decisions: int  # images whose likeliest class is another one

    @classmethod
    def between(cls, expected: np.ndarray, found: np.ndarray) -> "Difference":
        """Of probabilities (N, classes). What is no number is infinitely far away."""
        apart = np.nan_to_num(np.abs(found.astype(np.float64) - expected), nan=np.inf)
        changed = found.argmax(axis=1) != expected.argmax(axis=1)
        return cls(float(apart.max()), float(apart.mean()), int(changed.sum()))


def refuse_difference(difference: Difference, sample: Sample, most: float) -> None:
    if difference.largest > most:
        raise XRayError(
            f"The exported network differs from the checkpoint: by {difference.largest:.2g} in a probability, of "
            f"{sample.what}, where {most:g} is allowed. No file was written. Report it, with the versions of torch, "
            "onnx and onnxruntime."
        )


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy and auroc of probabilities (N, classes) for labels (N,); NaN where the images do not define it."""
    values = scalar_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return {name: float(values[name]) for name in ("accuracy", "auroc")}


def speed(predict: Predict, images: np.ndarray, batch: int) -> float:
    """Images a second, by the median of batches of `batch`, of which the first does not count."""
    part = np.resize(images, (batch, *images.shape[1:]))
    predict(part)
    times: list[float] = []
    end = time.perf_counter() + SPEED_SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        predict(part)
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times)
