"""Cityscapes' layout. Its photos are PNG and its classes are others, so that a thing gets another class here."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import PICTURES, Picture
from PIL import Image

from veduta.data.label_maps import CITYSCAPES

CITY = "zurich"


def write(root: Path) -> Path:
    for split, pictures in PICTURES.items():
        images, masks = root / "leftImg8bit" / split / CITY, root / "gtFine" / split / CITY
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for picture in pictures:
            Image.open(io.BytesIO(picture.jpeg)).save(images / f"{picture.name}_leftImg8bit.png")
            Image.fromarray(file_ids(picture)).save(masks / f"{picture.name}_gtFine_labelIds.png")
    return root


def train_ids(picture: Picture) -> NDArray[np.uint8]:
    """(H, W) uint8: thing k of VOC's classes is class k % 19 here, and the background is sky."""
    return np.where(picture.mask == 0, CITYSCAPES.names.index("sky"), picture.mask % 19).astype(np.uint8)


def file_ids(picture: Picture) -> NDArray[np.uint8]:
    """As `train_ids`, with the values of the files; the first row is part of the ego vehicle, file id 1, void."""
    ids = CITYSCAPES.decode(train_ids(picture))
    ids[0] = 1
    return ids
