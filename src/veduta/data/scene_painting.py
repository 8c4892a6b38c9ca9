"""The canvas of the generated street scenes and the figures painted on it.

One call paints the colour of a shape and its owner (a class, or one countable object), and things are painted from far
to near, so masks and boxes are exact by construction. Lengths are metres: x to the right, y up, z away from the viewer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 192, 256
SCALE = 2  # painted at twice the size without anti-aliasing: colours are averaged down, owners are picked
FIRST_OBJECT = 16  # owners below are classes; from here on single objects in painting order, so nearer is higher

Item = TypeVar("Item")
Color = tuple[float, float, float]
Point = tuple[float, float]
Point3 = tuple[float, float, float]


class Kind(IntEnum):
    """What a pixel shows: the train ids of label map 'scenes'."""

    SKY = 0
    BUILDING = 1
    ROAD = 2
    PAVEMENT = 3
    TREE = 4
    POLE = 5
    SIGN = 6
    CAR = 7
    BUS = 8
    PERSON = 9
    BICYCLE = 10


COUNTABLE = frozenset({Kind.SIGN, Kind.CAR, Kind.BUS, Kind.PERSON, Kind.BICYCLE})  # every one of them gets a box

CIRCLE: tuple[Point, ...] = tuple((math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)) for k in range(12))

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
BUS_PAINT: tuple[Color, ...] = ((222, 70, 52), (64, 128, 172), (240, 186, 64), (84, 154, 112), (226, 222, 210))
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


def varied(rng: np.random.Generator, color: Color, spread: float = 14) -> Color:
    """A neighbour of the colour: classes overlap in colour, so that colour alone does not tell them apart."""
    tone, (r, g, b) = between(rng, 0.86, 1.1), color
    return (
        r * tone + between(rng, -spread, spread),
        g * tone + between(rng, -spread, spread),
        b * tone + between(rng, -spread, spread),
    )


@dataclass(frozen=True)
class Light:
    """How a scene class looks. `sky`: top, middle, horizon. `visibility`: metres until haze covers two thirds."""

    sky: tuple[Color, Color, Color]
    ambient: Color
    haze: Color
    visibility: float
    lit_windows: float  # share of the windows
    lamps: bool  # street lamps, head and tail lights are on
    shadow: float  # how dark the shadows on the ground are


@dataclass(frozen=True)
class View:
    """A pinhole camera that looks along the street; `bend` turns the street with the square of the distance.

    focal, horizon and center are pixels of the canvas; height and x place the camera in the street, in metres.
    """

    focal: float
    horizon: float
    center: float
    height: float
    x: float
    bend: float

    def at(self, x: float, y: Any, z: Any) -> tuple[Any, Any]:
        """Point in the street -> column and row on the canvas. y and z may be arrays of one shape."""
        zoom = self.focal / z
        return self.center + zoom * (x - self.x) + self.focal * self.bend * z, self.horizon + zoom * (self.height - y)


class Canvas:
    """pixels: (2H, 2W, 4) uint8, red, green, blue and owner. Points are (column, row) on it."""

    def __init__(self, view: View, light: Light) -> None:
        self.view, self.light = view, light
        self.pixels = np.zeros((HEIGHT * SCALE, WIDTH * SCALE, 4), np.uint8)
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

    def wheel(self, owner: int, color: Color, center: Point, radius: float, thickness: int) -> None:
        """The whole disc is owned, only its rim is coloured: the background shows between the spokes."""
        middle, stencil = (int(center[0]), int(center[1])), np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.circle(stencil, middle, int(radius), (1,), cv2.FILLED)
        self.pixels[..., 3][stencil > 0] = owner
        cv2.circle(self.pixels, middle, int(radius), (*color, owner), thickness)

    def wash(self, color: Color, share: float, polygon: Sequence[Point]) -> None:
        """Colour only: mix `share` of it into what is there (shadows, mended asphalt)."""
        contour = np.array(polygon, np.int32)
        x, y, width, height = cv2.boundingRect(contour)
        top, left = max(y, 0), max(x, 0)
        region = self.pixels[top : max(y + height, 0), left : max(x + width, 0)]
        if region.size == 0:
            return
        stencil = np.zeros(region.shape[:2], np.uint8)
        cv2.fillPoly(stencil, [contour], (1,), offset=(-left, -top))
        cv2.copyTo(cv2.LUT(region, _wash_table(color, share)), stencil, region)

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
        if z < 36:
            self.wash(
                (24, 24, 40), self.light.shadow, [self.view.at(x + c * width, 0, z + s * length) for c, s in CIRCLE]
            )


@cache
def _wash_table(color: Color, share: float) -> NDArray[np.uint8]:
    """(256, 1, 4) uint8: the new value of each old one, channel by channel; the owner stays."""
    old = np.arange(256.0)
    new = np.stack([*(old * (1 - share) + c * share for c in color), old], axis=-1)
    return new[:, None].astype(np.uint8)


@cache
def _glow_sprite(color: Color) -> NDArray[np.uint8]:
    """(64, 64, 4) uint8: the colour, fading from the middle; the owner stays."""
    falloff = np.clip(1 - np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]), 0, 1) ** 2
    return (falloff[..., None] * (*color, 0)).astype(np.uint8)


class Brush:
    """Paints one thing that stands on the ground at (x, z), in metres from there; `facing` -1 mirrors it."""

    def __init__(self, canvas: Canvas, kind: Kind, x: float, z: float, *, facing: int = 1, size: float = 1.0) -> None:
        self.canvas, self.x, self.z, self.facing = canvas, x, z, facing
        self.owner = canvas.owner_of(kind)
        self.u, self.v = canvas.view.at(x, 0, z)
        self.zoom = canvas.view.focal / z * size  # canvas pixels per metre

    @property
    def fine(self) -> bool:
        """Near enough for details to show."""
        return self.zoom > 16

    def point(self, x: float, y: float) -> Point:
        return self.u + self.facing * self.zoom * x, self.v - self.zoom * y

    def flat(self, color: Color, *points: Point) -> None:
        """A polygon in the upright plane that faces the viewer."""
        u, v, across, up = self.u, self.v, self.facing * self.zoom, self.zoom
        self.canvas.fill(self.owner, self.canvas.lit(color, self.z), [(u + across * x, v - up * y) for x, y in points])

    def bar(self, color: Color, x0: float, y0: float, x1: float, y1: float, *, shines: bool = False) -> None:
        seen = self.canvas.lit(color, self.z, shines=shines)
        self.canvas.rectangle(self.owner, seen, self.point(x0, y0), self.point(x1, y1))

    def disc(
        self, color: Color, x: float, y: float, radius: float, tall: float | None = None, *, shines: bool = False
    ) -> None:
        """A disc, or an oval of half height `tall`."""
        seen = self.canvas.lit(color, self.z, shines=shines)
        self.canvas.oval(self.owner, seen, self.point(x, y), radius * self.zoom, (tall or radius) * self.zoom)

    def stroke(self, color: Color, a: Point, b: Point, width: float) -> None:
        """A straight line, never thinner than a pixel of the image."""
        (au, av), (bu, bv) = self.point(*a), self.point(*b)
        seen = (*self.canvas.lit(color, self.z), self.owner)
        thickness = max(SCALE, round(width * self.zoom))
        cv2.line(self.canvas.pixels, (int(au), int(av)), (int(bu), int(bv)), seen, thickness)

    def wheel(self, x: float, y: float, radius: float) -> None:
        """A wheel with spokes."""
        rim = max(SCALE - 1, round(0.07 * self.zoom))
        self.canvas.wheel(self.owner, self.canvas.lit(TYRE, self.z), self.point(x, y), radius * self.zoom, rim)

    def solid(self, color: Color, *polygons: Sequence[Point3], shines: bool = False) -> None:
        """Polygons in space, z counted from the thing's nearest point."""
        at, x0, z0, facing = self.canvas.view.at, self.x, self.z, self.facing
        outlines = [[at(x0 + facing * x, y, z0 + z) for x, y, z in p] for p in polygons]
        self.canvas.fill(self.owner, self.canvas.lit(color, z0, shines=shines), *outlines)

    def panes(self, color: Color, places: Sequence[Point], half: float, tall: float, *, shines: bool = False) -> None:
        """Rectangles in the front of a house; `places`: height of the sill and z of the middle of each."""
        y, middle = np.array(places).T[..., None]  # two times (N, 1)
        z = self.z + middle + np.array([-half, half, half, -half])
        u, v = self.canvas.view.at(self.x, y + np.array([0, 0, tall, tall]), z)
        seen = (*self.canvas.lit(color, self.z, shines=shines), self.owner)
        cv2.fillPoly(self.canvas.pixels, list(np.stack([u, v], axis=-1).astype(np.int32)), seen)

    def glow(self, color: Color, x: float, y: float, radius: float) -> None:
        self.canvas.glow(color, self.point(x, y), radius * self.zoom, radius * self.zoom)


