"""The training crops of DeepLab, of MindSpore's RefineNet and of PyTorch-Encoding: scale, pad, crop and flip.

Chen et al. 2018, https://arxiv.org/abs/1802.02611; Lin et al. 2017, https://arxiv.org/abs/1611.06612; Zhang et al.
2020, https://arxiv.org/abs/2004.08955; kernels, rounding and order are those of their code. Masks are equal to the
pixel, images to the level; the mean colours with which the first two pad are rounded to whole levels here. Of the
scaled sample only what the crop keeps is computed, where that is the same and cheaper.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from veduta.data.augment.geometry import MEAN_COLOR, Interval, keep_boxes
from veduta.data.fit import encoding_size
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX
from veduta.ops.resize import resize_aligned_nearest

Size = tuple[int, int]  # height, width
Pixels = NDArray[np.uint8]

SCALE_STEP = 0.25  # DeepLab's
WARP_COST = 10  # of a cubic warp, per pixel, compared with a cubic resize


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What differs between the published crops.

    image: (pixels, scaled size, rows, columns) -> these rows and columns of the scaled image. places: (length, scaled
    length) -> the source of each pixel of a scaled mask. outside: the colour of padding, at the bottom and the right.
    aligned: scaling keeps the centres of the corner pixels in place, not the edges of the image. flip_first: padding
    comes after the flip.
    """

    image: Callable[[Pixels, Size, Interval, Interval], Pixels]
    places: Callable[[int, int], NDArray[np.int64]]
    outside: tuple[int, int, int]
    aligned: bool = False
    flip_first: bool = False


def _warp(pixels: Pixels, shape: Size, steps: list[float], starts: list[float], interpolation: int) -> Pixels:
    """`shape` pixels whose sources begin at `starts` and lie `steps` apart, rows first; edges are repeated."""
    reach = 2  # pixels that a kernel needs on each side
    firsts = [max(0, math.floor(start) - reach) for start in starts]
    ends = [math.ceil(s + step * n) + reach for s, step, n in zip(starts, steps, shape, strict=True)]
    view = pixels[firsts[0] : ends[0], firsts[1] : ends[1]]
    matrix = np.array([[steps[1], 0, starts[1] - firsts[1]], [0, steps[0], starts[0] - firsts[0]]])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(view, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _bilinear_aligned(pixels: Pixels, size: Size, rows: Interval, columns: Interval) -> Pixels:
    if pixels.shape[:2] == size:
        return pixels[slice(*rows), slice(*columns)]
    steps = [(before - 1) / max(after - 1, 1) for before, after in zip(pixels.shape, size, strict=False)]
    starts = [rows[0] * steps[0], columns[0] * steps[1]]
    return _warp(pixels, (rows[1] - rows[0], columns[1] - columns[0]), steps, starts, cv2.INTER_LINEAR)


def _cubic(pixels: Pixels, size: Size, rows: Interval, columns: Interval) -> Pixels:
    shape = (rows[1] - rows[0], columns[1] - columns[0])
    if size[0] * size[1] <= WARP_COST * shape[0] * shape[1]:
        return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_CUBIC)[slice(*rows), slice(*columns)]
    steps = [before / after for before, after in zip(pixels.shape, size, strict=False)]
    starts = [(first + 0.5) * step - 0.5 for (first, _), step in zip((rows, columns), steps, strict=True)]
    return _warp(pixels, shape, steps, starts, cv2.INTER_CUBIC)


