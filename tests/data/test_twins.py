"""Films that come twice, told from films that only look alike as all chests do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from xray_lightning.data import twins
from xray_lightning.data.anatomy import dice
from xray_lightning.data.examine import THUMB, examine
from xray_lightning.data.phantoms import radiograph
from xray_lightning.data.twins import THRESHOLD, details, find_twins, pairs_above

Change = Callable[[Image.Image], Image.Image]


def cropped(film: Image.Image, side: str, share: float) -> Image.Image:
    width, height = film.size
    dx, dy = round(share * width), round(share * height)
    return film.crop((dx * (side in ("left", "both")), dy * (side in ("top", "both")), width - dx, height - dy))


def shades(function: Callable[[float], float]) -> Change:
    return lambda film: film.point([min(255, max(0, round(function(v)))) for v in range(256)])


CHANGES: dict[str, Change] = {
    "none": lambda film: film,
    "half size": lambda film: film.resize((film.width // 2, film.height // 2), Image.Resampling.BICUBIC),
    "other shape": lambda film: film.resize((224, 224), Image.Resampling.BILINEAR),
    "larger": lambda film: film.resize((2 * film.width, 2 * film.height), Image.Resampling.LANCZOS),
    "brighter": shades(lambda v: v + 25),
    "darker": shades(lambda v: 0.7 * v),
    "less contrast": shades(lambda v: 0.5 * v + 60),
    "more contrast": shades(lambda v: 1.2 * v - 20),
    "gamma": shades(lambda v: 255 * (v / 255) ** 1.25),
    "colour": lambda film: film.convert("RGB"),
    "cut left": lambda film: cropped(film, "left", 0.01),
    "cut all round": lambda film: cropped(film, "both", 0.005),
    "all": lambda film: shades(lambda v: 0.8 * v + 10)(cropped(film, "top", 0.01).resize((200, 200))),
}


@pytest.fixture(scope="module")
def films() -> list[Image.Image]:
    """12 phantoms of as many patients, every second one a child."""
    findings = ("normal", "bacteria", "virus", "covid")
    drawn = [
        radiograph(dice(f"person {n}"), dice(f"pose {n}"), (224, 280), n % 2 == 0, findings[n % 4]) for n in range(12)
    ]
    return [Image.fromarray(film) for film, _ in drawn]


@pytest.fixture
def thumbs_of(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Thumbnails as the program makes them, of films saved as files."""

    def thumbs(films: list[Image.Image], suffix: str = ".png", **how: Any) -> np.ndarray:
        files = [tmp_path / f"{n}{suffix}" for n in range(len(films))]
        for film, file in zip(films, files, strict=True):
            film.save(file, **how)
        return np.stack([examine(file, None, "stretch")[1] for file in files])

    return thumbs


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, THUMB, THUMB), dtype=np.uint8)


def unit_vectors(count: int, seed: int) -> np.ndarray:
    """Vectors of which about every third pair is alike."""
    rng = np.random.default_rng(seed)
    vectors = np.eye(3, 20)[rng.integers(0, 3, count)] + 0.05 * rng.standard_normal((count, 20))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("suffix", "how"), [(".png", {}), (".jpg", {"quality": 60})], ids=["png", "jpeg 60"])
def test_a_film_exported_anew_is_its_own_twin(
    films: list[Image.Image], thumbs_of: Callable[..., np.ndarray], change: str, suffix: str, how: dict[str, int]
) -> None:
    original = details(thumbs_of(films))
    again = details(thumbs_of([CHANGES[change](film) for film in films], suffix, **how))
    assert ((original * again).sum(axis=1) >= THRESHOLD).all()


def test_films_of_different_patients_are_no_twins(
    films: list[Image.Image], thumbs_of: Callable[..., np.ndarray]
) -> None:
    vectors = details(thumbs_of(films))
    assert list(pairs_above(vectors)) == []
    likeness = (vectors @ vectors.T)[np.triu_indices(len(films), 1)]
    assert np.median(likeness) < 0.5


def test_a_negative_is_as_unlike_as_can_be(films: list[Image.Image], thumbs_of: Callable[..., np.ndarray]) -> None:
    thumbs = thumbs_of(films)
    assert (details(thumbs) * details(255 - thumbs)).sum(axis=1) == pytest.approx(-1, abs=1e-5)


def test_likeness_is_the_correlation_of_what_a_blur_leaves_out() -> None:
    thumbs = np.concatenate([noise(3), noise(2) // 16 + 100])
    # SciPy's blur pads with zeros; divided by that of ones it only weighs what lies within the image
    blurred = [gaussian_filter(values, 2, mode="constant", radius=THUMB) for values in thumbs.astype(np.float64)]
    weights = gaussian_filter(np.ones((THUMB, THUMB)), 2, mode="constant", radius=THUMB)
    sharp = [(values - blur / weights).ravel() for values, blur in zip(thumbs, blurred, strict=True)]
    vectors = details(thumbs)
    np.testing.assert_allclose(vectors @ vectors.T, np.corrcoef(sharp), atol=1e-5)


def test_details_are_unit_vectors_with_mean_zero() -> None:
    vectors = details(noise(20))
    assert (vectors.shape, vectors.dtype) == ((20, THUMB * THUMB), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors.mean(axis=1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0, 100, 255])
def test_a_flat_image_is_nobodys_twin(value: int) -> None:
    flat: np.ndarray = np.full((3, THUMB, THUMB), value, dtype=np.uint8)
    vectors = details(np.concatenate([flat, noise(2)]))
    assert not vectors[:3].any()
    assert list(pairs_above(vectors)) == []


def test_no_images_have_no_twins(tmp_path: Path) -> None:
    assert details(noise(0)).shape == (0, THUMB * THUMB)
    assert find_twins([], noise(0), tmp_path) == []


def test_details_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbs = noise(23)
    whole = details(thumbs)
    monkeypatch.setattr(twins, "BLOCK", 5)
    np.testing.assert_allclose(details(thumbs), whole, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14, 40])
@pytest.mark.parametrize("other", [None, 0, 1, 9, 30])
def test_every_pair_is_found_once_across_blocks(monkeypatch: pytest.MonkeyPatch, count: int, other: int | None) -> None:
    monkeypatch.setattr(twins, "BLOCK", 7)
    a = unit_vectors(count, seed=1)
    b = None if other is None else unit_vectors(other, seed=2)
    second = a if b is None else b
    expected = {
        (i, j): float(np.dot(one, two))
        for i, one in enumerate(a)
        for j, two in enumerate(second)
        if (b is not None or i < j) and np.dot(one, two) >= THRESHOLD
    }
    found = list(pairs_above(a, b))
    assert sorted((i, j) for i, j, _ in found) == sorted(expected)
    assert [likeness for _, _, likeness in found] == pytest.approx([expected[i, j] for i, j, _ in found])
    assert expected or count < 6 or other in (0, 1)
