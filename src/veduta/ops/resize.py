"""Resizing and pooling as TensorFlow 1 and MindSpore do it, where torch does it otherwise; all of it exports to ONNX.

Sources are a sample's place in the input: `i * in / out` ("legacy": no half-pixel shift, corners not aligned) or
`i * (in - 1) / (out - 1)` ("aligned"). torch's own modes are the aligned one and the half-pixel one.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_legacy(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, source = i * in / out, last row and column repeated: `tf.image.resize_bilinear` of TensorFlow 1.

    Shape: (N, C, h, w) -> (N, C, *size), floating point.
    """
    height, width = size
    if _same(x.shape[-2], height) and _same(x.shape[-1], width):
        return x
    # One more row and column before and after make this the aligned grid, i * ((in + 1) - 1) / ((out + 1) - 1), for
    # which torch and every other runtime have a fast kernel.
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    resized = F.interpolate(padded, size=(height + 1, width + 1), mode="bilinear", align_corners=True)
    return resized[..., :height, :width]


def resize_legacy_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest, source = floor(i * in / out) in float32: `tf.image.resize_nearest_neighbor` of TensorFlow 1.

    Shape: (..., h, w) -> (..., *size), any type.
    """
    return _nearest(x, size, _legacy_places)


def resize_aligned_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest, source = i * (in - 1) / (out - 1) in float32, halves rounded up: TensorFlow 1 with aligned corners.

    Shape: (..., h, w) -> (..., *size), any type.
    """
    return _nearest(x, size, _aligned_places)


def _nearest(x: Tensor, size: Sequence[int], places: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    for axis, length in zip((-2, -1), size, strict=True):
        if not _same(x.shape[axis], length):
            x = x.index_select(axis % x.ndim, places(x, axis, length))
    return x


def _same(before: int, length: int) -> bool:
    # Lengths that an export leaves open are no ints, and must not decide which operations there are.
    return isinstance(before, int) and isinstance(length, int) and before == length


def _ratio(numerator: int, denominator: int, device: torch.device) -> Tensor:
    """As the references compute it, in float32: its rounding decides where a source falls on a pixel."""
    parts = (torch.scalar_tensor(part, dtype=torch.float32, device=device) for part in (numerator, denominator))
    return torch.div(*parts)


def _legacy_places(x: Tensor, axis: int, length: int) -> Tensor:
    before = x.shape[axis]
    source = torch.arange(length, dtype=torch.float32, device=x.device) * _ratio(before, length, x.device)
    return source.floor().long().clamp(max=before - 1)


def _aligned_places(x: Tensor, axis: int, length: int) -> Tensor:
    ratio = _ratio(x.shape[axis] - 1, max(length - 1, 1), x.device)
    return (torch.arange(length, dtype=torch.float32, device=x.device) * ratio + 0.5).floor().long()


def max_pool_same(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Max-pooling with the padding called SAME: an odd pixel of padding goes to the bottom and the right.

    Shape: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).
    """
    # Rounded up without negative numbers, which ONNX divides otherwise than Python.
    cells = [(length + stride - 1) // stride for length in x.shape[-2:]]
    pads = [
        torch.sym_max((count - 1) * stride + kernel_size - length, 0)
        for count, length in zip(cells, x.shape[-2:], strict=True)
    ]
    top, left = pads[0] // 2, pads[1] // 2
    padded = F.pad(x, (left, pads[1] - left, top, pads[0] - top), value=float("-inf"))
    return F.max_pool2d(padded, kernel_size, stride)


def mean_of_tiles(x: Tensor, side: int) -> Tensor:
    """Means of tiles of so many pixels each way; what is left at the bottom and the right is not read.

    A map that is smaller than a tile is one. Shape: (N, C, h, w) -> (N, C, max(h // side, 1), max(w // side, 1)).
    """
    means = F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)  # of the tiles that are cut off, too
    rows, columns = (torch.sym_max(length // side, 1) for length in x.shape[-2:])
    return means[..., :rows, :columns]
