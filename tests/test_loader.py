"""Promises of the loader: every sample once per epoch, and batches that depend on the seed alone."""

import gc
import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from writers import imagenet, voc

from veduta.config import Augment, Data, Pipeline
from veduta.data import open_layout
from veduta.data.batch import Batch
from veduta.data.label_maps import VOC
from veduta.data.layouts.folder import open_folder
from veduta.data.loader import AugmentedSamples, DrawBatches, TrainLoader
from veduta.data.sample import InMemory, Sample
from veduta.ranks import share_of_rank

DATA = Data(
    dataset="folder",
    crop_size=(33, 40),
    batch_size=2,
    augment=Augment(scale=(0.5, 2.0), brightness=0.3, saturation=0.3, gamma=0.2),
)


def batches(root: Path, *, seed: int = 0, workers: int = 0, steps: int = 4) -> list[Batch]:
    data = Data(**{**vars(DATA), "workers": workers})
    return list(TrainLoader(open_folder(root, "train"), data, steps=steps, seed=seed, pin_memory=False))


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        x.names == y.names and torch.equal(x.images, y.images) and torch.equal(masks(x), masks(y))
        for x, y in zip(a, b, strict=True)
    )


PIPELINES = {
    "window": Augment(scale=(0.5, 2.0), focus=0.5, brightness=0.3),
    "deeplab": Augment(pipeline="deeplab", scale=(0.5, 2.0)),
    "refinenet": Augment(pipeline="refinenet", scale=(0.5, 3.0)),
    "encoding": Augment(pipeline="encoding", scale=(0.5, 2.0)),
    "blitznet": Augment(pipeline="blitznet"),
    "imagenet": Augment(pipeline="imagenet", policy="randaugment", brightness=0.4, lighting=0.1),
}


def test_every_pipeline_is_tried_here() -> None:
    assert tuple(PIPELINES) == get_args(Pipeline)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_makes_the_same_batches_in_workers_with_all_that_a_sample_has(
    pipeline: str, tmp_path: Path
) -> None:
    of_images = pipeline == "imagenet"
    root = (imagenet if of_images else voc).write(tmp_path)
    dataset = open_layout("imagenet" if of_images else "voc", root, "train")
    data = Data(dataset="", crop_size=(33, 33), batch_size=3, augment=PIPELINES[pipeline])
    alone, helped = (
        list(TrainLoader(dataset, replace(data, workers=workers), steps=3, seed=4, pin_memory=False))
        for workers in (0, 2)
    )
    for a, b in zip(alone, helped, strict=True):
        assert a.names == b.names and torch.equal(a.images, b.images)
        assert a.images.shape == (3, 3, 33, 33) and a.images.dtype == torch.uint8
        if of_images:
            assert a.scene_classes is not None and b.scene_classes is not None
            assert torch.equal(a.scene_classes, b.scene_classes)
            continue
        assert torch.equal(masks(a), masks(b)) and masks(a).shape == (3, 33, 33)
        assert a.boxes and b.boxes and a.box_classes and b.box_classes
        for x, y in (*zip(a.boxes, b.boxes, strict=True), *zip(a.box_classes, b.box_classes, strict=True)):
            assert torch.equal(x, y)


def masks(batch: Batch) -> torch.Tensor:
    assert batch.masks is not None
    return batch.masks


@pytest.mark.parametrize(("num_samples", "batch_size"), [(7, 3), (6, 3), (2, 5), (1, 4)])
def test_every_sample_comes_once_per_epoch_and_every_batch_is_full(num_samples: int, batch_size: int) -> None:
    steps = 10 * num_samples
    drawn = list(DrawBatches(num_samples, batch_size, steps, seed=0))
    assert len(drawn) == steps and {len(batch) for batch in drawn} == {batch_size}
    draws = [draw for batch in drawn for draw in batch]
    epochs = steps * batch_size // num_samples
    for epoch in range(epochs):
        part = draws[epoch * num_samples : (epoch + 1) * num_samples]
        assert sorted(part) == [(epoch, i) for i in range(num_samples)]


def test_each_epoch_has_another_order_and_each_seed_too() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [index for _, index in list(DrawBatches(20, 20, 3, seed=seed))[epoch]]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(o) for o in orders}) == 6
    assert orders[0] == order(0, 0)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_are_the_same_bit_for_bit_with_any_number_of_workers(folder_root: Path, workers: int) -> None:
    assert equal(batches(folder_root), batches(folder_root, workers=workers))


def test_batches_are_the_same_again_and_others_with_another_seed(folder_root: Path) -> None:
    first = batches(folder_root)
    torch.rand(3)  # the state of the global generators plays no part
    assert equal(first, batches(folder_root))
    assert not equal(first, batches(folder_root, seed=1))


def test_samples_kept_in_memory_are_read_once_and_cannot_be_changed(folder_root: Path) -> None:
    dataset = InMemory(open_folder(folder_root, "train"))
    sample = dataset[0]
    assert dataset[0] is sample
    assert len(dataset) == 3
    with pytest.raises(ValueError, match="read-only"):
        sample.image[0, 0] = 0


def test_a_longer_run_starts_like_a_shorter_one(folder_root: Path) -> None:
    assert equal(batches(folder_root, steps=2), batches(folder_root, steps=5)[:2])


