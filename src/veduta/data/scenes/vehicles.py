"""Cars and buses, seen along their lane or from the side."""

import numpy as np

from veduta.data.scenes.brush import Brush
from veduta.data.scenes.canvas import CIRCLE, Canvas
from veduta.data.scenes.kinds import Kind
from veduta.data.scenes.palette import GLASS, LAMP, PAINTWORK, TYRE, WHITE, Color, between, pick, scaled, varied

HEADLIGHT: Color = (255, 246, 214)
TAIL_LIGHT: Color = (216, 44, 40)


def paint_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, away: bool) -> None:
    """A car or van in its lane, seen from behind (`away`) or from the front."""
    canvas.shadow(x, z + 2, 1.25, 2.9)
    car = Brush(canvas, Kind.CAR, x, z, facing=-1 if x > canvas.view.x else 1)  # +x is its visible flank
    van = rng.random() < 0.2
    paint = varied(rng, pick(rng, PAINTWORK))
    belt, roof, length = (1.05, 2.05, 4.8) if van else (0.88, between(rng, 1.4, 1.6), 4.2)
    foot, top = (0.1, length - 0.7) if van else (0.3, 3.2) if away else (1.2, 4.0)  # where cabin glass meets the body
    cabin, slope = (0.84, 0.15) if van else (0.7, 0.6)
    a, b, c, d = foot, foot + slope, top - slope, top
    car.solid(TYRE, [(-0.85, 0.12, 0), (0.88, 0.12, 0), (0.88, 0.12, length), (0.88, 0.4, length), (-0.85, 0.4, 0)])
    car.flank(scaled(paint, 0.74), 0.9, 0.3, belt, 0, length)
    if car.fine:
        _paint_flank_wheels(car, 0.91, (0.85, length - 0.85), 0.34)
    car.solid(scaled(paint, 1.1), [(-0.9, belt, 0), (0.9, belt, 0), (0.9, belt, length), (-0.9, belt, length)])
    car.solid(scaled(GLASS, 0.8), [(0.86, belt, a), (cabin, roof, b), (cabin, roof, c), (0.86, belt, d)])
    car.solid(paint, [(-0.88, belt, a), (0.88, belt, a), (cabin + 0.02, roof, b), (-cabin - 0.02, roof, b)])
    low, high, near = belt + 0.06, roof - 0.1, a + 0.04
    car.solid(GLASS, [(-0.78, low, near), (0.78, low, near), (cabin - 0.08, high, b), (0.08 - cabin, high, b)])
    car.solid(scaled(paint, 1.15), [(-cabin, roof, b), (cabin, roof, b), (cabin, roof, c), (-cabin, roof, c)])
    for side in (-1, 1):
        car.bar(TYRE, side * 0.55, 0, side * 0.86, 0.4)
    car.flat(paint, (-0.9, 0.3), (-0.91, belt - 0.12), (-0.8, belt), (0.8, belt), (0.91, belt - 0.12), (0.9, 0.3))
    if car.fine:
        car.bar(scaled(paint, 0.6), -0.9, 0.28, 0.9, 0.42)
        car.bar(WHITE, -0.24, 0.45, 0.24, 0.57)
    _paint_lights(car, 0.7, belt - 0.24, 0.15, away=away)


def paint_bus(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, away: bool) -> None:
    """A bus in its lane, seen from behind (`away`) or from the front."""
    canvas.shadow(x, z + 5, 1.7, 6.6)
    bus = Brush(canvas, Kind.BUS, x, z, facing=-1 if x > canvas.view.x else 1)
    paint, lamps, length = varied(rng, pick(rng, PAINTWORK)), canvas.light.lamps, 10.0
    pane = scaled(LAMP, 0.85) if lamps else GLASS
    bus.flank(scaled(paint, 0.74), 1.25, 0.3, 3.05, 0, length)
    for k in range(6):
        bus.flank(scaled(pane, 0.85), 1.26, 1.5, 2.6, 0.45 + 1.45 * k, 1.6 + 1.45 * k, shines=lamps)
    _paint_flank_wheels(bus, 1.27, (1.8, length - 2), 0.45)
    bus.solid(scaled(paint, 1.12), [(-1.25, 3.05, 0), (1.25, 3.05, 0), (1.25, 3.05, length), (-1.25, 3.05, length)])
    for side in (-1, 1):
        bus.bar(TYRE, side * 0.8, 0, side * 1.2, 0.5)
    bus.flat(paint, (-1.25, 0.3), (-1.27, 2.9), (-1.1, 3.05), (1.1, 3.05), (1.27, 2.9), (1.25, 0.3))
    bus.bar(scaled(paint, 0.6), -1.25, 0.28, 1.25, 0.5)
    bus.bar(pane, -1.1, 1.35, 1.1, 2.5, shines=lamps)
    if not away:
        bus.bar(paint, -0.04, 1.35, 0.04, 2.5)
    bus.bar(TYRE, -0.9, 2.62, 0.9, 2.92)
    bus.bar((255, 176, 60), -0.7, 2.7, 0.45, 2.84, shines=True)  # where it goes
    _paint_lights(bus, 0.94, 0.74, 0.18, away=away)


