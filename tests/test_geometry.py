"""Promises of the warp: exact where it can be exact, and image, mask and boxes always move together."""

from dataclasses import replace

import numpy as np
import pytest
from layouts import paint
from numpy.typing import NDArray

from veduta.data.augment.geometry import MEAN_COLOR, Interval, Window, draw_focus, draw_window, warp, warp_boxes
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX

HEIGHT, WIDTH = 37, 53
IMAGE, MASK = paint(0, 5, (HEIGHT, WIDTH))
BOXES = np.array([[2, 3, 20, 30], [10.5, 0, 53, 37]], np.float32)
SAMPLE = Sample(image=IMAGE, mask=MASK, boxes=BOXES, box_classes=np.array([4, 2]), scene_class=1, name="a")


def window(rows: Interval, columns: Interval, to_rows: Interval, to_columns: Interval, flip: bool = False) -> Window:
    return Window(rows=rows, columns=columns, to_rows=to_rows, to_columns=to_columns, flip=flip)


def whole(zoom: int = 1, flip: bool = False) -> Window:
    """All of the image, `zoom` times as large."""
    return window((0, HEIGHT), (0, WIDTH), (0, zoom * HEIGHT), (0, zoom * WIDTH), flip)


def parts(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    assert sample.mask is not None and sample.boxes is not None and sample.box_classes is not None
    return sample.image, sample.mask, sample.boxes, sample.box_classes


def test_the_identity_changes_nothing() -> None:
    image, mask, boxes, box_classes = parts(warp(SAMPLE, whole(), (HEIGHT, WIDTH)))
    assert (image == IMAGE).all() and (mask == MASK).all() and (boxes == BOXES).all()
    assert box_classes.tolist() == [4, 2]


def test_a_flip_mirrors_image_mask_and_boxes_exactly() -> None:
    image, mask, boxes, box_classes = parts(warp(SAMPLE, whole(flip=True), (HEIGHT, WIDTH)))
    assert (image == np.fliplr(IMAGE)).all() and (mask == np.fliplr(MASK)).all()
    assert boxes.tolist() == [[33, 3, 51, 30], [0, 0, 42.5, 37]]
    assert box_classes.tolist() == [4, 2]


def test_a_whole_shift_is_an_exact_crop() -> None:
    image, mask, boxes, _ = parts(warp(SAMPLE, window((4, 24), (7, 37), (0, 20), (0, 30)), (20, 30)))
    assert (image == IMAGE[4:24, 7:37]).all() and (mask == MASK[4:24, 7:37]).all()
    assert boxes.tolist() == [[0, 0, 13, 20], [3.5, 0, 30, 20]]


def test_doubling_repeats_every_mask_pixel() -> None:
    _, mask, boxes, _ = parts(warp(SAMPLE, whole(zoom=2), (2 * HEIGHT, 2 * WIDTH)))
    assert (mask == MASK.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert (boxes == 2 * BOXES).all()


def test_outside_of_the_image_is_mean_colour_and_void() -> None:
    image, mask, boxes, _ = parts(
        warp(SAMPLE, window((0, HEIGHT), (0, WIDTH), (3, 3 + HEIGHT), (5, 5 + WIDTH)), (50, 70))
    )
    outside = np.ones((50, 70), bool)
    outside[3 : 3 + HEIGHT, 5 : 5 + WIDTH] = False
    assert (image[outside] == MEAN_COLOR).all() and (mask[outside] == IGNORE_INDEX).all()
    assert (image[~outside].reshape(IMAGE.shape) == IMAGE).all()
    assert boxes.tolist() == [[7, 6, 25, 33], [15.5, 3, 58, 40]]


def test_name_and_scene_class_stay_and_the_given_sample_is_not_changed() -> None:
    before = [part.copy() for part in parts(SAMPLE)]
    warped = warp(SAMPLE, window((4, 29), (6, 31), (0, 33), (0, 33), True), (33, 33))
    assert (warped.name, warped.scene_class) == ("a", 1)
    assert all((was == part).all() for was, part in zip(before, parts(SAMPLE), strict=True))


def test_a_sample_without_mask_and_boxes_stays_without() -> None:
    warped = warp(Sample(image=IMAGE, name="a"), whole(), (HEIGHT, WIDTH))
    assert warped.mask is None and warped.boxes is None and warped.box_classes is None


def test_no_boxes_stay_no_boxes() -> None:
    boxes, keep = warp_boxes(np.zeros((0, 4), np.float32), whole(zoom=2), (2 * HEIGHT, 2 * WIDTH))
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32 and keep.shape == (0,)


def test_boxes_that_leave_the_crop_are_dropped_with_their_classes() -> None:
    _, _, boxes, box_classes = parts(warp(SAMPLE, window((0, HEIGHT), (21, 51), (0, HEIGHT), (0, 30)), (HEIGHT, 30)))
    assert boxes.tolist() == [[0, 0, 30, 37]] and box_classes.tolist() == [2]


def random_windows(count: int) -> list[Window]:
    rng = np.random.default_rng(5)
    return [draw_window((90, 120), (100, 110), scale=(0.6, 1.7), flip=0.5, rng=rng) for _ in range(count)]


def centroid(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y) of the centre of mass, in pixel edges."""
    rows, columns = np.indices(weights.shape)
    return np.array([(weights * (columns + 0.5)).sum(), (weights * (rows + 0.5)).sum()]) / weights.sum()


@pytest.mark.parametrize("at", [(12, 8), (50, 40), (90, 70)])
def test_image_mask_and_boxes_move_together(at: tuple[int, int]) -> None:
    x, y = at
    image, mask = np.zeros((90, 120, 3), np.uint8), np.zeros((90, 120), np.uint8)
    image[y : y + 12, x : x + 20], mask[y : y + 12, x : x + 20] = 255, 1
    box = np.array([[x, y, x + 20, y + 12]], np.float32)
    sample = Sample(image=image, mask=mask, boxes=box, box_classes=np.array([1]), name="a")
    drift = []
    for drawn in random_windows(60):
        warped_image, warped_mask, boxes, _ = parts(warp(sample, drawn, (100, 110)))
        if len(boxes) == 0 or boxes.min() < 1 or (boxes[0, 2:] > (109, 99)).any():
            continue  # cut by the crop: its centre is another one
        in_image = centroid(np.clip(warped_image[..., 0] - 128.0, 0, None))  # what is brighter than the outside
        in_mask = centroid((warped_mask == 1).astype(np.float64))
        in_box = (boxes[0, :2] + boxes[0, 2:]) / 2
        drift.append(in_mask - in_image)
        for found in (in_image, in_mask):
            np.testing.assert_allclose(found, in_box, atol=0.5)
    assert len(drift) > 15
    np.testing.assert_allclose(np.mean(drift, axis=0), 0, atol=0.15)  # no systematic shift


def test_a_drawn_crop_lies_in_a_larger_image_and_around_a_smaller_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = draw_window((60, 40), (50, 50), scale=(1, 1), flip=0.5, rng=rng)
        assert drawn.columns == (0, 40) and drawn.to_columns[1] - drawn.to_columns[0] == 40  # narrower: all of it
        assert drawn.to_rows == (0, 50) and drawn.rows[1] - drawn.rows[0] == 50  # higher: the crop is full
        assert 0 <= drawn.rows[0] <= 10 and 0 <= drawn.to_columns[0] <= 10


def test_scales_places_and_flips_are_drawn_from_their_ranges() -> None:
    windows = random_windows(400)
    zooms = np.array([(w.to_rows[1] - w.to_rows[0]) / (w.rows[1] - w.rows[0]) for w in windows])
    assert 0.59 <= zooms.min() < 0.65 and 1.6 < zooms.max() <= 1.71
    assert abs(np.median(zooms) - np.sqrt(0.6 * 1.7)) < 0.06  # log-uniform
    assert 0.4 < np.mean([w.flip for w in windows]) < 0.6
    starts = [w.rows[0] for w in windows if w.rows[1] - w.rows[0] == 70]
    assert len(starts) > 3 and min(starts) < 7 and max(starts) > 13  # anywhere from 0 to 20


@pytest.mark.parametrize("seed", range(20))
def test_a_focused_crop_holds_its_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((60, 80), np.uint8)
    row, column = int(rng.integers(60)), int(rng.integers(80))
    mask[row, column] = 1
    sample = Sample(image=np.zeros((60, 80, 3), np.uint8), name="", mask=mask)
    crop = draw_window((60, 80), (20, 24), scale=(1.0, 2.0), flip=0.5, rng=rng, focus=(row, column))
    cropped = warp(sample, crop, (20, 24)).mask
    assert cropped is not None
    assert (cropped == 1).any()


def test_the_focus_is_each_class_of_the_mask_as_often_and_never_void() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[3, 4], mask[10:20] = 1, IGNORE_INDEX
    rng = np.random.default_rng(0)
    drawn = [draw_focus(mask, rng) for _ in range(400)]
    rare = sum(place == (3, 4) for place in drawn)
    assert 150 < rare < 250
    assert all(place is not None and mask[place] != IGNORE_INDEX for place in drawn)
    assert draw_focus(np.full((4, 4), IGNORE_INDEX, np.uint8), rng) is None


def test_marks_of_difficult_objects_stay_with_their_boxes() -> None:
    sample = replace(SAMPLE, box_difficult=np.array([False, True]))
    warped = warp(sample, window((0, HEIGHT), (21, 51), (0, HEIGHT), (0, 30)), (HEIGHT, 30))
    assert warped.box_difficult is not None and warped.box_difficult.tolist() == [True]
