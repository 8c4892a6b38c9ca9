"""What a pixel of a generated street scene can show."""

from enum import IntEnum

from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap


class Kind(IntEnum):
    """The train ids of label map 'scenes'."""

    SKY = 0
    BUILDING = 1
    ROAD = 2
    PAVEMENT = 3
    TREE = 4
    POLE = 5
    SIGN = 6
    CAR = 7
    BUS = 8
    PERSON = 9
    BICYCLE = 10


COUNTABLE = frozenset({Kind.SIGN, Kind.CAR, Kind.BUS, Kind.PERSON, Kind.BICYCLE})  # every one of them gets a box

OVERLAY_COLORS = (
    (120, 180, 230), (150, 110, 100), (110, 90, 130), (220, 170, 210), (90, 150, 60), (150, 150, 150), (250, 210, 50),
    (40, 70, 190), (20, 140, 150), (220, 40, 70), (240, 130, 30),
)  # fmt: skip
SCENES = LabelMap(
    name="scenes",
    classes=tuple(LabelClass(file_id=int(kind), name=kind.name.lower(), color=OVERLAY_COLORS[kind]) for kind in Kind),
    void_ids=(IGNORE_INDEX,),
)