def paint_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, away: bool) -> None:
    """A car or van in its lane, seen from behind (`away`) or from the front."""
    canvas.shadow(x, z + 2, 1.25, 2.9)
    car = Brush(canvas, Kind.CAR, x, z, facing=-1 if x > canvas.view.x else 1)  # +x is its visible flank
    van = rng.random() < 0.2
    paint = varied(rng, pick(rng, PAINTWORK))
    belt, roof, length = (1.05, 2.05, 4.8) if van else (0.88, between(rng, 1.4, 1.6), 4.2)
    foot, top = (0.1, length - 0.7) if van else (0.3, 3.2) if away else (1.2, 4.0)  # where cabin glass meets the body
    cabin, slope = (0.84, 0.15) if van else (0.7, 0.6)
    car.solid(
        (30, 30, 36), [(-0.85, 0.12, 0), (0.88, 0.12, 0), (0.88, 0.12, length), (0.88, 0.4, length), (-0.85, 0.4, 0)]
    )
    car.solid(scaled(paint, 0.74), [(0.9, 0.3, 0), (0.9, belt, 0), (0.9, belt, length), (0.9, 0.3, length)])
    if z < 40:
        car.solid(TYRE, *([(0.91, 0.34 + s * 0.34, m + c * 0.34) for c, s in CIRCLE] for m in (0.85, length - 0.85)))
    car.solid(scaled(paint, 1.1), [(-0.9, belt, 0), (0.9, belt, 0), (0.9, belt, length), (-0.9, belt, length)])
    a, b, c, d = foot, foot + slope, top - slope, top
    car.solid(scaled(GLASS, 0.8), [(0.86, belt, a), (cabin, roof, b), (cabin, roof, c), (0.86, belt, d)])
    car.solid(paint, [(-0.88, belt, a), (0.88, belt, a), (cabin + 0.02, roof, b), (-cabin - 0.02, roof, b)])
    low, high = belt + 0.06, roof - 0.1
    near = a + 0.04
    car.solid(GLASS, [(-0.78, low, near), (0.78, low, near), (cabin - 0.08, high, b), (0.08 - cabin, high, b)])
    car.solid(scaled(paint, 1.15), [(-cabin, roof, b), (cabin, roof, b), (cabin, roof, c), (-cabin, roof, c)])
    car.bar(TYRE, -0.86, 0, -0.55, 0.4)
    car.bar(TYRE, 0.55, 0, 0.86, 0.4)
    car.flat(paint, (-0.9, 0.3), (-0.91, belt - 0.12), (-0.8, belt), (0.8, belt), (0.91, belt - 0.12), (0.9, 0.3))
    if car.fine:
        car.bar(scaled(paint, 0.6), -0.9, 0.28, 0.9, 0.42)
        car.bar(WHITE, -0.24, 0.45, 0.24, 0.57)
    lamps = canvas.light.lamps
    light: Color = (216, 44, 40) if away else (255, 246, 214)
    for side in (-1, 1):
        car.bar(light, side * 0.55, belt - 0.32, side * 0.86, belt - 0.16, shines=lamps)
        if lamps and z < 50:
            car.glow(scaled(light, 0.75), side * 0.7, belt - 0.24, 0.5 if away else 1.0)
    if not van and rng.random() < 0.12:
        car.bar((244, 200, 60), -0.25, roof, 0.25, roof + 0.18, shines=lamps)  # a taxi


