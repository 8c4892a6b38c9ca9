"""What painting promises: exact rectangles, no gaps and no overlaps, COCO's run lengths, limits."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from writers.coco import compressed, runs

from veduta.data.layouts.paint import (
    MAX_ROWS,
    PaintedObjects,
    area_of,
    fill_polygon,
    fill_runs,
    read_polygon,
    read_runs,
)

SIZE = (40, 50)
PUBLISHED = (  # of pycocotools, for the mask of `framed`
    "[6R16000000000000UO4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:LF4:La0000000000000000000000000"
    "0000m4oNTL"
)


def polygon(*points: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(points, np.float32)


def painted(*polygons: NDArray[np.float32]) -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    for corners in polygons:
        fill_polygon(mask, corners, 1)
    return mask


def framed() -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, np.bool_)
    mask[3:37, 5:45], mask[10:20, 12:30], mask[0, 49] = True, False, True
    return mask


def test_corners_at_whole_pixels_give_exact_rectangles() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        (left, right), (top, bottom) = sorted(rng.integers(0, 51, 2)), sorted(rng.integers(0, 41, 2))
        expected = np.zeros(SIZE, np.uint8)
        expected[top:bottom, left:right] = 1
        corners = polygon((left, top), (right, top), (right, bottom), (left, bottom))
        assert np.array_equal(painted(corners), expected)
        assert np.array_equal(painted(corners[::-1]), expected)
        assert area_of((corners,)) == expected.sum()


def test_a_pixel_is_inside_where_its_centre_is() -> None:
    corners = polygon((2.5, 1.2), (31.7, 8.4), (44.1, 33.3), (12.6, 38.9))
    x, y = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    expected = np.ones(SIZE, np.bool_)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        expected &= (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0
    assert np.array_equal(painted(corners), expected)


def test_polygons_that_share_edges_neither_overlap_nor_leave_gaps() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        center = rng.uniform(5, 35, 2)
        rim = [(0, 0), (20, 0), (50, 0), (50, 40), (23.5, 40), (0, 40), (0, 0)]
        parts = [painted(polygon(a, b, tuple(center))) for a, b in zip(rim, rim[1:], strict=False)]
        assert np.array_equal(np.sum(parts, axis=0), np.ones(SIZE))


def test_what_lies_outside_of_the_image_is_cut_off() -> None:
    corners = polygon((-900, -20), (25, -20), (25, 1e6), (-900, 1e6))
    assert np.array_equal(painted(corners), painted(polygon((0, 0), (25, 0), (25, 40), (0, 40))))
    assert not painted(polygon((60, 5), (90, 5), (90, 30))).any()


def test_a_polygon_without_area_paints_nothing() -> None:
    assert not painted(polygon((3, 3), (30, 3), (10, 3)), polygon((7, 7), (7, 7), (7, 7))).any()


def test_run_lengths_are_those_of_pycocotools() -> None:
    assert compressed(runs(framed())["counts"]) == PUBLISHED
    mask = np.zeros(SIZE, np.uint8)
    fill_runs(mask, read_runs(PUBLISHED, SIZE), 7)
    assert np.array_equal(mask, 7 * framed())


def test_run_lengths_come_back_equal_compressed_or_not() -> None:
    rng = np.random.default_rng(2)
    for share in np.linspace(0, 1, 20):
        expected = rng.random(SIZE) < share
        counts = runs(expected)["counts"]
        for form in (counts, compressed(counts)):
            mask = np.zeros(SIZE, np.uint8)
            fill_runs(mask, read_runs(form, SIZE), 1)
            assert np.array_equal(mask, expected)
        assert area_of(np.array(counts, np.int64)) == expected.sum()


@pytest.mark.parametrize(
    "counts",
    [
        [],
        "",
        [1999],
        [2001],
        [3000, -1000],
        [10**30],
        [2000.0],
        ["2000"],
        [[2000]],
        None,
        PUBLISHED[:-1],
        PUBLISHED[1:],
        PUBLISHED + "é",
        "\ud800",
        "oooooooooo0",
        "o" * 10_000,
        [0] * 10_000 + [2000],
    ],
)
def test_run_lengths_that_do_not_fill_the_image_are_refused(counts: object) -> None:
    with pytest.raises(ValueError, match="expected run lengths of 2,000 pixels together"):
        read_runs(counts, SIZE)


@pytest.mark.parametrize("size", [(0, 5), (-4, -5), (10**9, 10**9)])
def test_run_lengths_of_no_possible_image_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="size: expected height and width of an image"):
        read_runs([20], size)


@pytest.mark.parametrize(
    "numbers",
    [
        None,
        {},
        "123456",
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4, 5, "6"],
        [[1, 2], [3, 4], [5, 6]],
        [1, 2, 3, 4, 5, None],
        [1, 2, 3, 4, 5, True],
        json.loads("[1, 2, 3, 4, 5, NaN]"),
        json.loads("[1, 2, 3, 4, 5, 1e999]"),
        [1, 2, 3, 4, 5, 10**400],
        [1, 2, 3, 4, 5, -2e6],
    ],
)
def test_what_is_no_polygon_is_refused(numbers: object) -> None:
    with pytest.raises(ValueError, match="expected x, y of three or more corners"):
        read_polygon(numbers)


def test_a_polygon_that_would_take_minutes_to_paint_is_refused() -> None:
    with pytest.raises(ValueError, match="runs up and down"):
        read_polygon([0, 0, 1, 1e6] * 1000)
    slowest = read_polygon([0, 0, 1, 16_000] * (MAX_ROWS // 32_000))
    mask = np.zeros((16_000, 2), np.uint8)
    start = time.perf_counter()
    fill_polygon(mask, slowest, 1)
    assert time.perf_counter() - start < 10


def test_later_objects_lie_on_top_and_the_rest_is_ground() -> None:
    large, small = polygon((0, 0), (20, 0), (20, 20), (0, 20)), polygon((5, 5), (9, 5), (9, 9), (5, 9))
    rest = polygon((30, 0), (31, 0), (31, 1), (30, 1))
    mask = PaintedObjects(Path("a"), SIZE, ((3, (large, rest)), (4, (small,))), ground=9)(SIZE)
    assert mask[6, 6] == 4 and mask[4, 4] == mask[0, 30] == 3 and mask[30, 30] == 9


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.json: 50 x 40 \(width x height\) is said of an image of 40 x 50"):
        PaintedObjects(Path("a.json"), SIZE, ())((50, 40))
