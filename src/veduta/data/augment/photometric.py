"""Colour changes of a training image: the default ones, each as cheap as a table look-up, and TensorFlow's, exact."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.config import Augment

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Image = NDArray[np.float32]


def jitter(image: NDArray[np.uint8], augment: Augment, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random brightness, tint, contrast and gamma as one table per channel, then saturation as one 3x3 matrix.

    image: (H, W, 3) uint8 RGB. Every random number is drawn whatever the ranges are, so that switching one change off
    leaves the others as they were.
    """
    brightness = rng.uniform(1 - augment.brightness, 1 + augment.brightness)
    tint = rng.uniform(1 - augment.tint, 1 + augment.tint, size=3)
    contrast = rng.uniform(1 - augment.contrast, 1 + augment.contrast)
    gamma = np.exp(rng.uniform(-augment.gamma, augment.gamma))
    saturation = rng.uniform(1 - augment.saturation, 1 + augment.saturation)
    if augment.brightness or augment.tint or augment.contrast or augment.gamma:
        levels = np.arange(256)[:, None] / 255 * brightness * tint
        levels = np.clip((levels - 0.5) * contrast + 0.5, 0, 1) ** gamma
        image = cv2.LUT(image, (255 * levels + 0.5).astype(np.uint8)[None])
    if augment.saturation:
        image = cv2.transform(image, saturation * np.eye(3) + (1 - saturation) * LUMA)
    return image


# The four below change their image (H, W, 3) float32 RGB, about 0..1, in place, and cut nothing off at 0 or 1:
# `tf.image.adjust_*` of TensorFlow.


def add_brightness(image: Image, delta: float) -> None:
    image += np.float32(delta)


def scale_contrast(image: Image, factor: float) -> None:
    """Distances from the mean of each channel are multiplied."""
    mean = np.array(cv2.mean(image)[:3])
    cv2.transform(image, np.column_stack([factor * np.eye(3), (1 - factor) * mean]), dst=image)


def scale_saturation(image: Image, factor: float) -> None:
    """The saturation of HSV is multiplied, up to 1; a pixel without a positive channel becomes grey."""
    cv2.cvtColor(image, cv2.COLOR_RGB2HSV, dst=image)
    saturation, value = image[..., 1], image[..., 2]
    saturation *= np.float32(factor)
    np.minimum(saturation, 1, out=saturation)
    saturation[value <= 0] = 0
    cv2.cvtColor(image, cv2.COLOR_HSV2RGB, dst=image)


def shift_hue(image: Image, delta: float) -> None:
    """Colours turn by `delta` of the circle; the largest and the smallest channel keep their values."""
    image += 1  # hue knows only differences of channels, but HSV wants values above 0
    cv2.cvtColor(image, cv2.COLOR_RGB2HSV, dst=image)
    hue = image[..., 0]
    hue += np.float32(360 * (delta % 1))  # never below 0, where OpenCV turns too little
    cv2.cvtColor(image, cv2.COLOR_HSV2RGB, dst=image)
    image -= 1


ADJUST: dict[str, Callable[[Image, float], None]] = {
    "brightness": add_brightness,
    "contrast": scale_contrast,
    "saturation": scale_saturation,
    "hue": shift_hue,
}
