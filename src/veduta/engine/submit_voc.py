"""What the PASCAL VOC server takes: a .tgz of masks (competitions 5 and 6) or of boxes (3 and 4).

Everingham et al. 2010; names and formats are those of the development kit of VOC2012, sec. 4 and 5:
    results/VOC2012/Segmentation/comp6_test_cls/NAME.png    class indices 0 to 20, never 255, in VOC's palette
    results/VOC2012/Main/comp4_det_test_CLASS.txt           lines NAME SCORE LEFT TOP RIGHT BOTTOM, pixels from 1
Competitions 3 and 5 are for what learned from VOC's own images and annotations alone, 4 and 6 for all else.
"""

import dataclasses
import hashlib
import math
import re
from array import array
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.data.label_maps import VOC, bit_reversed_color
from veduta.data.layout import FileDataset, Record
from veduta.data.layouts.voc import find_years, open_voc
from veduta.data.sample import Sample
from veduta.engine.archive import entry_names
from veduta.engine.predictions.source import Predictions
from veduta.engine.submit import Entries, Form, MaskForm, Progress
from veduta.model_info import ModelInfo
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

CLASSES = VOC.names[1:]
MOST_BOXES = 1 << 24  # of a package; they are held in memory, 56 bytes each
LONGEST_LINE = 1 << 10  # bytes

_SPLIT = re.compile(r"(?:\d{4}/)?(main-)?(train|val|trainval|test)")
_ENTRY = re.compile(r"results/VOC(\d{4})/(?:Segmentation/comp([56])_([a-z]+)_cls/|Main/comp([34])_det_([a-z]+)_)")


class VocMasks(MaskForm):
    """PNGs in VOC's palette. comp: 5 or 6."""

    layout, ending, labels = "voc", ".tgz", VOC
    legal = frozenset(range(VOC.num_classes))
    palette = bytes(chain.from_iterable(map(bit_reversed_color, range(256))))

    def __init__(self, dataset: FileDataset[str], split: str, year: str, comp: int) -> None:
        super().__init__(dataset, split)
        self.folder = f"results/{year}/Segmentation/comp{comp}_{_list(split)}_cls/"

    def entry_of(self, name: str) -> str:
        return f"{self.folder}{name}.png"

    def file_of(self, entry: str) -> str | None:
        name = entry.removeprefix(self.folder).removesuffix(".png")
        return f"{name}.png" if name in self.names and entry == self.entry_of(name) else None

    def about(self) -> str:
        return f"{self.folder}NAME.png of the {len(self.names):,} images of split '{self.split}'"


class VocBoxes(Form):
    """A text file for each class, with all boxes of it. comp: 3 or 4.

    An object of the pixels 1 to 10 is written so, and has the edges 0 and 10 in a Prediction. Numbers have so many
    digits that the boxes come back as they were.
    """

    layout, ending, labels, wants = "voc", ".tgz", VOC, "boxes"

    def __init__(self, dataset: FileDataset[str], split: str, year: str, comp: int) -> None:
        super().__init__(dataset, split)
        self.dataset = FileDataset(VOC, self.records, _without_mask)
        self.places = {record.name: place for place, record in enumerate(self.records)}
        self.prefix = f"results/{year}/Main/comp{comp}_det_{_list(split)}_"
        self.texts = {name: bytearray() for name in CLASSES}

    def entries(self, name: str, prediction: Prediction) -> Entries:
        assert prediction.boxes is not None and prediction.box_classes is not None
        assert prediction.box_scores is not None
        found = zip(prediction.boxes.tolist(), prediction.box_classes, prediction.box_scores.tolist(), strict=True)
        for (left, top, right, bottom), train_id, score in found:
            numbers = (score, left + 1, top + 1, right, bottom)
            self.texts[VOC.names[train_id]] += f"{name} {' '.join(f'{number:.17g}' for number in numbers)}\n".encode()
        return ()

    def last_entries(self) -> Entries:
        return ((f"{self.prefix}{name}.txt", bytes(text)) for name, text in self.texts.items())

    def files(self) -> list[str]:
        return [f"{name}.txt" for name in CLASSES]

    def file_of(self, entry: str) -> str | None:
        file = entry.removeprefix(self.prefix)
        return file if file in self.files() and entry == self.prefix + file else None

    def about(self) -> str:
        return f"{self.prefix}CLASS.txt of VOC's {len(CLASSES)} classes"

    def check(self, folder: Path, progress: Progress) -> None:
        self._read(folder, progress)

    def open(self, folder: Path, rules: Rules) -> Predictions:
        table, sha256 = self._read(folder, lambda done, total: None)
        return Predictions(
            labels=VOC,
            task=DetectSegment(VOC, Loss()),
            protocol="boxes as they were written",
            rules=rules if rules.boxes != "coco" else dataclasses.replace(rules, boxes="voc12"),  # the server is VOC's
            proof=f"{len(table):,} boxes, sha256 {sha256[:12]}",
            sha256=sha256,
            find=partial(_find, table, self.places),
        )

    def _read(self, folder: Path, progress: Progress) -> tuple[NDArray[np.float64], str]:
        """Rows (image, score, left, top, right, bottom, class) by image, best first; and the hash of the files."""
        digest, parts, left = hashlib.sha256(), [], MOST_BOXES
        for train_id, name in enumerate(CLASSES, start=1):
            rows = array("d")
            with (folder / f"{name}.txt").open("rb") as file:
                for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), start=1):
                    digest.update(line)
                    rows.extend(self._parse(line.decode(errors="replace"), f"{name}.txt, line {number}"))
                    rows.append(train_id)
                    left -= 1
                    if left < 0:
                        raise ValueError(f"{name}.txt: more than {MOST_BOXES:,} boxes up to line {number:,}.")
            parts.append(np.array(rows).reshape(-1, 7))
            progress(train_id, len(CLASSES))
        table = np.concatenate(parts)
        return table[np.lexsort((-table[:, 1], table[:, 0]))], digest.hexdigest()

    def _parse(self, line: str, where: str) -> tuple[float, ...]:
        name, *texts = line.split() or [""]
        try:
            score, left, top, right, bottom = map(float, texts)
        except ValueError:
            score = left = top = right = bottom = math.nan
        legal = all(map(math.isfinite, (score, left, top, right, bottom))) and left <= right + 1 and top <= bottom + 1
        if not legal or name not in self.places:
            raise ValueError(
                f"{where}: expected the name of an image of split '{self.split}', its score, and left, top, right and "
                f"bottom in pixels, got '{line[:80]}'."
            )
        return self.places[name], score, left - 1, top - 1, right, bottom