def paint_bus(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, away: bool) -> None:
    """A bus in its lane, seen from behind (`away`) or from the front."""
    canvas.shadow(x, z + 5, 1.7, 6.6)
    bus = Brush(canvas, Kind.BUS, x, z, facing=-1 if x > canvas.view.x else 1)
    paint, length = varied(rng, pick(rng, BUS_PAINT)), 10.0
    lamps = canvas.light.lamps
    pane = mixed(GLASS, LAMP, 0.75) if lamps else GLASS
    bus.solid(scaled(paint, 0.74), [(1.25, 0.3, 0), (1.25, 3.05, 0), (1.25, 3.05, length), (1.25, 0.3, length)])
    panes = [(m + 0.15, m + 1.3) for m in (0.3, 1.75, 3.2, 4.65, 6.1, 7.55)]
    sides = [[(1.26, 1.5, m), (1.26, 2.6, m), (1.26, 2.6, n), (1.26, 1.5, n)] for m, n in panes]
    bus.solid(scaled(pane, 0.85), *sides, shines=lamps)
    bus.solid(TYRE, *([(1.27, 0.45 + s * 0.45, m + c * 0.45) for c, s in CIRCLE] for m in (1.8, length - 2)))
    bus.solid(scaled(paint, 1.12), [(-1.25, 3.05, 0), (1.25, 3.05, 0), (1.25, 3.05, length), (-1.25, 3.05, length)])
    for side in (-1, 1):
        bus.bar(TYRE, side * 0.8, 0, side * 1.2, 0.5)
    bus.flat(paint, (-1.25, 0.3), (-1.27, 2.9), (-1.1, 3.05), (1.1, 3.05), (1.27, 2.9), (1.25, 0.3))
    bus.bar(scaled(paint, 0.6), -1.25, 0.28, 1.25, 0.5)
    bus.bar(pane, -1.1, 1.35, 1.1, 2.5, shines=lamps)
    if not away:
        bus.bar(paint, -0.04, 1.35, 0.04, 2.5)
    bus.bar((40, 40, 44), -0.9, 2.62, 0.9, 2.92)
    bus.bar((255, 176, 60), -0.7, 2.7, 0.45, 2.84, shines=True)  # where it goes
    light: Color = (216, 44, 40) if away else (255, 246, 214)
    for side in (-1, 1):
        bus.bar(light, side * 0.75, 0.62, side * 1.12, 0.85, shines=lamps)
        if lamps and z < 50:
            bus.glow(scaled(light, 0.75), side * 0.9, 0.74, 0.6 if away else 1.5)


