"""What an audit shows: the mean film and the exposure of each class, and pairs of images that are shared."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from xray_lightning.console import printable
from xray_lightning.data.collection import Collection
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.decode import decode
from xray_lightning.data.overlap import Shared
from xray_lightning.data.shortcuts import exposure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")  # Okabe and Ito
DASHES = ("-", "--", ":", "-.")
STYLES = tuple((COLOURS[n % 8], DASHES[(n + n // 8) % 4]) for n in range(32))  # neighbours differ without colours too
FILMS_ABREAST, PAIRS_ABREAST = 6, 4
FILM = 224  # pixels a side of each film of a pair
LONGEST_NAME = 58  # characters that fit above a pair


def films_figure(collection: Collection, data: XRayDataModule) -> Figure:
    """The mean thumbnail of each class above the distributions of its grey statistics."""
    classes = data.class_names
    names = np.array([row.class_name for row in collection.rows])
    columns = min(len(classes), FILMS_ABREAST)
    lines = -(-len(classes) // columns)
    figure = Figure(figsize=(3.2 * max(columns, 3), 3.3 * lines + 3.7), layout="constrained")
    figure.suptitle(f"{_source(data)}, {len(names)} images", fontsize=14)
    grid = figure.add_gridspec(2, 1, height_ratios=[3.3 * lines, 3.7])
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    panels = above.subplots(lines, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, name in zip(panels.flat, classes, strict=False):
        own = collection.thumbs[names == name]
        if len(own):
            panel.imshow(own.mean(axis=0), cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        panel.set_title(f"{_title(name)}\nmean of {len(own)}", fontsize=12)
    statistics = exposure(collection.thumbs)
    for panel, (key, values) in zip(below.subplots(1, len(statistics)), statistics.items(), strict=True):
        bins = np.linspace(0, 128 if key == "contrast" else 256, 52)  # no 8-bit film has a larger deviation
        for index, name in enumerate(classes):
            own = values[names == name]
            shares = 100 * np.histogram(own, bins)[0] / max(len(own), 1)
            colour, style = STYLES[index % len(STYLES)]
            panel.step(bins, [0, *shares], color=colour, linestyle=style, linewidth=1.8, label=_title(name))
        panel.set_ylim(bottom=0)
        panel.set_xlabel(f"{key.capitalize()} (grey value)", fontsize=11)
        panel.set_ylabel("Images of the class (%)", fontsize=11)
    handles, labels = below.axes[0].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=11, frameon=False)
    return figure


def pairs_figure(pairs: Sequence[Shared], a: XRayDataModule, b: XRayDataModule) -> Figure:
    """Pairs side by side, each with its file names, that of the left film first, and their sides."""
    columns = min(PAIRS_ABREAST, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.9 * lines + 0.5), layout="constrained")
    figure.suptitle("Shared images\n" + _source(a) + (f" and {_source(b)}" if b is not a else ""), fontsize=11)
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    gap = np.full((FILM, 4), 255, np.uint8)
    for panel, pair in zip(panels.flat, pairs, strict=False):
        rows = [(data, data.rows[i], data.sides[i]) for data, i in ((a, pair.a), (b, pair.b))]
        left, right = (decode(data.root / row.path, FILM) for data, row, _ in rows)
        panel.imshow(np.hstack([left, gap, right]), cmap="gray", vmin=0, vmax=255)
        named = [f"{_shortened(row.path)} ({side})" for _, row, side in rows]
        panel.set_title("\n".join([f"{pair.kind}, {pair.likeness:.3f}", *named]), fontsize=8)
    return figure


def _source(data: XRayDataModule) -> str:
    return f"{_plain(str(data.name))}{' (synthetic)' if data.synthetic else ''}"


def _shortened(path: str) -> str:
    return _plain(path if len(path) <= LONGEST_NAME else f"…{path[1 - LONGEST_NAME :]}")


def _title(class_name: str) -> str:
    return _plain(class_name.replace("_", " "))


def _plain(name: str) -> str:
    """Keeps dollar signs from being read as mathematics."""
    return printable(name).replace("$", r"\$")
