"""Prior boxes: what a detector's box deltas are relative to, a few per cell of every level.

Liu et al. 2016 (SSD), https://arxiv.org/abs/1512.02325, sec. 2.2; scales and rounding are those of BlitzNet,
Dvornik et al. 2017, https://arxiv.org/abs/1708.02813.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ASPECT_RATIOS = (1, 2, 1 / 2, 3, 1 / 3)
PRIORS_PER_CELL = len(ASPECT_RATIOS) + 1

# Side of the square prior, one per level from fine to coarse, and one more for the last level's larger square; relative
# to the image. Keys: side of the image, stride of the finest level.
SCALES = {
    (300, 4): (0.04, 0.1, 0.27, 0.44, 0.61, 0.78, 0.95, 1.12),
    (300, 8): (0.1, 0.2, 0.3875, 0.575, 0.7625, 0.95, 1.1375),
    (512, 4): (0.02, 0.08, 0.225, 0.37, 0.515, 0.66, 0.805, 0.95, 1.095),
    (512, 8): (0.04, 0.1, 0.27, 0.44, 0.61, 0.78, 0.95, 1.12),
}


def level_sizes(image_size: int, stride: int, num_levels: int) -> list[int]:
    """Cells along one side, from `stride` on, each level half the one before and rounded up; the last is one cell."""
    return [*(-(-image_size // (stride << level)) for level in range(num_levels - 1)), 1]


def prior_boxes(sizes: Sequence[int], scales: Sequence[float]) -> Tensor:
    """(P, 4) float32 cxcywh relative to the image, not clipped.

    Order: level, row, column; within a cell the level's scale at each of ASPECT_RATIOS, then the square whose scale is
    the geometric mean of this level's and the next one's. Needs one more scale than sizes.
    """
    levels = zip(sizes, scales[:-1], scales[1:], strict=True)
    return torch.from_numpy(np.concatenate([_level(size, scale, next_scale) for size, scale, next_scale in levels]))


def _level(size: int, scale: float, next_scale: float) -> NDArray[np.float32]:
    # float32 and this order of operations throughout: bit by bit what the reference computes.
    scales = np.array([scale, next_scale], np.float32)
    roots = np.sqrt(np.array(ASPECT_RATIOS, np.float32))
    square = np.sqrt(scales[:1] * scales[1:])
    widths = np.concatenate([scales[0] * roots, square])
    heights = np.concatenate([scales[0] / roots, square])
    first = np.float32(0.5) / np.float32(size)
    step = (1 - first - first) / np.float32(max(size - 1, 1))
    centres = first + np.arange(size, dtype=np.float32) * step
    parts = (centres[None, :, None], centres[:, None, None], widths, heights)
    return np.stack(np.broadcast_arrays(*parts), axis=-1).reshape(-1, 4)
