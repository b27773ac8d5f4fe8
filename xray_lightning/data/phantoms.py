"""Synthetic radiographs in the two Kaggle layouts, from a seed: try or test everything without a download.

They look like chest X-rays and carry the patterns of the real classes at every severity, so a classifier has
something to learn and something to miss. They say nothing about patients: never quote a result on them as a
medical one.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rich.console import Console
from rich.progress import track

from xray_lightning.data.anatomy import Dice, Grid, Map, dice
from xray_lightning.data.findings import attenuation
from xray_lightning.errors import XRayError
from xray_lightning.machine import cores

VERSION = 1  # raise it when a seed comes to give other images: older folders are then written anew
MARKER = "SYNTHETIC.json"
FOLDERS = ("chest_xray", "COVID-19_Radiography_Dataset")
KERMANY = {"train": 5216, "val": 16, "test": 624}
PNEUMONIA = {"train": 3875 / 5216, "val": 0.5, "test": 390 / 624}  # share of each split
BACTERIA = 0.65  # share of the pneumonias
COVID = {
    "COVID": (3616, "covid"),
    "Lung_Opacity": (6012, "opacity"),
    "Normal": (10192, "normal"),
    "Viral Pneumonia": (1345, "virus"),
}
DETAIL = 0.75  # anatomy is drawn at this share of the film's resolution: sharp enough, in half the time


@dataclass(frozen=True)
class Phantom:
    """One image to write: `path` below the root, the key of its patient, and what the patient has."""

    path: str
    patient: str
    finding: str
    child: bool


def write_phantoms(root: str | Path, images: int = 400, size: int = 256, seed: int = 0) -> Path:
    """Writes `chest_xray` and `COVID-19_Radiography_Dataset` below `root`, `images` each, and returns `root`.

    The pneumonia films have about `size`² pixels and are wider than tall; the four-class ones (size, size)
    with a mask of the lung fields beside each. The same seed and path give the same bytes. Where `root` holds
    these images already it returns at once; images of other arguments are replaced. `root` appears whole or
    not at all, also when several processes ask for it. Raises `XRayError` for fewer than 40 images, for films
    under 32 pixels, for a folder that holds anything else and for one that cannot be written.
    """
    if images < 40 or size < 32:
        raise XRayError(f"Phantoms need images >= 40 and size >= 32, not images={images} and size={size}.")
    root = Path(os.path.abspath(root))
    marker = {"synthetic": True, "generator": __name__, "version": VERSION}
    marker |= {"images": images, "size": size, "seed": seed}
    if _read_marker(root) == marker:
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f".{root.name}.lock")):
            if _read_marker(root) != marker:
                _refuse_user_data(root)
                _write_aside(root, marker, plan(images, seed))
    except OSError as error:
        raise XRayError(f"Cannot write phantoms to {root}: {error}. Choose another folder.") from error
    return root


def plan(images: int, seed: int) -> list[Phantom]:
    """What is written for `images` images a data set."""
    return [*_pneumonia(images, dice(f"{seed}")("plan")), *_covid(images, seed)]


def _pneumonia(images: int, rng: np.random.Generator) -> Iterator[Phantom]:
    val = 2 * min(8, max(1, images // 50))
    test = round(images * KERMANY["test"] / sum(KERMANY.values()))
    sizes = {"test": test, "train": images - test - val, "val": val}
    sick = {split: round(count * PNEUMONIA[split]) for split, count in sizes.items()}
    bacteria = {split: round(count * BACTERIA) for split, count in sick.items()}
    virus = {split: sick[split] - bacteria[split] for split in sizes}
    normal = {split: sizes[split] - sick[split] for split in sizes}
    older = {split: count // 2 for split, count in normal.items()}
    yield from _patients("IM", older, rng)
    yield from _patients("NORMAL2-IM", {split: normal[split] - older[split] for split in sizes}, rng)
    yield from _patients("bacteria", bacteria, rng)
    yield from _patients("virus", virus, rng)


def _patients(series: str, sizes: dict[str, int], rng: np.random.Generator) -> Iterator[Phantom]:
    """Patients of one numbered series. As on Kaggle, test is a block and val shows patients of train."""
    healthy = series.endswith("IM")
    number, serial, train = 0, 0, []
    for split in ("test", "train"):
        left = sizes[split]
        while left:
            number += int(rng.integers(1, 4))
            group = min(left, int(rng.choice((1, 2, 3), p=(0.6, 0.25, 0.15))))
            left -= group
            if split == "train":
                train.append(number)
            for index in range(1, group + 1):
                serial += 1
                name = f"{series}-{number:04d}-0001" + (f"-{index:04d}" if group > 1 else "")
                yield _child(split, series, number, name if healthy else f"person{number}_{series}_{serial}")
    for number in rng.permutation(train)[: sizes["val"]].tolist():
        serial += 1
        name = f"{series}-{number:04d}-0002" if healthy else f"person{number}_{series}_{serial}"
        yield _child("val", series, number, name)


def _child(split: str, series: str, number: int, name: str) -> Phantom:
    label, finding = ("NORMAL", "normal") if series.endswith("IM") else ("PNEUMONIA", series)
    return Phantom(f"{FOLDERS[0]}/{split}/{label}/{name}.jpeg", f"{series}/{number}", finding, True)


def _covid(images: int, seed: int) -> Iterator[Phantom]:
    total = sum(count for count, _ in COVID.values())
    share = {label: max(0.1, count / total) for label, (count, _) in COVID.items()}
    sizes = {label: round(images * part / sum(share.values())) for label, part in share.items()}
    sizes["Normal"] += images - sum(sizes.values())
    for label, (_, finding) in COVID.items():
        for number in range(1, sizes[label] + 1):
            path = f"{FOLDERS[1]}/{label}/images/{label}-{number}.png"
            yield Phantom(path, path, finding, bool(dice(f"{seed}/{path}")("age").random() < 0.15))


def _read_marker(root: Path) -> dict[str, object] | None:
    """The marker of a folder that this module wrote, or None."""
    try:
        marker = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("generator") == __name__ else None


def _refuse_user_data(root: Path) -> None:
    if not root.exists():
        return
    names = {path.name for path in root.iterdir()} if root.is_dir() else {root.name}
    if names and (_read_marker(root) is None or names - {*FOLDERS, MARKER}):
        raise XRayError(
            f"{root} holds data that is not synthetic ({', '.join(sorted(names)[:3])}) and is left alone. "
            "Choose an empty or a new folder for phantoms."
        )


def _write_aside(root: Path, marker: dict[str, object], phantoms: list[Phantom]) -> None:
    """Fills a hidden sibling of `root` and renames it into place. The caller holds the lock."""
    partial, old = root.with_name(f".{root.name}.partial"), root.with_name(f".{root.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for folder in {Path(phantom.path).parent for phantom in phantoms}:
            (partial / folder).mkdir(parents=True)
            if folder.name == "images":
                (partial / folder.with_name("masks")).mkdir()
        console = Console(stderr=True)
        size, seed = int(str(marker["size"])), int(str(marker["seed"]))
        with ThreadPoolExecutor(min(8, cores())) as pool:
            done = pool.map(lambda phantom: write_phantom(partial, phantom, size, seed), phantoms)
            hidden = not console.is_terminal
            for _ in track(done, "Drawing phantoms", len(phantoms), console=console, disable=hidden):
                pass
        (partial / MARKER).write_text(json.dumps(marker, indent=1) + "\n")
        if root.exists():
            root.rename(old)
        partial.rename(root)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def write_phantom(root: Path, phantom: Phantom, size: int, seed: int) -> None:
    """Draws one film below `root`, with its lung mask beside it if it lies in an `images` folder."""
    path = root / phantom.path
    person, pose = dice(f"{seed}/{phantom.patient}"), dice(f"{seed}/{phantom.path}")
    rng = pose("file")
    if path.suffix == ".png":
        film, mask = radiograph(person, pose, (size, size), phantom.child, phantom.finding)
        Image.fromarray(film).save(path, compress_level=3)
        Image.fromarray(mask).save(path.parent.with_name("masks") / path.name)
        return
    width_by_height, side = rng.uniform(1.1, 1.55), size * rng.uniform(0.85, 1.15)
    shape = round(side / width_by_height**0.5), round(side * width_by_height**0.5)
    film, _ = radiograph(person, pose, shape, phantom.child, phantom.finding)
    image = Image.fromarray(film)
    image = image.convert("RGB") if rng.random() < 0.08 else image
    image.save(path, quality=int(rng.integers(80, 96)))


def radiograph(
    person: Dice, pose: Dice, shape: tuple[int, int], child: bool, finding: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A film and its lung mask (0 or 255), both (H, W); `finding` does not change the exposure."""
    height, width = shape
    rng = pose("film")
    zoom = rng.uniform(0.95, 1.15) if child else rng.uniform(1.08, 1.3)  # half the height, in patient units
    grid = Grid(zoom * width / height + 0.1, zoom + 0.1, DETAIL * height / (2 * zoom))
    stopped, fields = attenuation(grid, person, pose, child, finding)
    angle, shift = np.deg2rad(np.clip(rng.normal(0, 2), -5, 5)), np.clip(rng.normal(0, 0.03, 2), -0.06, 0.06)
    cos, sin = DETAIL * np.cos(angle), DETAIL * np.sin(angle)
    y, x = (np.array(grid.shape) / 2) * (1 + shift)
    corner = x + (sin * height - cos * width) / 2, y - (sin * width + cos * height) / 2
    affine = (cos, -sin, corner[0], sin, cos, corner[1])

    def place(canvas: Map | NDArray[np.uint8], resampling: Image.Resampling) -> Image.Image:
        return Image.fromarray(canvas).transform((width, height), Image.Transform.AFFINE, affine, resampling)

    film = _develop(np.asarray(place(stopped, Image.Resampling.BILINEAR)), rng)
    mask = place(fields.astype(np.uint8) * 255, Image.Resampling.NEAREST)
    return _annotate(film, pose("objects")), np.asarray(mask)


