"""The galleries: whom they show, what they say of each, and that they can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from xray_lightning.evaluation.explain import grad_cam
from xray_lightning.evaluation.figures import save_figure
from xray_lightning.evaluation.gallery import galleries, gallery_figure
from xray_lightning.models.cnn import CNNClassifier
from xray_lightning.models.resnet50 import FrozenResNet50Classifier

CLASSES = ["NORMAL", "PNEUMONIA"]
SHARED = {"class_names": CLASSES, "image_size": 32}
TITLE = "pneumonia, cnn, 20 test images"


class Counted:
    """Images that remember which of them were read."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.read = images, set[int]()
        self.shape, self.ndim = images.shape, images.ndim

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read |= set(rows.tolist())
        return self.images[rows]


def model(kind: type[CNNClassifier] | type[FrozenResNet50Classifier]) -> CNNClassifier | FrozenResNet50Classifier:
    torch.manual_seed(0)
    made = kind(name="any", **SHARED).eval()
    layers = [m for m in made.head.modules() if isinstance(m, torch.nn.Linear)]
    layers[0].weight.data[0].abs_()  # so that something speaks for the first class in every image
    return made


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def pictures(figure: Figure) -> list[np.ndarray]:
    """What is drawn at the size of the images: radiographs and maps, without the legend."""
    arrays = [np.asarray(i.get_array()) for axes in figure.findobj(lambda a: hasattr(a, "images")) for i in axes.images]
    return [a for a in arrays if a.shape == (32, 32)]


def saved(figure: Figure, path: Path) -> np.ndarray:
    save_figure(figure, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", [CNNClassifier, FrozenResNet50Classifier])
def test_both_galleries_show_the_images_they_name_and_read_no_others(
    tmp_path: Path, kind: type[CNNClassifier] | type[FrozenResNet50Classifier]
) -> None:
    images = Counted(np.random.default_rng(0).integers(0, 256, (50, 1, 32, 32), dtype=np.uint8))
    rows = np.arange(49, 29, -1)  # the test images lie anywhere in the catalog
    ill = np.linspace(0.02, 0.98, 20)
    labels = (ill > 0.5).astype(np.int64)
    labels[[0, 1, 17]] ^= 1
    names = [f"test/any/person{i}.jpeg" for i in range(20)]
    figures = galleries(model(kind), images, rows, names, np.stack([1 - ill, ill], axis=1), labels, CLASSES, TITLE)
    assert list(figures) == ["most_wrong", "least_certain"]
    assert all(any("relevance" in t for t in texts(figure)) for figure in figures.values())

    wrong = texts(figures["most_wrong"])
    assert any("3 of 3 wrong" in t and TITLE in t for t in wrong)
    assert [t for t in wrong if t.startswith("actual")] == [
        "actual PNEUMONIA, predicted NORMAL 98.0 %",
        "actual PNEUMONIA, predicted NORMAL 92.9 %",
        "actual NORMAL, predicted PNEUMONIA 87.9 %",
    ]
    assert [t for t in wrong if t.endswith(".jpeg")] == ["person0.jpeg", "person1.jpeg", "person17.jpeg"]
    near = [t for t in texts(figures["least_certain"]) if t.endswith(".jpeg")]
    assert set(near) == {f"person{i}.jpeg" for i in range(6, 14)}
    assert images.read == {int(rows[i]) for i in [0, 1, 17, *range(6, 14)]}
    shown, drawn = images.images[rows[[0, 1, 17]]], pictures(figures["most_wrong"])
    maps = grad_cam(model(kind), shown, np.array([0, 0, 1]))  # for the classes predicted
    assert maps is not None and maps.any()
    for i in range(3):
        beside, below, relevance = drawn[3 * i : 3 * i + 3]
        assert (beside == shown[i, 0]).all() and (below == beside).all()
        np.testing.assert_allclose(relevance, maps[i], atol=1e-5)
    for key, figure in figures.items():
        pixels = saved(figure, tmp_path / f"{key}.png")
        assert 1000 <= pixels.shape[1] <= 1200 and 500 <= pixels.shape[0] <= 1700
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all()


def test_a_perfect_model_has_a_figure_that_says_so(tmp_path: Path) -> None:
    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    images = np.zeros((2, 1, 32, 32), dtype=np.uint8)
    figures = galleries(
        model(CNNClassifier), images, np.arange(2), ["a.png", "b.png"], probabilities, labels, CLASSES, TITLE
    )
    assert any("0 of 0 wrong" in t for t in texts(figures["most_wrong"]))
    assert "There is no such image." in texts(figures["most_wrong"])
    assert saved(figures["most_wrong"], tmp_path / "none.png").shape[1] > 1000
    assert [t for t in texts(figures["least_certain"]) if t.endswith(".png")] == ["b.png", "a.png"]


def test_the_overlay_is_coloured_where_the_map_is_and_leaves_the_radiograph_elsewhere(tmp_path: Path) -> None:
    images = np.full((1, 1, 32, 32), 120, dtype=np.uint8)
    maps = np.zeros((1, 32, 32), dtype=np.float32)
    coloured, plain = (
        saved(gallery_figure(images, m, [("line", "file.png")], "title"), tmp_path / "figure.png").astype(int)
        for m in (np.ones_like(maps), maps)
    )
    changed = np.abs(coloured - plain).sum(axis=2) > 60
    assert 0.1 < changed[:, : changed.shape[1] // 2].mean() < 0.5  # one of two panels on the left, nothing on the right
    columns = np.flatnonzero(changed.any(axis=0))
    assert columns.min() > 0.2 * changed.shape[1] and columns.max() < 0.55 * changed.shape[1]
    assert "nothing speaks for it" in texts(gallery_figure(images, maps, [("line", "file.png")], "title"))


def test_without_maps_images_stand_alone_and_no_legend_speaks_of_relevance(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), dtype=np.uint8)
    figure = gallery_figure(images, None, [("line", f"{i}.png") for i in range(3)], "title")
    assert len(pictures(figure)) == 3
    assert not any("relevance" in t for t in texts(figure))
    saved(figure, tmp_path / "alone.png")


def test_names_are_drawn_whatever_they_hold(tmp_path: Path) -> None:
    images, maps = np.zeros((3, 1, 32, 32), dtype=np.uint8), np.ones((3, 32, 32), dtype=np.float32)
    names = ["a$x_{$.png", "肺\udc80.png", "folder/" + "first" + 90 * "x" + "last.jpeg"]
    figure = gallery_figure(images, maps, [("line", name) for name in names], "title")
    saved(figure, tmp_path / "names.png")  # pytest makes warnings of missing letters errors
    shown = [t for t in texts(figure) if t.endswith(("png", "jpeg"))]
    assert shown[:2] == ["a$x_{$.png", "??.png"]
    assert shown[2].startswith("firstx") and shown[2].endswith("xlast.jpeg") and len(shown[2]) <= 44
