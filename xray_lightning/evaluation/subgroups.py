"""How well each kind of image of a class is recognised."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xray_lightning.data.catalog import Radiograph
from xray_lightning.evaluation.proportions import grouped_wilson

UNKNOWN = "unknown"
MOST_SIZES = 4  # of images; where there are more, thirds by area are told apart


def subgroups(rows: Sequence[Radiograph], predicted: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """The share of each subgroup of a class that is recognised, with a 95 % interval that respects patients.

    `predicted` and `labels` are (N,) class indices, of which `rows` tell subtype, source and size. Only what tells
    images of one class apart is listed.
    """
    areas = np.array([row.width * row.height for row in rows])
    keys = {
        "subtype": np.array([row.subtype or UNKNOWN for row in rows], dtype=object),
        "source": np.array([row.source or UNKNOWN for row in rows], dtype=object),
        "size": _sizes(rows, areas),
    }
    found = []
    for by, values in keys.items():
        for label in np.unique(labels):
            of_class = labels == label
            smallest = {v: areas[values == v].min() for v in values}
            names = sorted({*values[of_class]}, key=lambda v: (v == UNKNOWN, smallest[v] if by == "size" else v))
            for name in names if len(names) > 1 else ():
                chosen = np.flatnonzero(of_class & (values == name)).tolist()
                hits = predicted[chosen] == label
                bounds = grouped_wilson(hits, [rows[i].group for i in chosen])
                low, high = bounds or (None, None)
                recall = {"value": float(hits.mean()), "low": low, "high": high}
                class_name = rows[chosen[0]].class_name
                found.append({"by": by, "value": name, "class": class_name, "n": len(chosen), "recall": recall})
    return found


def _sizes(rows: Sequence[Radiograph], areas: np.ndarray) -> np.ndarray:
    """Names of sizes: width x height where there are few, else thirds by the number of pixels."""
    exact = np.array([f"{row.width} x {row.height}" for row in rows], dtype=object)
    if len({*exact}) <= MOST_SIZES:
        return exact
    low, high = np.quantile(areas, [1 / 3, 2 / 3])
    told = [f"{bound / 1e6:.2f}" for bound in (low, high)]
    names = [f"up to {told[0]} MP", f"{told[0]} to {told[1]} MP", f"above {told[1]} MP"]
    return np.array(names, dtype=object)[(areas > low).astype(int) + (areas > high)]
