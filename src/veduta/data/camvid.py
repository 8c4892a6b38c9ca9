"""CamVid with 11 classes at 360x480, in the layout of the SegNet tutorial.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009. 367 train, 101 val, 233 test images.
    CamVid/train.txt             lines `train/NAME.jpg trainannot/NAME.png`, with or without /SegNet/CamVid/ before each
    CamVid/train/NAME.jpg        photos (.jpg or .png)
    CamVid/trainannot/NAME.png   8-bit class indices, 11 is void
and the same for val and test.
"""

from pathlib import Path

from veduta.data.sample import Sample, read_pair
from veduta.labels import LabelClass, LabelMap

SPLITS = ("train", "val", "test")

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


class CamVid:
    """Images and masks of one split, in the order of its list file."""

    labels = LabelMap(
        name="camvid",
        classes=tuple(LabelClass(file_id=i, name=n, color=c) for i, (n, c) in enumerate(CLASSES.items())),
        void_ids=(11,),
    )

    def __init__(self, root: Path | None, *, split: str) -> None:
        if root is None:
            raise ValueError(
                "dataset camvid needs --data PATH, the folder that holds train.txt, train/ and trainannot/."
            )
        root = root / "CamVid" if (root / "CamVid").is_dir() else root
        if split not in SPLITS:
            raise ValueError(f"CamVid has the splits {', '.join(SPLITS)}, not '{split}'.")
        index = root / f"{split}.txt"
        if not index.is_file():
            raise FileNotFoundError(f"{index} not found. --data must be the CamVid folder that holds it, got {root}.")
        self.root = root
        self.pairs: list[tuple[str, str]] = []
        published = "/SegNet/CamVid/"  # where the authors' lists say the data set is
        for number, line in enumerate(index.read_text().splitlines(), start=1):
            match line.split():
                case [image, mask]:
                    self.pairs.append((image.removeprefix(published), mask.removeprefix(published)))
                case [_, *_]:
                    raise ValueError(f"{index}, line {number}: expected `image mask`, found '{line}'.")
        if not self.pairs:
            raise ValueError(f"{index} lists no images.")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image, mask = self.pairs[index]
        return read_pair(self.root / image, self.root / mask, self.labels, name=Path(image).stem)
