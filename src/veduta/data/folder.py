"""Your own images and index masks, in folders.

    ROOT/labels.json or ROOT/classes.csv        the classes and the void rule (docs/data.md)
    ROOT/images/train/NAME.jpg                  any image format; sub-folders are fine
    ROOT/masks/train/NAME.png                   8-bit class indices, same name, same size
or, with lists instead of split folders:
    ROOT/images/NAME.jpg  ROOT/masks/NAME.png   and ROOT/train.txt with one NAME per line (ending optional)
"""

from pathlib import Path

from veduta.data.layout import FileDataset, Layout, Record, read_lines, refuse_repeats
from veduta.data.stored import Stored
from veduta.labels import read_label_map

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

Name = tuple[str, Path, Path]  # name below the split, image, mask


def open_folder(root: Path, split: str) -> FileDataset[Name]:
    """Images and masks of one split, paired by name, in sorted (folders) or listed (lists) order."""
    for part in (root, root / "images", root / "masks"):
        if not part.is_dir():
            raise FileNotFoundError(f"folder {part} not found. Expected images/ and masks/ below --data {root}.")
    labels = read_label_map(_label_file(root))
    split_list = root / f"{split}.txt"
    if split_list.is_file():
        images, masks = root / "images", root / "masks"
        wanted = [Path(line) for _, line in read_lines(split_list)]
        wanted = [n.with_suffix("") if n.suffix.lower() in IMAGE_ENDINGS else n for n in wanted]
    elif (root / "images" / split).is_dir():
        images, masks = root / "images" / split, root / "masks" / split
        wanted = sorted(p.relative_to(images).with_suffix("") for p in _images_below(images))
    else:
        known = _splits(root)
        raise FileNotFoundError(
            f"split '{split}' not found: neither {split_list} nor the folder {root / 'images' / split} exists."
            + (f" Splits here: {', '.join(known)}." if known else " Make one of them.")
        )
    files = _by_stem(images)
    missing = [n for n in wanted if n not in files]
    if missing:
        raise FileNotFoundError(f"{split_list} lists {missing[0]}, but no image of that name is in {images}.")
    refuse_repeats(wanted, split_list)
    if not wanted:
        raise ValueError(f"split '{split}' of {root} holds no images ({', '.join(IMAGE_ENDINGS)}).")
    pairs = {name: (files[name], masks / name.parent / f"{name.name}.png") for name in wanted}
    without = [mask for _, mask in pairs.values() if not mask.is_file()]
    if without:
        raise FileNotFoundError(
            f"{without[0]} not found: {len(without)} of {len(pairs)} images of split '{split}' have no mask. "
            "A mask has the name of its image and ends in .png."
        )
    return FileDataset(labels, [(n.as_posix(), *pair) for n, pair in pairs.items()], _record)


def _record(key: Name) -> Record:
    name, image, mask = key
    return Record(name=name, image=Stored(image), mask=Stored(mask))


def _label_file(root: Path) -> Path:
    found = [path for path in (root / "labels.json", root / "classes.csv") if path.is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{root} must hold exactly one of labels.json and classes.csv, found {len(found)}. A classes.csv has the "
            "columns index,name,r,g,b; a row named void says which mask value is void."
        )
    return found[0]


def _images_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()]


def _by_stem(images: Path) -> dict[Path, Path]:
    """Name without ending -> image file. Two files of one name would make a mask ambiguous."""
    files: dict[Path, Path] = {}
    for path in _images_below(images):
        name = path.relative_to(images).with_suffix("")
        if name in files:
            raise ValueError(
                f"{files[name]} and {path} have the same name. Which one does the mask belong to? Rename one."
            )
        files[name] = path
    return files


def _splits(root: Path) -> tuple[str, ...]:
    if not (root / "images").is_dir() or not (root / "masks").is_dir():
        return ()
    lists = {p.stem for p in root.glob("*.txt")}
    folders = {p.name for p in (root / "images").iterdir() if p.is_dir()}
    return tuple(sorted(lists | folders))


LAYOUT = Layout(open=open_folder, splits=_splits, about="your own images and index masks, in folders")
