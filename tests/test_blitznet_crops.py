"""Promises of BlitzNet's augmentation: one resampling equals the published steps, and its rules on objects hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from veduta.data.augment import blitznet_crops
from veduta.data.augment.blitznet_crops import (
    CANVAS_COLOR,
    MIN_COVERED,
    Crop,
    blitznet,
    cut,
    draw_covering_crop,
    draw_crop,
    recolor,
)
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.ops.resize import resize_legacy, resize_legacy_nearest

SIZE = 48
HEIGHT, WIDTH = 45, 61
NOISE = np.random.default_rng(0)
IMAGE = NOISE.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
MASK = NOISE.choice(np.array([0, 1, 2, IGNORE_INDEX], np.uint8), (HEIGHT, WIDTH))
IMAGE.flags.writeable = MASK.flags.writeable = False  # as those of a data set that is kept in memory
SAMPLE = Sample(
    image=IMAGE,
    mask=MASK,
    boxes=np.array([[2, 3, 20, 30], [10.5, 0, 61, 45], [40, 30, 44, 36]], np.float32),
    box_classes=np.array([4, 2, 9]),
    box_difficult=np.array([False, True, False]),
    name="a",
    scene_class=7,
)
COLORS = IMAGE.astype(np.float32) / np.float32(255)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mask_of(sample: Sample) -> NDArray[np.uint8]:
    assert sample.mask is not None
    return sample.mask


def boxes_of(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    assert sample.boxes is not None and sample.box_classes is not None and sample.box_difficult is not None
    return sample.boxes, sample.box_classes, sample.box_difficult


def step_by_step(crop: Crop, size: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Zoom-out onto a canvas, crop, flip, legacy resizes: image (size, size, 3) in levels, and mask."""
    margin = 200
    canvas = np.full((HEIGHT + 2 * margin, WIDTH + 2 * margin, 3), CANVAS_COLOR, np.float32)
    mask = np.zeros(canvas.shape[:2], np.uint8)
    inside = (slice(margin, margin + HEIGHT), slice(margin, margin + WIDTH))
    canvas[inside], mask[inside] = COLORS, MASK
    window = (
        slice(margin + crop.top, margin + crop.top + crop.height),
        slice(margin + crop.left, margin + crop.left + crop.width),
    )
    canvas, mask = canvas[window], mask[window]
    if crop.flip:
        canvas, mask = canvas[:, ::-1].copy(), mask[:, ::-1].copy()
    x = torch.from_numpy(canvas).permute(2, 0, 1)[None]
    image = 255 * resize_legacy(x, (size, size))[0].permute(1, 2, 0).numpy()
    return image, resize_legacy_nearest(torch.from_numpy(mask), (size, size)).numpy()


