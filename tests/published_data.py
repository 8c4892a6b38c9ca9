"""What the published recipes read, each in its true layout, of the few pictures of `pictures.py`."""

from pathlib import Path

from pictures import PICTURES, Picture
from PIL import Image
from writers import cityscapes, imagenet, sbd, voc

NAMES = [picture.name for pictures in PICTURES.values() for picture in pictures]
VOC_TRAIN, VOC_VAL = NAMES[:2], NAMES[-1:]  # VOC's share of the pictures; SBD has them all
TRAIN_AUG = [name for name in NAMES if name not in VOC_VAL]


FOLDERS: dict[str, tuple[str, ...]] = {  # published recipe -> the folder for each of its stages
    "resnest50-imagenet": ("imagenet",),
    "resnest50-imagenet-mindspore": ("imagenet",),
    "resnest50-deeplabv3-cityscapes": ("cityscapes",),
    "resnest50-deeplabv3-cityscapes-ascend": ("cityscapes",),
    "deeplabv3plus-xception65-voc": ("VOCdevkit/VOC2012",),
    "deeplabv3plus-xception65-voc-train-aug": ("VOCdevkit/VOC2012",),
    "blitznet300-voc12": ("VOCdevkit/VOC2012",),
    "blitznet300-voc07+12": ("VOCdevkit",),
    "blitznet512-voc": ("VOCdevkit",),
    "refinenet101-voc": ("SBD", "VOCdevkit/VOC2012"),
}


def write(root: Path) -> Path:
    imagenet.write(root / "imagenet")
    cityscapes.write(root / "cityscapes")
    write_devkit(root / "VOCdevkit")
    sbd.write(root / "SBD")
    return root


def write_devkit(devkit: Path) -> None:
    """VOC 2007, and 2012 with SBD's masks as PNG."""
    voc.write_year(devkit / "VOC2007")
    write_list(devkit / "VOC2007/ImageSets/Main/trainval.txt", NAMES)
    year = voc.write_year(devkit / "VOC2012")
    lists = {"train": VOC_TRAIN, "val": VOC_VAL, "trainval": [*VOC_TRAIN, *VOC_VAL], "train_aug": TRAIN_AUG}
    for split, names in lists.items():
        write_list(year / f"ImageSets/Segmentation/{split}.txt", names)
    (year / "SegmentationClassAug").mkdir()
    for picture in (picture for pictures in PICTURES.values() for picture in pictures):
        _move_mask(year, picture)


def _move_mask(year: Path, picture: Picture) -> None:
    """VOC keeps the masks of its own images; SBD's are grey."""
    if picture.name not in (*VOC_TRAIN, *VOC_VAL):
        (year / f"SegmentationClass/{picture.name}.png").unlink()
        Image.fromarray(picture.mask).save(year / f"SegmentationClassAug/{picture.name}.png")


def write_list(path: Path, names: list[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names))