def _develop(stopped: Map, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Attenuation to grey, through quantum noise, the detector's curve and the processing of some vendor."""
    height, width = stopped.shape
    grain = rng.standard_normal((height + 1, width), dtype=np.float32)
    grain = grain[1:] + grain[:-1]
    # Few photons pass dense tissue: its noise is the larger, before the curve flattens it.
    signal = 1 - np.exp(-1.3 * (stopped + rng.uniform(0.001, 0.01) * np.exp(0.6 * stopped) * grain))
    coarse = Image.fromarray(signal).resize((8, 8), Image.Resampling.BOX)
    signal -= rng.uniform(0, 0.5) * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    low, high = np.percentile(signal[::4, ::4], (2, 98))
    reach = high - low
    low, high = low + rng.uniform(-0.1, 0.1) * reach, high + rng.uniform(-0.08, 0.25) * reach
    grey = np.clip((signal - low) / (high - low), 0, 1) ** np.float32(rng.uniform(0.7, 1.25))
    floor = rng.uniform(0, 0.12)
    return (255 * (floor + (rng.uniform(0.85, 1) - floor) * grey)).astype(np.uint8)


def _annotate(film: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Side markers, lines and electrodes on some films, and the blur of all."""
    height, width = film.shape
    image = Image.fromarray(film)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.55:
        right = rng.random() < 0.7  # the patient's right is on the left
        x = rng.uniform(0.03, 0.14)
        place = ((x if right else 1 - x) * width, rng.uniform(0.04, 0.3) * height)
        font = ImageFont.load_default(rng.uniform(0.04, 0.075) * height)
        draw.text(place, "R" if right else "L", int(rng.integers(190, 256)), font, "mm")
    if rng.random() < 0.2:
        a, b, c, d = rng.uniform(0.05, 0.95, (4, 2)) * (width, height)
        t = np.linspace(0, 1, 24)[:, None]
        line = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t * t * (1 - t) * c + t**3 * d
        tone, radius = int(rng.integers(215, 256)), 0.014 * height
        draw.line(line.ravel().tolist(), tone, max(1, round(height / 250)))
        if rng.random() < 0.6:
            draw.ellipse([*(d - radius), *(d + radius)], tone)
    return np.asarray(image.filter(ImageFilter.BoxBlur(rng.uniform(0, 0.6))))
