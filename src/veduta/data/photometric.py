"""Colour changes of a training image, each as cheap as a table look-up."""

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.config import Augment

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


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
