"""SBD, the Semantic Boundaries Dataset: photos of VOC 2011 with masks and instances in .mat files.

Hariharan et al. 2011, "Semantic contours from inverse detectors". 8498 train, 2857 val. ROOT is or holds `dataset`, be
it in benchmark_RELEASE:
    dataset/img/NAME.jpg
    dataset/cls/NAME.mat              GTcls.Segmentation: class of each pixel, 0 background, no void
    dataset/inst/NAME.mat             GTinst.Segmentation: instance of each pixel; GTinst.Categories: their classes
    dataset/train.txt, val.txt        names
Splits that mix it with VOC need VOCdevkit/VOC2012 or VOC2012 in ROOT or in a folder above it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.label_maps import VOC
from veduta.data.layout import Boxes, FileDataset, Layout, Record, unknown_split
from veduta.data.layouts.matlab import read_struct
from veduta.data.layouts.voc import folders_in, open_voc, read_names
from veduta.data.stored import Stored

OWN = ("train", "val")
MIXED = ("noval", "minus_voc", "train_aug")


def open_sbd(root: Path, split: str) -> FileDataset[str]:
    """One split: train and val in the order of their lists, the others sorted by name.

    noval: all of SBD minus VOC's val. minus_voc: minus VOC's train and val (9118, RefineNet's first stage).
    train_aug: VOC's train and all of SBD, minus VOC's val (10,582); an image of VOC's train has VOC's mask and boxes.
    """
    dataset = _find(root)
    if dataset is None:
        raise FileNotFoundError(
            f"{root} holds no SBD. --data must be SBD's folder `dataset`, with cls and its lists, or one above."
        )
    if split in OWN:
        return FileDataset(VOC, read_names(dataset / f"{split}.txt"), partial(_record, dataset))
    if split not in MIXED:
        raise unknown_split("SBD", split, (*OWN, *MIXED))
    devkit = _find_voc(root)
    if devkit is None:
        raise FileNotFoundError(
            f"VOCdevkit/VOC2012 found neither in {root} nor beside it. Put it there: split {split} needs its lists."
        )
    train, val = open_voc(devkit, "train"), open_voc(devkit, "val")
    all_of_sbd = {name for part in OWN for name in read_names(dataset / f"{part}.txt")}
    if split == "train_aug":
        if train.record(0).boxes is None:
            raise FileNotFoundError(
                f"{devkit / 'Annotations'} not found: split train_aug has boxes, VOC's come from there."
            )
        names = (all_of_sbd | set(train.keys)) - set(val.keys)
        return FileDataset(VOC, sorted(names), partial(_augmented_record, dataset, train, frozenset(train.keys)))
    names = all_of_sbd - set(val.keys) - (set(train.keys) if split == "minus_voc" else set())
    return FileDataset(VOC, sorted(names), partial(_record, dataset))


def _record(dataset: Path, name: str) -> Record:
    return Record(
        name=name,
        image=Stored(dataset / "img" / f"{name}.jpg"),
        mask=SbdMask(dataset / "cls" / f"{name}.mat"),
        boxes=read_boxes(dataset / "inst" / f"{name}.mat"),
    )


def _augmented_record(dataset: Path, train: FileDataset[str], in_train: frozenset[str], name: str) -> Record:
    return train.record_of(name) if name in in_train else _record(dataset, name)


@dataclass(frozen=True)
class SbdMask:
    """The mask in a file of dataset/cls. As Painted."""

    source: Path

    def __call__(self, size: tuple[int, int], /) -> NDArray[np.uint8]:
        ids = read_struct(self.source, "GTcls", ("Segmentation",))["Segmentation"]
        return VOC.encode(_pixels(ids, self.source), path=self.source)


def read_boxes(path: Path) -> Boxes:
    """The extents of the instances in a file of dataset/inst. An instance without a pixel has none and is left out.

    Raises FileNotFoundError, and ValueError naming the file for what is no such file.
    """
    fields = read_struct(path, "GTinst", ("Segmentation", "Categories"))
    instances, categories = _pixels(fields["Segmentation"], path), fields["Categories"].reshape(-1)
    present = np.flatnonzero(np.bincount(instances.reshape(-1), minlength=256)[1:]) + 1
    if present.size and present[-1] > categories.size:
        raise ValueError(f"{path}: instance {present[-1]} has no class, GTinst.Categories has {categories.size}.")
    classes = categories[present - 1]
    if not np.isin(classes, range(1, VOC.num_classes)).all():
        raise ValueError(f"{path}: GTinst.Categories has {classes.tolist()}, expected classes from 1 to 20.")
    return Boxes(
        xyxy=np.array([_extent(instances == instance) for instance in present], np.float32).reshape(-1, 4),
        classes=classes.astype(np.int64),
        difficult=np.zeros(present.size, np.bool_),
        source=path,
    )


def _pixels(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):
        ids = np.ascontiguousarray(values, np.uint8)
    if values.ndim != 2 or not (ids == values).all():
        raise ValueError(f"{path}: Segmentation of {values.shape} is no mask of whole numbers from 0 to 255.")
    return ids


def _extent(pixels: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(pixels.any(axis=0)), np.flatnonzero(pixels.any(axis=1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _find(root: Path) -> Path | None:
    """The folder `dataset`: root itself, in it, or in a folder of it."""
    places = (root, *(folder / "dataset" for folder in (root, *folders_in(root))))
    return next((place for place in places if _is_sbd(place)), None)


def _is_sbd(folder: Path) -> bool:
    return (folder / "cls").is_dir() and any((folder / f"{name}.txt").is_file() for name in OWN)


def _find_voc(root: Path) -> Path | None:
    above = (root, *root.absolute().parents[:2])
    places = (folder / name for folder in above for name in ("VOCdevkit/VOC2012", "VOC2012"))
    return next((place for place in places if (place / "ImageSets").is_dir()), None)


def _splits(root: Path) -> tuple[str, ...]:
    dataset = _find(root)
    if dataset is None:
        return ()
    own = tuple(name for name in OWN if (dataset / f"{name}.txt").is_file())
    return (*own, *(MIXED if own == OWN and _find_voc(root) else ()))


LAYOUT = Layout(open=open_sbd, splits=_splits, about="SBD, .mat masks and instances, alone or mixed with VOC 2012")
