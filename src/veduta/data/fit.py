"""The geometry of evaluation: how each reference fits an image to its network, and the way back for what comes out.

Images are (H, W, 3) uint8 RGB and stay so; sizes are (height, width). Padding with the mean colour stands for padding
with 0 after normalisation, rounded to whole levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.data.augment.geometry import MEAN_COLOR
from veduta.ops.arrays import Array, interpolate

Size = tuple[int, int]
Pixels = NDArray[np.uint8]


def stack(images: Sequence[Pixels]) -> Pixels:
    """Images (H, W, 3) of one size -> (N, 3, H, W), channels last in memory."""
    return np.stack(images).transpose(0, 3, 1, 2)


def unit_range(images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """uint8 images, or float32 in [0, 1], (N, 3, H, W) in any layout -> float32 in [0, 1], row by row in memory.

    To the bit what the PyTorch backend's network gets.
    """
    if images.dtype != np.uint8:
        return np.ascontiguousarray(images, np.float32)
    return np.divide(images, np.float32(255), out=np.empty(images.shape, np.float32))


class Fit(Protocol):
    """Fits an image to a network. A way back does not exist where a part of the image is cut off."""

    def __call__(self, image: Pixels, /) -> Pixels: ...


class Reversible(Fit, Protocol):
    """A fit that shows the network the whole image, so that its outputs have a way back."""

    def content(self, size: Size, /) -> Size:
        """The size that an image of `size` has inside of the fitted one, at the top left of it."""
        ...

    def restore(self, logits: Array, size: Size, /) -> Array:
        """Logits (N, C, h, w) at the size of the fitted image -> (N, C, *size), those of the image."""
        ...


def restore_boxes(boxes: NDArray[np.float32], fit: Reversible, size: Size) -> NDArray[np.float32]:
    """Boxes (N, 4) xyxy in pixels of the fitted image -> in pixels of the image of `size`, clipped to it."""
    content = fit.content(size)
    scale = np.array([size[1] / content[1], size[0] / content[0]] * 2)
    return (boxes * scale).clip(0, (size[1], size[0]) * 2).astype(np.float32)


@dataclass(frozen=True)
class CentralSquare:
    """A square in the middle, shorter side * crop / (crop + 32), resized to `crop`.

    The authors' ResNeSt: in training bilinear, for the published numbers bicubic; their Gluon code from 320 pixels on.
    """

    crop: int
    kernel: Literal["bilinear", "bicubic"]

    def __call__(self, image: Pixels, /) -> Pixels:
        side = min(image.shape[:2]) * self.crop / (self.crop + 32)
        rows, columns = (
            slice(start, round(start + side)) for start in (round((length - side) / 2) for length in image.shape[:2])
        )
        return _pillow_resize(image[rows, columns], (self.crop, self.crop), self.kernel)


@dataclass(frozen=True)
class ShorterSide:
    """The shorter side resized to crop / share, the other in proportion; of that a square in the middle.

    timm: rounding "down"; Gluon below 320 pixels: "up".
    """

    crop: int
    share: float
    rounding: Literal["down", "up"]
    kernel: Literal["bilinear", "bicubic"]

    def __call__(self, image: Pixels, /) -> Pixels:
        length = self.crop / self.share
        shorter = math.floor(length) if self.rounding == "down" else math.ceil(length)
        height, width = image.shape[:2]
        size = (shorter, shorter * width // height) if height <= width else (shorter * height // width, shorter)
        return _centre(_pillow_resize(image, size, self.kernel), self.crop)


@dataclass(frozen=True)
class StretchedCentre:
    """All of the image resized to a square of side `size`, its aspect lost; of that a square in the middle.

    MindSpore's ResNeSt: size 320, crop 256. Its converted checkpoints: 256 and 224, or both alike.
    """

    size: int
    crop: int

    def __call__(self, image: Pixels, /) -> Pixels:
        return _centre(cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR), self.crop)


@dataclass(frozen=True)
class Padded:
    """DeepLab: not resized, padded with grey at the bottom and the right to `crop`.

    A side that is longer grows to the next multiple of `aligned` and one pixel more, as is best for a network whose
    corners are aligned; of Cityscapes' images, 1024 x 2048, this makes the published 1025 x 2049.
    """

    crop: Size
    aligned: int = 16

    def __call__(self, image: Pixels, /) -> Pixels:
        return _pad(image, self.fitted((image.shape[0], image.shape[1])), (128, 128, 128))  # 127.5, to whole levels

    def fitted(self, size: Size) -> Size:
        """The size in which an image of `size` is shown."""
        height, width = (
            crop if length <= crop else -(-(length - 1) // self.aligned) * self.aligned + 1
            for length, crop in zip(size, self.crop, strict=True)
        )
        return height, width

    def content(self, size: Size, /) -> Size:
        return size

    def restore(self, logits: Array, size: Size, /) -> Array:
        return logits[..., : size[0], : size[1]]


@dataclass(frozen=True)
class LongerSide:
    """MindSpore's RefineNet: the longer side resized to `crop`, also upwards; padded with the mean colour."""

    crop: int

    def __call__(self, image: Pixels, /) -> Pixels:
        height, width = self.content((image.shape[0], image.shape[1]))
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return _pad(resized, (self.crop, self.crop), MEAN_COLOR)

    def content(self, size: Size, /) -> Size:
        height, width = (max(1, self.crop * length // max(size)) for length in size)
        return height, width

    def restore(self, logits: Array, size: Size, /) -> Array:
        height, width = self.content(size)
        return interpolate(logits[..., :height, :width], size, "centred")


@dataclass(frozen=True)
class Range:
    """DeepLab on large images: the shorter side becomes `shortest`, unless the longer would be more than `longest`.

    multiple: both sides are then enlarged to the next multiple of it and one pixel more, as is best for a network whose
    corners are aligned; `longest` is brought down to such a number.
    """

    shortest: int
    longest: int
    multiple: int | None = None

    def __call__(self, image: Pixels, /) -> Pixels:
        height, width = self.content((image.shape[0], image.shape[1]))
        steps = (image.shape[0] - 1) / max(height - 1, 1), (image.shape[1] - 1) / max(width - 1, 1)  # corners aligned
        return _resample(image, (height, width), steps)

    def content(self, size: Size, /) -> Size:
        multiple = self.multiple or 1
        longest = (self.longest - 1) // multiple * multiple + 1
        to, of = self.shortest, min(size)
        if max(size) * to // of > longest:
            to, of = longest, max(size)
        height, width = (-(-max(0, length * to // of - 1) // multiple) * multiple + 1 for length in size)
        return height, width

    def restore(self, logits: Array, size: Size, /) -> Array:
        return interpolate(logits, size, "aligned")


@dataclass(frozen=True)
class Stretched:
    """BlitzNet: all of the image resized to a square of side `size`, its aspect lost, as TensorFlow 1 resizes."""

    size: int

    def __call__(self, image: Pixels, /) -> Pixels:
        steps = image.shape[0] / self.size, image.shape[1] / self.size
        return _resample(image, (self.size, self.size), steps)

    def content(self, size: Size, /) -> Size:
        return self.size, self.size

    def restore(self, logits: Array, size: Size, /) -> Array:
        return interpolate(logits, size, "legacy")


def encoding_size(size: Size, longer: int) -> Size:
    """The size (height, width) whose longer side is `longer`, the other one rounded: PyTorch-Encoding's."""
    height, width = size
    if height > width:
        return longer, max(1, int(width * longer / height + 0.5))
    return max(1, int(height * longer / width + 0.5)), longer


def _resample(image: Pixels, size: Size, steps: tuple[float, float]) -> Pixels:
    """Bilinear; sources begin at the first pixel and lie `steps` (down, to the right) apart; edges are repeated."""
    matrix = np.array([[steps[1], 0, 0], [0, steps[0], 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _pillow_resize(image: Pixels, size: Size, kernel: Literal["bilinear", "bicubic"]) -> Pixels:
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[kernel]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], resample))


def _centre(image: Pixels, crop: int) -> Pixels:
    top, left = (round((length - crop) / 2) for length in image.shape[:2])
    return image[top : top + crop, left : left + crop]


def _pad(image: Pixels, size: Size, color: tuple[int, int, int]) -> Pixels:
    borders = (0, size[0] - image.shape[0], 0, size[1] - image.shape[1])
    return cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED, value=color)
