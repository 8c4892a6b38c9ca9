"""Crops and RandAugment of the authors' ResNeSt, to the pixel, by the random numbers of the recordings.

The recorded code drew from Python's `random`, and the place of a cutout from numpy's old global stream.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rule
from golden_data import Golden
from numpy.typing import NDArray

from veduta.data.augment import policies
from veduta.data.augment.imagenet_crops import cut, draw_by_height
from veduta.data.augment.policies import RANDAUGMENT, randaugment
from veduta.data.images import DecodedPicture

RECORDED = Golden("pipelines").arrays
PICTURES = {311: rule.image_u8(311, (90, 121, 3)), 312: rule.image_u8(312, (130, 77, 3))}
PICTURE = rule.image_u8(313, (32, 40, 3))

NAMES: dict[str, Callable[..., NDArray[np.uint8]]] = {
    "AutoContrast": policies.auto_contrast,
    "Equalize": policies.equalize,
    "Invert": policies.invert,
    "Rotate": policies.rotate,
    "Posterize": policies.posterize,
    "Solarize": policies.solarize,
    "SolarizeAdd": policies.solarize_add,
    "Color": policies.color,
    "Contrast": policies.contrast,
    "Brightness": policies.brightness,
    "Sharpness": policies.sharpness,
    "ShearX": policies.shear_x,
    "ShearY": policies.shear_y,
    "CutoutAbs": policies.cutout,
    "TranslateXabs": policies.translate_x,
    "TranslateYabs": policies.translate_y,
}


class RecordedStream:
    """The methods of numpy's Generator that our code calls, on the streams of the recorded code."""

    def __init__(self, seed: int) -> None:
        self.python, self.numpy = random.Random(seed), np.random.RandomState(seed)  # noqa: NPY002

    def random(self) -> float:
        return self.python.random()

    def uniform(self, low: float, high: float) -> float:
        if low == 1:  # the place of a cutout; the recorded code wrote uniform(high), which draws from `high` down to 1
            return float(self.numpy.uniform(high))
        return self.python.uniform(low, high)

    def integers(self, high: int, size: int | None = None) -> Any:
        return self.python.randrange(high) if size is None else self.python.choices(range(high), k=size)


class NothingFits(RecordedStream):
    def uniform(self, low: float, high: float) -> float:
        return 1e9


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_of_randaugment_is_the_authors(name: str) -> None:
    low, high = RANDAUGMENT[NAMES[name]]
    stream = RecordedStream(11)
    place = [stream.uniform(1, length) for length in (40, 32)] if name == "CutoutAbs" else []
    found = NAMES[name](PICTURE, low + 0.4 * (high - low), *place)  # of the signs drawn after seed 11, all are plus
    np.testing.assert_array_equal(found, RECORDED[f"randaug_{name}"])


def test_the_operations_are_those_and_in_that_order() -> None:
    assert list(NAMES.values()) == list(RANDAUGMENT)


def test_randaugment_is_the_authors_number_by_number() -> None:
    stream: Any = RecordedStream(21)
    for recorded in RECORDED["randaug_sequence"]:
        np.testing.assert_array_equal(randaugment(PICTURE, stream), recorded)


@pytest.mark.parametrize("seed", PICTURES)
def test_random_crops_by_height_are_the_authors(seed: int) -> None:
    picture, stream = DecodedPicture(PICTURES[seed]), RecordedStream(5)
    box = draw_by_height(picture.size, (48, 48), (0.1, 1.0), stream)  # type: ignore[arg-type]
    found = cut(picture, box, (48, 48))
    np.testing.assert_allclose(found.astype(int), RECORDED[f"zh_random_{seed}"], atol=1)


@pytest.mark.parametrize("seed", PICTURES)
def test_where_no_random_crop_fits_it_is_the_authors_central_square(seed: int) -> None:
    picture = DecodedPicture(PICTURES[seed])
    box = draw_by_height(picture.size, (48, 48), (0.1, 1.0), NothingFits(0))  # type: ignore[arg-type]
    found = cut(picture, box, (48, 48))
    np.testing.assert_allclose(found.astype(int), RECORDED[f"zh_center_bilinear_{seed}"], atol=1)
