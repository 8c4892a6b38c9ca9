"""What a network gives, as NumPy's arrays or as PyTorch's tensors: the few operations that both are put through.

A runtime without PyTorch gives arrays, and what becomes of them never needs it; of tensors the work stays on their
device. Operators, slices and `shape` are alike, so here is only what is not. (N, C, H, W) unless said.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any  # NDArray[Any] | Tensor, whose operators no type checker can put together

Grid = Literal["aligned", "centred", "legacy"]  # which places of two grids of pixels lie upon each other, see below

AT_ONCE = 1 << 16  # pixels whose classes are compared at a time: they stay in the cache


def float32(x: Array) -> Array:
    """The same where it is float32 already."""
    return x.astype(np.float32, copy=False) if isinstance(x, np.ndarray) else x.float()


def numpy(x: Array) -> NDArray[Any]:
    """In the memory of the CPU; the same memory where it is there already. No bfloat16."""
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def like(values: NDArray[Any], x: Array) -> Array:
    """NumPy's values as what x is, on its device."""
    if isinstance(x, np.ndarray):
        return values
    import torch

    return torch.from_numpy(values).to(x.device)


def zeros_like(x: Array, height: int, width: int) -> Array:
    """(1, C, height, width), in memory as x (N, C, h, w) is: adding x to it is then several times faster."""
    shape = (1, x.shape[1], height, width)
    if isinstance(x, np.ndarray):
        return np.zeros(shape, x.dtype)
    import torch

    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format).zero_()


def copied(x: Array) -> Array:
    """In memory of its own."""
    return x.copy() if isinstance(x, np.ndarray) else x.clone()


def mirrored(x: Array) -> Array:
    """Left and right exchanged."""
    return x[..., ::-1] if isinstance(x, np.ndarray) else x.flip(-1)


def exp_(x: Array) -> Array:
    """In place."""
    return np.exp(x, out=x) if isinstance(x, np.ndarray) else x.exp_()


def log_(x: Array) -> Array:
    """In place; of 0 it is minus infinity."""
    if isinstance(x, np.ndarray):
        with np.errstate(divide="ignore"):
            return np.log(x, out=x)
    return x.log_()


def softmax(logits: Array) -> Array:
    """Over the classes, (N, C, ...) -> the same shape, in float32."""
    if not isinstance(logits, np.ndarray):
        return logits.float().softmax(dim=1)
    shares: NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
    shares = exp_(float32(shares))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def add_weighted_(total: Array, x: Array, weights: Array) -> None:
    """total += x * weights, in place; the three are of one kind."""
    if isinstance(total, np.ndarray):
        total += x * weights
    else:
        total.addcmul_(x, weights)


def most_likely(logits: Array) -> NDArray[np.uint8]:
    """The class of the largest logit per pixel, of equals the first; one that is no number is largest: -> (N, H, W)."""
    if not isinstance(logits, np.ndarray):
        # `max` also promises the first, and takes a third of the time of `argmax` on a CPU.
        masks: NDArray[np.uint8] = logits.max(dim=1).indices.byte().cpu().numpy()
        return masks
    masks = np.zeros((len(logits), *logits.shape[2:]), np.uint8)
    rows = max(1, AT_ONCE // logits.shape[3])
    for mask, image in zip(masks, logits, strict=True):
        for top in range(0, len(mask), rows):
            _most_likely(image[:, top : top + rows], mask[top : top + rows])
    return masks


def _most_likely(logits: NDArray[np.floating], mask: NDArray[np.uint8]) -> None:
    """(C, h, w) into a mask (h, w) of zeros, class after class: several times faster than `argmax`."""
    best = logits[0].copy()
    larger = np.empty(best.shape, np.bool_)
    numbers = larger.view(np.uint8)  # where the class is larger its number, else 0
    for number in range(1, len(logits)):
        np.greater(logits[number], best, out=larger)
        numbers *= np.uint8(number)
        np.maximum(mask, numbers, out=mask)
        np.maximum(best, logits[number], out=best)
    broken = np.isnan(best)  # then nothing is larger
    if broken.any():
        mask[broken] = np.isnan(logits[:, broken]).argmax(axis=0)


def largest_share(logits: Array) -> NDArray[np.float32]:
    """The soft-max of the largest logit per pixel, 0 where that is no number: -> (N, H, W)."""
    if not isinstance(logits, np.ndarray):
        logits = logits.detach().float()
        odds = (logits - logits.amax(dim=1, keepdim=True)).exp_().sum(dim=1)
        of_tensor: NDArray[np.float32] = odds.reciprocal_().nan_to_num_(0.0).cpu().numpy()
        return of_tensor
    with np.errstate(invalid="ignore"):  # infinite logits
        shares: NDArray[np.float32] = 1 / exp_(float32(logits - logits.max(axis=1, keepdims=True))).sum(axis=1)
    return np.nan_to_num(shares, copy=False)


def interpolate(x: Array, size: Sequence[int], grid: Grid) -> Array:
    """Bilinear, edges repeated: (N, C, h, w) -> (N, C, *size), float32.

    aligned: the centres of the corner pixels lie upon each other; centred: the edges of both; legacy: only those at the
    top and the left, and the sources are not moved by half a pixel, as in TensorFlow 1.
    """
    if isinstance(x, np.ndarray):
        return _interpolate(x, size, grid)
    from torch.nn.functional import interpolate as interpolate_tensor

    from veduta.ops.resize import resize_legacy

    if grid == "legacy":
        return resize_legacy(x, size)
    return interpolate_tensor(x, tuple(size), mode="bilinear", align_corners=grid == "aligned")


def _interpolate(x: NDArray[np.float32], size: Sequence[int], grid: Grid) -> NDArray[np.float32]:
    steps, starts = [], []
    for before, after in zip(x.shape[2:], size, strict=True):
        steps.append((before - 1) / max(after - 1, 1) if grid == "aligned" else before / after)
        starts.append(steps[-1] / 2 - 0.5 if grid == "centred" else 0.0)
    matrix = np.array([[steps[1], 0, starts[1]], [0, steps[0], starts[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    resized: NDArray[np.float32] = np.empty((*x.shape[:2], *size), np.float32)
    for planes, of in zip(resized, x, strict=True):
        for to, plane in zip(planes, of, strict=True):
            cv2.warpAffine(plane, matrix, (size[1], size[0]), to, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return resized
