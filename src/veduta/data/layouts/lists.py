"""Image-mask lists: a text file for each split, with an image and its mask in each line.

    ROOT/train.txt                        lines `image mask`; with a tab between the two, paths may hold spaces
    ROOT/labels.json or ROOT/classes.csv  the classes and the void rule (docs/data.md)
The split is the name of its file without .txt. Paths are relative to ROOT or absolute, and may lead out of ROOT with
`..`: the lists are yours, and what they name is only read.
"""

import os
import re
from pathlib import Path

from veduta.data.layout import FileDataset, Layout, Record, read_lines, refuse_repeats, unknown_split
from veduta.data.stored import Stored
from veduta.labels import ENCODING, LabelMap, read_label_map

SPLIT = re.compile("train|val|test", re.IGNORECASE)  # in the names of lists
LABEL_FILES = ("labels.json", "classes.csv")

Key = tuple[str, Path, Path]  # name, image, mask


def open_lists(root: Path, split: str) -> FileDataset[Key]:
    """Images and masks of one split, in the order of its list file."""
    index = root / f"{split}.txt"
    if not index.is_file():
        known = sorted(path.stem for path in root.glob("*.txt"))
        if known:
            raise unknown_split(str(root), split, known)
        raise FileNotFoundError(f"{index} not found. --data must be the folder that holds it, got {root}.")
    return pairs_dataset(label_map_of(root), root, read_pairs(index), index)


def has_label_map(root: Path) -> bool:
    return any((root / name).is_file() for name in LABEL_FILES)


def label_map_of(root: Path) -> LabelMap:
    """The label map that lies in a folder. Raises ValueError for none or two, and for a wrong one."""
    found = [root / name for name in LABEL_FILES if (root / name).is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{root} must hold exactly one of labels.json and classes.csv, found {len(found)}. A classes.csv has the "
            "columns index,name,r,g,b; a row named void says which mask value is void."
        )
    return read_label_map(found[0])


def read_pairs(index: Path) -> list[tuple[str, str]]:
    """The lines `image mask` of a list file. Raises ValueError naming the line that is no pair, or an empty list."""
    pairs = [_pair(line, f"{index}, line {number}") for number, line in read_lines(index)]
    if not pairs:
        raise ValueError(f"{index} lists no images.")
    return pairs


def _pair(line: str, place: str) -> tuple[str, str]:
    match [part.strip() for part in (line.split("\t") if "\t" in line else line.split())]:
        case [image, mask] if image and mask:
            return image, mask
    raise ValueError(f"{place}: expected `image mask`, found '{line}'. Paths with spaces need a tab between the two.")


def pairs_dataset(labels: LabelMap, root: Path, pairs: list[tuple[str, str]], index: Path) -> FileDataset[Key]:
    """A data set of pairs below `root`. A name is the image's path below the folder that all images share."""
    files = [(root / image, root / mask) for image, mask in pairs]
    first = next((path for path in files[0] if not path.is_file()), None)
    if first is not None:
        raise FileNotFoundError(
            f"{first} not found; {index} names it first. Paths in a list are absolute or relative to {root}."
        )
    images = [Path(os.path.normpath(image.absolute())) for image, _ in files]
    shared = os.path.commonpath([path.parent for path in images])  # no name has `..`: predictions are written under it
    names = [path.relative_to(shared).with_suffix("").as_posix() for path in images]
    refuse_repeats(names, index)
    return FileDataset(labels, [(name, *pair) for name, pair in zip(names, files, strict=True)], _record)


def _record(key: Key) -> Record:
    name, image, mask = key
    return Record(name=name, image=Stored(image), mask=Stored(mask))


def _splits(root: Path) -> tuple[str, ...]:
    if not has_label_map(root):
        return ()
    lists = sorted(root.glob("*.txt"))
    whole = [index.stem for index in lists if _begins_with_a_pair(root, index)]
    broken = [index.stem for index in lists if SPLIT.search(index.stem) and index.stem not in whole]
    return (*whole, *broken) if whole else ()  # a list that does not open is told by its name, not passed over


def _begins_with_a_pair(root: Path, index: Path) -> bool:
    try:
        with index.open("rb") as file:
            line = file.readline(1 << 14).decode(ENCODING).strip()
        return all((root / path).is_file() for path in _pair(line, ""))
    except (OSError, ValueError):
        return False


LAYOUT = Layout(open=open_lists, splits=_splits, about="text files with an image and its index mask in each line")
