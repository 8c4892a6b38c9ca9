"""Cityscapes: street scenes of 50 cities, 34 label ids of which 19 are classes.

Cordts et al. 2016, "The Cityscapes dataset for semantic urban scene understanding". 2975 train, 500 val, 1525 test.
    ROOT/leftImg8bit/train/CITY/CITY_SEQ_FRAME_leftImg8bit.png
    ROOT/gtFine/train/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png
and the same for val. CITY_SEQ_FRAME_gtFine_instanceIds.png is read for iIoU, where it lies beside its mask. Split test
has no masks (the published ones are empty: its labels stay with the authors' server).
Split train_extra has the coarse masks of gtCoarse.
"""

from functools import partial
from pathlib import Path

from veduta.data.label_maps import CITYSCAPES
from veduta.data.layout import FileDataset, Layout, Record, refuse_repeats, unknown_split
from veduta.data.stored import Stored

SPLITS = {"train": "gtFine", "val": "gtFine", "test": None, "train_extra": "gtCoarse"}  # split -> where its masks are

IMAGE_ENDING = "_leftImg8bit.png"


def open_cityscapes(root: Path, split: str) -> FileDataset[str]:
    """One split, sorted by city and name. A sample's name is CITY_SEQ_FRAME."""
    if split not in SPLITS:
        raise unknown_split("Cityscapes", split, tuple(SPLITS))
    images = root / "leftImg8bit" / split
    if not images.is_dir():
        raise FileNotFoundError(f"folder {images} not found. --data must hold leftImg8bit and gtFine, got {root}.")
    keys = sorted(
        f"{path.parent.name}/{path.name.removesuffix(IMAGE_ENDING)}" for path in images.glob(f"*/*{IMAGE_ENDING}")
    )
    if not keys:
        raise ValueError(f"{images} holds no CITY/*{IMAGE_ENDING}. Unpack leftImg8bit_trainvaltest.zip again.")
    refuse_repeats([Path(key).name for key in keys], images)
    record_of = partial(_record, root, split)
    masks = [record.mask.path for record in map(record_of, keys) if isinstance(record.mask, Stored)]
    without = [mask for mask in masks if not mask.is_file()]
    if without:
        raise FileNotFoundError(
            f"{without[0]} not found: {len(without)} of {len(keys)} images of split '{split}' have no labelIds mask."
            f"{_instead_of(without[0])} Unpack {SPLITS[split]}'s zip into {root}."
        )
    return FileDataset(CITYSCAPES, keys, record_of)


def _record(root: Path, split: str, key: str) -> Record:
    image = Stored(root / "leftImg8bit" / split / f"{key}{IMAGE_ENDING}")
    kind = SPLITS[split]
    mask = Stored(root / kind / split / f"{key}_{kind}_labelIds.png") if kind else None
    instances = root / "gtFine" / split / f"{key}_gtFine_instanceIds.png"
    return Record(
        name=Path(key).name, image=image, mask=mask, instances=Stored(instances) if instances.is_file() else None
    )


def _instead_of(mask: Path) -> str:
    """What lies where a mask is missing: other people's training code makes masks of its own."""
    for kind in ("labelTrainIds", "color"):
        other = mask.with_name(mask.name.replace("labelIds", kind))
        if other.is_file():
            return f" {other.name} is there, but the masks read here are labelIds: the train ids are made of them."
    return ""


def _splits(root: Path) -> tuple[str, ...]:
    folders = {
        split: [root / "leftImg8bit" / split, *([root / kind / split] if kind else [])]
        for split, kind in SPLITS.items()
    }
    return tuple(split for split, needed in folders.items() if all(folder.is_dir() for folder in needed))


LAYOUT = Layout(open=open_cityscapes, splits=_splits, about="Cityscapes, 19 classes, leftImg8bit and gtFine")
