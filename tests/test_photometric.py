"""Promises of the colour changes: off is off, ranges are kept, shapes and types stay."""

from typing import Any

import numpy as np
import pytest
from layouts import paint

from veduta.config import Augment
from veduta.data.augment.photometric import ADJUST, LUMA, jitter

IMAGE, _ = paint(0, 5)
GREY = np.full((4, 4, 3), 128, np.uint8)

EACH: list[dict[str, Any]] = [
    {"brightness": 0.4},
    {"contrast": 0.4},
    {"saturation": 0.4},
    {"tint": 0.1},
    {"gamma": 0.3},
]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_ranges_nothing_changes() -> None:
    assert (jitter(IMAGE, Augment(), generator()) == IMAGE).all()


@pytest.mark.parametrize("ranges", EACH)
def test_each_change_changes_the_image_and_keeps_shape_type_and_input(ranges: dict[str, Any]) -> None:
    before = IMAGE.copy()
    found = jitter(IMAGE, Augment(**ranges), generator())
    assert found.shape == IMAGE.shape and found.dtype == np.uint8
    assert (found != IMAGE).any() and (before == IMAGE).all()


@pytest.mark.parametrize("ranges", EACH)
def test_the_same_generator_gives_the_same_image_and_another_another(ranges: dict[str, Any]) -> None:
    augment = Augment(**ranges)
    assert (jitter(IMAGE, augment, generator(1)) == jitter(IMAGE, augment, generator(1))).all()
    assert (jitter(IMAGE, augment, generator(1)) != jitter(IMAGE, augment, generator(2))).any()


def test_all_random_numbers_are_drawn_whatever_is_switched_on() -> None:
    left = []
    for augment in (Augment(), Augment(brightness=0.4), Augment(saturation=0.4, gamma=0.2)):
        rng = generator()
        jitter(IMAGE, augment, rng)
        left.append(rng.random())
    assert len(set(left)) == 1


def test_brightness_stays_in_its_range() -> None:
    values = [int(jitter(GREY, Augment(brightness=0.25), generator(i))[0, 0, 0]) for i in range(60)]
    assert 95 <= min(values) < 105 and 150 < max(values) <= 161


def test_saturation_keeps_luma_and_leaves_grey_grey() -> None:
    soft = (IMAGE // 4 + 90).astype(np.uint8)  # far from 0 and 255, so that nothing is cut off
    found = jitter(soft, Augment(saturation=0.5), generator())
    np.testing.assert_allclose(found @ LUMA, soft @ LUMA, atol=1)
    assert (jitter(GREY, Augment(saturation=0.5), generator()) == GREY).all()


def test_black_and_white_stay_under_gamma() -> None:
    image = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert (jitter(image, Augment(gamma=0.5), generator()) == image).all()


@pytest.mark.parametrize("change", ADJUST)
def test_tensorflows_changes_work_in_place_and_off_is_off(change: str) -> None:
    image = IMAGE.astype(np.float32) / np.float32(255)
    adjusted = image.copy()
    ADJUST[change](adjusted, {"brightness": 0.0, "hue": 0.0}.get(change, 1.0))
    np.testing.assert_allclose(adjusted, image, atol=2e-6)
    ADJUST[change](adjusted, 0.3)
    assert np.abs(adjusted - image).max() > 0.05


def test_tensorflows_changes_cut_nothing_off_before_the_end() -> None:
    image = np.array([[[0.9, 0.5, 0.1], [0.05, 0.0, 0.1]]], np.float32)
    ADJUST["brightness"](image, 0.3)
    ADJUST["brightness"](image, -0.3)
    ADJUST["contrast"](image, 2.0)
    ADJUST["contrast"](image, 0.5)
    np.testing.assert_allclose(image, [[[0.9, 0.5, 0.1], [0.05, 0.0, 0.1]]], atol=1e-6)


def test_hue_turns_dark_pixels_below_zero_as_it_turns_others() -> None:
    image = np.array([[[0.3, 0.5, 0.9]]], np.float32)
    below = image - 0.95
    for pixels in (image, below):
        ADJUST["hue"](pixels, 1 / 3)
    np.testing.assert_allclose(image, [[[0.9, 0.3, 0.5]]], atol=1e-6)
    np.testing.assert_allclose(below, image - 0.95, atol=1e-6)


def test_saturation_greys_pixels_without_a_positive_channel() -> None:
    image = np.array([[[-0.1, -0.3, -0.2], [0.4, -0.1, 0.2]]], np.float32)
    ADJUST["saturation"](image, 0.5)
    np.testing.assert_allclose(image[0, 0], [-0.1, -0.1, -0.1], atol=1e-6)
    np.testing.assert_allclose(image[0, 1], [0.4, 0.15, 0.3], atol=1e-6)  # HSV's saturation 1.25, halved
