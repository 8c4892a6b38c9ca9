"""Painting masks: the pixels inside of polygons, and of run lengths as COCO writes them.

A pixel is inside of a polygon where its centre is (even-odd rule, centres on an edge count for one side only): corners
at whole pixels give exact rectangles, and polygons that share an edge neither overlap nor leave a gap.
"""

import reprlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veduta.data.images import MAX_PIXELS

MAX_COORDINATE = 1e6  # of a corner, either sign; far beyond any image
MAX_ROWS = 1 << 22  # that the edges of one polygon run up and down: hundreds of edges as high as a large image


Polygons = tuple[NDArray[np.float32], ...]  # each (N, 2) corners; what any of them covers belongs to the object
Outline = Polygons | NDArray[np.int64]  # or run lengths (N,)


@dataclass(frozen=True)
class PaintedObjects:
    """A mask painted from outlines, for an image that should have `size` (height, width).

    objects: train id and outline, the lowest first. ground: the train id of what none of them covers.
    """

    source: Path
    size: tuple[int, int]
    objects: tuple[tuple[int, Outline], ...]
    ground: int = 0

    def __call__(self, size: tuple[int, int], /) -> NDArray[np.uint8]:
        """(H, W) uint8 train ids. Raises ValueError for an image of another size."""
        if size != self.size:
            raise ValueError(
                f"{self.source}: {self.size[1]} x {self.size[0]} (width x height) is said of an image of {size[1]} x "
                f"{size[0]}. Was it resized without its annotations?"
            )
        mask = np.full(size, self.ground, np.uint8)
        for train_id, outline in self.objects:
            if isinstance(outline, tuple):
                for corners in outline:
                    fill_polygon(mask, corners, train_id)
            else:
                fill_runs(mask, outline, train_id)
        return mask


def read_polygon(numbers: object) -> NDArray[np.float32]:
    """A list x, y, x, y, ... of three or more corners -> (N, 2) float32 pixels. Raises ValueError for anything else."""
    corners = np.zeros((0, 2))
    if isinstance(numbers, list) and len(numbers) % 2 == 0 and set(map(type, numbers)) <= {int, float}:
        with suppress(OverflowError):  # an int of hundreds of digits
            corners = np.array(numbers, np.float64).reshape(-1, 2)
    if len(corners) < 3 or not (largest := np.abs(corners).max()) <= MAX_COORDINATE:  # NaN is not
        raise ValueError(f"expected x, y of three or more corners in pixels, found {reprlib.repr(numbers)}.")
    if 2 * largest * len(corners) > MAX_ROWS < (rows := np.abs(np.diff(corners[:, 1])).sum()):
        raise ValueError(f"a polygon that runs up and down over {rows:,.0f} pixels, the limit is {MAX_ROWS:,}.")
    return corners.astype(np.float32)


def fill_polygon(mask: NDArray[np.uint8], corners: NDArray[np.floating], value: int) -> None:
    """Set the pixels of `mask` (H, W) inside of a polygon; corners: (N, 2) x, y pixels, closed by itself."""
    height, width = mask.shape
    start = corners.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    downward = (start[:, 1] <= end[:, 1])[:, None]  # so that an edge crosses at the same points from either side
    upper, lower = np.where(downward, start, end), np.where(downward, end, start)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64) - first
    total = int(count.sum())
    if not total:
        return
    edge = np.repeat(np.arange(len(count)), count)
    rows = np.arange(total) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    crossing = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * slope
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)  # the first pixel to the right of the edge
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max()
    flips = np.zeros((bottom - top, right - left + 1), np.bool_)
    np.logical_xor.at(flips, (rows - top, columns - left), True)
    inside = np.logical_xor.accumulate(flips, axis=1)[:, :-1]
    mask[top:bottom, left:right][inside] = value


def area_of(outline: Outline) -> float:
    """Pixels inside of an outline, without painting it; where polygons overlap, they count for each."""
    if not isinstance(outline, tuple):
        return float(outline[1::2].sum())
    area = 0.0
    for x, y in (corners.astype(np.float64).T for corners in outline):
        area += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return area


def fill_runs(mask: NDArray[np.uint8], runs: NDArray[np.int64], value: int) -> None:
    """Set the pixels of `mask` (H, W) that `read_runs` says."""
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[inside.reshape(mask.shape[::-1]).T] = value


def read_runs(counts: object, size: tuple[int, int]) -> NDArray[np.int64]:
    """COCO's run lengths, as a list or as its compressed text, for an image (height, width) -> (N,) int64.

    Runs go down the columns, outside and inside in turns, outside first. Raises ValueError for what does not fill the
    image exactly.
    """
    pixels = size[0] * size[1]
    if min(size) < 1 or pixels > MAX_PIXELS:
        raise ValueError(f"size: expected height and width of an image, found {reprlib.repr(size)}.")
    runs = np.zeros(0, np.int64)
    if isinstance(counts, str) and len(counts) <= 2 * pixels + 16:
        runs = _decompressed(counts.encode("utf-8", "surrogatepass"))
    elif isinstance(counts, list) and set(map(type, counts)) <= {int} and len(counts) <= 2 * pixels + 16:
        with suppress(OverflowError):
            runs = np.array(counts, np.int64)
    if ((runs < 0) | (runs > pixels)).any() or runs.sum() != pixels:
        raise ValueError(f"counts: expected run lengths of {pixels:,} pixels together, found {reprlib.repr(counts)}.")
    return runs


def _decompressed(text: bytes) -> NDArray[np.int64]:
    """Characters of five bits, lowest first, and a sixth for "goes on"; from the fourth run on, how much longer than
    the last but one. Nothing, where the text is something else.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate(([0], last + 1))
    length = np.diff(first)
    if not len(last) or first[-1] < len(codes) or ((codes < 0) | (codes > 63)).any() or length.max() > 6:  # 30 bits
        return np.zeros(0, np.int64)
    place = 5 * (np.arange(len(codes)) - np.repeat(first[:-1], length))
    runs = np.add.reduceat((codes & 31) << place, first[:-1])
    runs -= np.where(codes[last] & 16, 1 << (5 * length), 0)
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs
