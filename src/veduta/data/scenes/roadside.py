"""What stands along the kerb: trees, street lamps, signs and traffic lights."""

import numpy as np

from veduta.data.scenes.brush import Brush
from veduta.data.scenes.canvas import Canvas
from veduta.data.scenes.kinds import Kind
from veduta.data.scenes.palette import LAMP, STEEL, WHITE, Color, between, pick, scaled, varied

RED: tuple[float, Color] = (3.55, (255, 70, 56))  # height and colour of the light
GREEN: tuple[float, Color] = (2.75, (90, 235, 130))


def paint_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, foliage: Color) -> None:
    """A broad tree, a poplar or a fir; the light falls from the upper left."""
    canvas.shadow(x, z, between(rng, 1.3, 1.8), 1.1)
    tree = Brush(canvas, Kind.TREE, x, z, size=between(rng, 0.8, 1.25))
    leaves, trunk = varied(rng, foliage), varied(rng, (104, 78, 62))
    tree.flat(trunk, (-0.2, 0), (0.2, 0), (0.11, 2.6), (-0.11, 2.6))
    form = pick(rng, ("fir", "poplar", "broad", "broad", "broad", "broad"))
    if form == "fir":
        for base, half in ((0.8, 1.35), (1.9, 1.1), (3.0, 0.8)):
            tree.flat(scaled(leaves, 0.72), (-half, base), (half, base), (0, base + 2.0))
            tree.flat(scaled(leaves, 0.9), (-half, base), (0, base), (0, base + 2.0))
    elif form == "poplar":
        tree.disc(scaled(leaves, 0.78), 0, 3.6, 0.85, 2.6)
        tree.disc(leaves, -0.2, 3.9, 0.55, 2.0)
    else:
        puffs = [(between(rng, -1.15, 1.15), between(rng, 2.6, 4.3), between(rng, 0.7, 1.15)) for _ in range(4)]
        crown = [*(puffs if tree.fine else puffs[:3]), (0.0, 3.4, 1.3)]
        for tone, shift, share in ((0.72, 0.0, 1.0), (0.92, 0.16, 0.72), (1.12, 0.3, 0.36))[: 3 if tree.fine else 2]:
            for cx, cy, radius in crown:
                tree.disc(scaled(leaves, tone), cx - shift, cy + shift, radius * share)


def paint_street_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int) -> None:
    lamp = Brush(canvas, Kind.POLE, x, z, facing=facing)
    lamp.stroke(STEEL, (0, 0), (0, 5.6), 0.13)
    lamp.bar(scaled(STEEL, 0.8), -0.12, 0, 0.12, 0.7)
    lamp.stroke(STEEL, (-0.05, 5.6), (1.3, 5.85), 0.1)
    lamp.flat(scaled(STEEL, 0.75), (1.0, 5.9), (1.9, 5.95), (1.9, 5.8), (1.0, 5.72))
    if canvas.light.lamps and rng.random() < 0.95:  # one in twenty is out
        lamp.bar(LAMP, 1.1, 5.66, 1.8, 5.78, shines=True)
        lamp.glow((170, 130, 70), 1.45, 5.7, 2.4)
        pool = canvas.view.at(x + facing * 1.4, 0, z)
        canvas.glow((96, 72, 36), pool, 3 * lamp.zoom, 3 * lamp.zoom * canvas.view.height / z)


def paint_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign on its pole."""
    canvas.shadow(x, z, 0.25, 0.25)
    Brush(canvas, Kind.POLE, x, z).stroke(STEEL, (0, 0), (0, 2.6), 0.1)
    plate = Brush(canvas, Kind.SIGN, x, z)
    red, blue, yellow = varied(rng, (206, 46, 48)), varied(rng, (44, 98, 178)), varied(rng, (244, 196, 58))
    form = pick(rng, ("no entry", "give way", "priority road", "parking"))
    if form == "no entry":
        plate.disc(red, 0, 2.6, 0.5)
        plate.bar(WHITE, -0.34, 2.52, 0.34, 2.68)
    elif form == "give way":
        plate.flat(red, (-0.56, 2.95), (0.56, 2.95), (0, 2.0))
        plate.flat(WHITE, (-0.32, 2.82), (0.32, 2.82), (0, 2.28))
    elif form == "priority road":
        plate.flat(WHITE, (-0.56, 2.6), (0, 3.16), (0.56, 2.6), (0, 2.04))
        plate.flat(yellow, (-0.42, 2.6), (0, 3.02), (0.42, 2.6), (0, 2.18))
    else:
        plate.bar(blue, -0.45, 2.15, 0.45, 3.05)
        plate.bar(WHITE, -0.18, 2.3, -0.04, 2.9)
        plate.bar(WHITE, -0.04, 2.56, 0.2, 2.9)


def paint_traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    Brush(canvas, Kind.POLE, x, z).stroke(scaled(STEEL, 0.8), (0, 0), (0, 3.4), 0.14)
    box = Brush(canvas, Kind.SIGN, x, z)
    box.bar((44, 48, 52), -0.26, 2.5, 0.26, 3.8)
    for y in (3.55, 3.15, 2.75):
        box.disc((70, 56, 50), 0, y, 0.17)
    y, light = pick(rng, (RED, GREEN))
    box.disc(light, 0, y, 0.17, shines=True)
    if canvas.light.lamps:
        box.glow(scaled(light, 0.6), 0, y, 1.0)