def paint_car_side(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int) -> None:
    """A car that crosses the street."""
    canvas.shadow(x, z + 0.8, 2.4, 1.1)
    car = Brush(canvas, Kind.CAR, x, z, facing=facing)
    paint = varied(rng, pick(rng, PAINTWORK))
    car.flat(
        paint, (-2.1, 0.3), (-2.1, 0.8), (-1.9, 0.95), (-1.4, 1.0), (-0.85, 1.48), (0.4, 1.5), (1.05, 1.0), (1.85, 0.9),
        (2.1, 0.7), (2.1, 0.3),
    )  # fmt: skip
    car.flat(GLASS, (-1.2, 1.0), (-0.78, 1.38), (-0.18, 1.4), (-0.18, 1.0))
    car.flat(GLASS, (-0.05, 1.0), (-0.05, 1.4), (0.35, 1.4), (0.85, 1.0))
    car.bar(scaled(paint, 0.66), -2.1, 0.28, 2.1, 0.42)
    for wheel in (-1.3, 1.3):
        car.disc(TYRE, wheel, 0.36, 0.36)
        car.disc((176, 178, 182), wheel, 0.36, 0.17)
    lamps = canvas.light.lamps
    car.bar((255, 246, 214), 1.92, 0.66, 2.1, 0.8, shines=lamps)
    car.bar((216, 44, 40), -2.1, 0.66, -1.96, 0.8, shines=lamps)
    if lamps:
        car.glow((200, 190, 150), 2.2, 0.7, 1.2)


def paint_bus_side(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int) -> None:
    canvas.shadow(x, z + 1, 5.6, 1.4)
    bus = Brush(canvas, Kind.BUS, x, z, facing=facing)
    paint, lamps = varied(rng, pick(rng, BUS_PAINT)), canvas.light.lamps
    pane = mixed(GLASS, LAMP, 0.75) if lamps else GLASS
    bus.flat(paint, (-5, 0.35), (-5, 2.9), (-4.8, 3.1), (4.7, 3.1), (4.95, 2.8), (5, 0.35))
    bus.bar(scaled(paint, 0.62), -5, 0.33, 5, 0.6)
    bus.bar(WHITE, -5, 1.15, 5, 1.28)
    for left in (-4.7, -3.1, -1.5, 1.5):
        bus.bar(pane, left, 1.5, left + 1.35, 2.55, shines=lamps)
    for left in (0.1, 3.1):
        bus.bar(scaled(pane, 0.9), left, 0.5, left + 1.1, 2.55, shines=lamps)  # doors
        bus.bar(paint, left + 0.5, 0.5, left + 0.6, 2.55)
    bus.bar(pane, 4.4, 1.35, 4.97, 2.6, shines=lamps)
    for wheel in (-3.2, 2.4):
        bus.disc(TYRE, wheel, 0.48, 0.48)
        bus.disc((176, 178, 182), wheel, 0.48, 0.22)
    if lamps:
        bus.glow((200, 190, 150), 5.1, 0.8, 1.4)


