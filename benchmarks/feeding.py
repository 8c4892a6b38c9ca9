"""The share of a training run that waits for data: one worker feeds, and a step of 20 ms computes on the other core.

    PYTHONPATH=src .bench/bin/python -m benchmarks.feeding

Photos of 500 x 375 as JPEG with their masks as PNG, on disk; scale, crop to 513, flip, batches of two: what one core
can prepare within a step. Waiting is the time inside `next()`, as `veduta train` counts it. The peer is torch's own
DataLoader over the same samples and draws, asked directly. Takes about half a minute.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from veduta.config import Augment, Data
from veduta.data import open_dataset
from veduta.data.batch import Batch, collate
from veduta.data.loader import AugmentedSamples, DrawBatches, Drawn, TrainLoader

STEP = 0.020  # seconds of computing per batch
STEPS, WARMUP = 300, 20
HEIGHT, WIDTH = 375, 500
NUM_PHOTOS = 40


def write_photos(root: Path) -> None:
    """A `folder` data set of smooth photos with fine grain (some 60 kB as JPEG) and masks of coherent regions."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part / "train").mkdir(parents=True)
    names = "".join(f"{i},class {i},{i},{i},{i}\n" for i in range(21))
    (root / "classes.csv").write_text(f"index,name,r,g,b\n{names}255,void,0,0,0\n")
    for number in range(NUM_PHOTOS):
        coarse = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        photo = np.clip(photo + rng.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)
        regions = rng.integers(0, 21, (HEIGHT // 40, WIDTH // 40), dtype=np.uint8)
        mask = cv2.resize(regions, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(root / f"images/train/{number:03}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 85])
        cv2.imwrite(str(root / f"masks/train/{number:03}.png"), mask)


def collate_drawn(drawn: list[Drawn]) -> Batch:
    return collate([part.sample for part in drawn if part.sample is not None])


def wait_share(batches: Iterator[Batch]) -> tuple[float, float]:
    """Share of the time spent in `next()` over STEPS steps, and its median in milliseconds."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, 2))
    waits = []
    for _ in range(WARMUP + STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        started = time.perf_counter()
        waits.append(started - asked)
        crop = batch.images[:, :, :129, :129].float()
        while time.perf_counter() - started < STEP:
            network(crop).mean().backward()
    counted = np.array(waits[WARMUP:])
    return float(counted.sum() / (counted.sum() + STEPS * STEP)), 1000 * float(np.median(counted))


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        data = Data(dataset="folder", root=folder, batch_size=2, workers=1, augment=Augment(scale=(0.5, 2.0)))
        dataset = open_dataset(data, "train")
        steps = WARMUP + STEPS + 1
        samples = AugmentedSamples(dataset, data, seed=0)
        started = time.thread_time()
        for draws in list(DrawBatches(len(dataset), 2, 40, seed=0)):
            collate_drawn([samples[draw] for draw in draws])
        print(f"one core prepares a batch in {1000 * (time.thread_time() - started) / 40:.1f} ms, a step takes 20 ms\n")
        plain: DataLoader[Batch] = DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=DrawBatches(len(dataset), 2, steps, seed=0),
            num_workers=1,
            collate_fn=collate_drawn,
        )
        print("| | share of the time that waits | median wait, ms |\n|---|---:|---:|")
        for name, batches in (
            ("Veduta", iter(TrainLoader(dataset, data, steps=steps, seed=0, pin_memory=False))),
            ("torch DataLoader", iter(plain)),
        ):
            share, median = wait_share(batches)
            print(f"| {name} | {100 * share:.2f} % | {median:.2f} |")


if __name__ == "__main__":
    main()