def _antialiased(pixels: Pixels, size: Size, rows: Interval, columns: Interval) -> Pixels:
    """Pillow's bilinear, which averages where it shrinks."""
    windows, box = [], []
    for before, after, (first, end) in zip(pixels.shape, size, (rows, columns), strict=False):
        step = before / after
        reach = math.ceil(step) + 1
        start = max(0, math.floor(first * step) - reach)
        stop = min(before, math.ceil(end * step) + reach)
        windows.append(slice(start, stop))
        box.append((first * step - start, min(end * step, before) - start))
    window = Image.fromarray(np.ascontiguousarray(pixels[windows[0], windows[1]]))
    (top, bottom), (left, right) = box
    shape = (columns[1] - columns[0], rows[1] - rows[0])
    return np.asarray(window.resize(shape, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _aligned_places(length: int, scaled: int) -> NDArray[np.int64]:
    return resize_aligned_nearest(torch.arange(length)[None], (1, scaled))[0].numpy()


def _opencv_places(length: int, scaled: int) -> NDArray[np.int64]:
    # The indices themselves are resized: then all rounding is the library's own. float32 holds them up to 16 million.
    indices = np.arange(length, dtype=np.float32)[None]
    return cv2.resize(indices, (scaled, 1), interpolation=cv2.INTER_NEAREST)[0].astype(np.int64)


def _pillow_places(length: int, scaled: int) -> NDArray[np.int64]:
    indices = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.asarray(indices.resize((scaled, 1), Image.Resampling.NEAREST))[0].astype(np.int64)


# DeepLab pads with 127.5, half-way between black and white, before it maps 0..255 to -1..1.
DEEPLAB = Kernels(image=_bilinear_aligned, places=_aligned_places, outside=(128, 128, 128), aligned=True)
REFINENET = Kernels(image=_cubic, places=_opencv_places, outside=MEAN_COLOR)
ENCODING = Kernels(image=_antialiased, places=_pillow_places, outside=(0, 0, 0), flip_first=True)


def deeplab(
    sample: Sample, crop_size: Size, *, scale: tuple[float, float], flip: float, rng: np.random.Generator
) -> Sample:
    """Scale by low, high or one between, each as likely; bilinear with aligned corners; crop; flip.

    Scales are SCALE_STEP apart; more where the range is no multiple of it; of a smaller range there is low alone.
    """
    steps = int((scale[1] - scale[0]) / SCALE_STEP + 1 + 1e-6)  # 0.35 - 0.1 is a little less than a step
    size = _scaled(sample, np.linspace(*scale, steps)[rng.integers(steps)])
    return cut(sample, crop_size, DEEPLAB, size=size, at=_draw_place(size, crop_size, rng), flip=rng.random() < flip)


def refinenet(
    sample: Sample, crop_size: Size, *, scale: tuple[float, float], flip: float, rng: np.random.Generator
) -> Sample:
    """Scale by a factor drawn uniformly; OpenCV's bicubic; crop; flip."""
    size = _scaled(sample, rng.uniform(*scale))
    return cut(sample, crop_size, REFINENET, size=size, at=_draw_place(size, crop_size, rng), flip=rng.random() < flip)


def encoding(
    sample: Sample,
    crop_size: Size,
    *,
    scale: tuple[float, float],
    flip: float,
    rng: np.random.Generator,
    base_size: int | None = None,
) -> Sample:
    """Flip; the longer side becomes a whole number drawn from `scale` times `base_size`; Pillow's bilinear; crop.

    base_size: None for the longer side of the image itself, which in Cityscapes is the published 2048.
    """
    mirrored = rng.random() < flip
    height, width = sample.image.shape[:2]
    base = max(height, width) if base_size is None else base_size
    low, high = (max(1, int(base * factor)) for factor in scale)
    size = encoding_size((height, width), int(rng.integers(low, high + 1)))
    return cut(sample, crop_size, ENCODING, size=size, at=_draw_place(size, crop_size, rng), flip=mirrored)


def _scaled(sample: Sample, factor: float) -> Size:
    height, width = sample.image.shape[:2]
    return max(1, int(height * factor)), max(1, int(width * factor))


def _draw_place(size: Size, crop_size: Size, rng: np.random.Generator) -> tuple[int, int]:
    """The first row and column of a crop inside of the scaled and padded image."""
    top, left = (int(rng.integers(max(0, whole - part) + 1)) for whole, part in zip(size, crop_size, strict=True))
    return top, left


def cut(sample: Sample, crop_size: Size, kernels: Kernels, *, size: Size, at: tuple[int, int], flip: bool) -> Sample:
    """The sample scaled to `size` and padded; of it `crop_size` pixels from row and column `at` on; mirrored by `flip`.

    Boxes are clipped to the image and the crop; those of which no more than a pixel is left are dropped.
    """
    (top, left), (height, width) = at, crop_size
    kept_height, kept_width = min(height, size[0] - top), min(width, size[1] - left)
    rows, columns = (top, top + kept_height), (left, left + kept_width)
    to_left = width - kept_width if flip and not kernels.flip_first else 0
    if flip and kernels.flip_first:  # of the mirrored image, whose columns count from the other side
        columns = (size[1] - columns[1], size[1] - columns[0])

    def places(axis: int) -> NDArray[np.int64]:
        found = kernels.places(sample.image.shape[axis], size[axis])
        mirrored = axis == 1 and flip and kernels.flip_first  # halves are rounded from the other side then
        return sample.image.shape[axis] - 1 - found[::-1] if mirrored else found

    def placed(pixels: Pixels, outside: tuple[int, ...]) -> Pixels:
        pixels = cv2.flip(pixels, 1) if flip else pixels
        if (kept_height, kept_width) == crop_size:
            return pixels
        borders = (0, height - kept_height, to_left, width - kept_width - to_left)
        return cv2.copyMakeBorder(pixels, *borders, cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED, value=outside)

    image, mask = placed(kernels.image(sample.image, size, rows, columns), kernels.outside), sample.mask
    if mask is not None:
        mask = placed(mask[places(0)[slice(*rows)]].take(places(1)[slice(*columns)], axis=1), (IGNORE_INDEX,))
    result = replace(sample, image=image, mask=mask)
    if sample.boxes is None:
        return result
    corners = _scale_corners(sample.boxes.reshape(-1, 2, 2), sample.image.shape, size, aligned=kernels.aligned)
    corners = np.clip(corners - (columns[0], rows[0]), 0, (kept_width, kept_height))
    if flip:
        corners[..., 0] = kept_width - corners[:, ::-1, 0]
    corners[..., 0] += to_left
    keep = np.all(corners[:, 1] - corners[:, 0] > 1, axis=1)
    return keep_boxes(result, corners[keep].reshape(-1, 4).astype(np.float32), keep)


def _scale_corners(
    corners: NDArray[np.float32], before: Sequence[int], after: Size, *, aligned: bool
) -> NDArray[np.float64]:
    """Corners (N, 2, 2) as x, y of pixel edges, where height and width change from `before` to `after`."""
    lengths, scaled = np.array([before[1], before[0]], np.float64), np.array([after[1], after[0]], np.float64)
    if aligned:
        return (corners - 0.5) * (scaled - 1) / np.maximum(lengths - 1, 1) + 0.5
    return corners * scaled / lengths
