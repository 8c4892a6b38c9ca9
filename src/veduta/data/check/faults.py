"""The catalogue of faults that a data set can have: how bad each is, and what repairs it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

MOST_SHOWN = 5  # files of a fault that a text names; the JSON has all of them


@dataclass(frozen=True)
class Kind:
    """`{about}` in the texts is what distinguishes faults of one kind: a mask value, a split."""

    severity: Severity
    title: str
    repair: str


KINDS: dict[str, Kind] = {
    # Errors: training would stop, learn something wrong, or the score would not be one.
    "open": Kind("error", "a split cannot be opened", "Do what the message says; no sample of it was looked at."),
    "annotation": Kind(
        "error", "annotations cannot be read", "Replace the file, or take the sample out of its split's list."
    ),
    "shard-changed": Kind(
        "error", "shards are not as they were packed", "Copy them again, or pack the data set anew: veduta data pack."
    ),
    "split-empty": Kind("error", "a split holds no sample", "Put samples into it, or remove its list or folder."),
    "labels-of-splits": Kind(
        "error",
        "splits have different classes, or an order of their own",
        "Give all splits one list of categories with the same ids.",
    ),
    "labels-differ": Kind(
        "error",
        "some samples have {about}, others have none",
        "One split is one kind of labels: label the rest, or take the samples out of the list.",
    ),
    "split-void": Kind(
        "error",
        "a split has no pixel of any class",
        "All of its masks are void: compare the values of the masks with the label map's void ids.",
    ),
    "image-missing": Kind("error", "image files are missing", "Copy them there, or take the names off the list."),
    "image-case": Kind("error", "image names differ in case or ending", "Rename the files, or correct the list."),
    "image-empty": Kind("error", "image files are empty (0 bytes)", "Copy them again from the source."),
    "image-unreadable": Kind(
        "error", "images are broken or cut off", "Copy them again from the source, or take them off the list."
    ),
    "image-frames": Kind("error", "images are animated or have several pages", "Save one image per file."),
    "image-depth": Kind(
        "error",
        "images other than PNGs have more than 8 bits per channel",
        "Scale them to 8 bits first: what of their range is black and white only you know.",
    ),
    "mask-missing": Kind("error", "mask files are missing", "Copy them there, or take the images off the list."),
    "mask-case": Kind("error", "mask names differ in case or ending", "Rename the files, or correct the list."),
    "mask-empty": Kind("error", "mask files are empty (0 bytes)", "Copy them again from the source."),
    "mask-unreadable": Kind(
        "error", "masks are broken or cut off", "Copy them again from the source, or take their images off the list."
    ),
    "mask-outline": Kind("error", "masks cannot be made of their annotations", "Correct the annotation as it says."),
    "mask-colors": Kind(
        "error",
        "masks of colours that are not those of the label map",
        "Correct the colours of the label map, or convert the masks to 8-bit class indices.",
    ),
    "mask-depth": Kind(
        "error",
        "masks do not have 8 bits per pixel",
        "Save them as 8-bit grey PNGs; class indices are 0 to 255.",
    ),
    "mask-jpeg": Kind(
        "error",
        "masks are JPEG files, which change class indices at every border",
        "Export the masks again, as PNG; a converted JPEG keeps the wrong values.",
    ),
    "mask-smooth": Kind(
        "error",
        "masks hold many values that are no class: smoothed borders, or a grey picture",
        "Export them without anti-aliasing, resize with nearest neighbour only, and never through JPEG. "
        "If the values are classes, declare them in the label map.",
    ),
    "mask-binary": Kind(
        "error",
        "masks hold nothing but 0 and 255, where 255 is no class",
        "Write 1 in place of 255 into the masks: mask = (mask > 0).astype('uint8').",
    ),
    "mask-train-ids": Kind(
        "error",
        "masks hold the numbers of the classes in order, not the values of the label map",
        "Take the masks with the original values (Cityscapes: labelIds, not labelTrainIds), or a label map for these.",
    ),
    "mask-shifted": Kind(
        "error",
        "mask values are one higher than those of the label map",
        "Correct the values in the label map (labels.json: file_id, classes.csv: index), or in the masks.",
    ),
    "mask-value": Kind(
        "error",
        "mask value {about} is not in the label map",
        "Correct the masks, or declare the value: labels.json: add {about} to void_ids; classes.csv: a row "
        "{about},void,0,0,0. If it is a class, add it with its name and colour.",
    ),
    "size": Kind(
        "error",
        "masks are not of their image's size",
        "Export the masks at the size of the images; resize masks with nearest neighbour only.",
    ),
    "exif-mask": Kind(
        "error",
        "masks lie as their photos did before EXIF turned them upright",
        "Turn the masks as the orientation says, or save the photos without it: mogrify -strip FILE.",
    ),
    "box-broken": Kind("error", "boxes have corners that are no numbers", "Correct or remove these boxes."),
    "box-inverted": Kind(
        "error",
        "boxes end before they begin",
        "Corners are left, top, right, bottom. Swap them, or convert from width and height.",
    ),
    "box-outside": Kind(
        "error",
        "boxes lie outside of their image",
        "Do they belong to another image, or to its size before it was shrunk? Scale or remove them.",
    ),
    "leak": Kind(
        "error",
        "{about} have images in common",
        "Take them out of one: scores need images that training never saw.",
    ),
    # Warnings: training runs, and may not learn what its user thinks.
    "box-over": Kind(
        "warning", "boxes reach over the border of their image", "They are clipped. Look whether they fit their image."
    ),
    "box-empty": Kind("warning", "boxes have no area", "Training drops them. Remove or redraw them."),
    "duplicate": Kind("warning", "images lie twice in a split", "Take one of each off the list; it counts twice."),
    "void-most": Kind(
        "warning",
        "more than half of the pixels of a split are void",
        "No loss sees void. Is a class, such as background, declared as void? Give it a class of its own.",
    ),
    "void-class": Kind(
        "warning",
        "a class is named as void is, and is learnt as a class",
        "If its pixels are to be left out, move its id to void_ids (labels.json), or name its row void (classes.csv).",
    ),
    "mask-binary-void": Kind(
        "warning",
        "masks hold nothing but 0 and 255, and 255 is void",
        "If 255 is no border but the object, declare it in the label map as a class, not as void.",
    ),
    "class-untrained": Kind(
        "warning",
        "classes never occur in training: they cannot be learnt",
        "Add images of them, or take them out of the label map. Are the mask values those of the label map?",
    ),
    "exif-unclear": Kind(
        "warning",
        "photos that EXIF turns, and labels that fit them either way",
        "Veduta turns photos upright. Look at the pictures of `veduta data check --out FOLDER`, or save them upright.",
    ),
    # Notes: good to know.
    "no-mask": Kind("note", "images without a mask count as void", "Nothing to do, if they are to have boxes only."),
    "mask-void": Kind("note", "masks are void all over", "They teach nothing; take them off the list to save time."),
    "held-out": Kind("note", "a test split has no labels", "Scores of it come from the test server."),
    "class-absent": Kind("note", "classes never occur in a split", "Their scores are undefined there, not 0."),
    "imbalance": Kind(
        "note",
        "the commonest class has over 100 times the pixels of the rarest",
        "--set loss.class_weights=log weighs rare classes up; the weights are in the table.",
    ),
    "image-tiny": Kind("note", "images are smaller than 33 pixels", "Networks for scenes see little in them."),
    "image-mode": Kind("note", "images are grey, CMYK or have alpha", "Nothing to do: they are converted to RGB."),
    "same-name": Kind("note", "splits have different images of one name", "Predictions of them need two folders."),
    "unlisted": Kind("note", "image files that no split names", "Add them to a list, if they were forgotten."),
}

# Samples that cannot be read; training may go on without them.
UNREADABLE = (
    "annotation",
    *(f"{part}-{what}" for part in ("image", "mask") for what in ("missing", "empty", "unreadable")),
)


@dataclass(frozen=True)
class Finding:
    """One place of a fault. file: the path, or what comes nearest to one. detail: what was found there."""

    kind: str
    split: str
    file: str
    detail: str = ""
    about: str = ""

    @property
    def place(self) -> str:
        return self.file or (f"split {self.split}" if self.split else "all splits")

    def __str__(self) -> str:
        return visible(f"{self.place}: {self.detail}" if self.detail else self.place)


def visible(text: str) -> str:
    """Without what a terminal would obey: file names may hold any bytes. These are shown as Python writes them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


