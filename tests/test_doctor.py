"""Promises of the check before training: all faults at once, by file; exact counts where there are none."""

from pathlib import Path

import numpy as np
import pytest
from layouts import TINY, paint, save

from veduta.data.doctor import MOST_SHOWN, SplitSummary, check_samples
from veduta.data.folder import open_folder


def check(root: Path) -> SplitSummary:
    return check_samples(open_folder(root, "train"), name="split 'train'", progress=lambda done, total: None)


def test_pixels_are_counted_per_class_and_void_apart(folder_root: Path) -> None:
    summary = check(folder_root)
    ids = np.concatenate([paint(i, TINY.num_classes)[1].reshape(-1) for i in range(3)])
    assert summary.num_samples == 3
    assert summary.pixels.tolist() == [int((ids == i).sum()) for i in range(3)]
    assert summary.void == (ids == 255).sum()


def test_progress_counts_to_the_end(folder_root: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset = open_folder(folder_root, "train")
    check_samples(dataset, name="train", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_faults_of_every_kind_are_listed_together_with_their_files(folder_root: Path) -> None:
    image, train_ids = paint(0, TINY.num_classes)
    (folder_root / "images/train/a.png").write_bytes(b"")
    foreign = TINY.decode(train_ids)
    foreign[0, 0] = 99
    save(folder_root / "masks/train/b.png", foreign)
    save(folder_root / "images/train/sub/c.png", image[:-1])
    with pytest.raises(ValueError, match="^3 of 3 samples of split 'train' cannot be used:") as caught:
        check(folder_root)
    _, *faults = str(caught.value).splitlines()
    for fault, expected in zip(faults, ("a.png: not a readable", "b.png: value 99", "c.png: the mask is"), strict=True):
        assert expected in fault


def test_many_faults_are_counted_and_the_first_are_listed(folder_root: Path) -> None:
    for i in range(MOST_SHOWN):
        save(folder_root / f"images/train/x{i}.png", paint(0, 3)[0])
        save(folder_root / f"masks/train/x{i}.png", np.full((24, 32), 99, np.uint8))
    for name in ("a", "b"):
        (folder_root / f"images/train/{name}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"^{MOST_SHOWN + 2} of {MOST_SHOWN + 3} samples") as caught:
        check(folder_root)
    assert len(str(caught.value).splitlines()) == MOST_SHOWN + 2
    assert str(caught.value).endswith("... and 2 more")


def test_a_split_that_is_all_void_is_refused(folder_root: Path) -> None:
    for name in ("a", "b", "sub/c"):
        save(folder_root / f"masks/train/{name}.png", np.full((24, 32), 255, np.uint8))
    with pytest.raises(ValueError, match="split 'train' has no pixel of any class in 3 samples: everything is void"):
        check(folder_root)
