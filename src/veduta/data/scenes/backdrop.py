"""What every scene stands in front of and upon: sky, skyline and ground."""

import math
from itertools import pairwise

import numpy as np

from veduta.data.scenes.canvas import HEIGHT, WIDTH, Canvas, Point, View
from veduta.data.scenes.kinds import Kind
from veduta.data.scenes.palette import FOLIAGE, WALLS, WHITE, Color, between, mixed, pick, scaled, varied
from veduta.data.scenes.street import Street


def paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    light, horizon = canvas.light, canvas.view.horizon
    rows = np.arange(HEIGHT) / horizon
    gradient = np.stack([np.interp(rows, (0, 0.5, 0.95), c) for c in zip(*light.sky, strict=True)], axis=-1)
    column = np.pad(gradient, ((0, 0), (0, 1)), constant_values=Kind.SKY).astype(np.uint8)
    canvas.pixels.view(np.uint32)[..., 0] = column.view(np.uint32)  # one number per pixel is much faster than four
    u = canvas.view.center + between(rng, -110, 110)
    if light.stars:
        stars = rng.integers(0, (int(horizon * 0.8), WIDTH), (50, 2))
        canvas.pixels[stars[:, 0], stars[:, 1], :3] = rng.integers(90, 230, (50, 1))
        v = between(rng, 24, 80)
        canvas.glow((70, 76, 96), (u, v), 70, 70)
        outer = [(u + 18 * math.cos(a), v + 18 * math.sin(a)) for a in np.linspace(0.63, 4.73, 16)]
        inner = [(u + 8 + 16 * math.cos(a), v - 4 + 16 * math.sin(a)) for a in np.linspace(4.29, 1.07, 16)]
        canvas.fill(Kind.SKY, (238, 236, 214), [*outer, *inner])  # a crescent, between the arcs of two circles
    elif light.sun:
        color, low, high = light.sun
        v = horizon * (1 - between(rng, low, high))
        canvas.glow((80, 56, 30), (u, v), 130, 130)
        canvas.oval(Kind.SKY, color, (u, v), 22, 22)
    most, whiteness = light.clouds
    for _ in range(most // 2 + int(rng.random() * (most / 2 + 1))):
        _paint_cloud(canvas, rng, mixed(light.sky[2], (255, 252, 248), whiteness))


def _paint_cloud(canvas: Canvas, rng: np.random.Generator, bright: Color) -> None:
    """A heap of puffs: the shaded ones first, the bright ones a little higher."""
    u, v = between(rng, -20, WIDTH + 20), between(rng, 16, canvas.view.horizon * 0.7)
    size, spread = between(rng, 9, 24), between(rng, 1.2, 2.2)
    puffs = [(du * spread, between(rng, 0.9, 1.2) - 0.55 * abs(du)) for du in (-1, -0.5, 0, 0.5, 1)]
    for color, lift in ((mixed(bright, canvas.light.sky[0], 0.3), 0.0), (bright, 0.22)):
        for du, radius in puffs:
            middle = (u + du * size, v - (radius * 0.5 + lift) * size)
            canvas.oval(Kind.SKY, color, middle, radius * size * 1.15, radius * size * 0.72)


def paint_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two ranks of towers behind the street, pale with distance, and treetops before them."""
    horizon = int(canvas.view.horizon)
    for z, low, high in ((110.0, 3, 11), (70.0, 1, 7)):
        u = -16
        while u < WIDTH:
            columns, floors = int(between(rng, 5, 11)), int(between(rng, low, high))
            _paint_tower(canvas, rng, u, horizon, z, columns, floors)
            u += 8 * columns + int(between(rng, 2, 16))
    treetop = -12.0
    while treetop < WIDTH + 12:
        size = between(rng, 10, 19)
        color = canvas.lit(varied(rng, pick(rng, FOLIAGE[:4])), 60)
        canvas.oval(Kind.TREE, color, (treetop, horizon - size * 0.3), size * 1.2, size)
        treetop += size * between(rng, 1.6, 2.4)


def _paint_tower(
    canvas: Canvas, rng: np.random.Generator, left: int, foot: int, z: float, columns: int, floors: int
) -> None:
    """A tower with a grid of small windows, one in each cell of 9 by 8 pixels; left and foot are pixels, too."""
    color = canvas.lit(varied(rng, pick(rng, WALLS)), z)
    right, top = left + 8 * columns + 3, foot - 9 * floors - 6
    canvas.rectangle(Kind.BUILDING, color, (left - 4, top), (right, foot))
    if rng.random() < 0.3:
        middle, half = (left + right) / 2, between(rng, 6, 24)
        spire = [(middle - half, top), (middle, top - half), (middle + half, top)]
        canvas.fill(Kind.BUILDING, scaled(color, 0.9), spire)
    if left >= 0 and right <= WIDTH:  # towers cut by the edge stay blank
        wall = canvas.pixels[foot - 9 * floors : foot, left : left + 8 * columns, :3]
        cells = wall.reshape(floors, 9, columns, 8, 3).swapaxes(1, 2)  # a view: what is written there is on the canvas
        cells[:, :, :3, ::4] = scaled(color, 0.8)
        lit = rng.random((floors, columns)) < canvas.light.lit_windows
        cells[lit, :3, :2] = canvas.lit((255, 214, 140), z, shines=True)


def _strip(view: View, left: float, right: float, far: float, near: float) -> list[Point]:
    """Outline of a rectangle of ground, following the bend of the street."""
    depths = [far, *(z for z in (90, 50, 30, 20, 12, 6) if near < z < far), near]
    return [view.at(left, 0, z) for z in depths] + [view.at(right, 0, z) for z in reversed(depths)]


def paint_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    view, half = canvas.view, street.half_width
    slabs = varied(rng, (182, 172, 162))
    asphalt = varied(rng, pick(rng, ((104, 104, 112), (88, 88, 98), (122, 116, 114))))

    def ground(kind: Kind, color: Color, *areas: tuple[float, float, float, float]) -> None:
        """Rectangles of ground: left, right, far, near."""
        canvas.fill(kind, canvas.lit(color, 10 + areas[0][3]), *(_strip(view, *area) for area in areas))

    canvas.rectangle(Kind.PAVEMENT, canvas.lit(slabs, 160), (0, view.horizon), (WIDTH, HEIGHT))
    for far, near in pairwise((160.0, 60.0, 30.0, 16.0, 1.8)):  # in bands: the distance pales
        ground(Kind.PAVEMENT, slabs, (-400, 400, far, near))
        ground(Kind.ROAD, asphalt, (-half, half, far, near))
        ground(Kind.PAVEMENT, scaled(slabs, 1.2), (-half - 0.22, -half, far, near), (half, half + 0.22, far, near))
    if rng.random() < 0.4:
        ground(Kind.ROAD, varied(rng, (168, 96, 84)), (half - 1.5, half - 0.1, 160, 1.8))  # a cycle path
    paint, start = scaled(WHITE, 0.95), between(rng, 2, 4)
    for (left, _), (right, _) in pairwise(street.lanes):
        x = (left + right) / 2
        ground(Kind.ROAD, paint, *((x - 0.08, x + 0.08, start + 5.2 * k + 2.4, start + 5.2 * k) for k in range(9)))
    ground(Kind.ROAD, paint, *((x, x + 0.12, 70, 1.8) for x in (-half + 0.2, half - 0.32)))
    if street.crossing:
        near, far = street.crossing
        ground(Kind.ROAD, asphalt, (-400, 400, far, near))
        zebra = [0.5 - half + 1.05 * k for k in range(int((2 * half - 1) / 1.05))]
        ground(Kind.ROAD, paint, *((x, x + 0.5, near - 0.6, near - 3.2) for x in zebra))
        ground(Kind.ROAD, paint, (0.1, half - 0.4, near - 3.9, near - 4.3))  # the stop line
    shaded = _strip(view, -street.front - 1, between(rng, -1.1, -0.2) * half, 160, 1.8)
    canvas.wash((24, 24, 48), canvas.light.shadow * 0.7, shaded)
