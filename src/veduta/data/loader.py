"""From samples to training batches: shuffling, augmentation, worker processes, what to do with unreadable files.

The augmentation of a sample depends on run seed, epoch and sample index alone, never on the worker that makes it, so
the batches are the same bit for bit with any number of workers.
"""

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from veduta.config import Data
from veduta.data.augment.blitznet_crops import blitznet
from veduta.data.augment.geometry import draw_focus, draw_window, warp
from veduta.data.augment.imagenet_crops import imagenet
from veduta.data.augment.photometric import jitter
from veduta.data.augment.published_crops import deeplab, encoding, refinenet
from veduta.data.batch import Batch, collate
from veduta.data.layout import open_picture
from veduta.data.sample import Sample, SampleDataset
from veduta.errors import Unreadable

MOST_REPLACED = 16  # samples tried in place of one that cannot be read, before the run stops

Draw = tuple[int, int]  # (epoch, sample index): all that the augmentation of a sample depends on

PUBLISHED_CROPS = {"deeplab": deeplab, "refinenet": refinenet, "encoding": encoding}


def augment_sample(dataset: SampleDataset, index: int, data: Data, rng: np.random.Generator) -> Sample:
    """A sample as the network will see it in training, of `data.crop_size`."""
    augment, crop_size = data.augment, data.crop_size
    if augment.pipeline == "imagenet":
        picture, known = open_picture(dataset, index)
        return Sample(image=imagenet(picture, crop_size, augment, rng), name=known.name, scene_class=known.scene_class)
    sample = dataset[index]
    if augment.pipeline == "blitznet":
        return blitznet(sample, crop_size[0], rng)
    if augment.pipeline in PUBLISHED_CROPS:
        return PUBLISHED_CROPS[augment.pipeline](sample, crop_size, scale=augment.scale, flip=augment.flip, rng=rng)
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


class Drawn(NamedTuple):
    """A sample for a batch, and why others that it stands for could not be read; None where nothing could."""

    sample: Sample | None
    unreadable: tuple[str, ...] = ()


class AugmentedSamples(Dataset[Drawn]):
    """(epoch, index) -> the sample as the network will see it.

    A file that cannot be read comes as a reason, not as an exception, which would lose its words between processes.
    """

    def __init__(self, dataset: SampleDataset, data: Data, *, seed: int) -> None:
        self.dataset, self.data, self.seed = dataset, data, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Drawn:
        epoch, index = draw
        unreadable: list[str] = []
        for _ in range(MOST_REPLACED if self.data.unreadable == "replace" else 1):
            try:
                sample = augment_sample(
                    self.dataset, index, self.data, np.random.default_rng([self.seed, epoch, index])
                )
                return Drawn(sample, tuple(unreadable))
            except (ValueError, OSError) as error:
                unreadable.append(str(error))
                index = (index + 1) % len(self.dataset)
        return Drawn(None, tuple(unreadable))