# How readers begin: FILE: why, FILE, line 3: why, or FILE not found.
PLACE = re.compile(
    r"(?:folder )?([^:]*?/[^:]*?)(?:: |, (?=(?:annotation|byte|image|line|object|record|shape) )| (?=not found))"
)


def finding_of(kind: str, split: str, error: Exception) -> Finding:
    """What a reader says, with its file apart."""
    text = str(error)
    place = PLACE.match(text)
    return Finding(kind, split, place[1], text[place.end() :]) if place else Finding(kind, split, "", text)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """All findings of a kind, and of one `about`."""

    id: str
    severity: Severity
    title: str
    repair: str
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """A block of text: what, how many, the first files, the repair."""
        lines = [f"{visible(self.title)} ({len(self.findings):,}) [{self.id}]"]
        lines += [f"  {finding}" for finding in self.findings[:MOST_SHOWN]]
        if len(self.findings) > MOST_SHOWN:
            lines.append(f"  ... and {len(self.findings) - MOST_SHOWN:,} more")
        return "\n".join([*lines, f"  -> {self.repair}"])


def group(findings: Iterable[Finding]) -> list[Fault]:
    """Findings -> faults, errors first, each severity in the order of the catalogue."""
    groups: dict[tuple[str, str], dict[tuple[str, ...], Finding]] = {}
    for finding in findings:
        place = (finding.file or finding.split, finding.detail)  # a file that two splits name is told once
        groups.setdefault((finding.kind, finding.about), {}).setdefault(place, finding)
    order = {kind: (SEVERITIES.index(KINDS[kind].severity), number) for number, kind in enumerate(KINDS)}
    return [
        Fault(
            id=kind,
            severity=KINDS[kind].severity,
            title=KINDS[kind].title.format(about=about),
            repair=KINDS[kind].repair.format(about=about),
            findings=tuple(found.values()),
        )
        for (kind, about), found in sorted(groups.items(), key=lambda item: order[item[0][0]])
    ]
