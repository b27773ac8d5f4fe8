"""A chest drawn as attenuation: how much of the beam each point of a synthetic radiograph stops.

Tissue adds to the attenuation and air takes away from it, as in a real projection. Hidden heart borders, dark
bronchi in a consolidation and ribs over the heart therefore come out of the sum by themselves.

Coordinates are those of the patient: x to the right of the image (the patient's left), y down, and 1 is half
the inner width of the thorax. Maps are float32 of shape (H, W).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Map = NDArray[np.floating]
REACH = 2.4  # no frame shows more than this from the centre, in patient units

Dice = Callable[[str], np.random.Generator]


def dice(key: str) -> Dice:
    """One generator for each named part of `key`: what one part draws never shifts what another one gets."""

    def generator(part: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{key}/{part}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    return generator


@dataclass(frozen=True)
class Grid:
    """Sample points of a map: `half_width` and `half_height` in patient units, `scale` in pixels a unit."""

    half_width: float
    half_height: float
    scale: float

    @cached_property
    def shape(self) -> tuple[int, int]:
        return round(2 * self.half_height * self.scale), round(2 * self.half_width * self.scale)

    @cached_property
    def x(self) -> Map:
        return np.linspace(-self.half_width, self.half_width, self.shape[1], dtype=np.float32)[None]

    @cached_property
    def y(self) -> Map:
        return np.linspace(-self.half_height, self.half_height, self.shape[0], dtype=np.float32)[:, None]


@dataclass(frozen=True)
class Thorax:
    """Borders of one chest in one position: curves over x are (1, W) and over y (H, 1), in patient units."""

    apex: float
    dome: float
    wall: Map  # distance of the inner chest wall from the midline, over y
    right: Map  # right border of heart and mediastinum (left in the image), over y
    left: Map
    diaphragm: Map  # height of the domes, over x
    hilum: float
    turn: float  # shift of what lies in front of the spine when the patient is turned


def edge(distance: Map, softness: float) -> Map:
    """0 to 1 across a border where `distance` is 0: a smooth step `softness` wide on either side."""
    t = np.minimum(np.maximum(distance * (0.5 / softness) + 0.5, 0), 1)
    return t * t * (3 - 2 * t)


def clouds(rng: np.random.Generator, grid: Grid, cell: float) -> Map:
    """Smooth noise of mean 0 and standard deviation about 1, with features `cell` patient units wide."""
    # Drawn over more than any frame shows, so that a patient keeps it whatever the frame.
    cells = round(2 * REACH / cell)
    image = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    left, top = ((1 - half / REACH) * cells / 2 for half in (grid.half_width, grid.half_height))
    box = (left, top, cells - left, cells - top)
    return 1.3 * np.asarray(image.resize(grid.shape[::-1], Image.Resampling.BICUBIC, box))


def blob(grid: Grid, x: float, y: float, width: float, height: float) -> Map:
    """A Gaussian of height 1 at (x, y)."""
    horizontal = np.exp(-(((grid.x - x) / width) ** 2))
    return horizontal * np.exp(-(((grid.y - y) / height) ** 2))


def _curve(grid: Grid, points: list[tuple[float, float]]) -> Map:
    """A rounded line through (y, x) points, over y."""
    at, value = zip(*points, strict=True)
    line = np.interp(grid.y[:, 0], at, value)
    kernel = np.hanning(max(3, round(0.36 * grid.scale)))
    reach = len(kernel) // 2
    padded = np.pad(line, (reach, len(kernel) - 1 - reach), mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(np.float32)[:, None]


def thorax(grid: Grid, person: Dice, pose: Dice, child: bool) -> Thorax:
    """Borders of lungs, heart and diaphragm; the cardiothoracic ratio is .42 to .58 in full inspiration."""
    rng, now = person("thorax"), pose("thorax")
    breath = now.beta(2, 5)  # 0 is full inspiration; little air lifts the domes and widens the heart
    apex = rng.uniform(-0.85, -0.7) if child else rng.uniform(-1.05, -0.85)
    dome = (rng.uniform(0.45, 0.62) if child else rng.uniform(0.5, 0.78)) - 0.3 * breath
    heart = 2 * np.clip(rng.normal(0.51 if child else 0.48, 0.035), 0.42, 0.58) * (1 + 0.12 * breath)
    turn = now.normal(0, 0.05)
    base = dome + rng.uniform(0.28, 0.4)  # depth of the costophrenic angle
    depth = (grid.y - apex) / (base - apex)
    rising = 1 - np.clip(depth / rng.uniform(0.7, 0.85), 0, 1)
    wall = (1 - rising ** rng.uniform(2.2, 2.8)) ** 0.5 + 0.04 * (depth - 0.6)

    def at(t: float) -> float:
        return apex + t * (dome - apex)

    top, knob, share = rng.uniform(0.15, 0.24), rng.uniform(0.0, 0.1), rng.uniform(0.3, 0.38)
    upper = [(at(-0.1), 0.1), (at(0.12), top)]
    apart, middle = heart * (1 - share), 0.5 * heart * (1 - share) + 0.12
    left = [*upper, (at(0.3), top + knob), (at(0.44), top + 0.05), (at(0.6), middle)]
    left += [(at(0.84), 1.04 * apart), (at(1.05), apart), (at(1.4), 0.3)]
    right = [*upper, (at(0.4), top + 0.02), (at(0.55), top + 0.04), (at(0.8), heart * share)]
    right += [(at(1.0), heart * share - 0.04), (at(1.3), 0.16)]
    x = np.abs(grid.x)
    crest, lift = np.where(grid.x < 0, 0.42, 0.5), rng.uniform(0.02, 0.12)  # the right dome is the higher
    outward = (base - dome) * (np.clip(x - crest, 0, None) / (1 - crest)) ** 1.9
    fall = np.where(x > crest, outward, 0.25 * (x - crest) ** 2)
    return Thorax(
        apex,
        dome,
        wall.astype(np.float32),
        right=_curve(grid, right) - turn,
        left=_curve(grid, left) + turn,
        diaphragm=(dome + lift * edge(grid.x, 0.3) + fall).astype(np.float32),
        hilum=at(0.46),
        turn=turn,
    )


def lungs(grid: Grid, chest: Thorax) -> tuple[Map, NDArray[np.bool_]]:
    """Air along the beam, 0 to 1, and the lung fields: where a radiologist would outline the two lungs."""
    out = chest.wall - np.abs(grid.x)
    beside = np.maximum(grid.x - chest.left, -grid.x - chest.right)
    above = chest.diaphragm - grid.y
    rim = 1 - np.clip(out / 0.55, 0, 1)
    full = np.sqrt(np.clip(1 - rim * rim, 0, 1))
    # Lung lies behind the heart and behind the domes too, but less of it.
    air = full * (0.22 + 0.78 * edge(beside, 0.035)) * edge(beside + 0.3, 0.2)
    air *= 0.16 * edge(above + 0.2, 0.2) + 0.84 * edge(above, 0.03)
    return air, (out > 0) & (beside > 0) & (above > 0)


def soft_tissue(grid: Grid, chest: Thorax, person: Dice, pose: Dice, child: bool) -> Map:
    """Trunk, neck, arms, head, airways and abdomen; about 1 in the middle of the abdomen."""
    rng, now = person("soft"), pose("soft")
    x, y, size = np.abs(grid.x), grid.y, grid.scale
    shoulder = chest.apex + rng.uniform(-0.25, -0.08)
    trunk = rng.uniform(1.12, 1.32)
    neck = rng.uniform(0.34, 0.46)
    slope = np.clip((y - shoulder + 0.3) / 0.42, 0, 1)
    outline = neck + (trunk - neck) * slope**1.8 + 0.06 * np.clip(y, 0, None)
    tissue = np.sqrt(np.clip(1 - (x / outline) ** 2.6, 0, 1)) * (0.62 + 0.3 * slope)
    image = Image.new("L", grid.shape[::-1])
    draw = ImageDraw.Draw(image)
    to_pixel = [grid.half_width, grid.half_height]
    swing = now.uniform(0.15, 0.9)
    for sign in (-1, 1):
        joint = np.array([sign * trunk * 0.98, shoulder + 0.3])
        elbow = joint + np.array([sign * swing, 1.5])
        line = [tuple((p + to_pixel) * size) for p in (joint, elbow)]
        draw.line(line, 95, round(0.36 * size))
        draw.ellipse(_box(joint, 0.27, to_pixel, size), 110)
        draw.line(line, 135, round(0.12 * size))
        draw.ellipse(_box(joint, 0.12, to_pixel, size), 140)
    if child or now.random() < 0.25:
        chin = np.array([now.normal(0, 0.1), chest.apex - now.uniform(0.75, 1.05)])
        draw.ellipse(_box(chin, 0.55, to_pixel, size), 150)
    limbs = np.asarray(image.filter(ImageFilter.BoxBlur(0.06 * size)), np.float32) / 255
    tissue = np.maximum(tissue, limbs)
    airway = edge(0.055 - np.abs(grid.x - chest.turn), 0.035) * edge(chest.hilum - 0.12 - y, 0.05)
    tissue -= 0.13 * airway
    belly = edge(y - chest.diaphragm, 0.04) * np.clip(outline - x, 0, 0.4) / 0.4
    tissue += 0.16 * belly * (1 + 0.15 * clouds(rng, grid, 0.5))
    if now.random() < 0.5:
        stomach = blob(grid, now.uniform(0.35, 0.6), chest.dome + now.uniform(0.15, 0.3), 0.22, 0.1)
        tissue -= 0.2 * belly * stomach  # holds a bubble of gas
    if not child and rng.random() < 0.4:
        drop = chest.dome + rng.uniform(-0.2, 0.05)
        for sign in (-1, 1):
            radius = np.hypot((grid.x - sign * 0.62) / 1.1, y - drop)
            tissue += rng.uniform(0.08, 0.2) * edge(0.42 - radius, 0.06)
    return tissue


def _box(centre: NDArray[np.float64], radius: float, offset: list[float], size: float) -> list[float]:
    return [*((centre - radius + offset) * size), *((centre + radius + offset) * size)]


def bones(grid: Grid, chest: Thorax, person: Dice, child: bool) -> Map:
    """Spine, ribs and clavicles; a rib alone adds about .15."""
    rng = person("bones")
    bone = np.zeros(grid.shape, np.float32)
    discs = (grid.y - chest.apex) / rng.uniform(0.17, 0.2)
    bend = rng.normal(0, 0.025) * np.sin(2 * grid.y + rng.uniform(0, 6))
    offset = np.abs(grid.x - bend)
    body = edge(0.12 - offset, 0.02) * (0.75 + 0.25 * np.abs(np.sin(np.pi * discs)) ** 0.5)
    rim = np.abs(np.abs(grid.x) - chest.wall - 0.03)  # rib after rib seen end on
    bone += 0.05 * edge(0.05 - rim, 0.03) * (grid.y < chest.diaphragm + 0.2)
    bone += 0.13 * body + 0.05 * edge(0.025 - offset, 0.015) * (np.sin(2 * np.pi * discs) > 0.2)
    count = int(rng.integers(8, 11))
    steep = rng.uniform(0.3, 0.5) if child else rng.uniform(0.38, 0.65)
    rows = np.linspace(chest.apex - 0.08, chest.dome + 0.02, count)
    strength = rng.uniform(0.1, 0.2) / (1.1 if child else 1.3)
    x = np.abs(grid.x[0])
    for index, start in enumerate(rows):
        outer = start + steep * min(1.0, 0.55 + 0.09 * index)
        back, reach = _arc(grid, chest, start, outer)
        width = rng.uniform(0.042, 0.054)
        _band(bone, grid, back, strength * ((x > 0.1) & (x < reach)), width)
        if 1 < index < count - 2:
            front, reach = _arc(grid, chest, outer + 0.24 + 0.03 * index, outer)
            cartilage = 0.55 * strength * np.clip((x - 0.4) / 0.25, 0, 1)  # none of it shows near the sternum
            _band(bone, grid, front, cartilage * (x < reach), 1.25 * width)
    tilt, lift = rng.uniform(0.05, 0.3), rng.uniform(0.06, 0.22)
    collar = chest.apex + lift - tilt * (x - 0.1) + 0.05 * np.sin(6 * x)
    _band(bone, grid, collar, 0.9 * strength * ((x > 0.12) & (x < 1.02)), 0.055)
    return bone


def _arc(grid: Grid, chest: Thorax, start: float, outer: float) -> tuple[Map, Map]:
    """Height (W,) of a rib, `start` at the midline and `outer` at the chest wall, and how far out it goes."""
    x, height = np.abs(grid.x[0]), np.full(grid.shape[1], outer, np.float32)
    for _ in range(2):  # the wall is a function of the height that is sought
        reach = np.interp(height, grid.y[:, 0], chest.wall[:, 0]) + 0.035
        height = outer + (start - outer) * np.sqrt(np.clip(1 - (x / reach) ** 2, 0, 1))
    return height.astype(np.float32), reach.astype(np.float32)


def _band(bone: Map, grid: Grid, centre: Map, strength: Map, width: float) -> None:
    """Adds one rib along `centre` (W,), brighter at its edges where the beam runs through more cortex."""
    seen = strength > 0
    if not seen.any():
        return
    # A steep rib takes more rows: its width counts across, not down.
    half = (width * np.sqrt(1 + np.clip(np.gradient(centre) * grid.scale, -4, 4) ** 2)).astype(np.float32)
    first, last = centre[seen].min() - 0.2 + grid.half_height, centre[seen].max() + 0.2 + grid.half_height
    rows = slice(max(0, int(first * grid.scale)), max(0, int(last * grid.scale)))
    across = np.abs(grid.y[rows] - centre) / half
    profile = np.clip(3 * (1.15 - across), 0, 1) * (0.55 + 0.45 * across * across)
    bone[rows] += profile * strength.astype(np.float32)


def branches(grid: Grid, chest: Thorax, rng: np.random.Generator, roots: int, width: float) -> Map:
    """Trees from both hila to the periphery, 0 to 1: vessels, bronchi or thickened interstitium."""
    image = Image.new("L", grid.shape[::-1])
    draw = ImageDraw.Draw(image)
    side = np.repeat((-1.0, 1.0), roots)
    x, y = 0.22 * side + chest.turn, np.full(2 * roots, chest.hilum)
    angle = np.tile(np.linspace(-1.35, 1.45, roots), 2) + rng.normal(0, 0.12, 2 * roots)
    length, thick = rng.uniform(0.16, 0.3, 2 * roots), width
    while thick > 0.12 * width:
        ends = np.stack([x, y, x + side * length * np.cos(angle), y + length * np.sin(angle)], axis=1)
        tone, pixels = round(255 * (0.3 + 0.7 * thick / width)), max(1, round(thick * grid.scale))
        for line in (grid.scale * (ends + 2 * (grid.half_width, grid.half_height))).tolist():
            draw.line(line, tone, pixels)
        side, x, y, angle = (np.repeat(value, 2) for value in (side, ends[:, 2], ends[:, 3], angle))
        angle = angle + np.tile((-0.35, 0.35), len(ends)) + rng.normal(0, 0.2, len(angle))
        length, thick = np.repeat(length, 2) * rng.uniform(0.65, 0.9, len(angle)), 0.62 * thick
    return np.asarray(image.filter(ImageFilter.BoxBlur(0.008 * grid.scale)), np.float32) / 255