class DrawBatches:
    """`steps` lists of `batch_size` draws. Each epoch is a new order of all samples; a batch may span two epochs.

    With several ranks, each takes its part of a batch of world_size * batch_size: together they see every sample once
    in an epoch, and what one rank with that larger batch would have seen. first: samples drawn before, of all ranks.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        steps: int,
        *,
        seed: int,
        first: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_samples, self.batch_size, self.steps, self.seed = num_samples, batch_size, steps, seed
        self.first, self.rank, self.world_size = first, rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.steps):
            first = self.first + (step * self.world_size + self.rank) * self.batch_size
            draws: list[Draw] = []
            for position in range(first, first + self.batch_size):
                if position // self.num_samples != epoch:
                    epoch = position // self.num_samples
                    order = self._order(epoch)
                draws.append((epoch, int(order[position % self.num_samples])))
            yield draws

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)


class Fed(NamedTuple):
    """A batch on its way, and why samples that others stand for could not be read; or the fault that ends the run.

    Boxes travel as arrays beside the batch: each tensor would cost a file descriptor.
    """

    batch: Batch | None
    boxes: list[tuple[NDArray[np.float32], NDArray[np.int64]]]
    unreadable: tuple[str, ...]
    fault: str = ""


def _collate(drawn: Sequence[Drawn]) -> Fed:
    samples = [part.sample for part in drawn if part.sample is not None]
    reasons = tuple(reason for part in drawn for reason in part.unreadable)
    if len(samples) < len(drawn):
        return Fed(None, [], (), _unreadable(next(part.unreadable for part in drawn if part.sample is None)))
    for field, word in (("mask", "mask"), ("boxes", "boxes"), ("scene_class", "class")):
        without = [sample.name for sample in samples if getattr(sample, field) is None]
        if 0 < len(without) < len(samples):
            return Fed(None, [], (), f"{without[0]} has no {word}, others have: one split is one kind of labels.")
    boxes = [(s.boxes, s.box_classes) for s in samples if s.boxes is not None and s.box_classes is not None]
    return Fed(collate([replace(s, boxes=None, box_classes=None) for s in samples]), boxes, reasons)


def _unreadable(reasons: tuple[str, ...]) -> str:
    if len(reasons) > 1:
        return f"{len(reasons)} training samples in a row cannot be read; the last: {reasons[-1]}"
    return (
        f"a training sample cannot be read: {reasons[0]}\n"
        "--set data.unreadable=replace, with --resume where there are checkpoints, takes the next for such ones, "
        "and counts them."
    )


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one thread per worker: workers must not fight over the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the run has a step to finish and save


def _received_ahead(fed: Iterator[Fed]) -> Iterator[Fed]:
    """The same, received by a thread: taking a batch over from a worker costs a millisecond or two of waiting."""
    waiting: queue.Queue[Fed | BaseException | None] = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def hand_over(what: Fed | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(what, timeout=0.1)
                return

    def receive() -> None:
        try:
            for part in fed:
                if part.batch is not None and not part.batch.images.is_pinned():
                    part = part._replace(batch=part.batch.in_own_memory())
                hand_over(part)
                if stopped.is_set():
                    return
            hand_over(None)
        except BaseException as error:  # whatever it is, it belongs to whoever waits for the batch
            hand_over(error)

    thread = threading.Thread(target=receive, name="batches", daemon=True)
    thread.start()
    try:
        while (part := waiting.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part
    finally:
        stopped.set()
        thread.join()


class TrainLoader:
    """Endless epochs cut into exactly `steps` batches, a bounded number of them made ahead; see `DrawBatches`.

    unreadable: how many samples could not be read and were replaced so far, by reason.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        data: Data,
        *,
        steps: int,
        seed: int,
        pin_memory: bool,
        first: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        draws = DrawBatches(
            len(dataset), data.batch_size, steps, seed=seed, first=first, rank=rank, world_size=world_size
        )
        self.unreadable: dict[str, int] = {}
        self._loader: DataLoader[Fed] = DataLoader(
            AugmentedSamples(dataset, data, seed=seed),  # type: ignore[arg-type]
            batch_sampler=draws,
            num_workers=data.workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            worker_init_fn=_quiet_worker,
            generator=torch.Generator().manual_seed(seed),  # its own: the model's random stream stays untouched
        )

    def __iter__(self) -> Iterator[Batch]:
        """Raises Unreadable where a sample cannot be read and data.unreadable is "stop", or where too many cannot."""
        fed = iter(self._loader)
        for batch, boxes, reasons, fault in _received_ahead(fed) if self._loader.num_workers else fed:
            if batch is None:
                raise Unreadable(fault)
            for reason in reasons:
                self.unreadable[reason] = self.unreadable.get(reason, 0) + 1
            if boxes:
                batch = batch._replace(
                    boxes=tuple(torch.from_numpy(b) for b, _ in boxes),
                    box_classes=tuple(torch.from_numpy(c) for _, c in boxes),
                )
            yield batch
