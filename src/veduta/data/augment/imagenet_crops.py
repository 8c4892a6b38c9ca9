"""Training images for classification: a random part of a picture, resized once, flipped, its colours changed.

The part is drawn before a pixel is decoded: a JPEG much larger than needed is decoded at a fraction of its size.
"""

from collections.abc import Callable
from math import exp, log, sqrt

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from veduta.config import Augment
from veduta.data.augment.policies import POLICIES, Pixels, brightness, color, contrast
from veduta.data.images import DecodedPicture, Picture

Box = tuple[int, int, int, int]  # top, left, height, width
Size = tuple[int, int]  # height, width

ASPECTS = (3 / 4, 4 / 3)  # width over height
TRIES = 10

# How ImageNet's colours vary, RGB in [0, 1]: standard deviation (first factor) along each principal component, a column
# of the second. Krizhevsky et al. 2012, sec. 4.1, with the values of fb.resnet.torch that all recipes use.
COMPONENTS = np.array([0.2175, 0.0188, 0.0045]) * np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)


def imagenet(picture: Picture, crop_size: Size, augment: Augment, rng: np.random.Generator) -> Pixels:
    """A training image (H, W, 3) uint8 RGB of `crop_size` (height, width).

    The policy changes the whole image where it comes first (the authors' PyTorch ResNeSt), which then is decoded whole,
    and else the crop (MindSpore, Gluon).
    """
    policy = POLICIES[augment.policy]
    if augment.policy_first:
        picture = DecodedPicture(policy(picture.pixels(), rng))
    image = cut(picture, CROPS[augment.crop_by](picture.size, crop_size, augment.area, rng), crop_size)
    if rng.random() < augment.flip:
        image = cv2.flip(image, 1)
    if not augment.policy_first:
        image = policy(image, rng)
    return light(jitter(image, augment, rng), augment.lighting, rng)


def draw_by_area(size: Size, crop_size: Size, area: tuple[float, float], rng: np.random.Generator) -> Box:
    """Uniform share of the area, log-uniform aspect: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, sec. 6.

    Where none of ten fits: the largest part in the middle whose aspect is allowed.
    """
    height, width = size
    for _ in range(TRIES):
        pixels = rng.uniform(*area) * height * width
        aspect = exp(rng.uniform(log(ASPECTS[0]), log(ASPECTS[1])))
        rows, columns = round(sqrt(pixels / aspect)), round(sqrt(pixels * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
    rows, columns = min(height, round(width / ASPECTS[0])), min(width, round(height * ASPECTS[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def draw_by_height(size: Size, crop_size: Size, area: tuple[float, float], rng: np.random.Generator) -> Box:
    """The authors' PyTorch ResNeSt: uniform aspect, then a height uniform between the bounds that `area` sets.

    Where none of ten fits: the square in the middle that their validation looks at.
    """
    height, width = size
    least, most = (share * height * width for share in area)
    for _ in range(TRIES):
        aspect = rng.uniform(*ASPECTS)
        highest = min(round(sqrt(most / aspect)), int(width / aspect), height)
        rows = round(rng.uniform(min(round(sqrt(least / aspect)), highest), highest))
        columns = round(rows * aspect)
        if columns <= width and least <= rows * columns <= most:
            left = int(rng.integers(width - columns + 1))
            return int(rng.integers(height - rows + 1)), left, rows, columns
    side = min(size) * min(crop_size) / (min(crop_size) + 32)
    top, left = round((height - side) / 2), round((width - side) / 2)
    return top, left, max(1, round(top + side) - top), max(1, round(left + side) - left)


CROPS: dict[str, Callable[[Size, Size, tuple[float, float], np.random.Generator], Box]] = {
    "area": draw_by_area,
    "height": draw_by_height,
}


def cut(picture: Picture, box: Box, crop_size: Size) -> Pixels:
    """The part `box` of a picture, resized to `crop_size`: bilinear, antialiased, within one level of Pillow's.

    torch resizes uint8 images in vector code that was Pillow's once; it is three to four times as fast.
    """
    height, width = crop_size
    shrink = max(s for s in (1, 2, 4, 8) if s == 1 or (box[2] >= s * height and box[3] >= s * width))
    pixels = picture.pixels(shrink=shrink)
    per_row, per_column = pixels.shape[0] / picture.size[0], pixels.shape[1] / picture.size[1]
    rows = slice(round(box[0] * per_row), round((box[0] + box[2]) * per_row))
    columns = slice(round(box[1] * per_column), round((box[1] + box[3]) * per_column))
    part = torch.from_numpy(pixels[rows, columns].copy())[None].permute(0, 3, 1, 2)  # in this order: channels_last
    return F.interpolate(part, size=crop_size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def jitter(image: Pixels, augment: Augment, rng: np.random.Generator) -> Pixels:
    """Brightness, contrast about the mean grey and saturation, each by a factor in 1 +- its range, in random order."""
    reaches = {brightness: augment.brightness, contrast: augment.contrast, color: augment.saturation}
    changes = [(change, reach) for change, reach in reaches.items() if reach]
    for i in rng.permutation(len(changes)) if changes else ():
        change, reach = changes[i]
        image = change(image, rng.uniform(1 - reach, 1 + reach))
    return image


def light(image: Pixels, std: float, rng: np.random.Generator) -> Pixels:
    """PCA lighting: one shift of all pixels along the ways in which ImageNet's colours vary, to whole levels."""
    if not std:
        return image
    shift = np.rint(255 * COMPONENTS @ rng.normal(0, std, 3))
    return cv2.add(image, (*shift.tolist(), 0))
