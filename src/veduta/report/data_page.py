"""The page of a data check: what a data set holds, what is wrong with it, and pictures of it with their labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from veduta import __version__
from veduta.data.check.faults import SEVERITIES
from veduta.data.check.run import DataCheck
from veduta.data.sample import Sample
from veduta.files import check_new_folder, write_text
from veduta.labels import IGNORE_INDEX, LabelMap
from veduta.report.boxes import BoxLabel, label_boxes
from veduta.report.html import load_template
from veduta.report.overlays import shrink, shrink_mask
from veduta.tasks.prediction import draw_mask

PAGE, CARD, LABELS = "check.html", "check.json", "labels.json"
MOST_FILES = 100  # of a fault listed on the page; check.json has all of them
PICTURE_SIZE = (480, 480)  # width and height that pictures are shrunk to
QUALITY = 85  # of JPEG


@dataclass(frozen=True, kw_only=True)
class LabelledPicture:
    """A sample to look at. size: (height, width) of the sample; `pixels` may be smaller."""

    split: str
    name: str
    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    boxes: tuple[BoxLabel, ...]
    classes: tuple[str, ...]


def check_out_folder(out: Path) -> None:
    """Raises an OSError where `out` could not be made, or holds what no check has written."""
    if not out.is_dir():
        check_new_folder(out)
    elif foreign := sorted(path.name for path in out.iterdir() if path.name not in (PAGE, CARD, LABELS)):
        raise FileExistsError(f"--out {out} holds {foreign[0]}, which is of no data check. Choose a new folder.")


def write_data_report(check: DataCheck, out: Path) -> None:
    """Write check.html, check.json and labels.json into `out`; those of a former check are replaced."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CARD, check.to_json())
    if check.labels is not None:
        write_text(out / LABELS, TypeAdapter(LabelMap).dump_json(check.labels, indent=1).decode() + "\n")
    write_text(out / PAGE, render_check(check))


def render_check(check: DataCheck) -> str:
    """The page as text."""
    template = load_template("data_template.html", quality=QUALITY)
    page = template.render(
        check=check,
        splits={name: card.facts() for name, card in check.cards.items()},
        faults={severity: [f for f in check.faults if f.severity == severity] for severity in SEVERITIES},
        pictures=list(draw_pictures(check)),
        labels=TypeAdapter(LabelMap).dump_json(check.labels, indent=1).decode() if check.labels else None,
        most_files=MOST_FILES,
        version=__version__,
    )
    return page.encode(errors="replace").decode()  # file names may hold bytes that are not UTF-8


def draw_pictures(check: DataCheck) -> Iterator[LabelledPicture]:
    """The samples that the check has chosen. One that was fine a moment ago and cannot be read now is left out."""
    for split, index in check.pictures:
        dataset = check.datasets[split]
        try:
            sample = dataset[index]
        except (ValueError, OSError):
            continue
        yield draw_sample(sample, dataset.labels, split)


def draw_sample(sample: Sample, labels: LabelMap, split: str) -> LabelledPicture:
    """Its mask over its image, shrunk to PICTURE_SIZE; its boxes apart, so that their names stay sharp."""
    height, width = sample.image.shape[:2]
    image = shrink(sample.image, PICTURE_SIZE)
    train_ids: set[int] = set()
    if sample.mask is not None:
        image = draw_mask(image, shrink_mask(sample.mask, image), labels)
        train_ids.update(np.unique(sample.mask).tolist())
    if sample.scene_class is not None:
        train_ids.add(sample.scene_class)
    boxes: tuple[BoxLabel, ...] = ()
    if sample.boxes is not None and sample.box_classes is not None:
        boxes = label_boxes(sample.boxes, sample.box_classes, labels)
    return LabelledPicture(
        split=split,
        name=sample.name,
        pixels=image,
        size=(height, width),
        boxes=boxes,
        classes=tuple(labels.names[i] for i in sorted(train_ids) if i != IGNORE_INDEX or labels.of == "images"),
    )
