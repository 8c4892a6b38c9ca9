"""Judging every mask of a data set: `check_samples`, which `veduta train` starts with, against a plain loop over files.

    PYTHONPATH=src .bench/bin/python -m benchmarks.mask_check [how many]

2,000 palette masks of 500 x 375 (21 classes, borders of void) with a JPEG each, written into a temporary folder. The
plain loop is what people write: Pillow, numpy, `np.unique`, one thread; it only collects the values. Veduta counts the
pixels of each value, reads the headers of the images too, compares sizes, and remembers what it saw; in as many threads
as there are cores. Then Veduta once more, with nothing changed. Time on the clock, best of three; the files are in the
system's memory for all. Both must find the same values, and do. Takes about a minute.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from veduta.data.check import cache
from veduta.data.check.quick import check_samples
from veduta.data.label_maps import VOC
from veduta.data.layouts.folder import open_folder
from veduta.labels import IGNORE_INDEX, LabelMap

HEIGHT, WIDTH, COUNT, ROUNDS = 375, 500, 2000, 3


def paint(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Round regions of 1 to 4 classes on background, with void along their borders as VOC has it."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for train_id in rng.integers(1, VOC.num_classes, rng.integers(1, 5)).tolist():
        center, axes = rng.integers(0, (WIDTH, HEIGHT)).tolist(), rng.integers(20, 150, 2).tolist()
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(mask, center, axes, angle, 0, 360, train_id, -1)
        cv2.ellipse(mask, center, axes, angle, 0, 360, IGNORE_INDEX, 5)
    return mask


def write(root: Path, count: int) -> list[Path]:
    """A data set in the folder layout; returns its masks."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part / "train").mkdir(parents=True)
    (root / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(VOC))
    photo = cv2.resize(rng.integers(0, 256, (47, 63, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    masks = []
    for i in range(count):
        masks.append(root / f"masks/train/{i:06}.png")
        mask = Image.fromarray(paint(rng))
        mask.putpalette(VOC.palette.tobytes())
        mask.save(masks[-1])
        cv2.imwrite(str(root / f"images/train/{i:06}.jpg"), photo)
    return masks


def read_plainly(masks: list[Path]) -> set[int]:
    values: set[int] = set()
    for path in masks:
        values.update(np.unique(np.asarray(Image.open(path))).tolist())
    return values


def check(root: Path) -> set[int]:
    summary = check_samples(open_folder(root, "train"), name="train", progress=lambda done, total: None)
    return {*np.flatnonzero(summary.pixels).tolist(), *([IGNORE_INDEX] if summary.void else [])}


def best(call: Callable[[], set[int]], *, prepare: Callable[[], None]) -> tuple[float, set[int]]:
    times = []
    for _ in range(ROUNDS):
        prepare()
        start = time.perf_counter()
        values = call()
        times.append(time.perf_counter() - start)
    return min(times), values


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        root = Path(folder) / "data"
        masks = write(root, count)
        time.sleep(cache.SETTLED)  # younger files are not remembered
        plain, expected = best(lambda: read_plainly(masks), prepare=lambda: None)
        rows = {"plain loop": plain}
        remembered = Path(folder) / "cache/veduta/check.sqlite"
        assert remembered == cache.cache_file()
        rows["Veduta"], found = best(lambda: check(root), prepare=lambda: remembered.unlink(missing_ok=True))
        rows["Veduta, again"], again = best(lambda: check(root), prepare=lambda: None)
        assert found == again == expected
    print(f"{count:,} masks of {WIDTH} x {HEIGHT}, {os.cpu_count()} cores")
    print("\n| | seconds | masks/s | ratio |\n|---|---:|---:|---:|")
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.2f} | {count / seconds:,.0f} | {seconds / plain:.2f} |")
