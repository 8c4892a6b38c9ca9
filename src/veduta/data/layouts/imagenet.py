"""ImageNet, and any other images in one folder for each class.

Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge":
    ROOT/train/n01440764/NAME.JPEG      the index of a class is the place of its folder in sorted order
    ROOT/val/n01440764/NAME.JPEG        or all images in ROOT/val, and in ROOT one of the lists
        val.txt                                       lines `NAME.JPEG 65`: the index of the class
        LOC_val_solution.csv                          Kaggle's, lines `NAME,n03995372 85 1 499 272`
        imagenet_2012_validation_synset_labels.txt    a class in each line, in the order of the images
    ROOT/imagenet_class_index.json, LOC_synset_mapping.txt or synset_words.txt    what people call the classes
Splits and classes may have any names. Where Kaggle's ROOT/ILSVRC/Data/CLS-LOC is, the splits are looked for there. The
classes are the folders of train; where there is no train, those of the file of names, or else those of the split.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from veduta.data.images import IMAGE_ENDINGS
from veduta.data.label_maps import numbered
from veduta.data.layout import FileDataset, Layout, Record, read_lines, refuse_repeats, unknown_split
from veduta.data.layouts.json_file import read_json
from veduta.data.stored import Stored
from veduta.labels import LabelClass, LabelMap

KAGGLE = "ILSVRC/Data/CLS-LOC"
CLASS_INDEX = "imagenet_class_index.json"
WORDS = ("LOC_synset_mapping.txt", "synset_words.txt")  # lines `n01440764 tench, Tinca tinca`
SOLUTION = "LOC_val_solution.csv"
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
USUAL = ("train", "val", "valid", "validation", "test")  # one of these is there, or it is another layout


def open_imagenet(root: Path, split: str) -> FileDataset[str]:
    """The images of one split by class and name, in sorted order; a sample has no mask, and is called CLASS/NAME."""
    folder = _folder_of_splits(root) / split
    if not folder.is_dir():
        known = _splits(root)
        if known:
            raise unknown_split(f"{root}", split, known)
        raise FileNotFoundError(f"folder {folder} not found. Expected a folder for every split in {folder.parent}.")
    folders, images = _contents(folder)
    if folders and images:
        raise ValueError(f"{folder} holds folders of classes, and images: {images[0]}. Which class is that?")
    words = _read_words(root)
    train = folder.parent / "train"
    classes = (_class_folders(train) if train.is_dir() else []) or sorted(words) or _class_folders(folder)
    if images:
        keys = images
        class_of = _read_list(root, split, classes, [_stem(image) for image in images])
    else:
        keys = [f"{name}/{image}" for name in folders for image in _images_of_class(folder / name)]
        class_of = {name: index for index, name in enumerate(classes)}
        for name in folders:
            if name not in class_of:
                raise ValueError(f"{folder / name} is none of the {len(classes)} classes of {root}. Remove it.")
    if not keys:
        raise ValueError(f"{folder} holds no images ({', '.join(IMAGE_ENDINGS)}), nor do folders of classes in it.")
    refuse_repeats([_stem(key) for key in keys], folder)
    return FileDataset(_label_map(root, classes, words), keys, partial(_record, folder, class_of))


def _record(folder: Path, class_of: dict[str, int], key: str) -> Record:
    name = _stem(key)
    return Record(name=name, image=Stored(folder / key), scene_class=class_of[name.rpartition("/")[0] or name])


def _stem(file: str) -> str:
    return file.rpartition(".")[0]


def _label_map(root: Path, classes: Sequence[str], words: dict[str, str]) -> LabelMap:
    """Every class by what people call it; "crane" is a bird and a machine, so those have their folder added."""
    names = [words.get(name, name) for name in classes]
    count = Counter(names)
    names = [name if count[name] == 1 else f"{name} ({folder})" for name, folder in zip(names, classes, strict=True)]
    colors = [entry.color for entry in numbered(len(names), images=True).classes]
    pairs = enumerate(zip(names, colors, strict=True))
    return LabelMap(
        name=root.resolve().name,
        classes=tuple(LabelClass(file_id=index, name=name, color=color) for index, (name, color) in pairs),
        of="images",
    )


def _folder_of_splits(root: Path) -> Path:
    return root / KAGGLE if (root / KAGGLE).is_dir() else root


def _contents(folder: Path) -> tuple[list[str], list[str]]:
    """The folders and the images in a folder, sorted; one look at each entry, since train has 1.28 million."""
    folders, images = [], []
    for entry in _entries(folder):
        if entry.name.lower().endswith(IMAGE_ENDINGS):
            images.append(entry.name)
        elif entry.is_dir():
            folders.append(entry.name)
    return sorted(folders), sorted(images)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and is not hidden."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _class_folders(folder: Path) -> list[str]:
    """The folders of a split, sorted. A stray one would shift the index of every class behind it."""
    folders = _contents(folder)[0]
    for name in folders:
        if not _holds_an_image(folder / name):
            raise ValueError(
                f"{folder / name} holds no image; every folder of {folder.name} counts as a class, whose images lie "
                "right in it. Remove it, or move its images."
            )
    return folders


def _images_of_class(folder: Path) -> list[str]:
    folders, images = _contents(folder)
    if folders:
        raise ValueError(
            f"{folder / folders[0]} is a folder in the folder of a class, whose images lie right in it. Remove it, or "
            "move its images."
        )
    return images


def _read_words(root: Path) -> dict[str, str]:
    """Folder of a class -> its first English word, from the first file of names that is there."""
    path = root / CLASS_INDEX
    if path.is_file():
        content = read_json(path)
        match list(content.values()) if isinstance(content, dict) else None:
            case [*pairs] if all(_is_pair(pair) for pair in pairs):
                return {folder: word.replace("_", " ") for folder, word in pairs}
        raise ValueError(f'{path}: expected {{"0": ["n01440764", "tench"], ...}}: folder and name of each class.')
    for path in (root / name for name in WORDS):
        if path.is_file():
            lines = (line.partition(" ") for _, line in read_lines(path))
            return {folder: words.partition(",")[0].strip() or folder for folder, _, words in lines}
    return {}


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and v.isprintable() for v in value)


def _read_list(root: Path, split: str, classes: Sequence[str], images: list[str]) -> dict[str, int]:
    """Image -> class, from the list of a split whose images lie in one folder. images: their names, sorted."""
    index = _list_of(root, split)
    if index is None:
        wanted = f"{split}.txt" if split != "val" else f"val.txt, {SOLUTION} or {SYNSETS}"
        raise FileNotFoundError(f"{root / split} has no folders of classes, so it needs a list in {root}: {wanted}.")
    if not classes:
        raise FileNotFoundError(f"{index} needs the classes: folders in train, or {', '.join((CLASS_INDEX, *WORDS))}.")
    lines = read_lines(index)
    if index.name == SYNSETS and len(lines) != len(images):
        raise ValueError(f"{index} has {len(lines)} lines for {len(images)} images, which it must follow in order.")
    if index.name == SOLUTION:
        lines = lines[1:]  # the names of the columns
    number_of = {name: number for number, name in enumerate(classes)}
    by_number = {str(number): number for number in range(len(classes))}
    found: dict[str, int] = {}
    for position, (place, line) in enumerate(lines):
        if index.name == SYNSETS:
            image, number = images[position], number_of.get(line)
        elif index.name == SOLUTION:
            image, _, boxes = line.partition(",")
            number = number_of.get(boxes.partition(" ")[0])
        else:
            file, _, text = line.rpartition(" ")
            image, number = _stem(file.strip()), by_number.get(text)
        if number is None or image in found:
            why = "the class is not known" if number is None else "the image is listed before"
            raise ValueError(f"{index}, line {place}: '{line}': {why}. There are {len(classes)} classes.")
        found[image] = number
    if differing := sorted(found.keys() ^ set(images)):
        where = "has no image" if differing[0] in found else "is not listed"
        raise ValueError(f"{index} lists {len(found)} images, there are {len(images)}: {differing[0]} {where}.")
    return found


def _list_of(root: Path, split: str) -> Path | None:
    names = (f"{split}.txt", SOLUTION, SYNSETS) if split == "val" else (f"{split}.txt",)
    return next((root / name for name in names if (root / name).is_file()), None)


def _splits(root: Path) -> tuple[str, ...]:
    folder = _folder_of_splits(root)
    try:
        if not any((folder / name).is_dir() for name in USUAL):
            return ()
        found = [name for name in _contents(folder)[0] if _holds_classes(folder / name)]
        named = found or any((root / name).is_file() for name in (CLASS_INDEX, *WORDS))
        if named and (folder / "val").is_dir() and "val" not in found and _list_of(root, "val"):
            found.append("val")
        if {*USUAL} & {*found}:  # a split that does not open is told by its name; images of a test have no classes
            found += [n for n in USUAL if n != "test" and n not in found and (folder / n).is_dir()]
    except OSError:
        return ()
    return tuple(sorted(found)) if {*USUAL} & {*found} else ()


def _holds_classes(folder: Path) -> bool:
    """Whether there are folders with images, and no images beside them; it ends at the first one."""
    folders = []
    for entry in _entries(folder):
        if entry.name.lower().endswith(IMAGE_ENDINGS):
            return False
        if entry.is_dir():
            folders.append(Path(entry.path))
    return any(_holds_an_image(path) for path in folders)


def _holds_an_image(folder: Path) -> bool:
    return any(entry.name.lower().endswith(IMAGE_ENDINGS) for entry in _entries(folder))


LAYOUT = Layout(open=open_imagenet, splits=_splits, about="ImageNet, or your own images in a folder for each class")