def paint_person(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, umbrella: bool) -> None:
    canvas.shadow(x, z, 0.42, 0.5)
    size = between(rng, 0.6, 0.75) if rng.random() < 0.12 else between(rng, 0.93, 1.08)
    person = Brush(canvas, Kind.PERSON, x, z, facing=1 if rng.random() < 0.5 else -1, size=size)
    coat, legs = varied(rng, pick(rng, CLOTHES)), scaled(varied(rng, pick(rng, CLOTHES)), 0.7)
    skin, stride = pick(rng, SKIN), between(rng, 0.06, 0.3)
    if umbrella:
        person.stroke(STEEL, (0.22, 1.1), (0.22, 2.0), 0.04)
    person.stroke(scaled(legs, 0.85), (-0.04, 0.85), (-stride, 0.04), 0.18)
    person.stroke(legs, (0.06, 0.85), (stride, 0.04), 0.18)
    if person.fine:
        person.bar(TYRE, stride - 0.08, 0, stride + 0.16, 0.08)
        person.bar(TYRE, -stride - 0.08, 0, -stride + 0.16, 0.08)
    hem = 0.55 if rng.random() < 0.35 else 0.82  # a long coat or a jacket
    person.flat(coat, (-0.26, hem), (-0.24, 1.38), (-0.13, 1.5), (0.13, 1.5), (0.24, 1.38), (0.26, hem))
    if person.fine:
        person.stroke(scaled(coat, 0.78), (0.2, 1.4), (0.22 + stride / 2, 0.88), 0.12)
    if person.fine and rng.random() < 0.4:
        person.bar(varied(rng, pick(rng, CLOTHES)), -0.42, 0.6, -0.16, 0.95)  # a bag
    person.bar(skin, -0.05, 1.45, 0.06, 1.56)
    person.disc(pick(rng, HAIR), -0.02, 1.68, 0.15)
    if person.fine:
        person.flat(skin, (-0.05, 1.72), (0.1, 1.74), (0.14, 1.64), (0.06, 1.54), (-0.05, 1.55))
    if umbrella:
        shade = varied(rng, pick(rng, CLOTHES))
        person.flat(shade, *((0.22 + c * 0.62, 1.86 + s * 0.42) for c, s in CIRCLE[:7]))
        person.flat(scaled(shade, 0.82), *((0.22 + c * 0.3, 1.86 + s * 0.42) for c, s in CIRCLE[:7]))


def paint_bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int, ridden: bool) -> None:
    """A bicycle seen from the side, with its rider or parked."""
    canvas.shadow(x, z, 0.9, 0.4)
    bicycle = Brush(canvas, Kind.BICYCLE, x, z, facing=facing)
    paint = varied(rng, pick(rng, PAINTWORK))
    for wheel in (-0.54, 0.54):
        bicycle.wheel(wheel, 0.36, 0.34)
    seat, pedals, fork = (-0.2, 0.9), (-0.08, 0.36), (0.42, 0.92)
    for a, b in (((-0.54, 0.36), pedals), (pedals, seat), (pedals, fork), ((-0.16, 0.78), fork), (fork, (0.54, 0.36))):
        bicycle.stroke(paint, a, b, 0.07)
    bicycle.stroke(TYRE, (0.3, 1.05), fork, 0.06)
    bicycle.stroke(TYRE, (-0.34, 0.92), (-0.08, 0.92), 0.08)
    if ridden:
        rider = Brush(canvas, Kind.PERSON, x, z, facing=facing)
        coat, legs, skin = varied(rng, pick(rng, CLOTHES)), scaled(pick(rng, CLOTHES), 0.7), pick(rng, SKIN)
        rider.stroke(legs, (-0.2, 0.95), (0.12, 0.7), 0.19)
        rider.stroke(legs, (0.12, 0.7), (-0.04, 0.28), 0.15)
        rider.flat(coat, (-0.36, 0.92), (-0.22, 1.35), (0.02, 1.56), (0.18, 1.46), (0.02, 1.2), (-0.08, 0.92))
        rider.stroke(scaled(coat, 0.8), (0.08, 1.42), (0.36, 1.06), 0.11)
        rider.disc(skin, 0.17, 1.68, 0.14)
        hat = pick(rng, PAINTWORK if rng.random() < 0.6 else HAIR)
        rider.flat(hat, *((0.16 + c * 0.16, 1.7 + s * 0.16) for c, s in CIRCLE[:7]))


