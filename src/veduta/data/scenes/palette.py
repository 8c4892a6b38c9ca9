"""Colours of the street scenes: how they are drawn by chance, mixed and varied."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Color = tuple[float, float, float]

GLASS: Color = (70, 92, 112)
TYRE: Color = (38, 38, 44)
STEEL: Color = (104, 108, 118)
WHITE: Color = (240, 238, 232)
LAMP: Color = (255, 224, 158)
# fmt: off
PAINTWORK: tuple[Color, ...] = (
    (206, 62, 56), (236, 176, 52), (58, 112, 176), (232, 232, 228), (62, 66, 76), (150, 156, 162), (74, 138, 110),
    (232, 122, 74), (128, 190, 206), (140, 60, 92), (186, 158, 122),
)
CLOTHES: tuple[Color, ...] = (
    (200, 60, 70), (240, 190, 80), (60, 90, 150), (70, 130, 110), (230, 220, 210), (90, 70, 110), (226, 130, 90),
    (56, 60, 72), (130, 170, 200), (170, 120, 90),
)
SKIN: tuple[Color, ...] = ((244, 208, 178), (222, 172, 132), (176, 122, 86), (118, 78, 56))
HAIR: tuple[Color, ...] = ((52, 40, 36), (110, 72, 44), (196, 150, 84), (150, 146, 146))
FOLIAGE: tuple[Color, ...] = (
    (92, 150, 84), (66, 122, 76), (120, 164, 82), (74, 136, 112), (206, 150, 66), (196, 104, 62), (228, 168, 182),
)
WALLS: tuple[Color, ...] = (
    (214, 128, 100), (232, 192, 140), (178, 92, 78), (224, 214, 196), (146, 160, 172), (236, 206, 112),
    (150, 176, 152), (196, 148, 156), (120, 128, 146), (206, 168, 122), (128, 178, 186),
)
TILES: tuple[Color, ...] = ((158, 78, 62), (108, 84, 84), (92, 98, 112), (186, 104, 74), (86, 112, 106))
# fmt: on


def between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def pick(rng: np.random.Generator, options: Sequence[Item]) -> Item:
    return options[int(rng.random() * len(options))]  # several times faster than rng.choice


def scaled(color: Color, factor: float) -> Color:
    return color[0] * factor, color[1] * factor, color[2] * factor


def mixed(a: Color, b: Color, share: float) -> Color:
    """Colour a with `share` of it replaced by b."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


def varied(rng: np.random.Generator, color: Color) -> Color:
    """A neighbour of the colour: classes overlap in colour, so that colour alone does not tell them apart."""
    tone, r, g, b = rng.random(4).tolist()
    tone = 0.86 + 0.24 * tone
    return color[0] * tone + 30 * r - 15, color[1] * tone + 30 * g - 15, color[2] * tone + 30 * b - 15
