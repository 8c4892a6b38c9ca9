"""Promises of the training crops: each is what the published steps give, and what belongs together stays so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from veduta.data.augment import blitznet_crops
from veduta.data.augment.geometry import MEAN_COLOR, draw_window, warp
from veduta.data.augment.published_crops import (
    DEEPLAB,
    ENCODING,
    REFINENET,
    Kernels,
    cut,
    deeplab,
    encoding,
    refinenet,
)
from veduta.data.fit import encoding_size
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.ops.resize import resize_aligned_nearest

Pixels = NDArray[np.uint8]
PUBLISHED = {"deeplab": DEEPLAB, "refinenet": REFINENET, "encoding": ENCODING}
DRAWN = {"deeplab": deeplab, "refinenet": refinenet, "encoding": encoding}
SCALE = (0.5, 2.0)

NOISE = np.random.default_rng(0)
IMAGE = NOISE.integers(0, 256, (36, 54, 3), np.uint8)
MASK = NOISE.choice(np.array([0, 1, 2, 3, 4, IGNORE_INDEX], np.uint8), (36, 54))
IMAGE.flags.writeable = MASK.flags.writeable = False  # as those of a data set that is kept in memory
SAMPLE = Sample(
    image=IMAGE,
    mask=MASK,
    boxes=np.array([[2, 3, 20, 30], [10.5, 0, 54, 36]], np.float32),
    box_classes=np.array([4, 2]),
    box_difficult=np.array([False, True]),
    name="a",
)


def mask_of(sample: Sample) -> Pixels:
    assert sample.mask is not None
    return sample.mask


def boxes_of(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    assert sample.boxes is not None and sample.box_classes is not None and sample.box_difficult is not None
    return sample.boxes, sample.box_classes, sample.box_difficult


def deeplab_whole(image: Pixels, mask: Pixels, size: tuple[int, int]) -> tuple[NDArray[np.float32], Pixels]:
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    scaled = F.interpolate(x, size, mode="bilinear", align_corners=True)[0].permute(1, 2, 0).numpy()
    return scaled, resize_aligned_nearest(torch.from_numpy(mask.copy()), size).numpy()


def refinenet_whole(image: Pixels, mask: Pixels, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    return (
        cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC),
        cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST),
    )


def encoding_whole(image: Pixels, mask: Pixels, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    scaled = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(scaled), np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


STEPS: dict[str, Callable[..., tuple[NDArray[Any], Pixels]]] = {
    "deeplab": deeplab_whole,
    "refinenet": refinenet_whole,
    "encoding": encoding_whole,
}


def step_by_step(
    name: str, crop_size: tuple[int, int], size: tuple[int, int], at: tuple[int, int], flip: bool
) -> tuple[NDArray[np.float32], Pixels]:
    """Image and mask as the references make them, one whole step after the other."""
    image, mask = IMAGE, MASK
    if flip and name == "encoding":
        image, mask = image[:, ::-1].copy(), mask[:, ::-1].copy()
    whole, whole_mask = STEPS[name](image, mask, size)
    missing = [max(0, part - length) for part, length in zip(crop_size, size, strict=True)]
    channels = [
        np.pad(whole[..., k], ((0, missing[0]), (0, missing[1])), constant_values=PUBLISHED[name].outside[k])
        for k in range(3)
    ]
    padded = np.pad(whole_mask, ((0, missing[0]), (0, missing[1])), constant_values=IGNORE_INDEX)
    window = (slice(at[0], at[0] + crop_size[0]), slice(at[1], at[1] + crop_size[1]))
    found, found_mask = np.stack(channels, axis=2)[window].astype(np.float32), padded[window]
    return (found[:, ::-1], found_mask[:, ::-1]) if flip and name != "encoding" else (found, found_mask)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("size", "at"),
    [
        ((36, 54), (0, 3)),  # not scaled
        ((18, 27), (0, 0)),  # smaller than the crop in both directions
        ((27, 90), (0, 17)),  # in one
        ((70, 101), (30, 52)),
        ((301, 477), (100, 201)),  # so much larger than the crop that resizing all of it would cost more
    ],
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_crop_is_what_the_published_steps_give(
    name: str, size: tuple[int, int], at: tuple[int, int], flip: bool
) -> None:
    found = cut(SAMPLE, (34, 42), PUBLISHED[name], size=size, at=at, flip=flip)
    image, mask = step_by_step(name, (34, 42), size, at, flip)
    exact = name == "refinenet" and max(size) < 300  # larger ones are warped
    np.testing.assert_allclose(found.image, image, atol=0 if exact else 1)
    np.testing.assert_array_equal(mask_of(found), mask)


@pytest.mark.parametrize(("name", "kernels"), PUBLISHED.items())
def test_sources_of_mask_pixels_are_those_of_the_library_for_all_lengths(name: str, kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    for length, scaled in rng.integers(1, 900, (150, 2)).tolist():
        places = kernels.places(length, scaled)
        line = np.arange(length).astype(np.uint8)[None]
        _, expected = STEPS[name](np.zeros((1, length, 3), np.uint8), line, (1, scaled))
        np.testing.assert_array_equal(places.astype(np.uint8), expected[0])
        assert places.min() >= 0 and places.max() < length


def test_outside_is_the_colour_of_the_reference_and_void() -> None:
    for name, color in {"deeplab": (128, 128, 128), "refinenet": MEAN_COLOR, "encoding": (0, 0, 0)}.items():
        found = cut(SAMPLE, (40, 60), PUBLISHED[name], size=(36, 54), at=(0, 0), flip=False)
        assert (found.image[36:] == color).all() and (found.image[:, 54:] == color).all()
        assert (mask_of(found)[36:] == IGNORE_INDEX).all() and (mask_of(found)[:, 54:] == IGNORE_INDEX).all()


def test_padding_moves_with_the_flip_where_the_flip_comes_last() -> None:
    for name, columns in {"deeplab": slice(0, 6), "refinenet": slice(0, 6), "encoding": slice(54, 60)}.items():
        found = cut(SAMPLE, (36, 60), PUBLISHED[name], size=(36, 54), at=(0, 0), flip=True)
        assert (mask_of(found)[:, columns] == IGNORE_INDEX).all()
        inside = np.delete(found.image, np.r_[columns], axis=1)
        assert (inside == IMAGE[:, ::-1]).all()


@pytest.mark.parametrize("name", DRAWN)
def test_a_crop_depends_on_its_generator_alone(name: str) -> None:
    def draw(seed: int) -> Sample:
        return DRAWN[name](SAMPLE, (33, 33), scale=SCALE, flip=0.5, rng=np.random.default_rng(seed))

    first, again = draw(3), draw(3)
    assert (first.image == again.image).all() and (mask_of(first) == mask_of(again)).all()
    assert len({draw(seed).image.tobytes() for seed in range(10)}) == 10


@pytest.mark.parametrize("name", DRAWN)
def test_crops_without_mask_and_boxes_stay_without(name: str) -> None:
    bare = Sample(image=IMAGE, name="a", scene_class=3)
    found = DRAWN[name](bare, (33, 35), scale=SCALE, flip=0.5, rng=np.random.default_rng(0))
    assert found.image.shape == (33, 35, 3) and found.image.dtype == np.uint8
    assert (found.mask, found.boxes, found.name, found.scene_class) == (None, None, "a", 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (300, 2)])
@pytest.mark.parametrize("name", DRAWN)
def test_images_of_odd_shapes_can_be_cropped(name: str, shape: tuple[int, int]) -> None:
    sample = replace(SAMPLE, image=np.full((*shape, 3), 9, np.uint8), mask=np.ones(shape, np.uint8))
    for seed in range(4):
        found = DRAWN[name](sample, (33, 33), scale=SCALE, flip=0.5, rng=np.random.default_rng(seed))
        assert found.image.shape == (33, 33, 3)
        assert ((found.image == 9).all(axis=2) == (mask_of(found) == 1)).all()


class Recorded:
    """Stands for `cut` and keeps the sizes, places and flips that were drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.places: list[tuple[int, int]] = []
        self.flips: list[bool] = []
        monkeypatch.setattr("veduta.data.augment.published_crops.cut", self)

    def __call__(self, sample: Sample, *_: object, size: tuple[int, int], at: tuple[int, int], flip: bool) -> Sample:
        self.sizes.append(size)
        self.places.append(at)
        self.flips.append(flip)
        return sample


