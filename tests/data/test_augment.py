"""Augmentation of a batch, seen on images whose grey values tell where they came from."""

import pytest
import torch
from torch import Tensor

from xray_lightning.data.augment import CropRotateJitter

SIZE = 32
NEUTRAL = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "degrees": 0.0,
    "flip": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def only(**settings: object) -> CropRotateJitter:
    return CropRotateJitter(**{**NEUTRAL, **settings})


def on(augment: CropRotateJitter, images: Tensor, key: int = 0) -> Tensor:
    return augment(images, augment.draws(len(images), key))


@pytest.fixture
def noise() -> Tensor:
    return torch.randint(0, 256, (6, 1, SIZE, SIZE), generator=seeded(), dtype=torch.uint8)


def ramps(count: int, size: int = 64) -> Tensor:
    """Two channels, x and y, from 50 to 200 over the image, the same for each sample."""
    line = torch.linspace(50, 200, size)
    return torch.stack([line.expand(size, size), line[:, None].expand(size, size)]).repeat(count, 1, 1, 1)


def crop_sides(cropped: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of each crop of `ramps`, as shares of the image, from the slopes at its centre."""
    middle = slice(16, 48)
    step = 150 / 63
    width = (cropped[:, 0, middle, 47] - cropped[:, 0, middle, 16]).mean(1) / 31 / step
    height = (cropped[:, 1, 47, middle] - cropped[:, 1, 16, middle]).mean(1) / 31 / step
    return width, height


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_neutral_settings_return_the_input(noise: Tensor, dtype: torch.dtype) -> None:
    result = on(only(), noise.to(dtype))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, noise.float(), atol=0.01, rtol=0)


def test_shape_stays_and_values_stay_grey_levels(noise: Tensor) -> None:
    result = on(CropRotateJitter(degrees=45, brightness=1.0, contrast=1.0), noise)
    assert result.shape == noise.shape and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 255


def test_images_need_not_be_square_or_of_one_channel() -> None:
    images = torch.randint(0, 256, (2, 3, 20, 30), generator=seeded(), dtype=torch.uint8)
    assert on(CropRotateJitter(), images).shape == images.shape
    torch.testing.assert_close(on(only(), images), images.float(), atol=0.01, rtol=0)


def test_the_input_is_left_as_it_was(noise: Tensor) -> None:
    for images in (noise, noise.float()):
        before = images.clone()
        on(CropRotateJitter(), images)
        assert torch.equal(images, before)


def test_each_sample_is_augmented_on_its_own(noise: Tensor) -> None:
    result = on(CropRotateJitter(), noise[:1].repeat(5, 1, 1, 1))
    for i in range(5):
        for j in range(i):
            assert not torch.allclose(result[i], result[j], atol=1)


def test_the_draws_alone_decide(noise: Tensor) -> None:
    augment = CropRotateJitter()
    first = on(augment, noise, 4)
    torch.manual_seed(99)
    assert torch.equal(on(augment, noise, 4), first)
    assert not torch.allclose(on(augment, noise, 5), first, atol=1)


def test_a_sample_is_augmented_alike_in_any_batch(noise: Tensor) -> None:
    augment = CropRotateJitter()
    draws = augment.draws(len(noise), 0)
    alone = torch.cat([augment(noise[i : i + 1], draws[i : i + 1]) for i in range(len(noise))])
    torch.testing.assert_close(augment(noise, draws), alone, atol=1e-3, rtol=0)


def test_draws_are_numbers_from_0_to_1_that_differ_by_every_part_of_their_key() -> None:
    augment = CropRotateJitter()
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]
    drawn = [augment.draws(100, *key) for key in keys]
    for i, draws in enumerate(drawn):
        assert draws.shape == (100, 8) and draws.dtype == torch.float32
        assert draws.min() >= 0 and draws.max() < 1 and draws.std() > 0.2
        assert torch.equal(draws, augment.draws(100, *keys[i]))
        assert not any(torch.equal(draws, other) for other in drawn[:i])


def test_settings_from_a_configuration_are_the_same_as_tuples() -> None:
    assert CropRotateJitter([0.5, 1], [1, 1.0]) == CropRotateJitter((0.5, 1.0), (1.0, 1.0))
    assert repr(CropRotateJitter([0.5, 1])) == repr(CropRotateJitter((0.5, 1.0)))
    assert repr(CropRotateJitter(degrees=5.0)) != repr(CropRotateJitter())


def test_flip_mirrors_left_and_right(noise: Tensor) -> None:
    torch.testing.assert_close(on(only(flip=1.0), noise), noise.float().flip(3), atol=0.01, rtol=0)


def test_flip_is_a_probability(noise: Tensor) -> None:
    many = noise[:1].repeat(400, 1, 1, 1)
    result = on(only(flip=0.25), many)
    flipped = (result - many.float().flip(3)).abs().amax(dim=(1, 2, 3)) < 0.01
    kept = (result - many.float()).abs().amax(dim=(1, 2, 3)) < 0.01
    assert bool((flipped ^ kept).all())
    assert flipped.float().mean() == pytest.approx(0.25, abs=0.08)


def test_brightness_shifts_by_up_to_its_share_of_the_grey_range() -> None:
    grey = torch.full((500, 1, 8, 8), 128.0)
    shifts = on(only(brightness=0.2), grey) - 128
    assert torch.allclose(shifts, shifts[:, :1, :1, :1].expand_as(shifts), atol=0.01)
    assert shifts.min() == pytest.approx(-51, abs=1.5) and shifts.min() >= -51.01
    assert shifts.max() == pytest.approx(51, abs=1.5) and shifts.max() <= 51.01


def test_contrast_scales_about_the_mean_of_each_image() -> None:
    low, high = torch.full((500, 1, 8, 4), 100.0), torch.full((500, 1, 8, 4), 140.0)
    result = on(only(contrast=0.5), torch.cat([low, high], dim=3))
    gains = (result[:, 0, 0, -1] - result[:, 0, 0, 0]) / 40
    assert torch.allclose(result.mean(dim=(1, 2, 3)), torch.tensor(120.0), atol=0.01)
    assert gains.min() == pytest.approx(0.5, abs=0.02) and gains.min() >= 0.499
    assert gains.max() == pytest.approx(1.5, abs=0.02) and gains.max() <= 1.501


@pytest.mark.parametrize("scale", [(0.3, 0.6), (0.5, 1.0), (0.9, 1.0)])
@pytest.mark.parametrize("ratio", [(1.0, 1.0), (0.75, 1.33)])
def test_crops_keep_the_share_of_the_area_asked_for(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    width, height = crop_sides(on(only(scale=scale, ratio=ratio), ramps(400)))
    area = width * height
    assert width.max() <= 1.001 and height.max() <= 1.001
    assert area.min() >= scale[0] - 0.005 and area.max() <= scale[1] + 0.005
    assert area.max() - area.min() > 0.8 * (scale[1] - scale[0])


def test_the_ratio_is_that_of_width_to_height() -> None:
    width, height = crop_sides(on(only(scale=(0.3, 0.3), ratio=(0.75, 1.33)), ramps(400)))
    shape = width / height
    assert shape.min() == pytest.approx(0.75, abs=0.02) and shape.max() == pytest.approx(1.33, abs=0.02)
    wide, high = crop_sides(on(only(scale=(0.4, 0.4), ratio=(2.0, 2.0)), ramps(4)))
    assert torch.allclose(wide / high, torch.tensor(2.0), atol=0.02)


def test_crops_lie_inside_the_image_and_all_over_it() -> None:
    result = on(only(scale=(0.25, 0.25)), ramps(500, size=64))[:, :, 16:48, 16:48]
    assert result.min() >= 50 and result.max() <= 200
    centres = result.mean(dim=(2, 3))
    for axis in (0, 1):
        assert centres[:, axis].min() < 95 and centres[:, axis].max() > 155


def test_rotation_goes_to_both_sides_and_no_further_than_asked() -> None:
    result = on(only(degrees=10.0), ramps(500))[:, :, 24:40, 24:40]
    along = (result[:, 0, :, -1] - result[:, 0, :, 0]).mean(1)
    across = (result[:, 0, -1, :] - result[:, 0, 0, :]).mean(1)
    angles = torch.rad2deg(torch.atan2(across, along))
    assert angles.abs().max() <= 10.05
    assert angles.min() < -9.5 and angles.max() > 9.5


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_rotation_is_rigid_about_the_centre(flip: float) -> None:
    result = on(only(degrees=30.0, flip=flip), ramps(50))[:, :, 24:40, 24:40]
    along = (result[:, :, :, -1] - result[:, :, :, 0]).mean(2)
    down = (result[:, :, -1, :] - result[:, :, 0, :]).mean(2)
    steps = torch.stack([along, down], dim=2) / 15 / (150 / 63)
    assert torch.allclose(steps @ steps.mT, torch.eye(2).expand(50, 2, 2), atol=0.01)
    assert torch.allclose(steps.det(), torch.tensor(1 - 2 * flip), atol=0.01)
    assert torch.allclose(result.mean(dim=(2, 3)), torch.tensor(125.0), atol=0.05)


def test_crops_keep_their_shape_when_rotated() -> None:
    result = on(only(scale=(0.3, 0.3), ratio=(2.0, 2.0), degrees=10.0), ramps(50))
    middle = result[:, :, 31:33, 31:33]
    assert middle.amin() >= 50
    along = (middle[:, :, :, 1] - middle[:, :, :, 0]).mean(2).norm(dim=1)
    down = (middle[:, :, 1, :] - middle[:, :, 0, :]).mean(2).norm(dim=1)
    assert torch.allclose(along / down, torch.tensor(2.0), atol=0.02)


def test_what_rotation_brings_in_from_outside_is_black() -> None:
    white = torch.full((50, 1, SIZE, SIZE), 255.0)
    result = on(only(degrees=45.0), white)
    assert result[:, :, 0, 0].min() == 0
    assert torch.allclose(result[:, :, 12:20, 12:20], torch.tensor(255.0), atol=0.01)