def test_the_models_random_stream_stays_untouched(folder_root: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches(folder_root)
    assert torch.equal(torch.rand(3), expected)


def test_batches_have_the_crop_size_and_are_uint8(folder_root: Path) -> None:
    for batch in batches(folder_root):
        assert batch.images.shape == (2, 3, 33, 40) and batch.images.dtype == torch.uint8
        assert masks(batch).shape == (2, 33, 40) and masks(batch).dtype == torch.uint8
        assert set(batch.names) <= {"a", "b", "sub/c"}


def test_a_sample_is_augmented_anew_in_each_epoch(folder_root: Path) -> None:
    samples = AugmentedSamples(open_folder(folder_root, "train"), DATA, seed=0)
    first, again, later = (samples[draw].sample for draw in ((0, 1), (0, 1), (1, 1)))
    assert first and again and later
    assert (first.image == again.image).all()
    assert not np.array_equal(first.image, later.image)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_sample_comes_once_per_epoch_over_all_ranks(world_size: int) -> None:
    num_samples, batch_size, epochs = 12, 3, 5
    steps = epochs * num_samples // (batch_size * world_size)
    ranks = [
        [
            draw
            for batch in DrawBatches(num_samples, batch_size, steps, seed=1, rank=r, world_size=world_size)
            for draw in batch
        ]
        for r in range(world_size)
    ]
    draws = sorted(draw for rank in ranks for draw in rank)
    whole = steps * batch_size * world_size // num_samples
    assert draws[: whole * num_samples] == [(epoch, i) for epoch in range(whole) for i in range(num_samples)]


def test_ranks_share_what_one_rank_with_the_larger_batch_would_see() -> None:
    alone = list(DrawBatches(7, 6, 4, seed=3))
    ranks = [list(DrawBatches(7, 2, 4, seed=3, rank=rank, world_size=3)) for rank in range(3)]
    assert [a + b + c for a, b, c in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("num_samples", [0, 1, 2, 7, 49_984, 50_000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 64])
def test_evaluation_counts_every_sample_once_on_any_number_of_ranks(num_samples: int, world_size: int) -> None:
    shares = [share_of_rank(num_samples, rank, world_size) for rank in range(world_size)]
    assert sorted(i for share in shares for i in share) == list(range(num_samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_training_by_name_without_a_traceback(folder_root: Path, workers: int) -> None:
    (folder_root / "images/train/a.png").write_bytes(b"broken")
    with pytest.raises(
        ValueError, match=r"(?s)^a training sample cannot be read: .*a\.png.*data\.unreadable=replace"
    ) as caught:
        batches(folder_root, workers=workers)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_where_the_recipe_says_so_and_counted(folder_root: Path, workers: int) -> None:
    (folder_root / "images/train/a.png").write_bytes(b"broken")
    data = Data(**{**vars(DATA), "unreadable": "replace", "workers": workers})
    loader = TrainLoader(open_folder(folder_root, "train"), data, steps=6, seed=0, pin_memory=False)
    names = [name for batch in loader for name in batch.names]
    assert len(names) == 12 and set(names) == {"b", "sub/c"}
    assert list(loader.unreadable.values()) == [4]  # once in each of four epochs
    assert all("a.png" in reason for reason in loader.unreadable)


def test_training_stops_where_nothing_can_be_read_at_all(folder_root: Path) -> None:
    for path in (folder_root / "images/train").rglob("*.png"):
        path.write_bytes(b"broken")
    data = Data(**{**vars(DATA), "unreadable": "replace"})
    with pytest.raises(ValueError, match="^16 training samples in a row cannot be read; the last: .*png"):
        next(iter(TrainLoader(open_folder(folder_root, "train"), data, steps=1, seed=0, pin_memory=False)))


def test_a_loader_that_is_left_early_leaves_no_worker_and_no_thread(folder_root: Path) -> None:
    data = Data(**{**vars(DATA), "workers": 1})
    loader = iter(TrainLoader(open_folder(folder_root, "train"), data, steps=1000, seed=0, pin_memory=False))
    next(loader)
    del loader
    gc.collect()
    for worker in multiprocessing.active_children():
        worker.join(30)  # on a busy machine it ends a little later
    assert multiprocessing.active_children() == []
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.mark.parametrize(
    ("field", "words"), [("boxes", "has no boxes"), ("mask", "has no mask"), ("scene_class", "has no class")]
)
def test_samples_of_one_batch_have_the_same_kinds_of_labels_or_training_stops(field: str, words: str) -> None:
    image, mask = np.zeros((40, 48, 3), np.uint8), np.zeros((40, 48), np.uint8)
    whole = Sample(
        image=image,
        mask=mask,
        name="a",
        boxes=np.array([[1, 1, 20, 20]], np.float32),
        box_classes=np.ones(1, np.int64),
        scene_class=1,
    )

    class Mixed:
        labels = VOC

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Sample:
            without: dict[str, Any] = {field: None}
            return replace(whole, name="b", **without) if index else whole

    loader = TrainLoader(Mixed(), DATA, steps=1, seed=0, pin_memory=False)
    with pytest.raises(ValueError, match=f"^b {words}, others have: one split is one kind of labels"):
        next(iter(loader))
