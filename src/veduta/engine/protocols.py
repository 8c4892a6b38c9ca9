"""Published evaluations that average over scales, mirror images and windows of one image.

Networks are callables (N, 3, h, w) -> logits (N, C, h, w), whatever the sizes, N at most WINDOWS. What they eat, pixels
in [0, 1] or normalised ones, and on which device, is left to the caller, who gives the value to pad with where it
depends on that.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from veduta.data.augment.published_crops import encoding_size
from veduta.data.fit import LongerSide

Network = Callable[[Tensor], Tensor]

WINDOWS = 8  # that a network gets at once: memory stays bounded whatever the size of the image


def deeplab(network: Network, image: Tensor, *, scales: Sequence[float], flip: bool) -> Tensor:
    """DeepLab's: the mean of the probabilities of all scales and mirror images.

    network: its logits come at a quarter of the size that it is given. image: (1, 3, H, W), padded. Returns
    (1, C, H, W) probabilities. Chen et al. 2018, https://arxiv.org/abs/1802.02611, as in its code.
    """
    size = image.shape[-2:]

    def resize(x: Tensor, scale: float) -> Tensor:
        lengths = [int((length - 1) * scale + 1) for length in size]
        return F.interpolate(x, lengths, mode="bilinear", align_corners=True)

    total = image.new_zeros(())
    for scale in scales:
        for logits in _with_mirrored(network, resize(image, scale), flip):
            total = total + resize(resize(logits, max(1.0, scale) / 4), 1.0).softmax(dim=1)
    return total / (len(scales) * (1 + flip))


def refinenet(
    network: Network,
    image: NDArray[np.uint8],
    *,
    crop: int = 513,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
) -> Tensor:
    """That of MindSpore's RefineNet: the sum of the logits (1, C, H, W) of all scales and mirror images.

    image: (H, W, 3) uint8 RGB; the network gets it in [0, 1], its longer side resized to about `crop` times the scale,
    padded to a square, and that square mirrored. Lin et al. 2017, https://arxiv.org/abs/1611.06612, the port's code.
    """
    size = (image.shape[0], image.shape[1])
    total = torch.zeros(())  # becomes what the network returns, on its device
    for scale in scales:
        fit = LongerSide(int((crop - 1) * scale) + 1)
        x = torch.from_numpy(fit(image)).permute(2, 0, 1)[None].float() / 255
        total = total + fit.restore(_sum_with_mirrored(network, x, flip), size)
    return total


def encoding(
    network: Network,
    image: Tensor,
    *,
    base_size: int,
    crop_size: int,
    scales: Sequence[float],
    flip: bool,
    pad: Tensor,
) -> Tensor:
    """PyTorch-Encoding's: windows slide over each scale; exp(logits + those of the mirror image), averaged over the
    windows of a pixel, summed over the scales: scores (1, C, H, W).

    image: (1, 3, H, W). base_size: longer side at scale 1. pad: (3,) the value of black. Windows of side crop_size lie
    two thirds of it apart. Zhang et al. 2020, https://arxiv.org/abs/2004.08955, sec. 6, as in its code.
    """
    height, width = image.shape[-2:]
    total = image.new_zeros(())
    for scale in scales:
        size = encoding_size((height, width), math.ceil(base_size * scale))
        x = F.interpolate(image, size, mode="bilinear", align_corners=True)
        scores = _sliding(network, x, crop_size, flip, pad)
        total = total + F.interpolate(scores, (height, width), mode="bilinear", align_corners=True)
    return total


def _sliding(network: Network, image: Tensor, crop: int, flip: bool, pad: Tensor) -> Tensor:
    """Scores (1, C, H, W) of an image (1, 3, H, W), averaged over the windows that see a pixel."""
    stride = int(crop * 2 / 3)
    height, width = image.shape[-2:]
    padded = _pad_to(image, max(height, crop), max(width, crop), pad)
    corners = [
        (top, left)
        for top in range(0, max(height, crop) - crop + stride, stride)
        for left in range(0, max(width, crop) - crop + stride, stride)
    ]
    total, count = None, padded.new_zeros(1, 1, *padded.shape[-2:])
    at_once = max(1, WINDOWS // (1 + flip))
    for first in range(0, len(corners), at_once):
        some = corners[first : first + at_once]
        windows = [padded[..., top : top + crop, left : left + crop] for top, left in some]
        windows = [_pad_to(window, crop, crop, pad) for window in windows]  # the last ones reach beyond the image
        scores = _sum_with_mirrored(network, torch.cat(windows), flip).exp()
        if total is None:
            total = padded.new_zeros(1, scores.shape[1], *padded.shape[-2:])
        for (top, left), score in zip(some, scores, strict=True):
            part = (..., slice(top, top + crop), slice(left, left + crop))
            total[part] += score[:, : total[part].shape[-2], : total[part].shape[-1]]
            count[part] += 1
    assert total is not None
    return (total / count)[..., :height, :width]


def _with_mirrored(network: Network, images: Tensor, flip: bool) -> tuple[Tensor, ...]:
    """The logits of the images and, with `flip`, those of their mirror images, mirrored back; from one batch."""
    if not flip:
        return (network(images).float(),)  # half precision could hold neither sums nor exponentials
    one, other = network(torch.cat([images, images.flip(-1)])).float().chunk(2)
    return one, other.flip(-1)


def _sum_with_mirrored(network: Network, images: Tensor, flip: bool) -> Tensor:
    return torch.stack(_with_mirrored(network, images, flip)).sum(dim=0)


def _pad_to(image: Tensor, height: int, width: int, value: Tensor) -> Tensor:
    """(1, 3, h, w) -> (1, 3, height, width), more of it at the bottom and the right, of `value` (3,)."""
    if image.shape[-2:] == (height, width):
        return image
    padded = value.to(image).view(1, 3, 1, 1).repeat(1, 1, height, width)
    padded[..., : image.shape[-2], : image.shape[-1]] = image
    return padded
