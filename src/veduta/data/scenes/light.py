"""The light of the four scene classes, and the weather of the day."""

from dataclasses import dataclass, replace

import numpy as np

from veduta.data.scenes.palette import Color, between, scaled


@dataclass(frozen=True, kw_only=True)
class Light:
    """How a scene class looks."""

    sky: tuple[Color, Color, Color]  # top, middle, horizon
    ambient: Color
    haze: Color
    visibility: float  # metres until haze covers two thirds
    shadow: float  # how dark the shadows on the ground are
    clouds: tuple[int, float]  # how many at most, and how white
    sun: tuple[Color, float, float] | None  # colour and height between, as shares of the sky; None: not seen
    lit_windows: float  # share of the windows
    lamps: bool = False  # street lamps, head and tail lights are on
    stars: bool = False
    umbrellas: bool = False


LIGHTS = {
    "day": Light(
        sky=((92, 164, 224), (150, 202, 236), (222, 238, 244)), ambient=(1.0, 1.0, 0.98), haze=(206, 226, 238),
        visibility=120, shadow=0.4, clouds=(4, 0.8), sun=((255, 247, 212), 0.58, 0.9), lit_windows=0.04,
    ),
    "dusk": Light(
        sky=((78, 70, 132), (214, 124, 132), (255, 202, 140)), ambient=(0.84, 0.68, 0.72), haze=(240, 170, 140),
        visibility=110, shadow=0.35, clouds=(4, 0.5), sun=((255, 224, 156), 0.25, 0.5), lit_windows=0.4, lamps=True,
    ),
    "night": Light(
        sky=((14, 20, 52), (30, 42, 86), (66, 76, 122)), ambient=(0.42, 0.46, 0.66), haze=(56, 64, 108),
        visibility=110, shadow=0.35, clouds=(2, 0.12), sun=None, lit_windows=0.5, lamps=True, stars=True,
    ),
    "overcast": Light(
        sky=((146, 158, 172), (178, 186, 194), (212, 216, 218)), ambient=(0.8, 0.83, 0.88), haze=(200, 206, 210),
        visibility=75, shadow=0.2, clouds=(8, 0.35), sun=None, lit_windows=0.15, umbrellas=True,
    ),
}  # fmt: skip


def weather(rng: np.random.Generator, light: Light) -> Light:
    """The same light on another day: a shift of all colours, more or less haze."""
    tone, (red, green, blue) = between(rng, 0.88, 1.06), (rng.random(3) * 20 - 10).tolist()

    def moved(color: Color) -> Color:
        return min(color[0] * tone + red, 255), min(color[1] * tone + green, 255), min(color[2] * tone + blue, 255)

    top, middle, bottom = light.sky
    return replace(
        light,
        sky=(moved(top), moved(middle), moved(bottom)),
        ambient=scaled(light.ambient, tone),
        haze=moved(light.haze),
        visibility=light.visibility * between(rng, 0.6, 1.4),
    )
