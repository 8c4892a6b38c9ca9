"""Scenes: generated street scenes with exact masks, boxes and a scene class. Nothing to download.

A scene is a street in perspective: sky, skyline, ground, then everything that stands on it from far to near.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from veduta.data import scene_painting as painting
from veduta.data.sample import Sample
from veduta.data.scene_painting import (
    FIRST_OBJECT,
    FOLIAGE,
    HEIGHT,
    SCALE,
    WALLS,
    WHITE,
    WIDTH,
    Canvas,
    Color,
    Kind,
    Light,
    Point,
    View,
    between,
    mixed,
    pick,
    scaled,
    varied,
)  # fmt: skip
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap

SEED = 1724
SPLITS = {"train": 240, "val": 40, "test": 40}  # images; the order numbers the splits
MIN_PIXELS = 12  # objects of which less is visible become void

COLORS: dict[Kind, tuple[int, int, int]] = {
    Kind.SKY: (120, 180, 230),
    Kind.BUILDING: (150, 110, 100),
    Kind.ROAD: (110, 90, 130),
    Kind.PAVEMENT: (220, 170, 210),
    Kind.TREE: (90, 150, 60),
    Kind.POLE: (150, 150, 150),
    Kind.SIGN: (250, 210, 50),
    Kind.CAR: (40, 70, 190),
    Kind.BUS: (20, 140, 150),
    Kind.PERSON: (220, 40, 70),
    Kind.BICYCLE: (240, 130, 30),
}
SCENES = LabelMap(
    name="scenes",
    classes=tuple(LabelClass(file_id=int(kind), name=kind.name.lower(), color=COLORS[kind]) for kind in Kind),
    void_ids=(IGNORE_INDEX,),
)

LIGHTS = {
    "day": Light(
        sky=((92, 164, 224), (150, 202, 236), (222, 238, 244)), ambient=(1.0, 1.0, 0.98), haze=(206, 226, 238),
        visibility=120, lit_windows=0.04, lamps=False, shadow=0.4,
    ),
    "dusk": Light(
        sky=((78, 70, 132), (214, 124, 132), (255, 202, 140)), ambient=(0.84, 0.68, 0.72), haze=(240, 170, 140),
        visibility=110, lit_windows=0.4, lamps=True, shadow=0.35,
    ),
    "night": Light(
        sky=((14, 20, 52), (30, 42, 86), (66, 76, 122)), ambient=(0.42, 0.46, 0.66), haze=(56, 64, 108),
        visibility=110, lit_windows=0.5, lamps=True, shadow=0.35,
    ),
    "overcast": Light(
        sky=((146, 158, 172), (178, 186, 194), (212, 216, 218)), ambient=(0.8, 0.83, 0.88), haze=(200, 206, 210),
        visibility=75, lit_windows=0.15, lamps=False, shadow=0.2,
    ),
}  # fmt: skip

# how strongly the surface of each class is grained, train id by train id
GRAIN = np.zeros(256, np.float32)
GRAIN[: len(Kind)] = np.array([2, 7, 7, 6, 13, 4, 3, 4, 4, 6, 5]) / 128


@dataclass(frozen=True)
class Street:
    """The plan of a street, in metres from its middle line. `crossing`: where another street crosses, z to z."""

    half_width: float
    pavement: float
    lanes: tuple[tuple[float, bool], ...]  # middle of each lane, and whether its cars drive away from the viewer
    crossing: tuple[float, float] | None
    foliage: Color

    @property
    def front(self) -> float:
        """Where the houses begin."""
        return self.half_width + self.pavement


def compose(rng: np.random.Generator, scene: str) -> Canvas:
    """Paint one street scene in the given light."""
    lanes_each_way = 1 if rng.random() < 0.6 else 2
    half_width = 3.3 * lanes_each_way + between(rng, 0.2, 1.6)
    lanes = sorted((side * (1.7 + 3.2 * k), side > 0) for side in (-1, 1) for k in range(lanes_each_way))
    start = between(rng, 13, 26)
    street = Street(
        half_width=half_width,
        pavement=between(rng, 2.6, 4.6),
        lanes=tuple(lanes),
        crossing=(start, start + 6.5) if rng.random() < 0.55 else None,
        foliage=pick(rng, FOLIAGE),
    )
    view = View(
        focal=between(rng, 350, 450),
        horizon=between(rng, 168, 212),
        center=WIDTH * SCALE / 2 + between(rng, -68, 68),
        height=between(rng, 2.3, 4.2),
        x=between(rng, -0.75, 0.75) * half_width,
        bend=between(rng, -0.0016, 0.0016),
    )
    canvas = Canvas(view, _weather(rng, LIGHTS[scene]))
    _paint_sky(canvas, rng, scene)
    _paint_skyline(canvas, rng)
    _paint_ground(canvas, rng, street)
    things = [*_row(canvas, rng, street, -1), *_row(canvas, rng, street, 1), *_kerbs(canvas, rng, street)]
    things += _traffic(canvas, rng, street) + _passers(canvas, rng, street, umbrellas=scene == "overcast")
    for thing in sorted(things, key=lambda thing: -thing.z):
        if thing.in_view(view):
            thing.paint()
    return canvas


def _weather(rng: np.random.Generator, light: Light) -> Light:
    """The same light on another day: a shift of all colours, more or less haze."""
    tone = between(rng, 0.88, 1.06)
    shift = (between(rng, -10, 10), between(rng, -10, 10), between(rng, -10, 10))

    def moved(color: Color) -> Color:
        r, g, b = (min(max(c * tone + s, 0), 255) for c, s in zip(color, shift, strict=True))
        return r, g, b

    top, middle, bottom = (moved(c) for c in light.sky)
    return replace(
        light,
        sky=(top, middle, bottom),
        ambient=scaled(light.ambient, tone),
        haze=moved(light.haze),
        visibility=light.visibility * between(rng, 0.6, 1.4),
    )


def _paint_sky(canvas: Canvas, rng: np.random.Generator, scene: str) -> None:
    horizon, width = canvas.view.horizon, WIDTH * SCALE
    rows = np.arange(HEIGHT * SCALE) / horizon
    gradient = np.stack([np.interp(rows, (0, 0.5, 0.95), c) for c in zip(*canvas.light.sky, strict=True)], axis=-1)
    column = np.pad(gradient, ((0, 0), (0, 1)), constant_values=Kind.SKY).astype(np.uint8)
    canvas.pixels.view(np.uint32)[..., 0] = column.view(np.uint32)  # one number per pixel is much faster than four
    u, v = canvas.view.center + between(rng, -110, 110), between(rng, 24, 80)
    if scene == "night":
        stars = rng.integers(0, (int(horizon * 0.8), width), (50, 2))
        canvas.pixels[stars[:, 0], stars[:, 1], :3] = rng.integers(90, 230, (50, 1))
        canvas.glow((70, 76, 96), (u, v), 70, 70)
        if rng.random() < 0.6:  # a crescent, between the arcs of two circles
            outer = [(u + 18 * math.cos(a), v + 18 * math.sin(a)) for a in np.linspace(0.63, 4.73, 16)]
            inner = [(u + 8 + 16 * math.cos(a), v - 4 + 16 * math.sin(a)) for a in np.linspace(4.29, 1.07, 16)]
            canvas.fill(Kind.SKY, (238, 236, 214), [*outer, *inner])
        else:
            canvas.oval(Kind.SKY, (238, 236, 214), (u, v), 18, 18)
            for du, dv, radius in ((-6, -4, 4), (4, 6, 3), (6, -7, 2.5)):
                canvas.oval(Kind.SKY, (218, 216, 196), (u + du, v + dv), radius, radius)
    elif scene != "overcast":
        low = scene == "dusk"
        v = horizon - between(rng, 44, 92) if low else v
        canvas.glow((90, 50, 20) if low else (70, 64, 44), (u, v), 130, 130)
        canvas.oval(Kind.SKY, (255, 224, 156) if low else (255, 247, 212), (u, v), 22, 22)
    whiteness = {"day": 0.8, "dusk": 0.5, "night": 0.12, "overcast": 0.35}[scene]
    for _ in range(5 + int(rng.random() * 5) if scene == "overcast" else 1 + int(rng.random() * 4)):
        _paint_cloud(canvas, rng, mixed(canvas.light.sky[2], (255, 252, 248), whiteness))
    if scene in ("day", "dusk"):
        for _ in range(int(rng.random() * 4)):
            u, v = canvas.view.center + between(rng, -100, 100), between(rng, 28, 100)
            for wing in (-1, 1):
                canvas.wash(
                    (50, 50, 66), 0.7, [(u, v), (u + wing * 4, v - 3), (u + wing * 8, v - 1), (u + wing * 4, v - 1)]
                )


def _paint_cloud(canvas: Canvas, rng: np.random.Generator, bright: Color) -> None:
    """A heap of puffs: the shaded ones first, the bright ones a little higher."""
    u, v = between(rng, -20, WIDTH * SCALE + 20), between(rng, 16, canvas.view.horizon * 0.7)
    size = between(rng, 9, 24)
    shade = mixed(bright, canvas.light.sky[0], 0.3)
    spread = between(rng, 1.2, 2.2)
    puffs = [(du * spread, between(rng, 0.9, 1.2) - 0.55 * abs(du)) for du in (-1, -0.6, -0.25, 0.2, 0.55, 1)]
    for color, lift in ((shade, 0.0), (bright, 0.22)):
        for du, radius in puffs:
            middle = (u + du * size, v - (radius * 0.5 + lift) * size)
            canvas.oval(Kind.SKY, color, middle, radius * size * 1.15, radius * size * 0.72)


def _paint_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two ranks of towers behind the street, pale with distance, and treetops before them."""
    horizon = canvas.view.horizon
    for z, low, high in ((110.0, 36, 104), (70.0, 18, 66)):
        u = -16.0
        while u < WIDTH * SCALE:
            width, roof = between(rng, 30, 60), horizon - between(rng, low, high)
            color = canvas.lit(varied(rng, pick(rng, WALLS)), z)
            canvas.rectangle(Kind.BUILDING, color, (u, roof), (u + width, horizon))
            form = rng.random()
            if form < 0.2:
                spire = [(u, roof), (u + width / 2, roof - width * 0.6), (u + width, roof)]
                canvas.fill(Kind.BUILDING, scaled(color, 0.9), spire)
            elif form < 0.35:
                mast = [(u + width * 0.42, roof), (u + width * 0.5, roof - 18), (u + width * 0.58, roof)]
                canvas.fill(Kind.BUILDING, color, mast)
            left, right, top, bottom = (int(max(e, 0)) for e in (u + 5, u + width - 3, roof + 6, horizon - 4))
            for row in (0, 1, 2):  # rows of small windows
                canvas.pixels[top + row : bottom : 9, left:right:4, :3] = scaled(color, 0.8)
            shine = canvas.lit((255, 214, 140), z, shines=True)
            for _ in range(int(canvas.light.lit_windows * (right - left) * (bottom - top) / 72)):
                x, y = (
                    left + 8 * int(rng.random() * (right - left) / 8),
                    top + 9 * int(rng.random() * (bottom - top) / 9),
                )
                canvas.pixels[y : y + 3, x : x + 2, :3] = shine
            u += width + between(rng, -4, 10)
    u = -12.0
    while u < WIDTH * SCALE + 12:
        size = between(rng, 7, 15)
        color = canvas.lit(varied(rng, pick(rng, FOLIAGE[:4])), 60)
        canvas.oval(Kind.TREE, color, (u, horizon - size * 0.4), size, size)
        u += size * between(rng, 1.0, 2.2)


