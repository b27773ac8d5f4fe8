"""Galleries: test images that a reader should see, each beside what spoke for the predicted class."""

from collections.abc import Sequence
from pathlib import PurePath

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure

from xray_lightning.data.pixels import Images
from xray_lightning.evaluation.explain import grad_cam, least_certain, most_wrong
from xray_lightning.evaluation.figures import wrapped
from xray_lightning.models.classifier import XRayClassifier

SHOWN = 8  # images a gallery
PAIRS = 2  # a row: so a panel is 250 pixels wide in a figure of 1100, and the line above both fits
WIDTH = 9.2  # inches: 1104 pixels at the 120 per inch of save_figure
PAIR_HEIGHT = 2.75
LONGEST_NAME = 44  # characters
LAST_LATIN = 0x24F  # of the code points that matplotlib's own font has
STRONGEST = 0.6  # opacity; the radiograph is still seen below it


def galleries(
    model: XRayClassifier,
    images: Images,
    rows: np.ndarray,
    names: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    title: str,
) -> dict[str, Figure]:
    """The figures `most_wrong` and `least_certain` of N test images; `title` says which data and which model.

    The images are `images[rows]`, of which only those shown are read; `names` (N,) are their files, `probabilities`
    are (N, K), `labels` (N,). Where no image is wrong, the figure says so.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted != labels).sum())
    chosen = {
        "most_wrong": most_wrong(probabilities, labels, SHOWN),
        "least_certain": least_certain(probabilities, SHOWN),
    }
    count = {key: len(positions) for key, positions in chosen.items()}
    headings = {
        "most_wrong": f"Most confidently wrong: {count['most_wrong']} of {wrong} wrongly classified images",
        "least_certain": f"Least certain: {count['least_certain']} of {len(labels)} images, the two likeliest classes "
        "being nearly equal",
    }
    figures = {}
    for key, positions in chosen.items():
        shown = images[rows[positions]]
        captions = [
            (
                f"actual {classes[labels[i]]}, predicted {classes[predicted[i]]} {100 * probabilities[i].max():.1f} %",
                names[i],
            )
            for i in positions
        ]
        maps = grad_cam(model, shown, predicted[positions])
        figures[key] = gallery_figure(shown, maps, captions, f"{headings[key]}\n{title}")
    return figures


def gallery_figure(
    images: np.ndarray, maps: np.ndarray | None, captions: Sequence[tuple[str, str]], title: str
) -> Figure:
    """Radiographs (B, 1, S, S) uint8, each beside its map (B, S, S) from 0 to 1 laid over it, or alone without maps.

    A caption is the line above an image and the file that is named below it. Without images, the figure says that
    there are none.
    """
    lines = max(1, -(-len(images) // PAIRS))
    legend = 0.75 if maps is not None and len(images) else 0.05
    title = wrapped(title, WIDTH)
    head = 0.3 + 0.22 * (title.count("\n") + 1)
    heights = [head, PAIR_HEIGHT * lines if len(images) else 0.8, legend]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, body, foot = np.ravel(figure.subfigures(3, 1, squeeze=False, height_ratios=heights))
    top.text(0.5, 0.5, drawable(title), ha="center", va="center", fontsize=12, parse_math=False)
    if not len(images):
        body.text(0.5, 0.5, "There is no such image.", ha="center", va="center", fontsize=12)
        return figure
    cells = np.ravel(body.subfigures(lines, PAIRS, squeeze=False))
    for number, (image, (line, name)) in enumerate(zip(images, captions, strict=True)):
        _pair(cells[number], image[0], None if maps is None else maps[number], line, name)
    if maps is not None:
        _legend(foot)
    return figure


def _pair(cell: SubFigure, image: np.ndarray, relevance: np.ndarray | None, line: str, name: str) -> None:
    cell.suptitle(drawable(line), fontsize=10, parse_math=False)
    cell.supxlabel(drawable(_short(name)), fontsize=8, color="0.25", parse_math=False)
    panels: list[Axes] = list(cell.subplots(1, 1 if relevance is None else 2, squeeze=False)[0])
    for panel in panels:
        panel.set_axis_off()
        panel.imshow(image, cmap="gray", vmin=0, vmax=255)
    if relevance is None:
        return
    panels[1].imshow(relevance, cmap=relevance_colours(), vmin=0, vmax=1)
    if not relevance.any():
        panels[1].text(0.5, 0.03, "nothing speaks for it", color="white", ha="center", transform=panels[1].transAxes)


def _legend(foot: SubFigure) -> None:
    axes = foot.add_axes((0.2, 0.62, 0.6, 0.22))
    axes.imshow(np.full((1, 1), 128), cmap="gray", vmin=0, vmax=255, extent=(0, 100, 0, 1), aspect="auto")
    axes.imshow(
        np.linspace(0, 1, 256)[None], cmap=relevance_colours(), vmin=0, vmax=1, extent=(0, 100, 0, 1), aspect="auto"
    )
    axes.set_xticks([0, 25, 50, 75, 100], labels=["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_yticks([])
    axes.set_xlabel("Grad-CAM: relevance for the predicted class (share of the image's maximum)", fontsize=10)


def relevance_colours() -> ListedColormap:
    """Viridis, the more opaque the more relevant: perceptually uniform, and without red against green."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, STRONGEST, 256)
    return ListedColormap(colours)


def _short(name: str) -> str:
    """The file's own name, without its middle where it is long: both ends tell files apart."""
    own = PurePath(name).name
    half = (LONGEST_NAME - 1) // 2
    return own if len(own) <= LONGEST_NAME else f"{own[:half]}…{own[-half:]}"


def drawable(text: str) -> str:
    return "".join(c if c in "\n…" or (c.isprintable() and ord(c) <= LAST_LATIN) else "?" for c in text)
