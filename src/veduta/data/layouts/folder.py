"""Your own images and index masks, in folders.

    ROOT/labels.json or ROOT/classes.csv        the classes and the void rule (docs/data.md)
    ROOT/images/train/NAME.jpg                  any image format; sub-folders are fine
    ROOT/masks/train/NAME.png                   8-bit class indices or class colours, same name, same size
or, with lists instead of split folders:
    ROOT/images/NAME.jpg  ROOT/masks/NAME.png   and ROOT/train.txt with one NAME per line (ending optional)
and for boxes, which `veduta data unpack` writes:
    ROOT/notes/train/NAME.json                  for every image (note.py)
"""

import os
from functools import partial
from pathlib import Path

from veduta.data.images import IMAGE_ENDINGS
from veduta.data.layout import FileDataset, Layout, Record, read_lines, refuse_repeats
from veduta.data.layouts.lists import label_map_of
from veduta.data.layouts.note import read_note
from veduta.data.stored import Stored
from veduta.labels import ENCODING, LabelMap

MASK_ENDINGS = (".png",)

Name = tuple[str, Path, Path]  # name below the split, image, mask


def open_folder(root: Path, split: str) -> FileDataset[Name]:
    """Images and masks of one split, paired by name, in sorted (folders) or listed (lists) order."""
    for part in (root, root / "images", root / "masks"):
        if not part.is_dir():
            raise FileNotFoundError(f"folder {part} not found. Expected images/ and masks/ below --data {root}.")
    labels = label_map_of(root)
    split_list = root / f"{split}.txt"
    if split_list.is_file():
        images, masks = root / "images", root / "masks"
        wanted = [Path(line) for _, line in read_lines(split_list)]
        wanted = [n.with_suffix("") if n.suffix.lower() in IMAGE_ENDINGS else n for n in wanted]
    elif (root / "images" / split).is_dir():
        images, masks = root / "images" / split, root / "masks" / split
        wanted = sorted(p.relative_to(images).with_suffix("") for p in _files_below(images, IMAGE_ENDINGS))
    else:
        known = _splits(root)
        raise FileNotFoundError(
            f"split '{split}' not found: neither {split_list} nor the folder {root / 'images' / split} exists."
            + (f" Splits here: {', '.join(known)}." if known else " Make one of them.")
        )
    files = _by_stem(images, IMAGE_ENDINGS)
    missing = [n for n in wanted if n not in files]
    if missing:
        raise FileNotFoundError(f"{split_list} lists {missing[0]}, but no image of that name is in {images}.")
    refuse_repeats(wanted, split_list)
    if not wanted:
        raise ValueError(f"split '{split}' of {root} holds no images ({', '.join(IMAGE_ENDINGS)}).")
    mask_files = _by_stem(masks, MASK_ENDINGS)
    without = [name for name in wanted if name not in mask_files]
    if without:
        raise FileNotFoundError(
            f"{masks / without[0]}.png not found: {len(without)} of {len(wanted)} images of split '{split}' have no "
            f"mask. A mask has the name of its image and ends in .png.{_nearly(masks / without[0])}"
        )
    notes = root / "notes" / split
    record_of = partial(_record, labels, notes if notes.is_dir() else None)
    return FileDataset(labels, [(name.as_posix(), files[name], mask_files[name]) for name in wanted], record_of)


def _record(labels: LabelMap, notes: Path | None, key: Name) -> Record:
    name, image, mask = key
    if notes is None:
        return Record(name=name, image=Stored(image), mask=Stored(mask))
    note = Stored(notes / f"{name}.json")
    _, boxes, scene_class = read_note(note.read(), labels, source=note.path, where=note)
    return Record(name=name, image=Stored(image), mask=Stored(mask), boxes=boxes, scene_class=scene_class)


def _files_below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files of some endings, in sub-folders too, also where those are links. Hidden ones are not looked at."""
    files: list[Path] = []
    seen: dict[str, str] = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        first = seen.setdefault(os.path.realpath(place), place)
        if first != place:
            raise ValueError(f"{place} and {first} are one folder; every image counts once. Remove the link.")
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(place, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.suffix.lower() in endings and path.is_file()]
    return files


def _by_stem(folder: Path, endings: tuple[str, ...]) -> dict[Path, Path]:
    """Name without ending -> file. Two files of one name would make it open which mask belongs to which image."""
    files: dict[Path, Path] = {}
    for path in _files_below(folder, endings):
        name = path.relative_to(folder).with_suffix("")
        if name in files:
            raise ValueError(
                f"{files[name]} and {path} have the same name. Which one is the pair of the other folder? Rename one."
            )
        files[name] = path
    return files


def _nearly(mask: Path) -> str:
    """What may be meant for a missing mask: files of its name in other letters, with other endings or additions."""
    starts = tuple(f"{mask.name}{sign}".lower() for sign in "._-")
    near = sorted(path.name for path in mask.parent.glob("*") if path.name.lower().startswith(starts))
    return f" There is {' and '.join(near[:3])}." if near else ""


def _splits(root: Path) -> tuple[str, ...]:
    try:
        if not (root / "images").is_dir() or not (root / "masks").is_dir():
            return ()
        lists = {path.stem for path in root.glob("*.txt") if _begins_with_an_image(root, path)}
        folders = {path.name for path in (root / "images").iterdir() if (root / "masks" / path.name).is_dir()}
        return tuple(sorted(lists | folders))
    except OSError:
        return ()


def _begins_with_an_image(root: Path, index: Path) -> bool:
    with index.open("rb") as file:
        line = file.readline(1 << 12).decode(ENCODING, "replace").strip()
    endings = ("", *IMAGE_ENDINGS, *(ending.upper() for ending in IMAGE_ENDINGS))
    return bool(line) and any((root / "images" / f"{line}{ending}").is_file() for ending in endings)


LAYOUT = Layout(open=open_folder, splits=_splits, about="your own images and index masks, in folders")
