"""Promises of the generated street scenes."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from veduta.config import Data
from veduta.data import open_dataset
from veduta.data.sample import Sample
from veduta.data.scenes import SPLITS, Scenes
from veduta.data.scenes.kinds import COUNTABLE
from veduta.labels import IGNORE_INDEX

Splits = dict[str, list[Sample]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    """The first 40 samples of each split."""
    return {split: [Scenes(split)[i] for i in range(40)] for split in SPLITS}


@pytest.fixture(scope="module")
def samples(splits: Splits) -> list[Sample]:
    return [sample for split in splits.values() for sample in split]


def known(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """mask, boxes, box_classes: scenes always have them."""
    assert sample.mask is not None and sample.boxes is not None and sample.box_classes is not None
    return sample.mask, sample.boxes, sample.box_classes


def test_a_sample_has_the_promised_shapes_and_types(samples: list[Sample]) -> None:
    for s in samples:
        mask, boxes, box_classes = known(s)
        assert s.image.shape == (192, 256, 3) and s.image.dtype == np.uint8
        assert mask.shape == (192, 256) and mask.dtype == np.uint8
        assert boxes.shape == (len(boxes), 4) and boxes.dtype == np.float32
        assert box_classes.shape == (len(boxes),) and box_classes.dtype == np.int64


def test_a_sample_is_the_same_in_whatever_order_it_is_read(splits: Splits) -> None:
    again = Scenes("val")
    for i in (9, 3, 0, 3):
        first, second = splits["val"][i], again[i]
        assert first.name == second.name and first.scene_class == second.scene_class
        for field in ("image", "mask", "boxes", "box_classes"):
            assert getattr(first, field).tobytes() == getattr(second, field).tobytes()


def test_no_image_occurs_twice_in_or_across_splits(samples: list[Sample]) -> None:
    assert len({s.image.tobytes() for s in samples}) == len(samples)
    assert len({s.name for s in samples}) == len(samples)


def test_masks_hold_only_train_ids_and_void(samples: list[Sample]) -> None:
    allowed = {*range(Scenes.labels.num_classes), IGNORE_INDEX}
    assert {int(v) for s in samples for v in np.unique(known(s)[0])} <= allowed


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_and_scene_class_occurs_in_each_split(splits: Splits, split: str) -> None:
    present = {int(v) for s in splits[split] for v in np.unique(known(s)[0])}
    assert present >= set(range(Scenes.labels.num_classes))
    assert {s.scene_class for s in splits[split]} == set(range(len(Scenes.scene_classes)))


def test_void_takes_a_few_percent_of_each_image(samples: list[Sample]) -> None:
    for s in samples:
        assert 0.003 < np.mean(known(s)[0] == IGNORE_INDEX) < 0.08, s.name


def test_boxes_are_tight_around_pixels_of_their_class(samples: list[Sample]) -> None:
    for s in samples:
        mask, boxes, box_classes = known(s)
        for (x0, y0, x1, y1), box_class in zip(boxes.astype(int), box_classes, strict=True):
            assert 0 <= x0 < x1 <= 256 and 0 <= y0 < y1 <= 192, s.name
            inside = mask[y0:y1, x0:x1] == box_class
            sides = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert inside.sum() >= 12 and all(side.any() for side in sides), s.name


def test_boxes_of_up_to_100_square_pixels_are_difficult(samples: list[Sample]) -> None:
    found = []
    for s in samples:
        assert s.boxes is not None and s.box_difficult is not None
        assert s.box_difficult.dtype == np.bool_
        areas = (s.boxes[:, 2] - s.boxes[:, 0]) * (s.boxes[:, 3] - s.boxes[:, 1])
        np.testing.assert_array_equal(s.box_difficult, areas <= 100)
        found += s.box_difficult.tolist()
    assert {*found} == {False, True}


def test_every_pixel_of_a_countable_class_lies_in_a_box_of_it(samples: list[Sample]) -> None:
    for s in samples:
        mask, boxes, box_classes = known(s)
        for kind in COUNTABLE:
            left = mask == kind
            for x0, y0, x1, y1 in boxes[box_classes == kind].astype(int):
                left[y0:y1, x0:x1] = False
            assert not left.any(), (s.name, kind.name)


def test_colour_alone_does_not_tell_the_classes_apart(samples: list[Sample]) -> None:
    """The best guess from coarse colour is far from right, so there is something to learn."""
    colors = np.concatenate([(s.image // 32).reshape(-1, 3) @ (64, 8, 1) for s in samples])
    classes = np.concatenate([known(s)[0].reshape(-1) for s in samples])
    counts = np.zeros((512, 256), np.int64)
    np.add.at(counts, (colors, classes), 1)
    counts = counts[:, : Scenes.labels.num_classes]
    assert counts.max(axis=1).sum() / counts.sum() < 0.75


@pytest.mark.parametrize("split", SPLITS)
def test_samples_end_with_the_split(split: str) -> None:
    scenes = Scenes(split)
    assert len(scenes) == SPLITS[split]
    for i in (len(scenes), -1):
        with pytest.raises(IndexError, match=f"0 to {len(scenes) - 1}"):
            scenes[i]


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'dev'.*train, val, test"):
        Scenes("dev")


def test_a_root_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="generated.*Leave out --data"):
        open_dataset(Data(dataset="scenes", root=str(tmp_path)), "train")
