"""Data: files -> samples -> batches. A dataset layout is one file and one line in DATASETS."""

import contextlib
from pathlib import Path
from typing import Any

from veduta.config import Data, nearest
from veduta.data.layout import FileDataset, Layout, join
from veduta.data.layouts import camvid, cityscapes, coco, folder, imagenet, labelme, lists, sbd, shards, tfrecord, voc
from veduta.data.sample import InMemory, SampleDataset
from veduta.data.scenes import Scenes

DATASETS: dict[str, Layout] = {
    "camvid": camvid.LAYOUT,
    "cityscapes": cityscapes.LAYOUT,
    "coco": coco.LAYOUT,
    "folder": folder.LAYOUT,
    "imagenet": imagenet.LAYOUT,
    "labelme": labelme.LAYOUT,
    "lists": lists.LAYOUT,
    "sbd": sbd.LAYOUT,
    "shards": shards.LAYOUT,
    "tfrecord": tfrecord.LAYOUT,
    "voc": voc.LAYOUT,
}

GENERATED = {"scenes": Scenes}  # made, not read


def open_dataset(data: Data, split: str) -> SampleDataset:
    """One split of the data set that a recipe names. Raises ValueError or FileNotFoundError."""
    dataset: SampleDataset
    if data.dataset in GENERATED:
        if data.root:
            raise ValueError(f"{data.dataset} are generated and read no files, got {data.root}. Leave out --data.")
        dataset = GENERATED[data.dataset](split)
    elif data.dataset not in DATASETS:
        raise ValueError(f"dataset '{data.dataset}' is not known.{nearest(data.dataset, [*DATASETS, *GENERATED])}")
    elif not data.root:
        raise ValueError(f"dataset {data.dataset} needs --data PATH: {DATASETS[data.dataset].about}.")
    else:
        dataset = open_layout(data.dataset, Path(data.root), split)
    return InMemory(dataset) if data.in_memory else dataset


def open_layout(name: str, root: Path, split: str) -> FileDataset[Any]:
    """A split of a folder in a known layout, or several joined: `2007/trainval+2012/trainval`."""
    parts = split.split("+")
    if len(set(parts)) < len(parts):
        raise ValueError(f"split '{split}' names a split twice; every image counts once.")
    opened = {part: DATASETS[name].open(root, part) for part in parts}
    return join(opened) if len(opened) > 1 else opened[split]


def recognise(root: Path) -> dict[str, tuple[str, ...]]:
    """The layouts that a folder fits, with the splits found; a layout goes before those it is a special case of."""
    fits: dict[str, tuple[str, ...]] = {}
    for name, layout in DATASETS.items():
        with contextlib.suppress(OSError):  # a folder that may not be read
            if splits := layout.splits(root):
                fits[name] = splits
    general = {name for fit in fits for name in DATASETS[fit].special_case_of}
    return {name: splits for name, splits in fits.items() if name not in general}
