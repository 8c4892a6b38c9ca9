"""Writes a tiny data set in each layout. A new entry of DATASETS gets its line in LAYOUTS."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap

SIZE = (24, 32)  # height, width
LEVELS = 20  # the red of a pixel of train id i is LEVELS * i, so that a stub can read the truth off the image

TINY = LabelMap(
    name="tiny",
    classes=(
        LabelClass(file_id=10, name="sky", color=(120, 180, 230)),
        LabelClass(file_id=0, name="road", color=(110, 90, 130)),
        LabelClass(file_id=7, name="car", color=(40, 70, 190)),
    ),
    void_ids=(255, 3),
)


def paint(seed: int, num_classes: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H, W, 3) and its train ids (H, W): blocks of all classes, some void, and red that tells the class."""
    rng = np.random.default_rng(seed)
    height, width = size
    blocks = rng.permutation(np.arange(-(-height // 4) * -(-width // 4)) % (num_classes + 1)).astype(np.uint8)
    ids = blocks.reshape(-(-height // 4), -1).repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    image[..., 0] = np.where(ids == num_classes, 0, LEVELS * ids)
    return image, np.where(ids == num_classes, IGNORE_INDEX, ids).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_camvid(root: Path) -> Path:
    """CamVid's layout, three images per split."""
    for number, split in enumerate(("train", "val", "test")):
        lines = []
        for i in range(3):
            image, ids = paint(10 * number + i, 11)
            save(root / split / f"{split}{i}.png", image)
            save(root / f"{split}annot" / f"{split}{i}.png", np.where(ids == IGNORE_INDEX, 11, ids).astype(np.uint8))
            lines.append(f"{split}/{split}{i}.png {split}annot/{split}{i}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_folder(root: Path) -> Path:
    """The folder layout with labels.json and the splits train and val, three images each, one in a sub-folder."""
    for number, split in enumerate(("train", "val")):
        for i, name in enumerate(("a", "b", "sub/c")):
            image, ids = paint(10 * number + i, TINY.num_classes)
            save(root / "images" / split / f"{name}.png", image)
            save(root / "masks" / split / f"{name}.png", TINY.decode(ids))
    (root / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(TINY))
    return root


LAYOUTS: dict[str, Callable[[Path], Path | None]] = {
    "camvid": write_camvid,
    "folder": write_folder,
    "scenes": lambda root: None,  # generated
}