def test_deeplab_draws_quarters_of_a_scale_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, rng = Recorded(monkeypatch), np.random.default_rng(0)
    for _ in range(700):
        deeplab(SAMPLE, (33, 33), scale=SCALE, flip=0.5, rng=rng)
    expected = [(int(36 * s), int(54 * s)) for s in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)]
    counts = [recorded.sizes.count(size) for size in expected]
    assert sum(counts) == 700 and min(counts) > 70
    assert 0.4 < np.mean(recorded.flips) < 0.6
    largest = [at for at, size in zip(recorded.places, recorded.sizes, strict=True) if size == (72, 108)]
    assert {0, 39} <= {top for top, _ in largest} <= set(range(40))  # every place, the last one included


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ((0.5, 2.0), [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]),
        ((0.1, 0.35), [0.1, 0.35]),  # their difference is a little less than 0.25
        ((0.5, 1.6), [0.5, 0.775, 1.05, 1.325, 1.6]),
        ((1.0, 1.2), [1.0]),
    ],
)
def test_deeplab_draws_both_ends_of_a_range_and_what_lies_evenly_between(
    monkeypatch: pytest.MonkeyPatch, scale: tuple[float, float], expected: list[float]
) -> None:
    recorded, rng = Recorded(monkeypatch), np.random.default_rng(0)
    for _ in range(100):
        deeplab(SAMPLE, (33, 33), scale=scale, flip=0.5, rng=rng)
    assert set(recorded.sizes) == {(int(36 * factor), int(54 * factor)) for factor in expected}


