"""The contract of every layout on disk: the same pictures come back equal, whichever layout they lie in."""

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import write_camvid
from numpy.typing import NDArray
from pictures import PICTURES, Picture
from writers import cityscapes, coco, folder, imagenet, labelme, lists, sbd, shards, tfrecord, voc

from veduta.config import Data
from veduta.data import DATASETS, open_dataset, open_layout, recognise
from veduta.data.layout import FileDataset
from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX

WRITERS: dict[str, Callable[[Path], Path]] = {
    "camvid": write_camvid,
    "cityscapes": cityscapes.write,
    "coco": coco.write,
    "folder": folder.write,
    "imagenet": imagenet.write,
    "labelme": labelme.write,
    "lists": lists.write,
    "sbd": sbd.write,
    "shards": shards.write,
    "tfrecord": tfrecord.write_blitznet,
    "voc": voc.write,
}

MASKS = ("coco", "folder", "labelme", "lists", "sbd", "shards", "tfrecord", "voc")  # with VOC's classes
BOXES = ("coco", "labelme", "sbd", "shards", "tfrecord", "voc")
DIFFICULT = ("shards", "tfrecord", "voc")


@pytest.fixture(scope="module", params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A layout's name, and a folder in that layout."""
    name: str = request.param
    return name, WRITERS[name](tmp_path_factory.mktemp(name))


def by_name(name: str, root: Path, split: str) -> dict[str, Sample]:
    dataset = open_layout(name, root, split)
    return {sample.name: sample for sample in (dataset[i] for i in range(len(dataset)))}


def test_every_layout_has_a_writer() -> None:
    assert WRITERS.keys() == DATASETS.keys()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_sample_keeps_the_promises_of_its_class(written: tuple[str, Path], split: str) -> None:
    dataset = open_layout(*written, split)
    assert len(dataset) >= 2
    names = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        names.add(sample.name)
        height, width = sample.image.shape[:2]
        assert sample.image.dtype == np.uint8 and sample.image.shape == (height, width, 3)
        assert sample.mask is not None or sample.boxes is not None or sample.scene_class is not None
        if sample.mask is not None:
            assert sample.mask.dtype == np.uint8 and sample.mask.shape == (height, width)
            assert set(np.unique(sample.mask)) <= {*range(dataset.labels.num_classes), IGNORE_INDEX}
        if sample.boxes is not None:
            count = len(sample.boxes)
            assert sample.box_classes is not None and sample.box_difficult is not None
            assert sample.boxes.shape == (count, 4) and sample.boxes.dtype == np.float32
            assert sample.box_classes.shape == (count,) and sample.box_classes.dtype == np.int64
            assert sample.box_difficult.shape == (count,) and sample.box_difficult.dtype == np.bool_
            assert (sample.boxes >= 0).all() and (sample.boxes <= [width, height, width, height]).all()
            assert set(sample.box_classes.tolist()) <= set(range(dataset.labels.num_classes))
        if sample.scene_class is not None:
            assert dataset.labels.of == "images" and 0 <= sample.scene_class < dataset.labels.num_classes
    assert len(names) == len(dataset)


def test_a_layout_is_recognised_with_its_splits_and_no_other_fits(written: tuple[str, Path]) -> None:
    name, root = written
    found = recognise(root)
    assert list(found) == [name]
    assert {"train", "val"} <= set(found[name])


def test_an_unknown_split_is_refused_with_the_known_ones(written: tuple[str, Path]) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"(?s)(?=.*trane)(?=.*\btrain\b)(?=.*\bval\b)"):
        open_layout(*written, "trane")


def test_a_folder_that_is_not_there_is_named(written: tuple[str, Path], tmp_path: Path) -> None:
    name, _ = written
    missing = tmp_path / "nowhere"
    assert DATASETS[name].splits(missing) == ()
    with pytest.raises(FileNotFoundError, match=re.escape(str(missing))):
        open_layout(name, missing, "train")
    with pytest.raises(ValueError, match=f"dataset {name} needs --data PATH"):
        open_dataset(Data(dataset=name), "train")


def test_an_empty_folder_is_of_no_layout(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert recognise(tmp_path) == {}


def test_a_data_set_is_the_same_in_a_worker(written: tuple[str, Path]) -> None:
    dataset = open_layout(*written, "train")
    again: FileDataset[object] = pickle.loads(pickle.dumps(dataset))
    assert len(again) == len(dataset)
    assert_same(again[1], dataset[1])


def test_joined_splits_follow_each_other(written: tuple[str, Path]) -> None:
    train, val = open_layout(*written, "train"), open_layout(*written, "val")
    joined = open_layout(*written, "train+val")
    assert len(joined) == len(train) + len(val)
    found, expected = joined[len(train)], val[0]
    assert found.name == f"val/{expected.name}"
    assert_same(replace(found, name=expected.name), expected)
    with pytest.raises(ValueError, match="split 'val\\+val' names a split twice"):
        open_layout(*written, "val+val")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", MASKS)
def test_masks_and_boxes_of_the_same_pictures_are_equal_in_every_layout(name: str, split: str, tmp_path: Path) -> None:
    found = by_name(name, WRITERS[name](tmp_path), split)
    pictures: dict[str, Picture] = {picture.name: picture for picture in PICTURES[split]}
    assert found.keys() == pictures.keys()
    for key, picture in pictures.items():
        expected, sample = picture.expected, found[key]
        assert np.abs(sample.image.astype(int) - expected.image).max() <= 3  # two JPEG decoders
        assert equal(sample.mask, expected.mask)
        if name in BOXES:
            assert sample.boxes is not None and expected.boxes is not None
            np.testing.assert_allclose(sample.boxes, expected.boxes, atol=1e-4)  # records hold shares of the size
            assert equal(sample.box_classes, expected.box_classes)
        if name in DIFFICULT:
            assert equal(sample.box_difficult, expected.box_difficult)


def assert_same(a: Sample, b: Sample) -> None:
    assert a.name == b.name and a.scene_class == b.scene_class
    for field in ("image", "mask", "boxes", "box_classes", "box_difficult"):
        x, y = getattr(a, field), getattr(b, field)
        assert (x is None and y is None) or equal(x, y)


def equal(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b)
