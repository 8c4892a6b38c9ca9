"""One sample -> what it holds and what is wrong with it."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from veduta.data.check.cache import Cache
from veduta.data.check.facts import Facts, recall_image, recall_mask, recall_painted
from veduta.data.check.faults import Finding, finding_of
from veduta.data.layout import Boxes, FileDataset, NoMask, Record
from veduta.data.stored import Stored
from veduta.labels import IGNORE_INDEX, LabelMap

TINY = 33  # pixels; below it a network of output stride 32 sees one place
SLOP = 1.0  # pixels by which published boxes reach over the border without a word


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What is known of one sample.

    values: of its mask file of class indices, each with its pixels. pixels: of the mask, by train id. foreign: values
    that the label map does not know. has_mask: one that is read or painted; no_mask: a NoMask stands for it. Without a
    record there is no source.
    """

    name: str
    findings: tuple[Finding, ...]
    source: Stored | None = None
    image: Facts | None = None
    mask: Stored | None = None
    values: dict[int, int] = field(default_factory=dict)
    pixels: dict[int, int] = field(default_factory=dict)
    foreign: dict[int, int] = field(default_factory=dict)
    has_mask: bool = False
    no_mask: bool = False
    boxes: Boxes | None = None
    scene_class: int | None = None


def examine(dataset: FileDataset[object], index: int, split: str, cache: Cache, *, decode: bool) -> Examined:
    """Read one sample's files. decode: all pixels of the image, not its header only; its mask is always read."""
    try:
        record = dataset.record(index)
    except (ValueError, OSError) as error:
        return Examined(name=str(dataset.keys[index]), findings=(finding_of("annotation", split, error),))
    labels, no_mask = dataset.labels, isinstance(record.mask, NoMask)
    image = recall_image(record.image, cache, decode=decode)
    mask = _mask_facts(record, image, labels, cache)
    values = dict(mask.values) if mask and not mask.problem else {}
    in_file_ids = mask is not None and not mask.decoded
    train_ids = _train_ids(labels) if in_file_ids else {value: value for value in values}
    pixels: Counter[int] = Counter()
    for value in values.keys() & train_ids.keys():
        pixels[train_ids[value]] += values[value]
    judged = (
        *_judge_image(record.image, image, labels, split),
        *_judge_mask(record, image, mask, pixels, split),
        *_judge_boxes(record, image, labels, split),
    )
    return Examined(
        name=record.name,
        findings=judged,
        source=record.image,
        image=image,
        mask=record.mask if isinstance(record.mask, Stored) else None,
        values=values if in_file_ids else {},
        pixels=dict(pixels),
        foreign={value: count for value, count in values.items() if value not in train_ids},
        has_mask=record.mask is not None and not no_mask,
        no_mask=no_mask,
        boxes=record.boxes,
        scene_class=record.scene_class,
    )


def _train_ids(labels: LabelMap) -> dict[int, int]:
    """File id -> train id, void as 255."""
    void = dict.fromkeys(labels.void_ids, IGNORE_INDEX)
    return {**void, **{label.file_id: train_id for train_id, label in enumerate(labels.classes)}}


def _mask_facts(record: Record, image: Facts, labels: LabelMap, cache: Cache) -> Facts | None:
    if record.mask is None or isinstance(record.mask, NoMask):
        return None
    if isinstance(record.mask, Stored):
        return recall_mask(record.mask, labels, cache)
    return None if image.problem else recall_painted(record.mask, image.upright, labels, cache)


def _judge_image(source: Stored, image: Facts, labels: LabelMap, split: str) -> Iterator[Finding]:
    def found(kind: str, detail: str = "") -> Finding:
        return Finding(kind, split, str(source), detail)

    if image.problem:
        problem, why = image.problem
        yield found(f"image-{problem}", why)
        return
    if min(image.width, image.height) < TINY and labels.of == "pixels":
        yield found("image-tiny", f"{image.width} x {image.height}")
    if image.mode not in ("RGB", "P"):
        yield found("image-mode", image.mode)


def _judge_mask(
    record: Record, image: Facts, mask: Facts | None, pixels: Counter[int], split: str
) -> Iterator[Finding]:
    if isinstance(record.mask, NoMask):
        yield Finding("no-mask", split, str(record.image))
    if record.mask is None or mask is None:
        return
    file = str(record.mask if isinstance(record.mask, Stored) else record.mask.source)

    def found(kind: str, detail: str = "") -> Finding:
        return Finding(kind, split, file, detail)

    if mask.problem:
        problem, why = mask.problem
        yield found(f"mask-{problem}", why)
    foreign = sum(count for _, count in mask.values) - sum(pixels.values())
    if mask.values and not foreign and set(pixels) == {IGNORE_INDEX}:
        yield found("mask-void")
    if image.problem or not mask.width:
        return
    size, stored = (mask.height, mask.width), (image.height, image.width)
    told = f"mask {mask.width} x {mask.height}, image {image.upright[1]} x {image.upright[0]} (width x height)"
    if size == image.upright:
        if image.orientation > 1 and (image.orientation < 5 or stored == image.upright):
            yield Finding("exif-unclear", split, str(record.image), f"orientation {image.orientation}")
    elif size == stored:
        yield found("exif-mask", f"{told}; EXIF orientation {image.orientation}")
    else:
        yield found("size", told)


def _judge_boxes(record: Record, image: Facts, labels: LabelMap, split: str) -> Iterator[Finding]:
    boxes = record.boxes
    if boxes is None or image.problem:
        return
    unproved = record.mask is None or isinstance(record.mask, NoMask)  # no mask shows which way the labels lie
    if unproved and image.orientation > 1 and len(boxes.xyxy):
        yield Finding("exif-unclear", split, str(record.image), f"orientation {image.orientation}, boxes")
    height, width = image.upright
    for number, (x0, y0, x1, y1) in enumerate(boxes.xyxy.tolist()):
        kind = _box_fault(x0, y0, x1, y1, width, height)
        if kind:
            name = labels.names[boxes.classes[number]]
            box = f"{record.name}, box {number + 1} ({name}): {x0:g} {y0:g} {x1:g} {y1:g}"
            yield Finding(kind, split, str(boxes.source), f"{box} in an image of {width} x {height}")


def _box_fault(x0: float, y0: float, x1: float, y1: float, width: int, height: int) -> str | None:
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        return "box-broken"
    if x1 < x0 or y1 < y0:
        return "box-inverted"
    if x1 == x0 or y1 == y0:
        return "box-empty"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "box-outside"
    return "box-over" if min(x0, y0, width - x1, height - y1) < -SLOP else None
