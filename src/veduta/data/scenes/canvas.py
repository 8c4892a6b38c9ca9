"""The canvas: one call paints the colour of a shape and its owner, so masks and boxes are exact by construction.

Lengths are metres: x to the right, y up, z away from the viewer. Points on the canvas are (column, row).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.scenes.kinds import COUNTABLE, Kind
from veduta.data.scenes.light import Light
from veduta.data.scenes.palette import Color, between

SCALE = 2  # painted at twice the size without anti-aliasing: colours are averaged down, owners are picked
HEIGHT, WIDTH = 192 * SCALE, 256 * SCALE
FIRST_OBJECT = 16  # owners below are classes; from here on single objects in painting order, so nearer is higher

Point = tuple[float, float]

CIRCLE: tuple[Point, ...] = tuple((math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)) for k in range(12))


class View:
    """A pinhole camera somewhere in a street, looking along it."""

    def __init__(self, rng: np.random.Generator, half_width: float) -> None:
        self.height, self.x = between(rng, 2.3, 4.2), between(rng, -0.75, 0.75) * half_width  # metres
        self.focal, self.horizon = between(rng, 350, 450), between(rng, 168, 212)  # pixels of the canvas
        self.center = WIDTH / 2 + between(rng, -68, 68)
        self.bend = between(rng, -0.64, 0.64)  # turns the street to one side: pixels per metre of distance

    def at(self, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
        """Point in the street -> column and row on the canvas. Numbers, or arrays of one shape."""
        zoom = self.focal / z
        return self.center + zoom * (x - self.x) + self.bend * z, self.horizon + zoom * (self.height - y)

    def shows(self, x: float, z: float, reach: float) -> bool:
        """Whether the canvas is wide enough for what reaches so far to either side of (x, z)."""
        return bool(self.at(x + reach, 0, z)[0] > 0 and self.at(x - reach, 0, z)[0] < WIDTH)


class Canvas:
    """pixels: (HEIGHT, WIDTH, 4) uint8, red, green, blue and owner."""

    def __init__(self, view: View, light: Light) -> None:
        self.view, self.light = view, light
        self.pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        self.objects: list[Kind] = []  # owner FIRST_OBJECT + k is objects[k]

    def owner_of(self, kind: Kind) -> int:
        """The class itself, or a new object of it where it is countable."""
        if kind not in COUNTABLE:
            return int(kind)
        self.objects.append(kind)
        assert FIRST_OBJECT + len(self.objects) <= 255, "too many objects for 8-bit owners"
        return FIRST_OBJECT + len(self.objects) - 1

    def lit(self, color: Color, z: float, *, shines: bool = False) -> Color:
        """The colour as seen from `z` metres away in this light; what shines ignores the ambient light."""
        (r, g, b), (r1, g1, b1), (r2, g2, b2) = color, self.light.ambient, self.light.haze
        clear = math.exp(-z / self.light.visibility)
        if shines:
            r1 = g1 = b1 = 1
            clear = (1 + clear) / 2
        haze = 1 - clear
        return r * r1 * clear + r2 * haze, g * g1 * clear + g2 * haze, b * b1 * clear + b2 * haze

    def fill(self, owner: int, color: Color, *polygons: Sequence[Point]) -> None:
        """Polygons that do not overlap one another."""
        cv2.fillPoly(self.pixels, [np.array(p, np.int32) for p in polygons], (*color, owner))

    def oval(self, owner: int, color: Color, center: Point, width: float, height: float) -> None:
        """`width` and `height` are half axes."""
        middle, axes = (int(center[0] * 8), int(center[1] * 8)), (int(width * 8), int(height * 8))
        cv2.ellipse(self.pixels, middle, axes, 0, 0, 360, (*color, owner), cv2.FILLED, cv2.LINE_8, 3)

    def rectangle(self, owner: int, color: Color, a: Point, b: Point) -> None:
        cv2.rectangle(self.pixels, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), (*color, owner), cv2.FILLED)

    def wash(self, color: Color, share: float, polygon: Sequence[Point], *, owner: int | None = None) -> None:
        """Mix `share` of the colour into what is there (shadows, spokes); the owners stay unless one is given."""
        contour = np.array(polygon, np.int32)
        x, y, width, height = cv2.boundingRect(contour)
        top, left = max(y, 0), max(x, 0)
        region = self.pixels[top : max(y + height, 0), left : max(x + width, 0)]
        if region.size == 0:
            return
        stencil = np.zeros(region.shape[:2], np.uint8)
        cv2.fillPoly(stencil, [contour], (1,), offset=(-left, -top))
        cv2.copyTo(cv2.LUT(region, _wash_table(color, share, owner)), stencil, region)

    def glow(self, color: Color, center: Point, width: float, height: float) -> None:
        """Colour only: add light that fades towards the rim of an oval."""
        columns, rows = max(2, int(2 * width)), max(2, int(2 * height))
        left, top = int(center[0]) - columns // 2, int(center[1]) - rows // 2
        region = self.pixels[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)]
        if region.size == 0:
            return
        light = cv2.resize(_glow_sprite(color), (columns, rows), interpolation=cv2.INTER_NEAREST)
        light = light[max(-top, 0) :, max(-left, 0) :][: region.shape[0], : region.shape[1]]
        cv2.add(region, light, dst=region)

    def shadow(self, x: float, z: float, width: float, length: float) -> None:
        """The dark patch below what stands on the ground around (x, z)."""
        if z < 30:
            rim = [self.view.at(x + c * width, 0, z + s * length) for c, s in CIRCLE]
            self.wash((24, 24, 40), self.light.shadow, rim)


@cache
def _wash_table(color: Color, share: float, owner: int | None) -> NDArray[np.uint8]:
    """(256, 1, 4) uint8: the new value of each old one, channel by channel."""
    old = np.arange(256.0)
    owners = old if owner is None else np.full(256, owner)
    return np.stack([*(old * (1 - share) + c * share for c in color), owners], axis=-1)[:, None].astype(np.uint8)


@cache
def _glow_sprite(color: Color) -> NDArray[np.uint8]:
    """(64, 64, 4) uint8: the colour, fading from the middle; the owner stays."""
    falloff = np.clip(1 - np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]), 0, 1) ** 2
    return (falloff[..., None] * (*color, 0)).astype(np.uint8)
