"""Writes a checkpoint as an ONNX file. See python -m xray_lightning.export --help."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from xray_lightning.artifacts import atomic_write
from xray_lightning.cli import command
from xray_lightning.errors import XRayError, did_you_mean

if TYPE_CHECKING:
    import onnx

    from xray_lightning.models.classifier import XRayClassifier
    from xray_lightning.onnx_check import Sample

log = logging.getLogger("xray_lightning.export")  # as a command the module is __main__, which logs warnings alone
FORMATS = ("onnx",)
MOST_DIFFERENCE = 5e-4  # of a probability: features that fall on the other side of a half-precision step make 1e-4
MOST_LOST = 0.01  # of the accuracy, by int8, without a warning
BATCHES = (1, 32)  # at which speed is measured


def export(cfg: DictConfig) -> list[Path]:
    """Writes the checkpoint's ONNX file and, with `int8`, its quantised one; returns their paths.

    Each is compared with PyTorch before it is written. Raises XRayError for what a user can mend, and for a network
    that gives other probabilities than the checkpoint: then there is no file.
    """
    from xray_lightning.machine import settle
    from xray_lightning.models.checkpoint import load_classifier
    from xray_lightning.onnx_graph import need_onnx, onnx_graph

    _check(cfg)
    need_onnx()
    model = load_classifier(Path(cfg.ckpt))
    output = Path(cfg.output) if cfg.output else Path(cfg.ckpt).with_suffix(".onnx")
    _refuse_unwritable(output)
    settle("32-true")
    sample = _sample(cfg, model)
    graph = onnx_graph(model)
    _compare(graph, model, sample)
    int8 = _quantised(cfg, graph, model, sample) if cfg.int8 else None
    written = {output: graph} | ({output.with_suffix(".int8.onnx"): int8} if int8 is not None else {})
    for path, content in written.items():
        with atomic_write(path, "wb") as file:
            size = file.write(content.SerializeToString())
        log.info("%s: %.1f MB", path, size / 1e6)
    log.info("Images must be resized before, as the file's metadata say. Research software, not a medical device.")
    return list(written)


def _check(cfg: DictConfig) -> None:
    if not isinstance(cfg.ckpt, str):
        raise XRayError(
            f"ckpt={cfg.ckpt} is not valid. Give one checkpoint; a cascade is exported as its two networks."
        )
    if cfg.format not in FORMATS:
        raise XRayError(f"format={cfg.format} is not valid. {did_you_mean(cfg.format, FORMATS)}")
    if set(cfg.dataset) != {"root"}:
        raise XRayError("Export compares on the checkpoint's own images: of dataset only dataset.root can be set.")
    if type(cfg.int8) is not bool:
        raise XRayError(f"int8={cfg.int8} is not valid. Give true or false.")
    if cfg.check is not None and not (type(cfg.check) is int and cfg.check >= 1):
        raise XRayError(f"check={cfg.check} is not valid. Give a number of images of at least 1, or null for all.")


def _refuse_unwritable(output: Path) -> None:
    """Before minutes of work are spent on it."""
    if output.is_dir():
        raise XRayError(f"output={output} is a folder. Give the name of a file, such as {output / 'model.onnx'}.")
    try:
        with atomic_write(output.with_name(f"{output.name}.try")):
            pass
        output.with_name(f"{output.name}.try").unlink()
    except OSError as error:
        reason = error.strerror or error
        raise XRayError(f"{output} cannot be written ({reason}). Choose another place with output=<file>.") from error


def _sample(cfg: DictConfig, model: "XRayClassifier") -> "Sample":
    """The checkpoint's own test images; generated ones where these cannot be had and none were asked for."""
    from xray_lightning.data.splits import TEST
    from xray_lightning.onnx_check import generated_sample, real_sample

    try:
        return real_sample(cfg, model, TEST, cfg.check)
    except XRayError as error:
        if cfg.dataset.root is not None:
            raise
        reason = str(error).splitlines()[0]
        log.warning("Compared on generated images, which are no radiographs, since there are no others: %s", reason)
        return generated_sample(model)


def _compare(graph: "onnx.ModelProto", model: "XRayClassifier", sample: "Sample") -> None:
    from xray_lightning.onnx_check import (
        Difference,
        predict_all,
        predictor,
        refuse_difference,
        speed,
        torch_predictor,
    )

    predict = predictor(graph)
    difference = Difference.between(sample.expected, predict_all(predict, sample.images))
    refuse_difference(difference, sample, MOST_DIFFERENCE)
    log.info(
        "Compared with PyTorch on %s: largest difference of a probability %.1e, %d other decisions",
        *(sample.what, difference.largest, difference.decisions),
    )
    ours = torch_predictor(model)
    for batch in BATCHES:
        rates = [speed(run, sample.images, batch) for run in (predict, ours)]
        log.info("Batch of %d: %.0f images/s in ONNX Runtime, %.0f in PyTorch", batch, *rates)


def _quantised(
    cfg: DictConfig, graph: "onnx.ModelProto", model: "XRayClassifier", sample: "Sample"
) -> "onnx.ModelProto":
    """Says what int8 costs and gives. Raises XRayError without validation images: none others may set its ranges."""
    from xray_lightning.data.splits import VAL
    from xray_lightning.onnx_check import Difference, predict_all, predictor, real_sample, scores, speed
    from xray_lightning.onnx_int8 import CALIBRATION, quantise

    try:
        ranges = real_sample(cfg, model, VAL, CALIBRATION)
    except XRayError as error:
        raise XRayError(f"int8=true needs the checkpoint's validation images. {error}") from error
    int8 = quantise(graph, ranges.images)
    predict = predictor(int8)
    found = predict_all(predict, sample.images)
    difference = Difference.between(sample.expected, found)
    log.info(
        "int8, calibrated on %s, on %s: difference of a probability at most %.3f, mean %.4f, %d other decisions",
        *(ranges.what, sample.what, difference.largest, difference.mean, difference.decisions),
    )
    for batch in BATCHES:
        log.info("int8, batch of %d: %.0f images/s", batch, speed(predict, sample.images, batch))
    if sample.labels is not None:
        before, after = scores(sample.expected, sample.labels), scores(found, sample.labels)
        for name in before:
            log.info("int8: %s %.4f, before %.4f", name, after[name], before[name])
        if after["accuracy"] < before["accuracy"] - MOST_LOST:
            log.warning("int8 costs %.3f of the accuracy.", before["accuracy"] - after["accuracy"])
    return int8


@command("export")
def main(cfg: DictConfig) -> Any:
    return export(cfg)


if __name__ == "__main__":
    main()
