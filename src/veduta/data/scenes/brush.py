"""The brush: shapes of one thing that stands in the street, in metres from where it stands."""

from collections.abc import Sequence

import cv2
import numpy as np

from veduta.data.scenes.canvas import CIRCLE, SCALE, Canvas, Point
from veduta.data.scenes.kinds import Kind
from veduta.data.scenes.palette import TYRE, Color

Point3 = tuple[float, float, float]


class Brush:
    """Paints one thing at (x, z) on the ground; `facing` -1 mirrors it."""

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

    def dome(self, color: Color, x: float, y: float, radius: float, tall: float) -> None:
        """The upper half of an oval."""
        self.flat(color, *((x + c * radius, y + s * tall) for c, s in CIRCLE[:7]))

    def stroke(self, color: Color, a: Point, b: Point, width: float) -> None:
        """A straight line, never thinner than a pixel of the image."""
        (au, av), (bu, bv) = self.point(*a), self.point(*b)
        seen = (*self.canvas.lit(color, self.z), self.owner)
        thickness = max(SCALE, round(width * self.zoom))
        cv2.line(self.canvas.pixels, (int(au), int(av)), (int(bu), int(bv)), seen, thickness)

    def wheel(self, x: float, y: float, radius: float) -> None:
        """A wheel with spokes: all of the disc is owned, the background shows through."""
        (u, v), extent = self.point(x, y), radius * self.zoom
        self.canvas.wash(TYRE, 0.15, [(u + c * extent, v + s * extent) for c, s in CIRCLE], owner=self.owner)
        seen = (*self.canvas.lit(TYRE, self.z), self.owner)
        cv2.circle(self.canvas.pixels, (int(u), int(v)), int(extent), seen, max(1, round(0.07 * self.zoom)))

    def solid(self, color: Color, *polygons: Sequence[Point3], shines: bool = False) -> None:
        """Polygons in space, z counted from the thing's nearest point."""
        at, x0, z0, facing = self.canvas.view.at, self.x, self.z, self.facing
        outlines = [[at(x0 + facing * x, y, z0 + z) for x, y, z in p] for p in polygons]
        self.canvas.fill(self.owner, self.canvas.lit(color, z0, shines=shines), *outlines)

    def flank(
        self, color: Color, x: float, y0: float, y1: float, z0: float, z1: float, *, shines: bool = False
    ) -> None:
        """A rectangle that lies along the street."""
        self.solid(color, [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], shines=shines)

    def panes(self, color: Color, places: Sequence[Point], half: float, tall: float, *, shines: bool = False) -> None:
        """Rectangles of one size along the street; `places`: height of the sill and z of the middle of each."""
        y, middle = np.array(places).T[..., None]  # two times (N, 1)
        z = self.z + middle + np.array([-half, half, half, -half])
        u, v = self.canvas.view.at(self.x, y + np.array([0, 0, tall, tall]), z)
        seen = (*self.canvas.lit(color, self.z, shines=shines), self.owner)
        cv2.fillPoly(self.canvas.pixels, list(cv2.merge([u, v]).astype(np.int32)), seen)

    def glow(self, color: Color, x: float, y: float, radius: float) -> None:
        self.canvas.glow(color, self.point(x, y), radius * self.zoom, radius * self.zoom)
