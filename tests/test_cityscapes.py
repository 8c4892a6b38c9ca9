"""What the Cityscapes layout promises on its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import PICTURES
from writers.cityscapes import CITY, train_ids, write

from veduta.data.layouts.cityscapes import LAYOUT, open_cityscapes
from veduta.labels import IGNORE_INDEX


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_are_the_19_classes_and_the_other_label_ids_are_void(root: Path, split: str) -> None:
    dataset = open_cityscapes(root, split)
    assert dataset.labels.num_classes == 19
    for sample, picture in zip((dataset[i] for i in range(len(dataset))), PICTURES[split], strict=True):
        assert sample.name == picture.name and (sample.image == picture.expected.image).all()
        assert sample.mask is not None and (sample.mask[0] == IGNORE_INDEX).all()
        assert np.array_equal(sample.mask[1:], train_ids(picture)[1:])


def test_the_test_split_has_no_masks_even_where_the_empty_ones_lie(root: Path) -> None:
    shutil.copytree(root / "leftImg8bit/val", root / "leftImg8bit/test")
    shutil.copytree(root / "gtFine/val", root / "gtFine/test")
    assert LAYOUT.splits(root) == ("train", "val", "test")
    assert open_cityscapes(root, "test")[0].mask is None


def test_train_extra_has_coarse_masks(root: Path) -> None:
    shutil.copytree(root / "leftImg8bit/val", root / "leftImg8bit/train_extra")
    assert "train_extra" not in LAYOUT.splits(root)
    folder = root / "gtCoarse/train_extra" / CITY
    folder.mkdir(parents=True)
    for mask in (root / "gtFine/val" / CITY).iterdir():
        shutil.copy(mask, folder / mask.name.replace("gtFine", "gtCoarse"))
    extra, val = open_cityscapes(root, "train_extra")[0].mask, open_cityscapes(root, "val")[0].mask
    assert "train_extra" in LAYOUT.splits(root)
    assert extra is not None and val is not None and np.array_equal(extra, val)


def test_missing_masks_are_counted_and_other_kinds_are_not_taken_for_them(root: Path) -> None:
    mask = root / "gtFine/train" / CITY / "2008_000003_gtFine_labelIds.png"
    mask.rename(mask.with_name("2008_000003_gtFine_labelTrainIds.png"))
    with pytest.raises(FileNotFoundError, match="1 of 4 images .* no labelIds mask.*labelTrainIds.png is there, but"):
        open_cityscapes(root, "train")
    mask.with_name("2008_000003_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2008_000003_gtFine_labelIds\.png not found: 1 of 4 images"):
        open_cityscapes(root, "train")


def test_a_split_without_images_is_refused(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit/val" / CITY)
    with pytest.raises(ValueError, match="leftImg8bit/val holds no CITY/"):
        open_cityscapes(root, "val")
    shutil.rmtree(root / "leftImg8bit/val")
    with pytest.raises(FileNotFoundError, match="leftImg8bit/val not found"):
        open_cityscapes(root, "val")
