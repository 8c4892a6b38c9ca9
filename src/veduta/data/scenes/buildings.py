"""Houses."""

from itertools import pairwise, product

import numpy as np

from veduta.data.scenes.brush import Brush
from veduta.data.scenes.canvas import Canvas
from veduta.data.scenes.kinds import Kind
from veduta.data.scenes.palette import GLASS, LAMP, TILES, WALLS, WHITE, Color, between, mixed, pick, scaled, varied

STOREY = 3.1  # metres


def paint_building(
    canvas: Canvas, rng: np.random.Generator, x: float, far: float, *, length: float, side: int, corner: bool
) -> None:
    """A house on one `side` (-1 left, 1 right) of the street, its front at x, from far - length to far.

    A `corner` house has windows in the wall that faces the viewer, too.
    """
    house = Brush(canvas, Kind.BUILDING, x, far - length, facing=side)
    wall, tiles = varied(rng, pick(rng, WALLS)), varied(rng, pick(rng, TILES))
    sunny = 1.0 if side > 0 else 0.82  # the light falls from the upper left
    front, shaded = scaled(wall, sunny), scaled(wall, 0.68)
    floors = 2 + int(rng.random() * 4)
    eaves, middle = floors * STOREY + 1, length / 2
    roof = pick(rng, ("gabled", "gabled", "pitched", "pitched", "flat"))
    house.solid(shaded, [(0, 0, 0), (0, eaves, 0), (12, eaves, 0), (12, 0, 0)])  # the wall that faces us
    for m, f in product((1.5, 4.4), range(floors if corner else 0)):
        on = rng.random() < canvas.light.lit_windows
        house.bar(LAMP if on else GLASS, m, f * STOREY + 1.9, m + 1.1, f * STOREY + 3.5, shines=on)
    if roof == "gabled":
        house.solid(scaled(tiles, 0.8), [(0, eaves, 0), (0, eaves + 3, middle), (9, eaves + 3, middle), (9, eaves, 0)])
        house.solid(front, [(0, eaves, 0), (0, eaves + 3, middle), (0, eaves, length)])
    elif roof == "pitched":
        house.solid(shaded, [(0, eaves, 0), (4, eaves + 3.2, 0), (8, eaves, 0)])
        slope = [(0.0, eaves, 0.0), (0.0, eaves, length), (4.0, eaves + 3.4, length), (4.0, eaves + 3.4, 0.0)]
        house.solid(scaled(tiles, sunny), slope)
    house.flank(front, 0, 0, eaves, 0, length)
    if roof != "gabled":
        house.flank(scaled(front, 1.12), -0.2, eaves - 0.5, eaves, 0, length)
    columns = max(1, int(length / between(rng, 2.2, 3.0)))
    half, tall = between(rng, 0.45, 0.75), between(rng, 1.4, 1.9)
    panes = [(f * STOREY + 1.9, (k + 0.5) * length / columns) for f in range(1, floors) for k in range(columns)]
    if roof == "gabled":
        panes.append((eaves + 0.3, middle))
    if house.z < 26:
        frame = scaled(mixed(wall, WHITE, 0.6), sunny)
        house.panes(frame, [(y - 0.12, m) for y, m in panes], half + 0.12, tall + 0.24)
    house.panes(varied(rng, mixed(GLASS, canvas.light.sky[1], 0.3)), panes, half, tall)
    bright = [pane for pane in panes if rng.random() < canvas.light.lit_windows]
    if bright:
        house.panes(LAMP, bright, half, tall, shines=True)
    if house.z < 40:
        _paint_ground_floor(house, rng, length, scaled(tiles, 0.65))


def _paint_ground_floor(house: Brush, rng: np.random.Generator, length: float, wood: Color) -> None:
    """A shop with window, door and awning, or a door and two windows."""
    if rng.random() < 0.6:
        lamps = house.canvas.light.lamps
        house.panes(LAMP if lamps else GLASS, [(0.6, length * 0.38)], length * 0.3, 1.8, shines=lamps)
        house.panes(wood, [(0, length * 0.84)], 0.55, 2.3)
        edges = [length * (0.06 + 0.1 * k) for k in range(7)]
        stripes = [[(0.0, 3.2, m), (-1.3, 2.6, m), (-1.3, 2.6, n), (0.0, 3.2, n)] for m, n in pairwise(edges)]
        house.solid(varied(rng, pick(rng, TILES)), *stripes[::2])
        house.solid(WHITE, *stripes[1::2])
    else:
        house.panes(wood, [(0, length * 0.3)], 0.6, 2.4)
        house.panes(varied(rng, GLASS), [(1.0, length * 0.6), (1.0, length * 0.84)], 0.6, 1.5)
