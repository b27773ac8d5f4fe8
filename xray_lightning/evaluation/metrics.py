"""The metrics of every result, computed in one place from probabilities and labels."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torchmetrics.functional.classification as tm
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

SCALARS = (
    "accuracy",
    "recall",
    "precision",
    "f1",
    "balanced_accuracy",
    "specificity",
    "auroc",
    "auprc",
    "mcc",
    "log_loss",
    "brier",
    "ece",
    "macro_recall",
    "macro_precision",
    "macro_f1",
)
RANKING = ("auroc", "auprc")
WEIGHTED = ("recall", "precision", "f1")  # by class frequency, for more than two classes
PER_CLASS = (*WEIGHTED, "specificity", *RANKING)
CALIBRATION_BINS = 15


def per_class_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Each metric of PER_CLASS, one class against the rest: (classes,) float. Decisions are the likeliest class.

    A class without images has no recall and no F1, and one of all images no specificity: they are NaN, as the ranking
    metrics of both are. The precision of a class that is never predicted is 0.
    """
    matrix = confusion_matrix(probabilities, labels).double()
    hits, actual, predicted = matrix.diag(), matrix.sum(dim=1), matrix.sum(dim=0)
    others = len(labels) - actual
    return {
        "recall": hits / actual,
        "precision": hits / predicted.clamp_min(1),
        "f1": 2 * hits / torch.where(actual > 0, actual + predicted, 0),
        "specificity": (others - (predicted - hits)) / others,
        "auroc": _of_mixed(tm.binary_auroc, probabilities, labels),
        "auprc": _of_mixed(tm.binary_average_precision, probabilities, labels),
    }


def _of_mixed(metric: Callable[..., Tensor], probabilities: Tensor, labels: Tensor) -> Tensor:
    """A ranking metric of each class against the rest, NaN where all or none of the images are of the class."""
    counts = labels.bincount(minlength=probabilities.shape[1])
    undefined = probabilities.new_tensor(float("nan"))
    return torch.stack(
        [
            metric(probabilities[:, c], (labels == c).long()).to(undefined)
            if 0 < counts[c] < len(labels)
            else undefined
            for c in range(len(counts))
        ]
    )


def calibration_error(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Expected calibration error of the likeliest class; the last bin holds 1."""
    confidence, predicted = probabilities.max(dim=1)
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = confidence.new_zeros(CALIBRATION_BINS).index_add(0, bins, confidence - (predicted == labels).to(confidence))
    return gaps.abs().sum() / len(labels)


def scalar_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Each metric of SCALARS for probabilities (N, classes) and labels (N,).

    recall, precision, f1, specificity, auroc and auprc are the positive class's for two classes. For more,
    the first three are weighted by class frequency and the others are macro averages. Balanced accuracy and macro
    averages are over the classes that have images, as scikit-learn's balanced accuracy is; those of the ranking metrics
    are NaN unless all classes have. brier is the mean
    squared error of the positive probability for two classes, summed over classes for more. ece takes the
    likeliest class's probability in 15 equal bins (Guo et al., "On Calibration of Modern Neural Networks",
    2017). log_loss is in nats.
    """
    probabilities = probabilities.double()
    k = probabilities.shape[1]
    each = per_class_metrics(probabilities, labels)
    count = labels.bincount(minlength=k)
    present = {n: v if n in RANKING else v[count > 0] for n, v in each.items()}
    if k == 2:
        reference = {name: values[1] for name, values in each.items()}
    else:
        share = count[count > 0] / len(labels)
        reference = {n: (v * share).sum() if n in WEIGHTED else v.mean() for n, v in present.items()}
    errors = (probabilities - torch.nn.functional.one_hot(labels, k)).square().sum(dim=1)
    chosen = probabilities.gather(1, labels[:, None]).squeeze(1)
    values = reference | {
        "accuracy": (probabilities.argmax(dim=1) == labels).double().mean(),
        "balanced_accuracy": present["recall"].mean(),
        "mcc": tm.multiclass_matthews_corrcoef(probabilities, labels, k),
        "log_loss": -chosen.clamp_min(torch.finfo(torch.float32).eps).log().mean(),
        "brier": errors.mean() / (2 if k == 2 else 1),
        "ece": calibration_error(probabilities, labels),
        **{f"macro_{name}": present[name].mean() for name in WEIGHTED},
    }
    return {name: values[name] for name in SCALARS}


def confusion_matrix(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(classes, classes) int64 counts, a row an actual class, a column a predicted one."""
    return tm.multiclass_confusion_matrix(probabilities, labels, probabilities.shape[1])


def number(value: Tensor | float) -> float | None:
    """For JSON: null where the images do not define the metric."""
    plain = float(value)
    return plain if math.isfinite(plain) else None


class ClassificationMetrics(Metric):
    """`scalar_metrics` of the (B, classes) logits and (B,) labels of all steps and processes."""

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.logits.append(logits)
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        logits, labels = dim_zero_cat(self.logits).cpu(), dim_zero_cat(self.labels).cpu()  # MPS has no float64
        return scalar_metrics(logits.double().softmax(dim=1), labels)

    def gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) float64, so that small ones are kept, and labels (N,), process after process."""
        with self.sync_context():
            logits, labels = dim_zero_cat(self.logits).cpu(), dim_zero_cat(self.labels).cpu()
        return logits.double().softmax(dim=1).numpy(), labels.numpy()