def paint_cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, away: bool) -> None:
    """A cyclist who rides along the street."""
    canvas.shadow(x, z, 0.4, 1.1)
    bicycle = Brush(canvas, Kind.BICYCLE, x, z)
    paint = varied(rng, pick(rng, PAINTWORK))
    bicycle.disc(TYRE, 0, 0.36, 0.09, 0.36)
    bicycle.bar(paint, -0.11, 0.36, 0.11, 0.72)
    bicycle.stroke(TYRE, (-0.32, 1.04), (0.32, 1.04), 0.08)
    rider = Brush(canvas, Kind.PERSON, x, z)
    coat, legs, skin = varied(rng, pick(rng, CLOTHES)), scaled(pick(rng, CLOTHES), 0.7), pick(rng, SKIN)
    rider.stroke(legs, (-0.14, 0.95), (-0.19, 0.32), 0.15)
    rider.stroke(legs, (0.14, 0.95), (0.19, 0.5), 0.15)
    rider.flat(coat, (-0.21, 0.86), (-0.27, 1.38), (-0.12, 1.54), (0.12, 1.54), (0.27, 1.38), (0.21, 0.86))
    for side in (-1, 1):
        rider.stroke(scaled(coat, 0.8), (side * 0.25, 1.4), (side * 0.32, 1.06), 0.1)
    rider.disc(pick(rng, HAIR) if away else skin, 0, 1.68, 0.14)
    rider.flat(pick(rng, PAINTWORK), *((c * 0.16, 1.7 + s * 0.16) for c, s in CIRCLE[:7]))
    if canvas.light.lamps:
        bicycle.glow((200, 40, 30) if away else (220, 210, 180), 0, 0.8, 0.4)


def paint_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, foliage: Color) -> None:
    """A broad tree, a poplar or a fir; the light falls from the upper left."""
    canvas.shadow(x, z, between(rng, 1.3, 1.8), 1.1)
    tree = Brush(canvas, Kind.TREE, x, z, size=between(rng, 0.8, 1.25))
    leaves = varied(rng, foliage, 18)
    form = rng.random()
    trunk = varied(rng, (104, 78, 62))
    if form < 0.2:
        tree.bar(trunk, -0.13, 0, 0.13, 1.0)
        for base, half in ((0.8, 1.35), (1.9, 1.1), (3.0, 0.8)):
            tree.flat(scaled(leaves, 0.72), (-half, base), (half, base), (0, base + 2.0))
            tree.flat(scaled(leaves, 0.9), (-half, base), (0, base), (0, base + 2.0))
        return
    tree.flat(trunk, (-0.2, 0), (0.2, 0), (0.11, 2.6), (-0.11, 2.6))
    if form < 0.35:
        tree.disc(scaled(leaves, 0.78), 0, 3.6, 0.85, 2.6)
        tree.disc(leaves, -0.2, 3.9, 0.55, 2.0)
        return
    tree.stroke(trunk, (0, 1.9), (0.7, 2.8), 0.12)
    blobs = [(between(rng, -1.15, 1.15), between(rng, 2.6, 4.3), between(rng, 0.7, 1.15)) for _ in range(6)]
    crown = [*(blobs if tree.fine else blobs[:3]), (0.0, 3.4, 1.3)]
    for tone, shift, share in ((0.72, 0.0, 1.0), (0.92, 0.16, 0.72), (1.12, 0.3, 0.36))[: 3 if tree.fine else 2]:
        for cx, cy, radius in crown:
            tree.disc(scaled(leaves, tone), cx - shift, cy + shift, radius * share)


def paint_hedge(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, foliage: Color) -> None:
    hedge = Brush(canvas, Kind.TREE, x, z)
    leaves = varied(rng, foliage)
    for dx in (-1.1, 0.0, 1.1):
        hedge.disc(scaled(leaves, 0.8), dx, 0.5, between(rng, 0.6, 0.75), 0.6)
    for dx in (-1.2, -0.2, 0.9):
        hedge.disc(leaves, dx, 0.7, between(rng, 0.3, 0.45))


