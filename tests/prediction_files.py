"""Data sets, and predictions of their images as other programs would write them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layouts import save, write_camvid, write_folder
from writers import cityscapes, coco, imagenet, voc

from veduta.data import open_layout
from veduta.data.layout import FileDataset
from veduta.data.sample import SampleDataset
from veduta.engine.evaluate import evaluate
from veduta.engine.sources import Source
from veduta.tasks.evaluation import Evaluation

WRITERS: dict[str, Callable[[Path], Path]] = {
    "camvid": write_camvid,
    "folder": write_folder,
    "voc": voc.write,
    "coco": coco.write,
    "cityscapes": cityscapes.write,
    "imagenet": imagenet.write,
}


def data_of(layout: str, root: Path) -> FileDataset[Any]:
    return open_layout(layout, WRITERS[layout](root), "val")


def scored(source: Source, dataset: SampleDataset) -> Evaluation:
    return evaluate(source, dataset, name="it", split="val", batch_size=1)


def write_masks(folder: Path, dataset: SampleDataset, name_of: Callable[[str], str] = str) -> Path:
    """The truth as predictions: file ids, void as the first void id."""
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.mask is not None
        save(folder / f"{name_of(sample.name)}.png", dataset.labels.decode(sample.mask))
    return folder


def coco_results(root: Path) -> list[dict[str, Any]]:
    """The truth as detections, in COCO's own words."""
    content = json.loads((root / "annotations/instances_val.json").read_text())
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.25 + 0.01 * i}
        for i, a in enumerate(content["annotations"])
    ]


def write_table(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path
