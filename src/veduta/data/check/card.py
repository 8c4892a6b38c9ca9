"""The card of a split: what it holds, summed up over its samples, and what is wrong with it as a whole."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.check.examine import Examined
from veduta.data.check.faults import KINDS, Finding
from veduta.labels import IGNORE_INDEX, VOID_NAMES, LabelMap

TRAINING, TEST = (re.compile(rf"(.*[^a-z])?{word}", re.IGNORECASE) for word in ("train", "test"))  # 2012/trainval
RARE = 100  # times fewer pixels than the commonest class has
MANY = 8  # values of one mask that are no class: beyond it is no slip
VERY_MANY = 32  # such values: not even classes that nobody declared
FEW = 0.05  # of the pixels of a mask, that smoothed borders take
SMALL, MEDIUM = 32**2, 96**2  # box areas in pixels, as COCO divides them
MOST_NAMED = 20  # classes that a detail names


def log_weights(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Class weights of a loss from pixel counts (num_classes,): 1 / log(1.1 + share), their mean over pixels being 1.

    Paszke et al. 2016, "ENet", sec. 5.2, where the 1.1 is 1.02.
    """
    share = pixels / max(1, pixels.sum())
    weights = 1 / np.log(1.1 + share)
    return weights / ((weights * share).sum() or 1)


class SplitCard:
    """Counts of a split; `add` takes its samples in their order.

    Arrays are (num_classes,) int64: pixels of each class, images that hold it (in mask, boxes or as their scene class),
    boxes, and boxes marked difficult. usable: for each sample without an error its classes as bits, else None.
    """

    def __init__(self, name: str, labels: LabelMap) -> None:
        self.name, self.labels = name, labels
        self.sizes: Counter[tuple[int, int]] = Counter()  # (height, width), upright
        self.formats: Counter[str] = Counter()
        self.modes: Counter[str] = Counter()
        self.rotated = self.void = self.masks = self.boxed = self.scenes = self.failed = 0
        self.pixels, self.images, self.boxes, self.difficult = (np.zeros(labels.num_classes, np.int64) for _ in "1234")
        self.box_sizes: Counter[str] = Counter()
        self.have: Counter[str] = Counter()  # samples without an error, by the labels that they have
        self.rows: list[tuple[str, bytes]] = []  # of each sample: name, hash of its image
        self.usable: list[int | None] = []
        self._sets: dict[int, int] = {}  # one int object for each set of classes

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, sample: Examined) -> None:
        broken = any(KINDS[finding.kind].severity == "error" for finding in sample.findings) or bool(sample.foreign)
        self.failed += broken
        if not broken:
            self.have["masks"] += sample.has_mask or sample.no_mask
            self.have["boxes"] += sample.boxes is not None
            self.have["a scene class"] += sample.scene_class is not None
        classes = {train_id for train_id in sample.pixels if train_id != IGNORE_INDEX}
        for train_id in classes:
            self.pixels[train_id] += sample.pixels[train_id]
        self.void += sample.pixels.get(IGNORE_INDEX, 0)
        self.masks += sample.has_mask
        if sample.boxes is not None:
            self.boxed += 1
            self._add_boxes(sample.boxes.xyxy, sample.boxes.classes, sample.boxes.difficult)
            classes.update(sample.boxes.classes.tolist())
        if sample.scene_class is not None:
            self.scenes += 1
            classes.add(sample.scene_class)
        self.images[list(classes)] += 1
        if sample.image and not sample.image.problem:
            self.sizes[sample.image.upright] += 1
            self.formats[sample.image.format] += 1
            self.modes[sample.image.mode] += 1
            self.rotated += sample.image.orientation > 1
        self.rows.append((sample.name, bytes.fromhex(sample.image.digest) if sample.image else b""))
        bits = sum(1 << train_id for train_id in classes)
        self.usable.append(None if broken else self._sets.setdefault(bits, bits))

    def _add_boxes(self, xyxy: NDArray[np.float32], classes: NDArray[np.int64], difficult: NDArray[np.bool_]) -> None:
        self.boxes += np.bincount(classes, minlength=len(self.boxes))
        self.difficult += np.bincount(classes[difficult], minlength=len(self.boxes))
        areas = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        for name, chosen in (
            ("small", areas < SMALL),
            ("medium", (areas >= SMALL) & (areas < MEDIUM)),
            ("large", areas >= MEDIUM),
        ):
            self.box_sizes[name] += int(chosen.sum())

    def findings(self) -> Iterator[Finding]:
        """What is wrong with the split as a whole."""

        def found(kind: str, detail: str = "") -> Finding:
            return Finding(kind, self.name, "", detail)

        if not self.rows:
            yield found("split-empty")
            return
        whole = len(self.rows) - self.failed
        for what, count in self.have.items():
            if 0 < count < whole:
                yield Finding("labels-differ", self.name, "", f"{count:,} of {whole:,} have {what}", what)
        labelled = self.images.any()
        if TEST.match(self.name) and not (labelled or self.masks or self.boxed or self.scenes):
            yield found("held-out")
            return
        counted, void = int(self.pixels.sum()), self.void
        if self.masks and not counted and not self.failed:
            yield found("split-void", f"{void:,} void pixels in {self.masks:,} masks")
        elif void > counted and counted:
            yield found("void-most", f"{100 * void / (void + counted):.1f} %")
        absent = [name for name, images in zip(self.labels.names, self.images, strict=True) if not images]
        if not self.masks and "background" in absent:
            absent.remove("background")  # which no box is of
        if absent and labelled:
            kind = "class-untrained" if TRAINING.match(self.name) else "class-absent"
            yield found(kind, f"{len(absent)} of {self.labels.num_classes}: {_named(absent)}")
        present = np.flatnonzero(self.pixels)
        if TRAINING.match(self.name) and len(present) > 1:
            most, least = present[self.pixels[present].argmax()], present[self.pixels[present].argmin()]
            if self.pixels[most] > RARE * self.pixels[least]:
                names, times = self.labels.names, self.pixels[most] / self.pixels[least]
                yield found("imbalance", f"{names[most]} has {times:,.0f} times the pixels of {names[least]}")

    def facts(self) -> dict[str, Any]:
        """The card as JSON."""
        counted = int(self.pixels.sum())
        weights = log_weights(self.pixels)
        return {
            "images": len(self.rows),
            "failed": self.failed,
            "turned_by_exif": self.rotated,
            "formats": dict(self.formats.most_common()),
            "modes": dict(self.modes.most_common()),
            "sizes": [{"width": w, "height": h, "images": n} for (h, w), n in self.sizes.most_common()],
            "with_mask": self.masks,
            "with_boxes": self.boxed,
            "with_scene_class": self.scenes,
            "pixels": counted,
            "void_pixels": self.void,
            "boxes": int(self.boxes.sum()),
            "difficult_boxes": int(self.difficult.sum()),
            "box_sizes": dict(self.box_sizes),
            "classes": [
                {
                    "name": name,
                    "images": int(self.images[i]),
                    "pixels": int(self.pixels[i]),
                    "share": float(self.pixels[i] / counted) if counted else None,
                    "weight": float(weights[i]) if counted else None,
                    "boxes": int(self.boxes[i]),
                    "difficult_boxes": int(self.difficult[i]),
                }
                for i, name in enumerate(self.labels.names)
            ],
        }