def paint_street_lamp(canvas: Canvas, x: float, z: float, *, facing: int) -> None:
    lamp = Brush(canvas, Kind.POLE, x, z, facing=facing)
    lamp.stroke(STEEL, (0, 0), (0, 5.6), 0.13)
    lamp.bar(scaled(STEEL, 0.8), -0.12, 0, 0.12, 0.7)
    lamp.stroke(STEEL, (-0.05, 5.6), (1.3, 5.85), 0.1)
    lamp.flat(scaled(STEEL, 0.75), (1.0, 5.9), (1.9, 5.95), (1.9, 5.8), (1.0, 5.72))
    if canvas.light.lamps:
        lamp.bar(LAMP, 1.1, 5.66, 1.8, 5.78, shines=True)
        lamp.glow((170, 130, 70), 1.45, 5.7, 2.4)
        pool = canvas.view.at(x + facing * 1.4, 0, z)
        canvas.glow((96, 72, 36), pool, 3.4 * lamp.zoom, 3.4 * lamp.zoom * canvas.view.height / z)


def paint_bollard(canvas: Canvas, x: float, z: float) -> None:
    bollard = Brush(canvas, Kind.POLE, x, z)
    bollard.bar(scaled(STEEL, 0.8), -0.09, 0, 0.09, 0.9)
    bollard.bar(WHITE, -0.09, 0.68, 0.09, 0.78)