def _strip(view: View, left: float, right: float, far: float, near: float) -> list[Point]:
    """Outline of a rectangle of ground, following the bend of the street."""
    depths = [far, *(z for z in (90, 60, 42, 30, 22, 16, 12, 9, 7, 5, 3) if near < z < far), near]
    return [view.at(left, 0, z) for z in depths] + [view.at(right, 0, z) for z in reversed(depths)]


def _paint_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    view, half = canvas.view, street.half_width
    slabs = varied(rng, (182, 172, 162))
    asphalt = varied(rng, pick(rng, ((104, 104, 112), (88, 88, 98), (122, 116, 114))))

    def ground(kind: Kind, color: Color, *areas: tuple[float, float, float, float]) -> None:
        """Rectangles of ground: left, right, far, near."""
        canvas.fill(kind, canvas.lit(color, 10 + areas[0][3]), *(_strip(view, *area) for area in areas))

    canvas.rectangle(Kind.PAVEMENT, canvas.lit(slabs, 160), (0, view.horizon), (WIDTH * SCALE, HEIGHT * SCALE))
    for far, near in pairwise((160.0, 70.0, 40.0, 24.0, 14.0, 1.8)):  # in bands: the distance pales
        ground(Kind.PAVEMENT, slabs, (-400, 400, far, near))
        ground(Kind.ROAD, asphalt, (-half, half, far, near))
        ground(Kind.PAVEMENT, scaled(slabs, 1.2), (-half - 0.22, -half, far, near), (half, half + 0.22, far, near))
    inner, outer = half + 0.25, street.front
    joints = [2.2 + 1.6 * k for k in range(9)]
    for left, right in ((-outer, -inner), (inner, outer)):
        ground(Kind.PAVEMENT, scaled(slabs, 0.88), *((left, right, z + 0.08, z) for z in joints))
    for _ in range(4):
        x, z = between(rng, -half, half), between(rng, 4, 40)
        mended = _strip(view, max(x - 1.2, -half), min(x + 1.2, half), z + between(rng, 1, 4), z)
        canvas.wash(pick(rng, ((40.0, 40.0, 46.0), (150.0, 150.0, 150.0))), 0.16, mended)
    if rng.random() < 0.4:
        ground(Kind.ROAD, varied(rng, (168, 96, 84)), (half - 1.5, half - 0.1, 160, 1.8))  # a cycle path
    paint, start = scaled(WHITE, 0.95), between(rng, 2, 4)
    for (left, _), (right, _) in pairwise(street.lanes):
        x = (left + right) / 2
        dashes = [start + 5.2 * k for k in range(11)]
        ground(Kind.ROAD, paint, *((x - 0.08, x + 0.08, z + 2.4, z) for z in dashes))
    for x in (-half + 0.2, half - 0.32):
        ground(Kind.ROAD, paint, (x, x + 0.12, 70, 1.8))
    if street.crossing:
        near, far = street.crossing
        ground(Kind.ROAD, asphalt, (-400, 400, far, near))
        zebra = [0.5 - half + 1.05 * k for k in range(int((2 * half - 1) / 1.05))]
        ground(Kind.ROAD, paint, *((x, x + 0.5, near - 0.6, near - 3.2) for x in zebra))
        ground(Kind.ROAD, paint, (0.1, half - 0.4, near - 3.9, near - 4.3))  # the stop line
    shaded = _strip(view, -street.front - 1, between(rng, -1.1, -0.2) * half, 160, 1.8)
    canvas.wash((24, 24, 48), canvas.light.shadow * 0.7, shaded)