def voc_form(
    dataset: FileDataset[str], root: Path, split: str, comp: int | None, info: ModelInfo | None = None
) -> VocMasks | VocBoxes:
    """The form of a list of VOC: of masks, or for a list main-* of boxes.

    dataset: the split, opened from `root`. comp: the competition, where the user says it. info: of the model, where one
    predicts. Raises ValueError where the competition has to be said, or cannot be the model's.
    """
    match = _SPLIT.fullmatch(split)
    if match is None:
        raise ValueError(
            f"--split {split}: a package holds one list of VOC: test or val for masks, main-test or main-val for boxes."
        )
    form, (own, other) = (VocBoxes, (3, 4)) if match[1] else (VocMasks, (5, 6))
    more = info and _more_than_voc(info)
    if comp is None and more:
        comp = other
    if comp not in (own, other):
        raise ValueError(
            f"--comp must be {own} or {other} for split '{split}': {own} where the model learned from VOC's own images "
            f"and annotations alone, {other} where anything else was used, such as weights of ImageNet or SBD's masks."
        )
    if comp == own and more:
        raise ValueError(f"--comp {own} is for models of VOC's own data alone, but {more}. Give --comp {other}.")
    return form(dataset, split, _year(root, split), comp)


def forms_of(package: Path, root: Path) -> list[Form]:
    """The forms that the entries of a package are of, by their folders. Raises ValueError where there is none."""
    names = entry_names(package)
    found = sorted({match.groups("") for name in names if (match := _ENTRY.match(name))})
    if not found:
        raise ValueError(
            f"{package}: none of its {len(names):,} entries is of results/VOC2012/Segmentation/comp6_test_cls/ or "
            "results/VOC2012/Main/comp4_det_test_CLASS.txt, or of another year, competition or list."
        )
    forms: list[Form] = []
    for year, masks, masks_list, boxes, boxes_list in found:
        prefix = f"{year}/" if f"{year}/" in find_years(root) else ""
        split = f"{prefix}{masks_list or f'main-{boxes_list}'}"
        forms.append(voc_form(open_voc(root, split), root, split, int(masks or boxes)))
    return forms


def _more_than_voc(info: ModelInfo) -> str:
    """What else than VOC's own data the recipe says to have been used; "" where it says nothing of it.

    No recipe tells which weights its training began with.
    """
    data = info.recipe.data
    if info.origin is not None:
        return ""
    if data.dataset in ("sbd", "coco"):
        return f"its recipe trains on {data.dataset}"
    if "train_aug" in data.train_split:
        return f"its recipe trains on {data.train_split}, which has masks of SBD"
    if len({part.partition("/")[0] for part in data.train_split.split("+") if "/" in part}) > 1:
        return f"its recipe trains on {data.train_split}, which is more than one year"
    return ""


def _year(root: Path, split: str) -> str:
    """VOC2012 and so on; that also where the folder has another name: it is the year that the server still scores."""
    prefix = split[: split.find("/") + 1]
    name = find_years(root)[prefix].name
    return name if re.fullmatch(r"VOC\d{4}", name) else "VOC2012"


def _list(split: str) -> str:
    return split.rpartition("/")[2].removeprefix("main-")


def _without_mask(record: Record) -> Record:
    return dataclasses.replace(record, mask=None)


def _find(table: NDArray[np.float64], places: dict[str, int], sample: Sample) -> Prediction:
    place = places[sample.name]
    rows = table[np.searchsorted(table[:, 0], place) : np.searchsorted(table[:, 0], place, side="right")]
    return Prediction(
        boxes=rows[:, 2:6].astype(np.float32),
        box_classes=rows[:, 6].astype(np.int64),
        box_scores=rows[:, 1].astype(np.float32),
    )
