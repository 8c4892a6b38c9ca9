"""People on foot, bicycles and their riders."""

import numpy as np

from veduta.data.scenes.brush import Brush
from veduta.data.scenes.canvas import Canvas
from veduta.data.scenes.kinds import Kind
from veduta.data.scenes.palette import CLOTHES, HAIR, PAINTWORK, SKIN, STEEL, TYRE, Color, between, pick, scaled, varied


def _clothes(rng: np.random.Generator) -> tuple[Color, Color]:
    """Coat and trousers."""
    return varied(rng, pick(rng, CLOTHES)), scaled(varied(rng, pick(rng, CLOTHES)), 0.7)


def paint_person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    canvas.shadow(x, z, 0.42, 0.5)
    size = between(rng, 0.6, 0.75) if rng.random() < 0.12 else between(rng, 0.93, 1.08)
    person = Brush(canvas, Kind.PERSON, x, z, facing=1 if rng.random() < 0.5 else -1, size=size)
    (coat, legs), skin, stride = _clothes(rng), pick(rng, SKIN), between(rng, 0.06, 0.3)
    umbrella = canvas.light.umbrellas and rng.random() < 0.6
    if umbrella:
        person.stroke(STEEL, (0.22, 1.1), (0.22, 2.0), 0.04)
    person.stroke(scaled(legs, 0.85), (-0.04, 0.85), (-stride, 0.04), 0.18)
    person.stroke(legs, (0.06, 0.85), (stride, 0.04), 0.18)
    if person.fine:
        for foot in (-stride, stride):
            person.bar(TYRE, foot - 0.08, 0, foot + 0.16, 0.08)
    hem = 0.55 if rng.random() < 0.35 else 0.82  # a long coat or a jacket
    person.flat(coat, (-0.26, hem), (-0.24, 1.38), (-0.13, 1.5), (0.13, 1.5), (0.24, 1.38), (0.26, hem))
    if person.fine:
        person.stroke(scaled(coat, 0.78), (0.2, 1.4), (0.22 + stride / 2, 0.88), 0.12)
    person.bar(skin, -0.05, 1.45, 0.06, 1.56)
    person.disc(pick(rng, HAIR), -0.02, 1.68, 0.15)
    if person.fine:
        person.flat(skin, (-0.05, 1.72), (0.1, 1.74), (0.14, 1.64), (0.06, 1.54), (-0.05, 1.55))
    if umbrella:
        person.dome(varied(rng, pick(rng, CLOTHES)), 0.22, 1.86, 0.62, 0.42)


def paint_bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int, ridden: bool) -> None:
    """A bicycle seen from the side, with its rider or parked."""
    canvas.shadow(x, z, 0.9, 0.4)
    bicycle = Brush(canvas, Kind.BICYCLE, x, z, facing=facing)
    paint = varied(rng, pick(rng, PAINTWORK))
    rear, front, pedals, seat, fork = (-0.54, 0.36), (0.54, 0.36), (-0.08, 0.36), (-0.2, 0.9), (0.42, 0.92)
    for wheel in (rear, front):
        bicycle.wheel(*wheel, 0.34)
    for a, b in ((rear, pedals), (pedals, seat), (pedals, fork), ((-0.16, 0.78), fork), (fork, front)):
        bicycle.stroke(paint, a, b, 0.07)
    bicycle.stroke(TYRE, (0.3, 1.05), fork, 0.06)
    bicycle.stroke(TYRE, (-0.34, 0.92), (-0.08, 0.92), 0.08)
    if ridden:
        rider = Brush(canvas, Kind.PERSON, x, z, facing=facing)
        coat, legs = _clothes(rng)
        rider.stroke(legs, (-0.2, 0.95), (0.12, 0.7), 0.19)
        rider.stroke(legs, (0.12, 0.7), (-0.04, 0.28), 0.15)
        rider.flat(coat, (-0.36, 0.92), (-0.22, 1.35), (0.02, 1.56), (0.18, 1.46), (0.02, 1.2), (-0.08, 0.92))
        rider.stroke(scaled(coat, 0.8), (0.08, 1.42), (0.36, 1.06), 0.11)
        rider.disc(pick(rng, SKIN), 0.17, 1.68, 0.14)
        rider.dome(pick(rng, PAINTWORK), 0.16, 1.7, 0.16, 0.16)
