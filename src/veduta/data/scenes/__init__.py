"""Scenes: generated street scenes with exact masks, boxes and a scene class. Nothing to download.

`street` plans what stands where; `light` sets the mood; `backdrop` paints sky, skyline and ground on a `canvas`;
`buildings`, `roadside`, `vehicles` and `people` are painted on it from far to near; `develop` reads the sample off.
"""

import numpy as np

from veduta.data.sample import Sample
from veduta.data.scenes.backdrop import paint_ground, paint_sky, paint_skyline
from veduta.data.scenes.canvas import Canvas, View
from veduta.data.scenes.develop import read_image, read_owners
from veduta.data.scenes.kinds import SCENES
from veduta.data.scenes.light import LIGHTS, weather
from veduta.data.scenes.street import Street, plan_things
from veduta.labels import LabelMap

SEED = 1724
DIFFICULT = 100  # square pixels up to which a box is difficult, so that no score asks for it
SPLITS = {"train": 240, "val": 40, "test": 40}  # images; the order numbers the splits


class Scenes:
    """Street scenes, 192 x 256: 11 classes, void around objects, boxes of what can be counted, four scene classes.

    Sample `i` depends on nothing but split and `i`. Boxes enclose the visible pixels; xyxy, right and bottom exclusive.
    """

    labels: LabelMap = SCENES
    scene_classes: tuple[str, ...] = tuple(LIGHTS)

    def __init__(self, split: str) -> None:
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
        canvas = paint_scene(rng, self.scene_classes[scene_class])
        image, (mask, boxes, box_classes) = read_image(canvas, rng), read_owners(canvas)
        name = f"scene-{self.split}-{i:04d}"
        difficult = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) <= DIFFICULT
        return Sample(
            image,
            name,
            mask=mask,
            boxes=boxes,
            box_classes=box_classes,
            box_difficult=difficult,
            scene_class=scene_class,
        )


def paint_scene(rng: np.random.Generator, scene: str) -> Canvas:
    """Paint one street scene in the given light."""
    street = Street(rng)
    canvas = Canvas(View(rng, street.half_width), weather(rng, LIGHTS[scene]))
    paint_sky(canvas, rng)
    paint_skyline(canvas, rng)
    paint_ground(canvas, rng, street)
    for thing in sorted(plan_things(rng, street), key=lambda thing: -thing.z):  # from far to near
        if canvas.view.shows(thing.x, thing.z, thing.reach):
            thing.paint(canvas, rng, thing.x, thing.z)
    return canvas
