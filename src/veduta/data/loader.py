"""From samples to training batches: shuffling, augmentation, worker processes.

The augmentation of a sample depends on run seed, epoch and sample index alone, never on the worker that makes it, so
the batches are the same bit for bit with any number of workers.
"""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from veduta.config import Data
from veduta.data.geometry import draw_focus, draw_window, warp
from veduta.data.photometric import jitter
from veduta.data.sample import Batch, Sample, SampleDataset, collate

Draw = tuple[int, int]  # (epoch, sample index): all that the augmentation of a sample depends on


class AugmentedSamples(Dataset[Sample]):
    """(epoch, index) -> the sample as the network will see it, of `data.crop_size`."""

    def __init__(self, dataset: SampleDataset, data: Data, *, seed: int) -> None:
        self.dataset, self.data, self.seed = dataset, data, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Sample:
        epoch, index = draw
        sample = self.dataset[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        augment, crop_size = self.data.augment, self.data.crop_size
        focus = draw_focus(sample.mask, rng) if sample.mask is not None and rng.random() < augment.focus else None
        window = draw_window(
            sample.image.shape[:2],
            crop_size,
            scale=augment.scale,
            flip=augment.flip,
            rng=rng,
            focus=focus,
        )
        sample = warp(sample, window, crop_size)
        return replace(sample, image=jitter(sample.image, augment, rng))


class DrawBatches:
    """`steps` lists of `batch_size` draws. Each epoch is a new order of all samples; a batch may span two epochs."""

    def __init__(self, num_samples: int, batch_size: int, steps: int, *, seed: int) -> None:
        self.num_samples, self.batch_size, self.steps, self.seed = num_samples, batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        draws: list[Draw] = []
        epoch = 0
        for _ in range(self.steps):
            while len(draws) < self.batch_size:
                order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
                draws += [(epoch, int(index)) for index in order]
                epoch += 1
            yield draws[: self.batch_size]
            draws = draws[self.batch_size :]


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one thread per worker: workers must not fight over the cores


def train_loader(dataset: SampleDataset, data: Data, *, steps: int, seed: int, pin_memory: bool) -> DataLoader[Batch]:
    """Endless epochs cut into exactly `steps` batches."""
    return DataLoader(
        AugmentedSamples(dataset, data, seed=seed),  # type: ignore[arg-type]
        batch_sampler=DrawBatches(len(dataset), data.batch_size, steps, seed=seed),
        num_workers=data.workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_quiet_worker,
        generator=torch.Generator().manual_seed(seed),  # of its own, so that the model's random stream stays untouched
    )
