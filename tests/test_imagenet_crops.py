"""Promises of the training images for classification: where they look, how they are resized, what colours become."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rule
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from veduta.config import Augment
from veduta.data.augment.imagenet_crops import COMPONENTS, CROPS, cut, draw_by_area, imagenet, jitter, light
from veduta.data.augment.policies import POLICIES
from veduta.data.images import DecodedPicture, StoredPicture
from veduta.data.stored import Stored

PHOTO = rule.image_u8(5, (90, 121, 3))
SMOOTH = np.asarray(Image.fromarray(rule.image_u8(6, (13, 17, 3))).resize((680, 520), Image.Resampling.BICUBIC))
PLAIN = {"pipeline": "imagenet", "flip": 0.0}


def augment(**fields: Any) -> Augment:
    return Augment(**{**PLAIN, **fields})


class Spy(DecodedPicture):
    """Says how it was decoded; shrinks by averaging, as JPEG's decoder does."""

    shrink = 0

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        self.shrink = shrink
        return np.asarray(Image.fromarray(self.image).reduce(shrink))


@pytest.mark.parametrize("crop_by", CROPS)
@pytest.mark.parametrize("size", [(90, 121), (130, 77), (40, 200), (7, 5), (1, 1), (1, 300)])
def test_every_box_lies_in_the_image_and_is_none_too_small(crop_by: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left, height, width = CROPS[crop_by](size, (48, 48), (0.08, 1.0), rng)
        assert top >= 0 and left >= 0 and height >= 1 and width >= 1
        assert top + height <= size[0] and left + width <= size[1]


@pytest.mark.parametrize("crop_by", CROPS)
def test_boxes_keep_area_and_aspect(crop_by: str) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([CROPS[crop_by]((400, 500), (224, 224), (0.1, 0.5), rng) for _ in range(3000)])
    shares, aspects = boxes[:, 2] * boxes[:, 3] / (400 * 500), boxes[:, 3] / boxes[:, 2]
    assert shares.min() >= 0.099 and shares.max() <= 0.501
    assert shares.min() < 0.12 and shares.max() > 0.48
    assert aspects.min() == pytest.approx(3 / 4, abs=0.02) and aspects.max() == pytest.approx(4 / 3, abs=0.02)


def test_by_area_the_share_is_uniform_and_by_height_small_crops_are_more_frequent() -> None:
    means = {}
    for crop_by, draw in CROPS.items():
        rng = np.random.default_rng(0)
        boxes = np.array([draw((400, 400), (224, 224), (0.1, 0.5), rng) for _ in range(3000)])
        means[crop_by] = (boxes[:, 2] * boxes[:, 3]).mean() / 400**2
    assert means["area"] == pytest.approx(0.3, abs=0.01)
    assert means["height"] < 0.285


def test_where_no_box_by_area_fits_it_is_the_middle_at_the_nearest_aspect() -> None:
    rng = np.random.default_rng(0)
    assert draw_by_area((40, 400), (48, 48), (1.0, 1.0), rng) == (0, (400 - 53) // 2, 40, 53)
    assert draw_by_area((400, 40), (48, 48), (1.0, 1.0), rng) == ((400 - 53) // 2, 0, 53, 40)


@pytest.mark.parametrize("box", [(3, 5, 60, 90), (0, 0, 90, 121), (10, 20, 17, 13), (40, 60, 1, 1)])
def test_a_part_is_resized_as_pillow_does_to_one_level(box: tuple[int, int, int, int]) -> None:
    top, left, height, width = box
    part = Image.fromarray(PHOTO[top : top + height, left : left + width])
    expected = np.asarray(part.resize((40, 32), Image.Resampling.BILINEAR))
    found = cut(DecodedPicture(PHOTO), box, (32, 40))
    assert found.flags.c_contiguous and found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), expected, atol=1)


@pytest.mark.parametrize(
    ("box", "shrink"),
    [
        ((0, 0, 512, 640), 8),
        ((0, 0, 511, 640), 4),
        ((8, 20, 256, 400), 4),
        ((8, 20, 255, 400), 2),
        ((7, 21, 130, 161), 2),
        ((7, 21, 127, 640), 1),
        ((7, 21, 30, 30), 1),
    ],
)
def test_a_picture_is_decoded_as_small_as_its_part_allows(box: tuple[int, int, int, int], shrink: int) -> None:
    picture = Spy(SMOOTH)
    found = cut(picture, box, (64, 80))
    assert picture.shrink == shrink
    whole = cut(DecodedPicture(SMOOTH), box, (64, 80))
    assert np.abs(found.astype(int) - whole).mean() < 2  # the same part, to a fraction of a pixel


def test_a_jpeg_on_disk_gives_the_same_part_at_any_scale(tmp_path: Path) -> None:
    path, data = tmp_path / "photo.jpg", io.BytesIO()
    Image.fromarray(SMOOTH).save(data, format="JPEG", quality=95)
    path.write_bytes(data.getvalue())
    picture = StoredPicture(Stored(path))
    assert picture.size == (520, 680)
    for box in [(4, 30, 510, 640), (100, 200, 260, 330), (17, 33, 99, 101)]:
        found, expected = cut(picture, box, (64, 80)), cut(DecodedPicture(SMOOTH), box, (64, 80))
        assert np.abs(found.astype(int) - expected).mean() < 3


def test_read_only_images_are_taken_without_a_warning() -> None:
    image = PHOTO.copy()
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = imagenet(
            DecodedPicture(image), (48, 48), augment(area=(1.0, 1.0), lighting=0.1), np.random.default_rng(0)
        )
    assert found.shape == (48, 48, 3)


@pytest.mark.parametrize("crop_by", CROPS)
@pytest.mark.parametrize("policy", ["none", "randaugment", "autoaugment"])
@pytest.mark.parametrize("policy_first", [False, True])
def test_an_image_is_its_generators_and_of_the_crops_size(crop_by: Any, policy: Any, policy_first: bool) -> None:
    fields = augment(
        crop_by=crop_by,
        policy=policy,
        policy_first=policy_first,
        flip=0.5,
        brightness=0.4,
        saturation=0.4,
        lighting=0.1,
    )
    before = PHOTO.copy()
    found = [imagenet(DecodedPicture(PHOTO), (40, 56), fields, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert found[0].shape == (40, 56, 3) and found[0].dtype == np.uint8
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any() and (before == PHOTO).all()


def test_the_policy_sees_the_whole_image_where_it_comes_first_and_else_the_crop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def policy(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        seen.append(image.shape[:2])
        return image

    monkeypatch.setitem(POLICIES, "randaugment", policy)
    for first in (True, False):
        fields = augment(policy="randaugment", policy_first=first)
        imagenet(DecodedPicture(PHOTO), (40, 56), fields, np.random.default_rng(0))
    assert seen == [(90, 121), (40, 56)]


def test_a_flip_mirrors_the_same_crop() -> None:
    plain, mirrored = (
        imagenet(DecodedPicture(PHOTO), (40, 56), augment(flip=p), np.random.default_rng(3)) for p in (0.0, 1.0)
    )
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


class InOrder:
    """A generator that draws an order of the colour changes, and 1.3 for every factor."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def permutation(self, length: int) -> list[int]:
        return self.order

    def uniform(self, low: float, high: float) -> float:
        assert (low, high) == (0.6, 1.4)
        return 1.3


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_colours_change_in_the_drawn_order_as_in_pillow(order: list[int]) -> None:
    stream: Any = InOrder(order)
    found = jitter(PHOTO, augment(brightness=0.4, contrast=0.4, saturation=0.4), stream)
    expected = Image.fromarray(PHOTO)
    for i in order:
        expected = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[i](expected).enhance(1.3)
    np.testing.assert_allclose(found.astype(int), np.asarray(expected), atol=2)  # a level of `color`, then amplified
    assert (found == np.asarray(expected)).mean() > 0.98


def test_without_ranges_no_colour_changes() -> None:
    rng = np.random.default_rng(0)
    assert jitter(PHOTO, augment(), rng) is PHOTO
    assert light(PHOTO, 0.0, rng) is PHOTO


def test_the_lighting_is_one_shift_along_the_principal_components() -> None:
    grey = np.full((3, 4, 3), 128, np.uint8)
    shifts = np.array([light(grey, 0.1, np.random.default_rng(seed))[1, 2].astype(float) - 128 for seed in range(4000)])
    expected = (0.1 * 255) ** 2 * COMPONENTS @ COMPONENTS.T
    np.testing.assert_allclose(np.cov(shifts.T), expected + np.eye(3) / 12, atol=2.5)  # 1/12: of rounding
    assert (light(PHOTO, 0.1, np.random.default_rng(1)).astype(int) - PHOTO).std(axis=(0, 1)).max() < 1
    assert light(np.full((2, 2, 3), 255, np.uint8), 5.0, np.random.default_rng(2)).max() <= 255