def test_one_scale_is_a_range_too(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, rng = Recorded(monkeypatch), np.random.default_rng(0)
    for draw in (deeplab, refinenet, encoding):
        draw(SAMPLE, (33, 33), scale=(1.0, 1.0), flip=0.0, rng=rng)
    assert recorded.sizes == [(36, 54)] * 3 and recorded.flips == [False] * 3


def test_refinenet_draws_any_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, rng = Recorded(monkeypatch), np.random.default_rng(0)
    for _ in range(300):
        refinenet(SAMPLE, (33, 33), scale=(0.5, 3.0), flip=0.5, rng=rng)
    widths = np.array(recorded.sizes)[:, 1] / 54
    assert widths.min() < 0.55 and widths.max() > 2.9 and abs(widths.mean() - 1.75) < 0.12


def test_encoding_draws_whole_lengths_of_the_longer_side(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, rng = Recorded(monkeypatch), np.random.default_rng(0)
    for _ in range(300):
        encoding(SAMPLE, (33, 33), scale=(0.5, 2.0), flip=0.5, rng=rng, base_size=8)
    assert {size[1] for size in recorded.sizes} == set(range(4, 17))
    assert set(recorded.sizes) == {encoding_size((36, 54), longer) for longer in range(4, 17)}
    assert encoding_size((80, 40), 5) == (5, 3) and encoding_size((40, 80), 5) == (3, 5)  # 2.5 is rounded up


def scene(rng: np.random.Generator) -> Sample:
    """Three rectangles on black, apart from each other: object i lights channel i alone and is of class i + 1."""
    height, width = (int(rng.integers(40, 100)) for _ in range(2))
    image, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    boxes = []
    for i, (top, left) in enumerate(((0, 0), (0, width // 2), (height // 2, 0))):
        y1, x1 = top + int(rng.integers(6)), left + int(rng.integers(6))
        y2, x2 = y1 + int(rng.integers(5, height // 2 - 6)), x1 + int(rng.integers(5, width // 2 - 6))
        image[y1:y2, x1:x2, i], mask[y1:y2, x1:x2] = 255, i + 1
        boxes.append((x1, y1, x2, y2))
    return Sample(
        image=image,
        mask=mask,
        boxes=np.array(boxes, np.float32),
        box_classes=np.array([1, 2, 3]),
        box_difficult=np.array([False, True, False]),
        name="scene",
    )


def by_window(sample: Sample, rng: np.random.Generator) -> Sample:
    window = draw_window(sample.image.shape[:2], (64, 72), scale=SCALE, flip=0.5, rng=rng)
    return warp(sample, window, (64, 72))


def by_blitznet(sample: Sample, rng: np.random.Generator) -> Sample:
    colors = sample.image.astype(np.float32) / np.float32(255)  # as they are: their edges are looked for
    return blitznet_crops.cut(sample, colors, blitznet_crops.draw_crop(sample, rng), 72)


def by_published(name: str) -> Callable[[Sample, np.random.Generator], Sample]:
    return lambda sample, rng: DRAWN[name](sample, (64, 72), scale=SCALE, flip=0.5, rng=rng)


# How far edges of mask and image may be from those of the box, in pixels of the crop. OpenCV's and TensorFlow's nearest
# neighbour rounds down, which moves masks by up to a pixel; TensorFlow 1 leaves out the half pixel when it resizes.
CROPS: dict[str, tuple[Callable[[Sample, np.random.Generator], Sample], float, float]] = {
    "window": (by_window, 0.5, 1.0),
    "deeplab": (by_published("deeplab"), 0.5, 1.0),
    "refinenet": (by_published("refinenet"), 1.0, 1.0),
    "encoding": (by_published("encoding"), 0.5, 1.0),
    "blitznet": (by_blitznet, 1.0, 2.0),
}


def extent(marked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """xyxy of the pixels that are marked."""
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


@pytest.mark.parametrize("name", CROPS)
def test_image_mask_and_boxes_stay_aligned(name: str) -> None:
    crop, mask_tolerance, image_tolerance = CROPS[name]
    mask_drift, image_drift = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        found = crop(scene(rng), rng)
        mask = mask_of(found)
        boxes, classes, difficult = boxes_of(found)
        assert (difficult == (classes == 2)).all()  # the mark stays with its object
        for box, train_id in zip(boxes, classes, strict=True):
            sides = extent(mask == train_id) - box
            assert np.abs(sides).max() <= mask_tolerance + 1e-4, f"seed {seed}, object {train_id}"
            mask_drift.append(sides)
            lit = (found.image[..., train_id - 1] > 127) & (mask != IGNORE_INDEX)
            if min(box[2:] - box[:2]) > 2:
                sides = extent(lit) - box
                assert np.abs(sides).max() <= image_tolerance + 1e-4, f"seed {seed}, object {train_id}"
                image_drift.append(sides)
        lost = set(np.unique(mask).tolist()) - {0, IGNORE_INDEX} - set(classes.tolist())
        if name != "blitznet":  # there the centre of an object decides
            assert all(min(extent(mask == i)[2:] - extent(mask == i)[:2]) <= 2 for i in lost)
    assert len(image_drift) > 80
    if mask_tolerance == 0.5:
        assert np.abs(np.mean(mask_drift, axis=0)).max() < 0.1  # no systematic shift
    if name != "blitznet":
        assert np.abs(np.mean(image_drift, axis=0)).max() < 0.1
