"""Promises of the prior boxes: the published tables, their order, their number."""

import pytest
import torch

from veduta.ops.boxes import corners
from veduta.ops.priors import ASPECT_RATIOS, PRIORS_PER_CELL, SCALES, level_sizes, prior_boxes

COUNTS = {  # side and stride -> priors, and those that stick out of the image
    (300, 4): (45_390, 6_607),
    (300, 8): (11_640, 3_349),
    (512, 4): (131_070, 13_725),
    (512, 8): (32_766, 4_921),
}


@pytest.mark.parametrize(
    ("image_size", "stride", "sizes"),
    [
        (300, 4, [75, 38, 19, 10, 5, 3, 1]),
        (300, 8, [38, 19, 10, 5, 3, 1]),
        (512, 4, [128, 64, 32, 16, 8, 4, 2, 1]),
        (512, 8, [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_levels_have_the_published_sizes(image_size: int, stride: int, sizes: list[int]) -> None:
    assert level_sizes(image_size, stride, len(sizes)) == sizes
    assert len(SCALES[image_size, stride]) == len(sizes) + 1


@pytest.mark.parametrize("key", COUNTS)
def test_there_are_as_many_priors_as_published_and_as_many_stick_out(key: tuple[int, int]) -> None:
    scales = SCALES[key]
    priors = prior_boxes(level_sizes(*key, len(scales) - 1), scales)
    boxes = corners(priors)
    outside = (boxes[:, :2] < 0).any(dim=1) | (boxes[:, 2:] > 1).any(dim=1)
    assert (len(priors), int(outside.sum())) == COUNTS[key]
    assert priors.dtype == torch.float32


def test_priors_go_by_level_row_column_and_shape() -> None:
    priors = prior_boxes([2, 1], (0.1, 0.4, 0.9))
    assert priors.shape == (5 * PRIORS_PER_CELL, 4)
    centres = priors[::PRIORS_PER_CELL, :2].tolist()
    assert centres == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5]]
    sizes = priors[:PRIORS_PER_CELL, 2:]
    torch.testing.assert_close(sizes[:, 0] / sizes[:, 1], torch.tensor([*ASPECT_RATIOS, 1.0]))
    torch.testing.assert_close(sizes.prod(dim=1).sqrt(), torch.tensor([0.1] * 5 + [0.2]))
