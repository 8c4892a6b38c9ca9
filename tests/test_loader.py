"""Promises of the loader: every sample once per epoch, and batches that depend on the seed alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from veduta.config import Augment, Data
from veduta.data.folder import open_folder
from veduta.data.loader import AugmentedSamples, DrawBatches, train_loader
from veduta.data.sample import Batch, InMemory

DATA = Data(
    dataset="folder",
    crop_size=(33, 40),
    batch_size=2,
    augment=Augment(scale=(0.5, 2.0), brightness=0.3, saturation=0.3, gamma=0.2),
)


def batches(root: Path, *, seed: int = 0, workers: int = 0, steps: int = 4) -> list[Batch]:
    data = Data(**{**vars(DATA), "workers": workers})
    return list(train_loader(open_folder(root, "train"), data, steps=steps, seed=seed, pin_memory=False))


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        x.names == y.names and torch.equal(x.images, y.images) and torch.equal(masks(x), masks(y))
        for x, y in zip(a, b, strict=True)
    )


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


def test_batches_are_the_same_bit_for_bit_with_any_number_of_workers(folder_root: Path) -> None:
    assert equal(batches(folder_root), batches(folder_root, workers=2))


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
    first, again, later = samples[(0, 1)], samples[(0, 1)], samples[(1, 1)]
    assert (first.image == again.image).all()
    assert not np.array_equal(first.image, later.image)
