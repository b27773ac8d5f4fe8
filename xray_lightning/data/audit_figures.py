"""What an audit shows: the mean film and the exposure of each class, and pairs of images that are shared."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from xray_lightning.data.collection import Collection
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.decode import decode
from xray_lightning.data.overlap import Shared
from xray_lightning.data.shortcuts import exposure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")  # Okabe and Ito
COLUMNS = 4


# class by class, also without colours
STYLES = tuple((colour, ("-", "--", ":", "-.")[n % 4]) for n, colour in enumerate(COLOURS))


def films_figure(collection: Collection, classes: Sequence[str], title: str) -> Figure:
    """The mean thumbnail of each class above the distributions of its grey statistics."""
    names = np.array([row.class_name for row in collection.rows])
    statistics = exposure(collection.thumbs)
    width = max(len(classes), len(statistics))
    figure = Figure(figsize=(3.2 * width, 6.4), layout="constrained")
    figure.suptitle(f"{title}, {len(names)} images", fontsize=14)
    grid = figure.add_gridspec(2, 1)
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    for panel, name in zip(np.atleast_1d(above.subplots(1, len(classes))), classes, strict=True):
        panel.imshow(
            collection.thumbs[names == name].mean(axis=0), cmap="gray", vmin=0, vmax=255, interpolation="bicubic"
        )
        panel.set_title(f"{name.replace('_', ' ')}: mean of {(names == name).sum()}", fontsize=12)
        panel.set_axis_off()
    bins = np.linspace(0, 255, 52)
    for panel, (key, values) in zip(below.subplots(1, len(statistics)), statistics.items(), strict=True):
        for index, name in enumerate(classes):
            own = values[names == name]
            weights = np.full(len(own), 100 / max(len(own), 1))
            colour, style = STYLES[index % len(STYLES)]
            look = {"color": colour, "linestyle": style, "linewidth": 1.8, "label": name.replace("_", " ")}
            panel.hist(own, bins, weights=weights, histtype="step", **look)
        panel.set_xlabel(f"{key.capitalize()} (grey value, 0 to 255)", fontsize=11)
        panel.set_ylabel("Images of the class (%)", fontsize=11)
    below.axes[-1].legend(fontsize=10)
    return figure


def pairs_figure(pairs: Sequence[Shared], a: XRayDataModule, b: XRayDataModule) -> Figure:
    """Pairs side by side, the least alike first, each with its file names and sides."""
    columns = min(COLUMNS, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * lines + 0.5), layout="constrained")
    figure.suptitle(f"Shared images, {a.name}" + (f" and {b.name}" if b is not a else ""), fontsize=14)
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, pair in zip(panels.flat, pairs, strict=False):
        films = [decode(data.root / data.rows[i].path, 224) for data, i in ((a, pair.a), (b, pair.b))]
        panel.imshow(np.hstack([films[0], np.full((224, 4), 255, np.uint8), films[1]]), cmap="gray", vmin=0, vmax=255)
        named = [f"{data.rows[i].path} ({data.sides[i]})" for data, i in ((a, pair.a), (b, pair.b))]
        panel.set_title(f"{pair.kind}, {pair.likeness:.3f}\n" + "\n".join(named), fontsize=8)
    return figure