def paint_car_side(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int) -> None:
    """A car that crosses the street."""
    canvas.shadow(x, z + 0.8, 2.4, 1.1)
    car = Brush(canvas, Kind.CAR, x, z, facing=facing)
    paint = varied(rng, pick(rng, PAINTWORK))
    back = ((-2.1, 0.3), (-2.1, 0.8), (-1.9, 0.95), (-1.4, 1.0), (-0.85, 1.48))
    car.flat(paint, *back, (0.4, 1.5), (1.05, 1.0), (1.85, 0.9), (2.1, 0.7), (2.1, 0.3))
    car.flat(GLASS, (-1.2, 1.0), (-0.78, 1.38), (-0.18, 1.4), (-0.18, 1.0))
    car.flat(GLASS, (-0.05, 1.0), (-0.05, 1.4), (0.35, 1.4), (0.85, 1.0))
    car.bar(scaled(paint, 0.66), -2.1, 0.28, 2.1, 0.42)
    _paint_side_details(car, 2.1, (-1.3, 1.3), 0.36)


def paint_bus_side(canvas: Canvas, rng: np.random.Generator, x: float, z: float, *, facing: int) -> None:
    """A bus that crosses the street."""
    canvas.shadow(x, z + 1, 5.6, 1.4)
    bus = Brush(canvas, Kind.BUS, x, z, facing=facing)
    paint, lamps = varied(rng, pick(rng, PAINTWORK)), canvas.light.lamps
    pane = scaled(LAMP, 0.85) if lamps else GLASS
    bus.flat(paint, (-5, 0.35), (-5, 2.9), (-4.8, 3.1), (4.7, 3.1), (4.95, 2.8), (5, 0.35))
    bus.bar(scaled(paint, 0.62), -5, 0.33, 5, 0.6)
    bus.bar(WHITE, -5, 1.15, 5, 1.28)
    for left in (-4.7, -3.1, -1.5, 1.5):
        bus.bar(pane, left, 1.5, left + 1.35, 2.55, shines=lamps)
    for left in (0.1, 3.1):  # doors
        bus.bar(scaled(pane, 0.9), left, 0.5, left + 1.1, 2.55, shines=lamps)
        bus.bar(paint, left + 0.5, 0.5, left + 0.6, 2.55)
    bus.bar(pane, 4.4, 1.35, 4.97, 2.6, shines=lamps)
    _paint_side_details(bus, 5, (-3.2, 2.4), 0.48)


def _paint_lights(vehicle: Brush, x: float, y: float, half: float, *, away: bool) -> None:
    """Two head or tail lamps."""
    color, lamps = TAIL_LIGHT if away else HEADLIGHT, vehicle.canvas.light.lamps
    for side in (-x, x):
        vehicle.bar(color, side - half, y - 0.1, side + half, y + 0.1, shines=lamps)
        if lamps:
            vehicle.glow(scaled(color, 0.75), side, y, 0.5 if away else 1.1)


def _paint_flank_wheels(vehicle: Brush, x: float, places: tuple[float, float], radius: float) -> None:
    vehicle.solid(TYRE, *([(x, radius + s * radius, z + c * radius) for c, s in CIRCLE] for z in places))


def _paint_side_details(vehicle: Brush, nose: float, wheels: tuple[float, float], radius: float) -> None:
    """Wheels and lamps of a vehicle seen from the side."""
    for x in wheels:
        vehicle.disc(TYRE, x, radius, radius)
        vehicle.disc((176, 178, 182), x, radius, 0.46 * radius)
    lamps = vehicle.canvas.light.lamps
    vehicle.bar(HEADLIGHT, nose - 0.18, 0.66, nose, 0.8, shines=lamps)
    vehicle.bar(TAIL_LIGHT, -nose, 0.66, 0.14 - nose, 0.8, shines=lamps)
    if lamps:
        vehicle.glow((200, 190, 150), nose + 0.1, 0.7, 1.3)
