"""Promises of Cityscapes' further scores: its own files and rules, every instance as heavy as the average one."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from veduta.data.label_maps import CITYSCAPES, VOC
from veduta.data.layouts.cityscapes import open_cityscapes
from veduta.data.stored import Stored
from veduta.tasks.cityscapes import AVERAGE_SIZES, CATEGORIES, category_iou, read_instances, weighted_counts
from veduta.tasks.confusion import count_pairs
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Rules, Scores
from veduta.tasks.prediction import Prediction

SIZE = (24, 32)
ROAD, PERSON, RIDER, CAR, TRUCK = (CITYSCAPES.names.index(n) for n in ("road", "person", "rider", "car", "truck"))
FULL = Rules(full=True)


def write_scene(root: Path, name: str, instances: NDArray[np.int32], *, with_instances: bool = True) -> None:
    """A photo of val, and its masks: label ids, and instance ids of 16 bits as in gtFine."""
    labels = np.where(instances >= 1000, instances // 1000, instances).astype(np.uint8)
    image = root / f"leftImg8bit/val/bonn/{name}_leftImg8bit.png"
    mask = root / f"gtFine/val/bonn/{name}_gtFine_labelIds.png"
    for path, pixels in ((image, np.zeros((*instances.shape, 3), np.uint8)), (mask, labels)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    if with_instances:
        Image.fromarray(instances.astype(np.uint16)).save(mask.with_name(f"{name}_gtFine_instanceIds.png"))


def street() -> NDArray[np.int32]:
    """Two cars of 40 and 8 pixels, a group of cars that were not told apart, a caravan, a person, road, and void."""
    ids = np.full(SIZE, 7, np.int32)
    ids[0] = 1
    ids[2:6, 2:12], ids[8:10, 2:6], ids[12:16, 2:12] = 26000, 26001, 26
    ids[2:6, 20:24], ids[10:14, 20:24] = 29000, 24000
    return ids


def train_ids(instances: NDArray[np.int32]) -> NDArray[np.uint8]:
    labels = np.where(instances >= 1000, instances // 1000, instances).astype(np.uint8)
    return CITYSCAPES.encode(labels, path="street")


def scored(root: Path, guesses: dict[str, NDArray[np.uint8]]) -> Scores:
    dataset, metric = open_cityscapes(root, "val"), MaskMetric(CITYSCAPES, FULL)
    for index in range(len(dataset)):
        sample = dataset[index]
        metric.update(Prediction(mask=guesses[sample.name]), sample)
    return metric.compute()


def test_instances_come_with_the_sample_and_weigh_the_same(tmp_path: Path) -> None:
    write_scene(tmp_path, "a", street())
    guess = train_ids(street())
    guess[guess == 255] = ROAD
    guess[8:10, 2:6] = ROAD  # the small car is missed
    guess[20:22, 0:5] = CAR  # ten pixels of road are not
    scores = scored(tmp_path, {"a": guess})
    average = AVERAGE_SIZES["car"]
    # Of the two cars one is found, each weighs an average car; the group is no instance; false pixels weigh 1.
    assert scores.per_class["iiou"][CAR] == pytest.approx(average / (2 * average + 10))
    assert scores.per_class["iou"][CAR] == (40 + 40) / (40 + 8 + 40 + 10)
    assert scores.per_class["iiou"][PERSON] == 1 and np.isnan(scores.per_class["iiou"][ROAD])
    assert scores.details["iiou"] == pytest.approx((1 + scores.per_class["iiou"][CAR]) / 2)


def test_what_is_confused_within_a_category_is_right_for_it(tmp_path: Path) -> None:
    write_scene(tmp_path, "a", street())
    guess = train_ids(street())
    guess[guess == 255] = ROAD
    guess[guess == CAR], guess[guess == PERSON] = TRUCK, RIDER
    scores = scored(tmp_path, {"a": guess})
    assert scores.per_class["iou"][CAR] == scores.per_class["iiou"][CAR] == 0
    assert scores.details["category_iou"] == scores.details["category_iiou"] == 1


def test_where_an_image_has_no_instances_there_is_no_iiou(tmp_path: Path) -> None:
    write_scene(tmp_path, "a", street())
    write_scene(tmp_path, "b", street(), with_instances=False)
    guess = train_ids(street())
    details = scored(tmp_path, {"a": guess, "b": guess}).details
    assert "category_iou" in details and "iiou" not in details and "category_iiou" not in details


def test_instances_are_read_by_the_full_rules_alone(tmp_path: Path) -> None:
    write_scene(tmp_path, "a", street())
    sample = open_cityscapes(tmp_path, "val")[0]
    assert sample.instances is not None
    sample.instances.path.write_bytes(b"nothing")
    prediction = Prediction(mask=train_ids(street()))
    MaskMetric(CITYSCAPES, Rules()).update(prediction, sample)
    with pytest.raises(ValueError, match="a_gtFine_instanceIds.png"):
        MaskMetric(CITYSCAPES, FULL).update(prediction, sample)


def test_other_classes_have_no_categories() -> None:
    assert "category_iou" not in MaskMetric(VOC, FULL).compute().details


def test_instance_ids_of_another_size_or_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.png"
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(path)
    assert read_instances(Stored(path), (4, 5)).shape == (4, 5)
    with pytest.raises(ValueError, match=r"ids\.png: PNG, 5 x 4; expected .* PNG of 6 x 4"):
        read_instances(Stored(path), (4, 6))
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match="one channel of 16 bits"):
        read_instances(Stored(path), (4, 5))


def test_every_class_has_a_category() -> None:
    assert sorted(name for names in CATEGORIES.values() for name in names) == sorted(CITYSCAPES.names)


def reference_instances(guess: NDArray[np.uint8], instances: NDArray[np.int32]) -> dict[str, list[float]]:
    """Hits and misses by name, instance by instance, as cityscapesScripts goes about it."""
    found: dict[str, list[float]] = {}
    class_of = {c.file_id: train_id for train_id, c in enumerate(CITYSCAPES.classes)}
    for number in np.unique(instances[instances > 1000]).tolist():
        train_id = class_of.get(number // 1000)
        if train_id is None:
            continue
        name, mask = CITYSCAPES.names[train_id], instances == number
        category = next(key for key, names in CATEGORIES.items() if name in names)
        members = [CITYSCAPES.names.index(other) for other in CATEGORIES[category]]
        weight = AVERAGE_SIZES[name] / mask.sum()
        for key, right in ((name, guess[mask] == train_id), (category, np.isin(guess[mask], members))):
            sums = found.setdefault(key, [0.0, 0.0])
            sums[0] += right.sum() * weight
            sums[1] += (~right).sum() * weight
    return found


@pytest.mark.parametrize("seed", range(10))
def test_weighted_counts_are_those_of_a_loop_over_instances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([7, 8, 11, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 1], (12, 16))
    numbers = np.where(rng.random((12, 16)) < 0.8, labels * 1000 + rng.integers(0, 4, (12, 16)), labels)
    instances = np.where(np.isin(labels, [7, 8, 11, 1]), labels, numbers)
    guess = rng.choice([*range(19), 255], (12, 16)).astype(np.uint8)
    found = weighted_counts(guess, instances.astype(np.uint16))
    expected = reference_instances(guess, instances)
    for column, name in enumerate((*AVERAGE_SIZES, "human", "vehicle")):
        np.testing.assert_allclose(found[:, column], expected.get(name, [0, 0]), rtol=1e-12)


def test_categories_are_counted_from_the_confusion_matrix() -> None:
    truth, guess = np.array([[ROAD, PERSON, CAR, 255]], np.uint8), np.array([[PERSON, RIDER, 255, CAR]], np.uint8)
    found = dict(zip(CATEGORIES, category_iou(count_pairs(guess, truth, 19)).tolist(), strict=True))
    assert found["flat"] == 0 and found["human"] == 0.5 and found["vehicle"] == 0
    assert np.isnan([found[name] for name in ("construction", "object", "nature", "sky")]).all()
