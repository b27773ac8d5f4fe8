"""A finished sweep as its files tell, without a training: simulated probabilities, small figures, made-up intervals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xray_lightning.evaluation.intervals import METHOD

FIGURES = ("confusion_matrix", "roc", "reliability", "learning_curves", "most_wrong")
CLASSES = {"pneumonia": ["NORMAL", "PNEUMONIA"], "covid": ["Covid", "Healthy", "Lung_infection", "Pneumonia"]}
METRICS = (
    *("accuracy", "recall", "precision", "f1", "balanced_accuracy", "specificity", "auroc", "auprc", "mcc"),
    *("log_loss", "brier", "ece", "macro_recall", "macro_precision", "macro_f1"),
)
PER_CLASS = ("recall", "precision", "f1", "specificity", "auroc", "auprc")
POINTS = ("default", "sensitivity_95", "sensitivity_98", "balanced")
COMPARISONS = (
    "dataset,a,b,accuracy_difference,accuracy_low,accuracy_high,accuracy_p,accuracy_p_holm,mcnemar_p,"
    "auroc_difference,auroc_low,auroc_high,delong_p,delong_p_holm\n"
)


class Maker:
    """Writes run folders below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.random = np.random.default_rng(0)

    def v(self) -> dict[str, float]:
        value = float(self.random.uniform(0.6, 0.95))
        return {"value": value, "low": value - 0.03, "high": value + 0.03}

    def points(self) -> dict[str, Any]:
        side = {"sensitivity": 0.95, "specificity": 0.9, "n_positive": 60, "n_negative": 40}
        gap = {"sensitivity": {"value": -0.01234, "low": -0.05, "high": 0.03}}
        gap["specificity"] = {"value": 0.05, "low": 0.01, "high": 0.09}
        test = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
        return {
            p: {"threshold": float(self.random.uniform()), "validation": side, "test": {m: self.v() for m in test},
                "gap": gap} for p in POINTS
        }  # fmt: skip

    def record(self, dataset: str = "pneumonia", model: str = "cnn", seed: int = 0, **more: Any) -> dict[str, Any]:
        classes = CLASSES[dataset]
        matrix = self.random.integers(5, 90, (len(classes), len(classes))).tolist()
        positive = classes[1] if len(classes) == 2 else None
        scores = ("log_loss", "brier", "ece")
        counts = {name: 10 * (i + 1) for i, name in enumerate(classes)}
        return {
            "dataset": dataset, "model": model, "seed": seed, "split": "test", "n": sum(map(sum, matrix)), "groups": 77,
            "classes": classes, "positive": positive, "metrics": {m: self.v() for m in METRICS},
            "per_class": {c: {"n": sum(matrix[i]), **{m: self.v() for m in PER_CLASS}} for i, c in enumerate(classes)},
            "confusion_matrix": matrix,
            "interval": {"level": 0.95, "method": METHOD, "resamples": 2000,
                         "groups": 77},
            "calibration": {"temperature": 1.31, "before": {m: self.v() for m in scores},
                            "after": {m: self.v() for m in scores}},
            "operating_points": {c: self.points() for c in ([positive] if positive else classes)},
            "validation": {"n": 80, "epoch": 7, "accuracy": 0.9, "auroc": 0.97, "log_loss": 0.25},
            "subgroups": [{"by": "subtype", "value": "bacteria", "class": classes[-1], "n": 24, "recall": self.v()}],
            "reference": {"accuracy": 0.7756, "f1": 0.8472} if positive else None, "notes": ["synthetic radiographs"],
            "images": {"train": counts, "val": counts, "test": counts}, "bad_images": {},
            "environment": {"command": "train.py -m dataset=pneumonia,covid", "python": "3.11.7",
                            "packages": {"torch": "2.10"}},
        } | more  # fmt: skip

    def run(self, name: str, record: dict[str, Any] | None = None, figures: bool = True, **status: Any) -> Path:
        """A run folder: done where there is a record, else failed, unless `status` says otherwise."""
        folder = self.root / name
        (folder / ".hydra").mkdir(parents=True)
        if record is not None:
            (folder / "metrics.json").write_text(json.dumps(record))
        about = record or {"dataset": name.split("_")[0], "model": name.split("_")[1], "seed": 0}
        settings = {key: {"name": about[key]} for key in ("dataset", "model")} | {"seed": about["seed"]}
        told = {"state": "done" if record else "failed", "started": "2026-01-02T03:04:05+00:00",
                "ended": "2026-01-02T03:06:34+00:00", "seconds": 149.0, "error": None,
                "settings": settings}  # fmt: skip
        (folder / "status.json").write_text(json.dumps(told | status))
        config = f"dataset:\n  name: {about['dataset']}\nmodel:\n  name: {about['model']}\n"
        (folder / ".hydra" / "config.yaml").write_text(config)
        (folder / ".hydra" / "overrides.yaml").write_text(f"- dataset={about['dataset']}\n- sweep=four\n")
        for stem in FIGURES if figures else ():
            save_png(folder / "figures" / f"{stem}.png")
        return folder

    def compare(self, dataset: str, a: str, b: str) -> None:
        line = f"{dataset},{a},{b},-0.034,-0.06,-0.01,0.0123,0.0246,0.0087,0.011,-0.002,0.024,0.0004,0.0008\n"
        (self.root / "comparisons.csv").write_text(COMPARISONS + line)


def save_png(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30), "steelblue").save(path)


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "four")


def finished_sweep(make: Maker) -> Path:
    """Two data sets by two models, compared, with figures."""
    for dataset in ("pneumonia", "covid"):
        for model in ("cnn", "resnet50"):
            make.run(f"{dataset}_{model}_s0", make.record(dataset, model))
    make.compare("pneumonia", "pneumonia_cnn_s0", "pneumonia_resnet50_s0")
    save_png(make.root / "figures" / "accuracy.png")
    return make.root


@pytest.fixture
def four(make: Maker) -> Path:
    return finished_sweep(make)
