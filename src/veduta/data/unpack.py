"""Unpacking: a split of shards -> the files that it was packed from, in the layout `folder` or `imagenet`."""

import shutil
from pathlib import Path

from veduta.data.images import read_header
from veduta.data.layout import FileDataset, Record
from veduta.data.layouts.note import write_note
from veduta.data.layouts.shards import IMAGE_ENDINGS, Progress, open_shards, verify_shards
from veduta.data.pack import write_label_map
from veduta.data.stored import Stored
from veduta.labels import LabelMap


def unpack(root: Path, split: str, out: Path, *, progress: Progress) -> int:
    """Write a split of the shards below `root` as files below `out`, byte for byte. Returns the number of samples.

    Classified images become the layout `imagenet`: SPLIT/CLASS/NAME.jpg. All others become the layout `folder`:
    images/SPLIT/NAME.jpg, masks/SPLIT/NAME.png, and for boxes notes/SPLIT/NAME.json (note.py). labels.json comes with
    both. Raises FileExistsError where the split is there, ValueError for images with neither masks nor classes, where
    names cannot be those of files, or where the folders of classes would not be at the places of their classes; after
    an error nothing of the split is left.
    """
    dataset = open_shards(root, split)
    classified = dataset.labels.of == "images"
    if not classified and dataset.record(0).mask is None:  # and so none has one
        raise ValueError(
            f"{root}: images of split '{split}' have no masks, which layout folder needs. Use the shards as they are."
        )
    parts = [out] if classified else [out / "notes", out / "masks", out / "images"]  # what makes it a split comes last
    existing = next((part / split for part in parts if (part / split).exists()), None)
    if existing:
        raise FileExistsError(f"{existing} exists; nothing is overwritten. Choose another --out, or move it away.")
    verify_shards(root, split, lambda done, total: None)  # nothing damaged is written as if it were whole
    out.mkdir(parents=True, exist_ok=True)
    write_label_map(out, dataset.labels)
    unfinished = [part / f".{split}.tmp" for part in parts]
    try:
        for folder in unfinished:  # of an interrupted one
            shutil.rmtree(folder, ignore_errors=True)
        if classified:
            _write_classified(dataset, unfinished[0], out / "train", progress)
        else:
            _write_samples(dataset, *unfinished, progress=progress)
        for folder in unfinished:
            if folder.exists():
                folder.rename(folder.with_name(split))
    finally:
        for folder in unfinished:
            shutil.rmtree(folder, ignore_errors=True)
    return len(dataset)


def _write_samples(dataset: FileDataset[int], notes: Path, masks: Path, images: Path, *, progress: Progress) -> None:
    for index in range(len(dataset)):
        record = dataset.record(index)
        _write(images, f"{record.name}.{_ending(record)}", record.image.read(), record)
        if isinstance(record.mask, Stored):
            _write(masks, f"{record.name}.png", record.mask.read(), record)
        if record.boxes is not None or record.scene_class is not None:
            note = write_note(record.name, record.boxes, record.scene_class, dataset.labels)
            _write(notes, f"{record.name}.json", note, record)
        progress(index + 1, len(dataset))


def _write_classified(dataset: FileDataset[int], images: Path, train: Path, progress: Progress) -> None:
    """The index of a class is the place of its folder among those of train, or of this split where there is none."""
    classes: dict[str, int] = {}
    for index in range(len(dataset)):
        record = dataset.record(index)
        if record.scene_class is None:
            raise ValueError(f"{record.image}: no class, so it belongs into no folder. Pack the data set again.")
        folder, _, name = record.name.rpartition("/")  # CLASS/NAME is how it lay
        folder = folder or _folder_of(record.scene_class, dataset.labels)
        if classes.setdefault(folder, record.scene_class) != record.scene_class:
            raise ValueError(f"{record.image}: folder '{folder}' would hold two classes. Rename the samples.")
        _write(images, f"{folder}/{name}.{_ending(record)}", record.image.read(), record)
        progress(index + 1, len(dataset))
    folders = sorted(path.name for path in train.glob("[!.]*") if path.is_dir()) if train.is_dir() else sorted(classes)
    if len(folders) != dataset.labels.num_classes:
        raise ValueError(
            f"{images.parent}: {len(folders)} folders for {dataset.labels.num_classes} classes, and the index of a "
            "class is the place of its folder. Unpack a train split with images of every class first, or use the "
            "shards as they are."
        )
    if any(folder not in folders or folders.index(folder) != number for folder, number in classes.items()):
        raise ValueError(f"{images.parent}: the folders in the names of the samples do not sort as the classes do.")


def _folder_of(scene_class: int, labels: LabelMap) -> str:
    in_order = list(labels.names) == sorted(labels.names) and not any("/" in name for name in labels.names)
    return labels.names[scene_class] if in_order else f"{scene_class:04d}"


def _ending(record: Record) -> str:
    return IMAGE_ENDINGS[read_header(record.image).format]


def _write(folder: Path, name: str, data: bytes, record: Record) -> None:
    """Write a file, never over another. Raises ValueError for a name that leads elsewhere: it comes from a file."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or any(not part.strip(". ") for part in parts):
        raise ValueError(f"{record.image}: '{name}' is no name to write a file under. Nothing was unpacked.")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
