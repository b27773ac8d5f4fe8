"""What spoke for an answer, laid over the radiograph."""

from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from xray_lightning.evaluation.explain import grad_cam
from xray_lightning.evaluation.figures import readable, save_figure, wrapped
from xray_lightning.evaluation.gallery import drawable, relevance_colours
from xray_lightning.stage import Opinion

WIDTH, HEIGHT = 9.2, 5.4  # inches
LARGEST = 1024  # pixels a side that a radiograph is shown with


def heat_map(opinion: Opinion, row: int) -> np.ndarray | None:
    """Grad-CAM of the likeliest class of an image, (S, S) from 0 to 1; None for a model that names no layer for it."""
    target = opinion.probabilities[row : row + 1].argmax(axis=1)
    maps = grad_cam(opinion.model, opinion.inputs[row : row + 1], target)
    return None if maps is None else maps[0]


def shown(image: Image.Image, opinion: Opinion, row: int) -> Image.Image:
    """The radiograph as the map fits over it: as it is, where all of it was stretched to the network's square."""
    if opinion.model.card["data"]["arguments"]["resize"] != "stretch":
        return Image.fromarray(opinion.inputs[row, 0])
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    return small


def write_overlay(path: Path, image: Image.Image, opinion: Opinion, row: int, answer: str, name: str) -> None:
    """A PNG: the radiograph, and beside it the same under its map."""
    heat = heat_map(opinion, row)
    radiograph = np.asarray(shown(image, opinion, row))
    p = opinion.probabilities_of(row)
    likeliest = opinion.likeliest(row)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor="white")
    heading = f"{drawable(Path(name).name)}\n{answer} – p({likeliest}) = {p[likeliest]:.1%}"
    figure.suptitle(wrapped(heading, WIDTH), fontsize=12, parse_math=False)
    panels = figure.subplots(1, 2)
    for panel in panels:
        panel.set_axis_off()
        panel.imshow(radiograph, cmap="gray", vmin=0, vmax=255)
    if heat is not None:
        height, width = radiograph.shape
        drawn = panels[1].imshow(
            heat,
            cmap=relevance_colours(),
            vmin=0,
            vmax=1,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
        )
        bar = figure.colorbar(drawn, ax=list(panels), location="bottom", shrink=0.5, aspect=40)
        bar.set_label(f"Grad-CAM: relevance for {readable(likeliest)} (share of the image's maximum)", fontsize=10)
    save_figure(figure, path)


def free_name(folder: Path, stem: str) -> Path:
    """<folder>/<stem>.png, with a number where two files of one name come from different folders."""
    return next(
        path for n in count(1) if not (path := folder / (f"{stem}.png" if n == 1 else f"{stem}-{n}.png")).exists()
    )