class Thing(NamedTuple):
    """What stands in the street at (x, z), `reach` metres to either side, and the call that paints it."""

    x: float
    z: float
    reach: float
    paint: Callable[[], None]

    def in_view(self, view: View) -> bool:
        left, right = view.at(self.x - self.reach, 0, self.z)[0], view.at(self.x + self.reach, 0, self.z)[0]
        return right > 0 and left < WIDTH * SCALE


def _row(canvas: Canvas, rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """The houses on one side, a park here and there. They sort by their far end: what stands before one is nearer."""
    things = []
    z, corner = between(rng, 2, 6), False
    while z < 72:
        length = between(rng, 7, 13)
        if street.crossing:
            near, far = street.crossing[0] - 2.5, street.crossing[1] + 2.5
            if near - 4 < z < far:
                z, corner = far, True
            elif z < near:
                length = min(length, near - z)
        if rng.random() < 0.14:
            for _ in range(3):
                x, depth = side * (street.front + between(rng, 1, 6)), z + length * rng.random()
                tree = partial(painting.paint_tree, canvas, rng, x, depth, foliage=pick(rng, FOLIAGE))
                things.append(Thing(x, depth, 3, tree))
            for k in range(3):
                x, depth = side * (street.front + 0.6), z + (k + 0.5) * length / 3
                hedge = partial(painting.paint_hedge, canvas, rng, x, depth, foliage=street.foliage)
                things.append(Thing(x, depth, 2, hedge))
            corner = True
        else:
            x, size = side * (street.front + between(rng, 0, 0.8)), length
            house = partial(painting.paint_building, canvas, rng, x, z, length=size, side=side, corner=corner)
            things.append(Thing(x, z + length, 1, house))
            corner = False
        z += length
    return things


def _kerb_goes_on(street: Street, z: float) -> bool:
    """Whether no street crosses at z."""
    return street.crossing is None or not street.crossing[0] - 3.5 < z < street.crossing[1] + 0.5


def _kerbs(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Thing]:
    """Lamps, trees, signs and bollards along both kerbs."""
    things = []
    planted = rng.random() < 0.75
    for side in (-1, 1):
        kerb = side * (street.half_width + 0.6)
        z = between(rng, 5, 12)
        while z < 62:
            things.append(Thing(kerb, z, 2, partial(painting.paint_street_lamp, canvas, kerb, z, facing=-side)))
            for at in (z + 4.5, z + 9.0):
                if planted and rng.random() < 0.6:
                    tree = partial(painting.paint_tree, canvas, rng, kerb + side * 0.3, at, foliage=street.foliage)
                    things.append(Thing(kerb, at, 3, tree))
            z += between(rng, 13, 16)
        for _ in range(1 + int(rng.random() * 3)):
            z = between(rng, 6, 26)
            things.append(Thing(kerb, z, 1, partial(painting.paint_sign, canvas, rng, kerb, z)))
        if rng.random() < 0.35:
            z, edge = between(rng, 5, 9), side * (street.half_width + 0.35)
            for at in (z, z + 1.6, z + 3.2, z + 4.8):
                things.append(Thing(edge, at, 1, partial(painting.paint_bollard, canvas, edge, at)))
    things = [thing for thing in things if _kerb_goes_on(street, thing.z)]
    if street.crossing:
        z = street.crossing[0] - 3.6
        for kerb in (-street.half_width - 0.6, street.half_width + 0.6):
            light = partial(painting.paint_traffic_light, canvas, kerb, z, green=rng.random() < 0.5)
            things.append(Thing(kerb, z, 1, light))
    return things


def _traffic(canvas: Canvas, rng: np.random.Generator, street: Street) -> list[Thing]:
    """Cars, buses and cyclists in their lanes, and those that cross."""
    things = []
    for lane, away in street.lanes:
        z = between(rng, 6.5, 22)
        while z < 60:
            x, bus = lane + between(rng, -0.3, 0.3), rng.random() < 0.13
            paint = painting.paint_bus if bus else painting.paint_car
            if _kerb_goes_on(street, z) and _kerb_goes_on(street, z + 4):
                things.append(Thing(x, z, 4, partial(paint, canvas, rng, x, z, away=away)))
            z += (12 if bus else 6) + between(rng, 1, 24)
    for x, away in ((0.5 - street.half_width, False), (street.half_width - 0.5, True)):
        for _ in range(int(rng.random() * 2.4)):
            z = between(rng, 7, 30)
            things.append(Thing(x, z, 1, partial(painting.paint_cyclist, canvas, rng, x, z, away=away)))
    if street.crossing:
        near, far = street.crossing
        for z, facing in ((near + 1.6, 1), (far - 1.6, -1)):
            x = between(rng, -12, 4)
            while x < 14:
                kind = rng.random()
                if kind < 0.3:
                    things.append(Thing(x, z, 3, partial(painting.paint_car_side, canvas, rng, x, z, facing=facing)))
                elif kind < 0.45:
                    things.append(Thing(x, z, 6, partial(painting.paint_bus_side, canvas, rng, x, z, facing=facing)))
                elif kind < 0.6:
                    ride = partial(painting.paint_bicycle, canvas, rng, x, z, facing=facing, ridden=True)
                    things.append(Thing(x, z, 1, ride))
                x += between(rng, 9, 16)
    return things


def _passers(canvas: Canvas, rng: np.random.Generator, street: Street, *, umbrellas: bool) -> list[Thing]:
    """People on the pavements and on the zebra crossing, bicycles parked along the houses."""
    things, places = [], []
    for side in (-1, 1):
        for _ in range(2 + int(rng.random() * 5)):
            x = side * (street.half_width + between(rng, 0.9, street.pavement - 0.4))
            places.append((x, between(rng, 7.5, 42)))
        if rng.random() < 0.45:
            z, facing = between(rng, 8, 20), 1 if rng.random() < 0.5 else -1
            for _ in range(1 + int(rng.random() * 3)):
                x, ridden = side * (street.front - between(rng, 0.7, 1.0)), rng.random() < 0.3
                bicycle = partial(painting.paint_bicycle, canvas, rng, x, z, facing=facing, ridden=ridden)
                things.append(Thing(x, z, 1, bicycle))
                z += 1.2
    if street.crossing:
        for _ in range(int(rng.random() * 4)):
            places.append((between(rng, -1, 1) * street.half_width, street.crossing[0] - between(rng, 0.9, 2.9)))
    for x, z in places:
        umbrella = umbrellas and rng.random() < 0.6
        things.append(Thing(x, z, 1, partial(painting.paint_person, canvas, rng, x, z, umbrella=umbrella)))
    return things


class Scenes(Dataset[Sample]):
    """Street scenes, 192 x 256: 11 classes, void around objects, boxes of what can be counted, four scene classes.

    Sample `i` depends on nothing but split and `i`. Boxes enclose the visible pixels; xyxy, right and bottom exclusive.
    """

    labels: LabelMap = SCENES
    scene_classes: tuple[str, ...] = tuple(LIGHTS)

    def __init__(self, root: Path | None, *, split: str) -> None:
        if root is not None:
            raise ValueError(f"scenes are generated and read no files, got root {root}. Leave out --data.")
        if split not in SPLITS:
            raise ValueError(f"unknown split '{split}' of scenes; choose one of {', '.join(SPLITS)}.")
        self.split = split

    def __len__(self) -> int:
        return SPLITS[self.split]

    def __getitem__(self, i: int) -> Sample:
        if not 0 <= i < len(self):
            raise IndexError(f"scenes {self.split} has samples 0 to {len(self) - 1}, got {i}")
        rng = np.random.default_rng([SEED, list(SPLITS).index(self.split), i])
        scene_class = i % len(self.scene_classes)  # every class equally often, in every split
        canvas = compose(rng, self.scene_classes[scene_class])
        mask, boxes, box_classes = read_owners(canvas)
        return Sample(
            image=develop(canvas, rng),
            name=f"scene-{self.split}-{i:04d}",
            mask=mask,
            boxes=boxes,
            box_classes=box_classes,
            scene_class=scene_class,
        )


def develop(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Canvas -> (H, W, 3) uint8: shrunk, then mottled and grained by class, so that no surface is uniform."""
    small = cv2.resize(canvas.pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    fine = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    coarse = cv2.resize(rng.integers(0, 256, (24, 32), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR_EXACT)
    noise = (fine.astype(np.float32) + coarse - 255) * GRAIN[_kinds(canvas)][_owners(canvas)]
    return cv2.add(small[..., :3], cv2.merge([noise.astype(np.int16)] * 3), dtype=cv2.CV_8U)


def read_owners(canvas: Canvas) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Canvas -> mask (H, W) uint8 train ids, boxes (N, 4) float32 xyxy, box_classes (N,) int64.

    Void, as in PASCAL VOC: the pixels around each object; also the specks of objects too small for a box.
    """
    owners = _owners(canvas)
    mask = _kinds(canvas)[owners]
    objects = np.where(owners >= FIRST_OBJECT, owners, 0).astype(np.uint8)
    rim = cv2.dilate(objects, np.ones((3, 3), np.uint8)) > objects  # beside something nearer
    mask[rim], owners[rim] = IGNORE_INDEX, IGNORE_INDEX
    boxes, box_classes = [], []
    for owner, kind in enumerate(canvas.objects, start=FIRST_OBJECT):
        visible = owners == owner
        if np.count_nonzero(visible) < MIN_PIXELS:
            mask[visible] = IGNORE_INDEX
            continue
        x, y, width, height = cv2.boundingRect(visible.astype(np.uint8))
        boxes.append((x, y, x + width, y + height))
        box_classes.append(int(kind))
    return mask, np.array(boxes, np.float32).reshape(-1, 4), np.array(box_classes, np.int64)


def _owners(canvas: Canvas) -> NDArray[np.uint8]:
    """The owner of each pixel, (H, W) uint8."""
    return canvas.pixels[..., 3][1::SCALE, 1::SCALE].copy()


def _kinds(canvas: Canvas) -> NDArray[np.uint8]:
    """Owner -> train id, (256,) uint8."""
    kinds = np.arange(256, dtype=np.uint8)
    kinds[FIRST_OBJECT : FIRST_OBJECT + len(canvas.objects)] = canvas.objects
    return kinds
