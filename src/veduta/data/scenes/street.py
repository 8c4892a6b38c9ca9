"""The plan of a street: its measures, and what stands where."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from veduta.data.scenes.buildings import paint_building
from veduta.data.scenes.canvas import Canvas
from veduta.data.scenes.palette import FOLIAGE, between, pick
from veduta.data.scenes.people import paint_bicycle, paint_person
from veduta.data.scenes.roadside import paint_sign, paint_street_lamp, paint_traffic_light, paint_tree
from veduta.data.scenes.vehicles import paint_bus, paint_bus_side, paint_car, paint_car_side


class Street:
    """A street by chance; widths are metres from its middle line."""

    def __init__(self, rng: np.random.Generator) -> None:
        lanes_each_way = 1 if rng.random() < 0.6 else 2
        # the middle of each lane, and whether its cars drive away from the viewer
        self.lanes = sorted((side * (1.7 + 3.2 * k), side > 0) for side in (-1, 1) for k in range(lanes_each_way))
        self.half_width = 3.3 * lanes_each_way + between(rng, 0.2, 1.6)
        self.front = self.half_width + between(rng, 2.6, 4.6)  # where the houses begin
        start = between(rng, 13, 26)
        self.crossing = (start, start + 6.5) if rng.random() < 0.55 else None  # another street, from z to z
        self.foliage = pick(rng, FOLIAGE)

    def free(self, z: float) -> bool:
        """Whether no street crosses at z."""
        return self.crossing is None or not self.crossing[0] - 3.5 < z < self.crossing[1] + 0.5


class Thing(NamedTuple):
    """What stands in the street at (x, z), `reach` metres to either side, and what paints it there."""

    x: float
    z: float
    reach: float
    paint: Callable[[Canvas, np.random.Generator, float, float], None]


def plan_things(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    """All that stands in the street, in no order."""
    for side in (-1, 1):
        yield from _houses(rng, street, side)
        yield from _kerb(rng, street, side)
        yield from _passers(rng, street, side)
    yield from _traffic(rng, street)
    if street.crossing:
        yield from _cross_traffic(rng, street, *street.crossing)


def _houses(rng: np.random.Generator, street: Street, side: int) -> Iterator[Thing]:
    """The houses on one side, a park here and there. A house stands at its far end: what is before it is nearer."""
    z, corner = between(rng, 2, 6), False
    while z < 48:
        length = between(rng, 7, 13)
        if street.crossing:
            near, far = street.crossing[0] - 2.5, street.crossing[1] + 2.5
            if near - 4 < z < far:
                z, corner = far, True
            elif z < near:
                length = min(length, near - z)
        park = rng.random() < 0.14
        if park:
            for _ in range(4):
                x, depth = side * (street.front + between(rng, 1, 6)), z + length * rng.random()
                yield Thing(x, depth, 3, partial(paint_tree, foliage=pick(rng, FOLIAGE)))
        else:
            x = side * (street.front + between(rng, 0, 0.8))
            yield Thing(x, z + length, 1, partial(paint_building, length=length, side=side, corner=corner))
        z, corner = z + length, park


def _kerb(rng: np.random.Generator, street: Street, side: int) -> Iterator[Thing]:
    """Lamps, trees and signs along one kerb."""
    x, planted = side * (street.half_width + 0.6), rng.random() < 0.75
    things, z = [], between(rng, 6.5, 13)
    while z < 45:
        things.append(Thing(x, z, 2, partial(paint_street_lamp, facing=-side)))
        for at in (z + 4.5, z + 9.0):
            if planted and rng.random() < 0.6:
                things.append(Thing(x + side * 0.3, at, 3, partial(paint_tree, foliage=street.foliage)))
        z += between(rng, 13, 16)
    things += [Thing(x, between(rng, 6, 26), 1, paint_sign) for _ in range(1 + int(rng.random() * 3))]
    yield from (thing for thing in things if street.free(thing.z))
    if street.crossing:
        yield Thing(x, street.crossing[0] - 3.6, 1, paint_traffic_light)


def _passers(rng: np.random.Generator, street: Street, side: int) -> Iterator[Thing]:
    """People on one pavement, bicycles parked along the houses."""
    for _ in range(2 + int(rng.random() * 5)):
        x = side * (street.half_width + between(rng, 0.9, street.front - street.half_width - 0.4))
        yield Thing(x, between(rng, 7.5, 36), 1, paint_person)
    if rng.random() < 0.6:
        z, facing = between(rng, 8, 20), 1 if rng.random() < 0.5 else -1
        for k in range(1 + int(rng.random() * 3)):
            x = side * (street.front - between(rng, 0.7, 1.0))
            yield Thing(x, z + 1.2 * k, 1, partial(paint_bicycle, facing=facing, ridden=rng.random() < 0.3))


def _traffic(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    """Cars and buses in their lanes."""
    for lane, away in street.lanes:
        z = between(rng, 6.5, 22)
        while z < 48:
            bus = rng.random() < 0.13
            if street.free(z) and street.free(z + 4):
                x, paint = lane + between(rng, -0.3, 0.3), paint_bus if bus else paint_car
                yield Thing(x, z, 4, partial(paint, away=away))
            z += (12 if bus else 6) + between(rng, 1, 24)


def _cross_traffic(rng: np.random.Generator, street: Street, near: float, far: float) -> Iterator[Thing]:
    """Those who cross: vehicles in the other street, people on the zebra crossing."""
    for z, facing in ((near + 1.6, 1), (far - 1.6, -1)):
        x = between(rng, -12, 4)
        while x < 14:
            kind = rng.random()
            if kind < 0.3:
                yield Thing(x, z, 3, partial(paint_car_side, facing=facing))
            elif kind < 0.45:
                yield Thing(x, z, 6, partial(paint_bus_side, facing=facing))
            elif kind < 0.7:
                yield Thing(x, z, 1, partial(paint_bicycle, facing=facing, ridden=True))
            x += between(rng, 9, 16)
    for _ in range(int(rng.random() * 4)):
        yield Thing(between(rng, -1, 1) * street.half_width, near - between(rng, 0.9, 2.9), 1, paint_person)
