"""CamVid with 11 classes at 360x480, in the layout of the SegNet tutorial.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009. 367 train, 101 val, 233 test images.
    CamVid/train.txt             lines `train/NAME.jpg trainannot/NAME.png`, with or without /SegNet/CamVid/ before each
    CamVid/train/NAME.jpg        photos (.jpg or .png)
    CamVid/trainannot/NAME.png   8-bit class indices, 11 is void
and the same for val and test.
"""

from pathlib import Path

from veduta.data.layout import FileDataset, Layout, unknown_split
from veduta.data.layouts.lists import Key, pairs_dataset, read_pairs
from veduta.labels import LabelClass, LabelMap

SPLITS = ("train", "val", "test")
PUBLISHED = "/SegNet/CamVid/"  # where the authors' lists say the data set is

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}

LABELS = LabelMap(
    name="camvid",
    classes=tuple(LabelClass(file_id=i, name=n, color=c) for i, (n, c) in enumerate(CLASSES.items())),
    void_ids=(11,),
)


def open_camvid(root: Path, split: str) -> FileDataset[Key]:
    """Images and masks of one split, in the order of its list file."""
    root = root / "CamVid" if (root / "CamVid").is_dir() else root
    if split not in SPLITS:
        raise unknown_split("CamVid", split, SPLITS)
    index = root / f"{split}.txt"
    if not index.is_file():
        raise FileNotFoundError(f"{index} not found. --data must be the CamVid folder that holds it, got {root}.")
    pairs = [(image.removeprefix(PUBLISHED), mask.removeprefix(PUBLISHED)) for image, mask in read_pairs(index)]
    return pairs_dataset(LABELS, root, pairs, index)


def _splits(root: Path) -> tuple[str, ...]:
    root = root / "CamVid" if (root / "CamVid").is_dir() else root
    return tuple(s for s in SPLITS if (root / f"{s}.txt").is_file() and (root / f"{s}annot").is_dir())


LAYOUT = Layout(
    open=open_camvid,
    splits=_splits,
    about="CamVid, 11 classes, in the layout of the SegNet tutorial",
    special_case_of=("lists",),
)
