"""Published evaluations that average over scales, mirror images and windows of one image.

All of them yield `mask_logits` whose soft-max are the averaged scores, of each image at its own size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veduta.backends import Backend
from veduta.data.fit import LongerSide, Padded, Pixels, Size, encoding_size, stack, unit_range
from veduta.ops.arrays import Array, exp_, float32, interpolate, like, log_, mirrored, softmax, zeros_like
from veduta.tasks import Task

Images = NDArray[np.uint8] | NDArray[np.float32]  # (N, 3, H, W)

WINDOWS = 8  # that a network gets at once: memory stays bounded whatever the size of the image


@dataclass(frozen=True, kw_only=True)
class DeepLab:
    """DeepLab's: the mean of the probabilities of all scales and mirror images.

    stride: of the logits that the network makes before it resizes them to the size of its input. Scales below 1 are
    brought to the grid that such logits have at scale 1, before they are resized to the size of the image.
    Chen et al. 2018, https://arxiv.org/abs/1802.02611, as in its code.
    """

    fit: Padded
    scales: Sequence[float]
    mirrored: bool
    stride: int

    def shown_size(self, size: Size) -> Size:
        return self.fit.fitted(size)

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels]) -> Iterator[dict[str, Array]]:
        batch = unit_range(stack([self.fit(image) for image in images]))
        maps = (probabilities for scale in self.scales for probabilities in self._at(scale, backend, batch))
        logits = log_(sum(maps) / (len(self.scales) * (1 + self.mirrored)))
        for i, image in enumerate(images):
            yield {"mask_logits": self.fit.restore(logits[i : i + 1], (image.shape[0], image.shape[1]))}

    def _at(self, scale: float, backend: Backend, images: Images) -> Iterator[Array]:
        def resize(x: Array, scale: float) -> Array:
            return interpolate(x, [int((length - 1) * scale + 1) for length in images.shape[-2:]], "aligned")

        for logits in _passes(backend, resize(images, scale), self.mirrored):
            # Corners are aligned and sides are multiples of the stride and one more: these are the network's own.
            coarse = logits[..., :: self.stride, :: self.stride]
            yield softmax(resize(resize(coarse, max(1.0, scale) / self.stride), 1.0))


@dataclass(frozen=True, kw_only=True)
class RefineNet:
    """That of MindSpore's RefineNet: the mean of the logits of all scales and mirror images.

    The longer side is resized to about `side` times the scale, and padded to a square, which is mirrored as a whole.
    The port sums the logits; their mean has the same largest one. Lin et al. 2017, https://arxiv.org/abs/1611.06612.
    """

    side: int
    scales: Sequence[float] = (1.0,)
    mirrored: bool = True

    def shown_size(self, size: Size) -> Size:
        return self.side, self.side

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels]) -> Iterator[dict[str, Array]]:
        totals: list[Array] = [0] * len(images)
        for scale in self.scales:
            fit = LongerSide(int((self.side - 1) * scale) + 1)
            for logits in _passes(backend, stack([fit(image) for image in images]), self.mirrored):
                totals = [
                    total + fit.restore(logits[i : i + 1], (image.shape[0], image.shape[1]))
                    for i, (total, image) in enumerate(zip(totals, images, strict=True))
                ]
        for total in totals:
            yield {"mask_logits": total / (len(self.scales) * (1 + self.mirrored))}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """PyTorch-Encoding's: windows slide over each scale, and their scores are averaged; those of all scales are summed.

    A window's scores are exp(logits + those of its mirror image). Windows of side crop_size lie two thirds of it apart;
    beyond the image is black. base_size: the longer side at scale 1; None: the image's own.
    Zhang et al. 2020, https://arxiv.org/abs/2004.08955, sec. 6, as in its code.
    """

    base_size: int | None
    crop_size: int
    scales: Sequence[float]
    mirrored: bool

    def shown_size(self, size: Size) -> Size:
        return size

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels]) -> Iterator[dict[str, Array]]:
        for image in images:
            x = unit_range(stack([image]))
            height, width = x.shape[-2:]
            total: Array = 0
            for scale in self.scales:
                size = encoding_size((height, width), math.ceil((self.base_size or max(height, width)) * scale))
                scores = self._slide(backend, interpolate(x, size, "aligned"))
                total = total + interpolate(scores, (height, width), "aligned")
            yield {"mask_logits": log_(total)}

    def _slide(self, backend: Backend, image: Images) -> Array:
        """Scores (1, C, H, W) of an image (1, 3, H, W), averaged over the windows that see a pixel."""
        crop, stride = self.crop_size, int(self.crop_size * 2 / 3)
        height, width = image.shape[-2:]
        corners = [
            (top, left)
            for top in range(0, max(height, crop) - crop + stride, stride)
            for left in range(0, max(width, crop) - crop + stride, stride)
        ]
        beyond = max(left for _, left in corners) + crop - width, max(top for top, _ in corners) + crop - height
        padded = np.pad(image, ((0, 0), (0, 0), (0, beyond[1]), (0, beyond[0])))  # which the last windows need
        total, count = None, np.zeros((1, 1, *padded.shape[-2:]), np.float32)
        for first in range(0, len(corners), WINDOWS):
            places = [
                (..., slice(top, top + crop), slice(left, left + crop))
                for top, left in corners[first : first + WINDOWS]
            ]
            windows = np.concatenate([padded[place] for place in places])
            scores = exp_(sum(_passes(backend, windows, self.mirrored)))
            if total is None:
                total = zeros_like(scores, *padded.shape[-2:])
            for place, score in zip(places, scores, strict=True):
                total[place] += score
                count[place] += 1
        assert total is not None
        return (total / like(count, total))[..., :height, :width]


def _passes(backend: Backend, images: Images, both: bool) -> Iterator[Array]:
    """Logits (N, C, h, w) float32 of images (N, 3, h, w) and, if both, of their mirror images, turned back."""
    yield float32(backend(images)["mask_logits"])  # half precision could hold neither sums nor exponentials
    if both:
        yield mirrored(float32(backend(mirrored(images))["mask_logits"]))
