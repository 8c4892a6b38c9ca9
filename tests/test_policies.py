"""Promises of the policies: every operation is Pillow's, also on odd images, and leaves its input as it was."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rule
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from veduta.data.augment.policies import (
    AUTOAUGMENT,
    EITHER_WAY,
    POLICIES,
    RANDAUGMENT,
    REACH,
    Operation,
    auto_contrast,
    autoaugment,
    brightness,
    color,
    contrast,
    cutout,
    equalize,
    invert,
    posterize,
    randaugment,
    rotate,
    sharpness,
    shear_x,
    shear_y,
    solarize,
    translate_x,
    translate_y,
)

IMAGES = {
    "photo": rule.image_u8(1, (61, 83, 3)),
    "flat": np.full((30, 50, 3), 200, np.uint8),
    "one value per channel": np.tile(np.array([0, 128, 255], np.uint8), (20, 20, 1)),
    "tall": rule.image_u8(4, (200, 3, 3)),
    "narrow": rule.image_u8(2, (2, 7, 3)),
    "one pixel": np.array([[[3, 200, 90]]], np.uint8),
    "few greys": rule.image_u8(3, (40, 40, 3)) // 16 + 100,
}
FACTORS = (0.1, 0.4, 0.82, 1.0, 1.5, 1.9)


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    def transform(image: Image.Image) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)

    return transform


PILLOW: list[tuple[Operation, float, Callable[[Image.Image], Image.Image]]] = [
    (auto_contrast, 0, ImageOps.autocontrast),
    (equalize, 0, ImageOps.equalize),
    (invert, 0, ImageOps.invert),
    *((posterize, bits, lambda image, b=bits: ImageOps.posterize(image, b)) for bits in (1, 4, 8)),
    *((solarize, at, lambda image, t=at: ImageOps.solarize(image, t)) for at in (0, 102.4, 256)),
    *((rotate, degrees, lambda image, d=degrees: image.rotate(d)) for degrees in (12, -30)),
    *((color, factor, lambda image, f=factor: ImageEnhance.Color(image).enhance(f)) for factor in FACTORS),
    *((contrast, factor, lambda image, f=factor: ImageEnhance.Contrast(image).enhance(f)) for factor in FACTORS),
    *((brightness, factor, lambda image, f=factor: ImageEnhance.Brightness(image).enhance(f)) for factor in FACTORS),
    *((sharpness, factor, lambda image, f=factor: ImageEnhance.Sharpness(image).enhance(f)) for factor in FACTORS),
    *((shear_x, slope, affine(1, slope, 0, 0, 1, 0)) for slope in (0.12, -0.12, 0.3)),
    *((shear_y, slope, affine(1, 0, 0, slope, 1, 0)) for slope in (0.12, -0.12, 0.3)),
    *((translate_x, pixels, affine(1, 0, pixels, 0, 1, 0)) for pixels in (40, -40, 3)),
    *((translate_y, pixels, affine(1, 0, 0, 0, 1, pixels)) for pixels in (40, -40, 3)),
]


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize(("operation", "magnitude", "pillow"), PILLOW)
def test_an_operation_is_pillows(
    operation: Operation, magnitude: float, pillow: Callable[[Image.Image], Image.Image], kind: str
) -> None:
    image = IMAGES[kind]
    before = image.copy()
    found, expected = operation(image, magnitude), np.asarray(pillow(Image.fromarray(image)))
    assert found.dtype == np.uint8 and (image == before).all()
    if operation in (color, sharpness, shear_x, shear_y):  # sums of float32: a level where one lies next to a whole one
        np.testing.assert_allclose(found.astype(int), expected, atol=1)
        assert (found != expected).mean() < 0.002
    else:
        np.testing.assert_array_equal(found, expected)


def test_a_cutout_lies_around_its_place_and_is_cut_off_at_the_edges() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    rows, columns, _ = np.nonzero(cutout(image, 4, 10, 8))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 8, 12)
    rows, columns, _ = np.nonzero(cutout(image, 4, 29, 1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 4, 27, 29)


class Scripted:
    """Stands for a generator; says what is drawn."""

    def __init__(self, index: Any, random: float) -> None:
        self.index, self.value = index, random

    def integers(self, high: int, size: int | None = None) -> Any:
        return self.index

    def random(self) -> float:
        return self.value

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


@pytest.mark.parametrize("index", range(len(RANDAUGMENT)))
@pytest.mark.parametrize("random", [0.4, 0.6])
def test_randaugment_does_an_operation_or_not_at_12_of_30(index: int, random: float) -> None:
    image, operation = IMAGES["photo"], list(RANDAUGMENT)[index]
    stream: Any = Scripted([index], random)
    low, high = RANDAUGMENT[operation]
    place = ((1 + 83) / 2, (1 + 61) / 2) if operation is cutout else ()
    expected = operation(image, low + 0.4 * (high - low), *place) if random < 0.5 else image
    np.testing.assert_array_equal(randaugment(image, stream), expected)


def test_shears_rotations_and_translations_go_either_way() -> None:
    image = IMAGES["photo"]
    for operation in EITHER_WAY:
        rng = np.random.default_rng(0)
        index = list(RANDAUGMENT).index(operation)
        found = {randaugment(image, _one_of(index, rng)).tobytes() for _ in range(40)}
        one_way = 0.4 * RANDAUGMENT[operation][1]
        assert found == {i.tobytes() for i in (image, operation(image, one_way), operation(image, -one_way))}


def _one_of(index: int, rng: np.random.Generator) -> Any:
    stream = Scripted([index], 0)
    stream.random, stream.uniform = rng.random, rng.uniform  # type: ignore[method-assign]
    return stream


def test_without_holes_randaugment_has_15_operations() -> None:
    image = IMAGES["photo"]
    last: Any = Scripted([14], 0.4)
    np.testing.assert_array_equal(POLICIES["randaugment"](image, last), translate_x(image, 40))
    np.testing.assert_array_equal(POLICIES["randaugment-no-holes"](image, last), translate_y(image, 40))
    with pytest.raises(IndexError):
        POLICIES["randaugment-no-holes"](image, Scripted([15], 0.4))  # type: ignore[arg-type]


def test_autoaugment_has_25_pairs_and_a_reach_for_each_of_their_operations() -> None:
    assert len(AUTOAUGMENT) == 25 and all(len(pair) == 2 for pair in AUTOAUGMENT)
    assert {operation for pair in AUTOAUGMENT for operation, _, _ in pair} == set(REACH)
    assert all(0 <= probability <= 1 and 0 <= m <= 9 for pair in AUTOAUGMENT for _, probability, m in pair)


def expected_of_autoaugment(image: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
    """Some pairs by hand, at the paper's ranges, signs minus."""
    return {
        0: rotate(posterize(image, 4), -30),
        6: equalize(solarize(image, 256 - 256 / 3), 0),
        14: contrast(color(image, 1 - 0.4), 1 - 0.8),
        18: equalize(shear_x(image, -0.3 * 5 / 9), 0),
    }


@pytest.mark.parametrize("index", [0, 6, 14, 18])
def test_autoaugment_does_both_of_a_pair_at_the_papers_magnitudes(index: int) -> None:
    image = IMAGES["photo"]
    stream: Any = Scripted(index, 0.1)
    np.testing.assert_array_equal(autoaugment(image, stream), expected_of_autoaugment(image)[index])


def test_autoaugment_leaves_out_what_is_not_drawn() -> None:
    image = IMAGES["photo"]
    stream: Any = Scripted(12, 0.5)  # (equalize, 0.0), (equalize, 0.8)
    np.testing.assert_array_equal(autoaugment(image, stream), equalize(image, 0))
    stream = Scripted(9, 0.7)  # (equalize, 0.6), (posterize, 0.4)
    assert autoaugment(image, stream) is image


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_its_generators_and_keeps_shape_and_type(name: str) -> None:
    for seed in range(30):
        image = IMAGES["photo"]
        one, other = (POLICIES[name](image, np.random.default_rng(seed)) for _ in range(2))
        assert one.shape == image.shape and one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
