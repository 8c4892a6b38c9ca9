"""ImageNet's layout: pictures by their format, `tall` or `wide`."""

from pathlib import Path

from pictures import PICTURES, Picture

CLASSES = ("tall", "wide")


def write(root: Path) -> Path:
    for split, pictures in PICTURES.items():
        for picture in pictures:
            folder = root / split / class_of(picture)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{picture.name}.JPEG").write_bytes(picture.jpeg)
    return root


def class_of(picture: Picture) -> str:
    height, width = picture.size
    return "tall" if height > width else "wide"
