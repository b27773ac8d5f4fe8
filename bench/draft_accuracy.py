"""Does scaled JPEG decoding cost accuracy? The CNN trained and validated on both decodings of the same films.

    XRAY_DATA=<folder> python bench/draft_accuracy.py [epochs] [seeds]

`dataset=pneumonia`, decoded at half its width and resized from there by as much as films of full size are from
DRAFT = 256 to 224 pixels. Judged on validation images; test images are not looked at.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from timing import table

from xray_lightning.config import CONF, build, register_resolvers
from xray_lightning.data import decode, examine
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.splits import VAL
from xray_lightning.evaluation.metrics import scalar_metrics
from xray_lightning.models.checkpoint import load_classifier
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.run import _best_checkpoint, _fit, _same_start, _trainer

KEPT = 224 / 256  # of each side, from scaled decoding to the model


def trained(
    way: str, draft: int, size: int, seed: int, epochs: int, folder: Path
) -> tuple[XRayClassifier, XRayDataModule]:
    decode.DRAFT = examine.DRAFT = draft  # least number of pixels a side that decoding keeps
    overrides = [
        "dataset=pneumonia", "model=cnn", "logger=csv", f"dataset.image_size={size}", f"seed={seed}",
        f"trainer.max_epochs={epochs}", f"paths.cache={folder / way}", f"paths.run={folder / way / str(seed)}",
        f"paths.outputs={folder}",
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides)
    _same_start(seed)
    trainer, data = _trainer(cfg, folder / way / str(seed)), build(cfg.dataset)
    data.setup()
    about = {"class_names": data.class_names, "image_size": size, "class_weights": data.class_weights()}
    model = build(cfg.model, **about)
    model.card |= {"data": {}, "precision": str(trainer.precision)}
    _fit(trainer, model, data)
    return load_classifier(_best_checkpoint(trainer)), data


def validated(model: XRayClassifier, data: XRayDataModule) -> dict[str, float]:
    rows = data.rows_of(VAL)
    with torch.inference_mode():
        logits = torch.cat([model(torch.from_numpy(data.images[part])) for part in np.array_split(rows, 8)])
    metrics = scalar_metrics(logits.softmax(dim=1), torch.from_numpy(data.labels[rows]))
    return {name: float(metrics[name]) for name in ("accuracy", "auroc", "log_loss")}


def main() -> None:
    epochs, seeds = (int(sys.argv[i + 1]) if len(sys.argv) > i + 1 else default for i, default in enumerate((15, 2)))
    register_resolvers()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            root = Path(compose("train", ["dataset=pneumonia"]).dataset.root)
        half = Image.open(next(root.glob("train/NORMAL/*.jpeg"))).width // 2
        size, ways = round(KEPT * half), {"full decoding": 10**6, "scaled decoding": half}
        for seed in range(seeds):
            runs = {way: trained(way, draft, size, seed, epochs, folder) for way, draft in ways.items()}
            for way, (model, _) in runs.items():
                for other, (_, data) in runs.items():
                    scores = validated(model, data)
                    rows.append([str(seed), way, other, *(f"{v:.4f}" for v in scores.values())])
    print(f"{len(data.rows_of(VAL))} validation images at {size} pixels, {epochs} epochs, best epoch by validation")
    table(["seed", "trained on", "validated on", "accuracy", "AUROC", "log-loss"], rows)


if __name__ == "__main__":
    main()