CROPS = {
    "all of the image": (0, 0, HEIGHT, WIDTH),
    "inside, enlarged": (10, 20, 25, 31),
    "beyond one side": (10, 30, 30, 60),
    "beyond all sides": (-70, -50, 170, 180),
    "only canvas, above": (-60, 5, 50, 40),
    "only canvas, touching it below and to the right": (HEIGHT, WIDTH, 30, 20),
    "only canvas, touching it above and to the left": (-30, -20, 30, 20),
    "one column of the image": (5, -39, 60, 40),
}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("place", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize("size", [SIZE, 75])
def test_one_resampling_equals_the_published_steps(place: tuple[int, int, int, int], size: int, flip: bool) -> None:
    crop = Crop(top=place[0], left=place[1], height=place[2], width=place[3], flip=flip)
    found = cut(SAMPLE, COLORS, crop, size)
    image, mask = step_by_step(crop, size)
    np.testing.assert_allclose(found.image, image, atol=0.6)
    np.testing.assert_array_equal(mask_of(found), mask)


def test_drawn_crops_equal_the_published_steps() -> None:
    for seed in range(40):
        crop = draw_crop(SAMPLE, generator(seed))
        found = cut(SAMPLE, COLORS, crop, SIZE)
        image, mask = step_by_step(crop, SIZE)
        np.testing.assert_allclose(found.image, image, atol=0.6)
        np.testing.assert_array_equal(mask_of(found), mask)


def test_boxes_follow_are_clipped_and_flipped() -> None:
    crop = Crop(top=5, left=10, height=24, width=24, flip=False)
    boxes, classes, difficult = boxes_of(cut(SAMPLE, COLORS, crop, SIZE))
    assert boxes.tolist() == [[0, 0, 20, 48]] and classes.tolist() == [4] and difficult.tolist() == [False]
    mirrored, _, _ = boxes_of(cut(SAMPLE, COLORS, replace(crop, flip=True), SIZE))
    assert mirrored.tolist() == [[28, 0, 48, 48]]


@pytest.mark.parametrize(("left", "kept"), [(35, [2, 9]), (36, [9]), (42, [])])
def test_an_object_stays_where_its_centre_is_in_the_crop(left: int, kept: list[int]) -> None:
    """The centre of object 2 lies at 35.75, that of object 9 at 42."""
    crop = Crop(top=0, left=left, height=HEIGHT, width=WIDTH - left, flip=False)
    _, classes, difficult = boxes_of(cut(SAMPLE, COLORS, crop, SIZE))
    assert classes.tolist() == kept and difficult.tolist() == [c == 2 for c in kept]


@pytest.mark.parametrize(("size", "kept"), [(31, True), (30, False)])
def test_a_box_needs_two_pixels_of_the_square(size: int, kept: bool) -> None:
    """Object 9 is 4 pixels wide, of 61: that is 2.03 of 31, but 1.97 of 30."""
    crop = Crop(top=0, left=0, height=HEIGHT, width=WIDTH, flip=False)
    _, classes, _ = boxes_of(cut(SAMPLE, COLORS, crop, size))
    assert (9 in classes) is kept


def test_outside_of_the_image_is_mean_colour_and_background_not_void() -> None:
    crop = Crop(top=-HEIGHT, left=0, height=2 * HEIGHT, width=WIDTH, flip=False)
    found = cut(replace(SAMPLE, mask=np.full_like(MASK, IGNORE_INDEX)), COLORS, crop, SIZE)
    assert (found.image[: SIZE // 2 - 1] == (123, 116, 103)).all()
    assert (mask_of(found)[: SIZE // 2] == 0).all() and (mask_of(found)[SIZE // 2 :] == IGNORE_INDEX).all()


def test_half_of_the_crops_come_from_a_canvas_and_half_are_flipped() -> None:
    crops = [draw_crop(SAMPLE, generator(seed)) for seed in range(400)]
    beyond = [c.top < 0 or c.left < 0 or c.top + c.height > HEIGHT or c.left + c.width > WIDTH for c in crops]
    assert 0.35 < np.mean(beyond) < 0.55  # of a canvas barely larger than the image, a crop may lie inside of it
    assert 0.4 < np.mean([c.flip for c in crops]) < 0.6
    assert max(c.height for c in crops) < 4 * HEIGHT and max(c.height for c in crops) > 2 * HEIGHT


def test_a_crop_covers_enough_of_an_object_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    size = np.array([90, 200])  # so low that the narrowest crops are too small
    boxes = np.array([[[10, 10], [50, 40]], [[40, 130], [85, 190]]], np.float64)  # y, x
    for covered in MIN_COVERED:
        monkeypatch.setattr(blitznet_crops, "MIN_COVERED", (covered,))
        found = [draw_covering_crop(size, boxes, generator(seed)) for seed in range(120)]
        crops = np.array([crop for crop in found if crop is not None])
        assert len(crops) > 100
        start, shape = crops[:, :2], crops[:, 2:]
        assert (start >= 0).all() and (start + shape <= size).all()
        area, aspect = shape.prod(axis=1) / size.prod(), shape[:, 1] / shape[:, 0]
        assert area.min() >= 0.3 and area.max() <= 1
        assert aspect.min() > 0.49 and aspect.max() < 2.03  # widths are rounded
        assert aspect.min() < 0.75 and aspect.max() > 1.6
        sides = np.minimum(boxes[:, 1], (start + shape)[:, None]) - np.maximum(boxes[:, 0], start[:, None])
        share = (sides.clip(min=0).prod(axis=2) / (boxes[:, 1] - boxes[:, 0]).prod(axis=1)).max(axis=1)
        assert share.min() >= covered
        assert share.min() < covered + 0.25  # and not much more than is asked for


def test_what_no_crop_can_cover_gets_all_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blitznet_crops, "MIN_COVERED", (0.9,))
    monkeypatch.setattr(blitznet_crops, "AREAS", (0.3, 0.5))
    whole = np.array([[[0, 0], [100, 100]]], np.float64)
    assert draw_covering_crop(np.array([100, 100]), whole, generator()) is None
    sample = replace(
        SAMPLE, boxes=np.array([[0, 0, WIDTH, HEIGHT]], np.float32), box_classes=np.array([1]), box_difficult=None
    )
    crops = [draw_crop(sample, generator(seed)) for seed in range(20)]
    inside = [crop for crop in crops if crop.top >= 0 and crop.left >= 0]
    assert inside and all((c.top, c.left, c.height, c.width) == (0, 0, HEIGHT, WIDTH) for c in inside)


def test_colours_always_change_and_stay_in_their_range() -> None:
    smooth = (IMAGE // 3 + 60).astype(np.uint8)
    changed = [recolor(smooth, generator(seed)) for seed in range(30)]
    for colors in changed:
        assert colors.dtype == np.float32 and colors.min() >= 0 and colors.max() <= 1
        assert np.abs(colors - smooth / 255).max() > 0.01
    assert (smooth == IMAGE // 3 + 60).all()  # the given image stays


def test_all_four_orders_of_colour_changes_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def spy(change: str) -> object:
        def note(image: NDArray[np.float32], amount: float) -> None:
            low, high = blitznet_crops.AMOUNTS[change]
            assert low <= amount <= high
            seen.append(change)

        return note

    monkeypatch.setattr(blitznet_crops, "ADJUST", {change: spy(change) for change in blitznet_crops.AMOUNTS})
    for seed in range(200):
        recolor(IMAGE, generator(seed))
    orders = [tuple(seen[i : i + 4]) for i in range(0, len(seen), 4)]
    assert set(orders) == set(blitznet_crops.ORDERS)
    assert min(orders.count(order) for order in blitznet_crops.ORDERS) > 30


def test_the_whole_augmentation_depends_on_its_generator_alone() -> None:
    first, again = blitznet(SAMPLE, 33, generator(5)), blitznet(SAMPLE, 33, generator(5))
    assert (first.image == again.image).all() and (mask_of(first) == mask_of(again)).all()
    assert (boxes_of(first)[0] == boxes_of(again)[0]).all()
    assert first.image.shape == (33, 33, 3) and first.image.dtype == np.uint8 and mask_of(first).shape == (33, 33)
    assert (first.name, first.scene_class) == ("a", 7)
    assert len({blitznet(SAMPLE, 33, generator(seed)).image.tobytes() for seed in range(8)}) == 8


def test_images_without_objects_and_without_masks_are_augmented_too() -> None:
    bare = Sample(image=IMAGE, name="a", boxes=np.zeros((0, 4), np.float32), box_classes=np.zeros(0, np.int64))
    for seed in range(10):
        found = blitznet(bare, 33, generator(seed))
        assert found.mask is None and found.boxes is not None and found.boxes.shape == (0, 4)
        assert found.box_classes is not None and found.box_classes.shape == (0,)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (200, 2)])
def test_images_of_odd_shapes_are_augmented(shape: tuple[int, int]) -> None:
    sample = replace(SAMPLE, image=np.full((*shape, 3), 9, np.uint8), mask=np.ones(shape, np.uint8))
    for seed in range(10):
        assert blitznet(sample, 33, generator(seed)).image.shape == (33, 33, 3)