def judge_labels(labels: LabelMap) -> Iterator[Finding]:
    for label in labels.classes:
        if label.name.lower() in VOID_NAMES:
            yield Finding("void-class", "", "", f"class '{label.name}', mask value {label.file_id}")


def compare_labels(cards: Iterable[SplitCard]) -> Iterator[Finding]:
    """Whether all splits have the classes of the first, in its order."""
    first, *others = cards
    for card in others:
        ours, theirs = first.labels.names, card.labels.names
        if ours != theirs:
            differ = [name for name in (*ours, *theirs) if (name in ours) != (name in theirs)]
            told = f"not in both: {_named(differ)}" if differ else f"{_named(theirs)}; {first.name}: {_named(ours)}"
            yield Finding(
                "labels-of-splits", card.name, "", f"{len(theirs)} classes, {len(ours)} in {first.name}; {told}"
            )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def judge_values(
    labels: LabelMap, values: Counter[int], foreign: list[tuple[str, str, dict[int, int], int]]
) -> Iterator[Finding]:
    """What values in masks that are no class mean, seen over all splits.

    values: pixels of each value of all mask files. foreign: split, mask file, its values that are no class, and the
    pixels of the whole mask.
    """
    classes = {label.file_id for label in labels.classes}
    if set(values) == {0, 255} and 255 not in classes and labels.num_classes > 1:
        told = f"{100 * values[255] / values.total():.1f} % of the pixels are 255"
        if 255 not in labels.void_ids:
            yield Finding("mask-binary", "", "", told)
            return
        yield Finding("mask-binary-void", "", "", told)
    found = set(values) - {IGNORE_INDEX}
    in_order = set(range(labels.num_classes))
    if found <= in_order and 2 * min(len(found), len(classes - in_order)) > labels.num_classes:
        yield Finding("mask-train-ids", "", "", f"values {min(found)} to {max(found)}, classes up to {max(classes)}")
        return
    above = {label_id + 1 for label_id in classes}
    shifted = min(classes) not in values and len(values) > 1 and set(values) - {0, IGNORE_INDEX} <= above
    for split, file, counts, pixels in foreign:
        if len(counts) > VERY_MANY or (len(counts) > MANY and sum(counts.values()) < FEW * pixels):
            yield Finding("mask-smooth", split, file, f"{len(counts)} such values, {min(counts)} to {max(counts)}")
            continue
        more = f", and {len(counts) - MANY} other values of no class" if len(counts) > MANY else ""
        for value, count in Counter(counts).most_common(MANY):
            told = f"value {value}, {count:,} pixel{'s' if count > 1 else ''}{more}"
            if shifted and value in above:
                yield Finding("mask-shifted", split, file, told)
            else:
                yield Finding("mask-value", split, file, told, str(value))
