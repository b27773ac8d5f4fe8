"""Diseases of synthetic radiographs, drawn into a chest as further attenuation, and the whole film's sum."""

import numpy as np
from numpy.typing import NDArray

from xray_lightning.data.anatomy import (
    Dice,
    Grid,
    Map,
    Thorax,
    blob,
    bones,
    branches,
    clouds,
    edge,
    lungs,
    soft_tissue,
    thorax,
)


def opacity(grid: Grid, chest: Thorax, person: Dice, finding: str) -> Map:
    """Share of the air that a disease has displaced, 0 to 1. Mild cases look like healthy lungs.

    `finding` is `bacteria`, `virus`, `covid`, `opacity` or `normal`; healthy lungs may carry a trace too.
    """
    rng = person("finding")
    severity = 0.12 + 0.88 * rng.beta(1.5, 1.3)
    return np.clip(FINDINGS[finding](grid, chest, rng, severity), 0, 0.95)


def _lobar(grid: Grid, chest: Thorax, rng: np.random.Generator, severity: float) -> Map:
    """Consolidation of mostly one lobe, sharp at its fissure, with dark bronchi."""
    side, span = int(rng.choice((-1, 1))), chest.dome - chest.apex
    fissure = chest.apex + rng.uniform(0.45, 0.6) * span + 0.1 * (np.abs(grid.x) - 0.5)
    upper = rng.random() < 0.4
    lobe = edge(fissure - grid.y if upper else grid.y - fissure, 0.02 if upper or rng.random() < 0.4 else 0.3)
    x, depth = side * rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.45) if upper else rng.uniform(0.7, 1)
    reach = 0.25 + 0.4 * severity
    shape = blob(grid, x, chest.apex + depth * span, reach, rng.uniform(0.8, 1.3) * reach)
    shape += 0.12 * clouds(rng, grid, 0.22)
    dense = edge(shape - 0.38, 0.28) * lobe * (grid.x * side > 0)
    texture = 1 + 0.12 * clouds(rng, grid, 0.09) - 0.5 * branches(grid, chest, rng, 5, 0.05)
    return (0.3 + 0.6 * severity) * dense * texture


def _interstitial(grid: Grid, chest: Thorax, rng: np.random.Generator, severity: float) -> Map:
    """Streaks and a net around both hila, with some haze."""
    centre = [blob(grid, sign * 0.32, chest.hilum + 0.12, 0.5, 0.62) for sign in (-1, 1)]
    where = np.clip(rng.uniform(0.8, 1.1) * centre[0] + rng.uniform(0.8, 1.1) * centre[1], 0, 1)
    # Noise passes zero along closed lines: a net.
    net = sum(np.clip(1 - 1.8 * np.abs(clouds(rng, grid, cell)), 0, 1) for cell in (0.1, 0.06))
    streaks = branches(grid, chest, rng, 9, 0.06)
    return (0.1 + 0.9 * severity) * where * (0.2 + 0.32 * net + 0.45 * streaks + 0.1 * clouds(rng, grid, 0.3))


def _ground_glass(grid: Grid, chest: Thorax, rng: np.random.Generator, severity: float) -> Map:
    """Hazy patches near the chest wall of both lungs, mostly low."""
    total = np.zeros(grid.shape, np.float32)
    for index in range(int(rng.integers(4, 9))):
        y = chest.apex + (chest.dome - chest.apex) * rng.beta(4, 2) * 1.1
        wall = float(np.interp(y, grid.y[:, 0], chest.wall[:, 0]))
        x = (-1 if index % 2 else 1) * (wall - rng.uniform(0.05, 0.32))
        patch = blob(grid, x, y, rng.uniform(0.16, 0.36), rng.uniform(0.16, 0.36))
        total = np.maximum(total, rng.uniform(0.6, 1) * patch)
    hazy = edge(total + 0.14 * clouds(rng, grid, 0.18) - 0.4, 0.35)
    return (0.04 + 0.5 * severity) * hazy * (1 + 0.16 * clouds(rng, grid, 0.1))


def _assorted(grid: Grid, chest: Thorax, rng: np.random.Generator, severity: float) -> Map:
    """An effusion, one to three round opacities, haze over one lung or a consolidation."""
    kind, side = int(rng.integers(4)), int(rng.choice((-1, 1)))
    half = (grid.x * side > 0).astype(np.float32)
    if kind == 0:
        level = chest.dome + 0.25 - 0.75 * severity - 0.3 * np.clip(np.abs(grid.x) - 0.45, 0, 1)
        return 0.9 * edge(grid.y - level, 0.06) * half
    if kind == 1:
        total = np.zeros(grid.shape, np.float32)
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(0.35, 0.8), rng.uniform(chest.apex + 0.25, chest.dome - 0.05)
            total += blob(grid, int(rng.choice((-1, 1))) * x, y, rng.uniform(0.1, 0.26), rng.uniform(0.1, 0.26))
        return (0.2 + 0.7 * severity) * edge(total + 0.08 * clouds(rng, grid, 0.12) - 0.4, 0.25)
    if kind == 2:
        return 0.65 * severity * half * (1 + 0.25 * clouds(rng, grid, 0.35))
    return _lobar(grid, chest, rng, severity)


def _clear(grid: Grid, chest: Thorax, rng: np.random.Generator, severity: float) -> Map:
    """Crowded vessels, a little haze or a plate of collapsed lung: what makes a reader look twice."""
    haze = 0.16 * severity * blob(grid, 0, chest.dome - 0.1, 0.9, 0.35) * int(rng.integers(2))
    if rng.random() < 0.15:
        haze = haze + 0.3 * severity * blob(grid, int(rng.choice((-1, 1))) * 0.6, chest.dome - 0.12, 0.25, 0.02)
    return haze + 0.15 * severity * branches(grid, chest, rng, 5, 0.05)


FINDINGS = {
    "bacteria": _lobar,
    "virus": _interstitial,
    "covid": _ground_glass,
    "opacity": _assorted,
    "normal": _clear,
}


def attenuation(grid: Grid, person: Dice, pose: Dice, child: bool, finding: str) -> tuple[Map, NDArray[np.bool_]]:
    """The whole chest, from 0 in air to about 1.4 in bone over the abdomen, and the mask of its lung fields.

    `person` rolls what belongs to the patient, `pose` what changes from one exposure to the next.
    """
    chest = thorax(grid, person, pose, child)
    air, fields = lungs(grid, chest)
    vessels = branches(grid, chest, person("vessels"), 6, person("calibre").uniform(0.035, 0.065))
    hila = blob(grid, -0.26 + chest.turn, chest.hilum, 0.12, 0.16)
    hila += blob(grid, 0.28 + chest.turn, chest.hilum - 0.05, 0.11, 0.15)  # the left hilum is the higher
    air = air * (1 - opacity(grid, chest, person, finding)) * (1 - 0.35 * vessels) * (1 - 0.3 * hila)
    tissue = soft_tissue(grid, chest, person, pose, child) - person("air").uniform(0.54, 0.68) * air
    return np.clip(tissue, 0, None) + np.clip(4 * tissue, 0, 1) * bones(grid, chest, person, child), fields