def paint_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign on its pole."""
    canvas.shadow(x, z, 0.25, 0.25)
    Brush(canvas, Kind.POLE, x, z).stroke(STEEL, (0, 0), (0, 2.6), 0.1)
    plate = Brush(canvas, Kind.SIGN, x, z)
    red, blue, yellow = varied(rng, (206, 46, 48)), varied(rng, (44, 98, 178)), varied(rng, (244, 196, 58))
    form = int(rng.random() * 7)
    if form == 0:  # speed limit
        plate.disc(red, 0, 2.6, 0.5)
        plate.disc(WHITE, 0, 2.6, 0.36)
        plate.bar((50, 50, 56), -0.2, 2.48, -0.05, 2.72)
        plate.bar((50, 50, 56), 0.05, 2.48, 0.2, 2.72)
    elif form == 1:  # no entry
        plate.disc(red, 0, 2.6, 0.5)
        plate.bar(WHITE, -0.34, 2.52, 0.34, 2.68)
    elif form == 2:  # give way
        plate.flat(red, (-0.56, 2.95), (0.56, 2.95), (0, 2.0))
        plate.flat(WHITE, (-0.32, 2.82), (0.32, 2.82), (0, 2.28))
    elif form == 3:  # parking
        plate.bar(blue, -0.45, 2.15, 0.45, 3.05)
        plate.bar(WHITE, -0.18, 2.3, -0.04, 2.9)
        plate.bar(WHITE, -0.04, 2.56, 0.2, 2.9)
    elif form == 4:  # priority road
        plate.flat(WHITE, (-0.56, 2.6), (0, 3.16), (0.56, 2.6), (0, 2.04))
        plate.flat(yellow, (-0.42, 2.6), (0, 3.02), (0.42, 2.6), (0, 2.18))
    elif form == 5:  # keep right
        plate.disc(blue, 0, 2.6, 0.5)
        plate.flat(WHITE, (-0.2, 2.78), (-0.08, 2.88), (0.24, 2.5), (0.26, 2.3), (0.06, 2.34))
    else:  # place names
        plate.bar(blue if rng.random() < 0.5 else yellow, -0.8, 2.3, 0.8, 2.95)
        plate.bar(WHITE, -0.62, 2.68, 0.3, 2.78)
        plate.bar(WHITE, -0.62, 2.46, 0.55, 2.56)


def paint_traffic_light(canvas: Canvas, x: float, z: float, *, green: bool) -> None:
    Brush(canvas, Kind.POLE, x, z).stroke(scaled(STEEL, 0.8), (0, 0), (0, 3.4), 0.14)
    box = Brush(canvas, Kind.SIGN, x, z)
    box.bar((44, 48, 52), -0.26, 2.5, 0.26, 3.8)
    for y, on, light in (
        (3.55, not green, (255, 70, 56)),
        (3.15, False, (255, 190, 60)),
        (2.75, green, (90, 235, 130)),
    ):
        box.disc(light if on else scaled(light, 0.3), 0, y, 0.17, shines=on)
        if on and canvas.light.lamps:
            box.glow(scaled(light, 0.6), 0, y, 1.0)


def paint_building(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, length: float, side: int, corner: bool
) -> None:
    """A house on one `side` (-1 left, 1 right) of the street, its front at x, from z to z + length.

    A `corner` house has windows in the wall that faces the viewer, too.
    """
    house = Brush(canvas, Kind.BUILDING, x, z, facing=side)
    wall = varied(rng, pick(rng, WALLS))
    sunny = 1.0 if side > 0 else 0.82  # the light falls from the upper left
    front = scaled(wall, sunny)
    floors = 2 + int(rng.random() * 4)
    eaves = floors * 3.1 + 1.0
    gabled, pitched = rng.random() < 0.3, rng.random() < 0.5
    tiles = varied(rng, pick(rng, TILES))
    house.solid(scaled(wall, 0.68), [(0, 0, 0), (0, eaves, 0), (12, eaves, 0), (12, 0, 0)])  # the wall facing us
    if corner:
        sills = [(m, f * 3.1 + 1.9) for m in (1.5, 4.4) for f in range(floors)]
        on = int(len(sills) * canvas.light.lit_windows)
        for group, color in ((sills[on:], scaled(GLASS, 0.8)), (sills[:on], LAMP)):
            corners = [[(m, y, 0.0), (m + 1.1, y, 0.0), (m + 1.1, y + 1.6, 0.0), (m, y + 1.6, 0.0)] for m, y in group]
            house.solid(color, *corners, shines=color is LAMP)
    if gabled:
        middle = length / 2
        house.solid(scaled(tiles, 0.8), [(0, eaves, 0), (0, eaves + 3, middle), (9, eaves + 3, middle), (9, eaves, 0)])
        house.solid(front, [(0, eaves, 0), (0, eaves + 3, middle), (0, eaves, length)])
    elif pitched:
        slope = [(0, eaves, 0), (0, eaves, length), (4, eaves + 3.4, length), (4, eaves + 3.4, 0)]
        house.solid(scaled(wall, 0.68), [(0, eaves, 0), (4, eaves + 3.2, 0), (8, eaves, 0)])
        house.solid(scaled(tiles, sunny), slope)
        at, up = length * between(rng, 0.2, 0.7), eaves + 1.4
        chimney = [(1.5, up, at), (1.5, up + 2.6, at), (1.5, up + 2.6, at + 0.9), (1.5, up, at + 0.9)]
        house.solid(scaled(tiles, 0.7), chimney)
    house.solid(front, [(0, 0, 0), (0, eaves, 0), (0, eaves, length), (0, 0, length)])
    if not gabled:
        trim = scaled(wall, 1.12 * sunny)
        house.solid(
            trim, [(-0.2, eaves, 0), (-0.2, eaves - 0.5, 0), (-0.2, eaves - 0.5, length), (-0.2, eaves, length)]
        )
    columns = max(1, int(length / between(rng, 2.2, 3.0)))
    step, half, tall = length / columns, between(rng, 0.45, 0.75), between(rng, 1.4, 1.9)
    panes = [(f * 3.1 + 1.9, (k + 0.5) * step) for f in range(1, floors) for k in range(columns)]
    if gabled:
        panes.append((eaves + 0.3, length / 2))
    if z < 26:
        frame = scaled(mixed(wall, WHITE, 0.6), sunny)
        house.panes(frame, [(y - 0.12, m) for y, m in panes], half + 0.12, tall + 0.24)
    house.panes(varied(rng, mixed(GLASS, canvas.light.sky[1], 0.3)), panes, half, tall)
    bright = [pane for pane in panes if rng.random() < canvas.light.lit_windows]
    if bright:
        house.panes(varied(rng, LAMP), bright, half, tall, shines=True)
    if z > 40:
        return
    if rng.random() < 0.6:  # a shop: window, door, awning
        lamps = canvas.light.lamps
        house.panes(LAMP if lamps else GLASS, [(0.6, length * 0.38)], length * 0.3, 1.8, shines=lamps)
        house.panes(scaled(tiles, 0.6), [(0, length * 0.84)], 0.55, 2.3)
        cloth = varied(rng, pick(rng, BUS_PAINT))
        edges = [length * (0.06 + 0.1 * k) for k in range(7)]
        stripes = [[(0, 3.2, m), (-1.3, 2.6, m), (-1.3, 2.6, n), (0, 3.2, n)] for m, n in pairwise(edges)]
        house.solid(cloth, *stripes[::2])
        house.solid(WHITE, *stripes[1::2])
    else:
        house.panes(scaled(tiles, 0.7), [(0, length * 0.3)], 0.6, 2.4)
        house.panes(varied(rng, GLASS), [(1.0, length * 0.6), (1.0, length * 0.84)], half, 1.5)
