"""What the COCO layout promises on its own."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import LABELS, PICTURES
from PIL import Image
from real_sets import needs, unpack
from writers.coco import content, runs, write

from veduta.data.label_maps import COCO
from veduta.data.layouts.coco import LAYOUT, open_coco
from veduta.labels import IGNORE_INDEX

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


def edited(root: Path, edit: Edit, split: str = "train") -> Path:
    """The data set with another content of a split's JSON."""
    new = content(split)
    edit(new)
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(new))
    return root


def first_mask(root: Path) -> NDArray[np.uint8]:
    mask = open_coco(root, "train")[0].mask
    assert mask is not None
    return mask


@pytest.mark.parametrize("split", PICTURES)
def test_samples_are_the_pictures_in_the_order_of_the_file(root: Path, split: str) -> None:
    dataset = open_coco(root, split)
    assert dataset.labels.names == LABELS.names
    for index, picture in enumerate(PICTURES[split]):
        sample, expected = dataset[index], picture.expected
        assert sample.name == expected.name
        for field in ("mask", "boxes", "box_classes"):
            assert np.array_equal(getattr(sample, field), getattr(expected, field))
        assert sample.box_difficult is not None and not sample.box_difficult.any()


def test_an_image_without_objects_counts_as_background(root: Path) -> None:
    sample = open_coco(root, "train")[2]
    assert sample.mask is not None and not sample.mask.any()
    assert sample.boxes is not None and sample.boxes.shape == (0, 4)


def test_the_80_classes_take_the_order_of_published_weights_by_name(root: Path) -> None:
    def rename(new: dict[str, Any]) -> None:
        new["categories"] = [{"id": 2 * i, "name": name} for i, name in enumerate(sorted(COCO.names[1:]))]
        for annotation in new["annotations"]:
            annotation["category_id"] = 2 * sorted(COCO.names[1:]).index("zebra")

    dataset = open_coco(edited(root, rename), "train")
    assert dataset.labels == COCO
    classes = dataset[0].box_classes
    assert classes is not None and {COCO.names[i] for i in classes} == {"zebra"}


def test_a_crowd_has_no_box_and_is_void_where_no_object_is(root: Path) -> None:
    crowd = np.zeros((48, 64), np.bool_)
    crowd[0:10, 0:30] = True

    def add(new: dict[str, Any]) -> None:
        last = {**new["annotations"][0], "id": 9, "iscrowd": 1, "bbox": [0, 0, 30, 10], "segmentation": runs(crowd)}
        new["annotations"].append(last)

    mask, before = first_mask(edited(root, add)), PICTURES["train"][0].mask
    assert np.array_equal(mask, np.where(crowd & (before == 0), IGNORE_INDEX, before))
    boxes = open_coco(root, "train").record(0).boxes
    assert boxes is not None and len(boxes.xyxy) == len(PICTURES["train"][0].things)


def test_smaller_objects_are_painted_over_larger_ones_whatever_their_order(root: Path) -> None:
    def cover(new: dict[str, Any]) -> None:
        whole = {"bbox": [0, 0, 64, 48], "segmentation": [[0, 0, 64, 0, 64, 48, 0, 48]], "category_id": 4}
        new["annotations"].append({**new["annotations"][0], **whole, "id": 9})

    mask, before = first_mask(edited(root, cover)), PICTURES["train"][0].mask
    assert np.array_equal(mask, np.where(before == 0, 1, before))


def test_an_object_of_several_polygons_is_their_union(root: Path) -> None:
    def split(new: dict[str, Any]) -> None:
        new["annotations"] = new["annotations"][:1]
        new["annotations"][0]["segmentation"] = [[0, 0, 9, 0, 9, 9, 0, 9], [5, 5, 20, 5, 20, 20, 5, 20]]

    mask = first_mask(edited(root, split))
    expected = np.zeros((48, 64), np.uint8)
    expected[0:9, 0:9] = expected[5:20, 5:20] = 15
    assert np.array_equal(mask, expected)


def test_boxes_stay_as_annotated_and_an_empty_one_is_kept(root: Path) -> None:
    def shrink(new: dict[str, Any]) -> None:
        new["annotations"][0]["bbox"] = [3.25, 4.5, 0, 2.125]

    boxes = open_coco(edited(root, shrink), "train").record(0).boxes
    assert boxes is not None and boxes.xyxy[0].tolist() == [3.25, 4.5, 3.25, 6.625]


@pytest.mark.parametrize("folder", ["images/train", "images", ".", "VOCdevkit/VOC2017/JPEGImages"])
def test_photos_are_found_in_the_usual_folders(root: Path, folder: str) -> None:
    photos = root / folder
    photos.mkdir(parents=True, exist_ok=True)
    for path in (root / "train").iterdir():
        path.rename(photos / path.name)
    assert open_coco(root, "train")[0].name == "2008_000001"


def test_the_photos_of_minival_are_those_of_val2014(root: Path) -> None:
    (root / "train").rename(root / "val2014")
    (root / "annotations/instances_train.json").rename(root / "annotations/instances_minival2014.json")
    assert len(open_coco(root, "minival2014")) == len(PICTURES["train"])


def test_photos_that_are_nowhere_are_named_with_the_folders(root: Path) -> None:
    (root / "train").rename(root / "photos")
    with pytest.raises(FileNotFoundError, match=r"2008_000001\.jpg not found in .*/train, .*/images/train, "):
        open_coco(root, "train")


def test_a_photo_of_another_size_is_refused(root: Path) -> None:
    Image.new("RGB", (32, 24)).save(root / "train/2008_000001.jpg")
    with pytest.raises(ValueError, match=r"instances_train\.json: 64 x 48 .* an image of 32 x 24"):
        open_coco(root, "train")[0]


def annotation(**fields: object) -> Edit:
    return lambda new: new["annotations"][1].update(fields)


def without(key: str) -> Edit:
    return lambda new: new["annotations"][1].pop(key)


def image(**fields: object) -> Edit:
    return lambda new: new["images"][1].update(fields)


def category(**fields: object) -> Edit:
    return lambda new: new["categories"][1].update(fields)


TRIANGLE = [1, 1, 5, 1, 5, 5]
NAN = float("nan")

FAULTS: dict[str, tuple[Edit, str]] = {
    "no id": (without("id"), "annotation None, id: expected a whole number"),
    "a text as id": (annotation(id="7"), "annotation '7', id: expected a whole number"),
    "no image": (without("image_id"), "annotation 501, image_id: expected a whole number from 0, found None"),
    "an unknown image": (annotation(image_id=99), "annotation 501, image_id: 99 is not in the file"),
    "an unknown category": (annotation(category_id=99), "annotation 501, category_id: 99 is not in the file"),
    "no box": (without("bbox"), "annotation 501, bbox: expected x, y, width, height in pixels, found None"),
    "a box of three": (annotation(bbox=[1, 2, 3]), "annotation 501, bbox: expected"),
    "a box of texts": (annotation(bbox=["1", "2", "3", "4"]), "annotation 501, bbox: expected"),
    "a negative width": (annotation(bbox=[1, 2, -3, 4]), "annotation 501, bbox: expected"),
    "x is NaN": (annotation(bbox=[NAN, 2, 3, 4]), "annotation 501, bbox: expected"),
    "y is NaN": (annotation(bbox=[1, NAN, 3, 4]), "annotation 501, bbox: expected"),
    "a width of NaN": (annotation(bbox=[1, 2, NAN, 4]), "annotation 501, bbox: expected"),
    "a height of NaN": (annotation(bbox=[1, 2, 3, NAN]), "annotation 501, bbox: expected"),
    "a box far off": (annotation(bbox=[1, 2, 10**400, 4]), "annotation 501, bbox: expected"),
    "iscrowd 2": (annotation(iscrowd=2), "annotation 501, iscrowd: expected 0 or 1, found 2"),
    "iscrowd a list": (annotation(iscrowd=[]), "annotation 501, iscrowd: expected 0 or 1"),
    "no outline": (without("segmentation"), "annotation 501, segmentation: missing"),
    "an empty outline": (annotation(segmentation=[]), "annotation 501, segmentation: expected polygons"),
    "half a point": (
        annotation(segmentation=[TRIANGLE, [*TRIANGLE, 1]]),
        "annotation 501, segmentation: expected x, y",
    ),
    "two corners": (annotation(segmentation=[[1, 1, 5, 5]]), "annotation 501, segmentation: expected x, y of three"),
    "a flat outline": (annotation(segmentation=TRIANGLE), "annotation 501, segmentation: expected x, y of three"),
    "runs of another size": (
        annotation(segmentation={"counts": [10, 10], "size": [4, 5]}),
        r"annotation 501, segmentation: size: \(4, 5\), its image has \(48, 64\)",
    ),
    "runs of no size": (annotation(segmentation={"counts": [10]}), "annotation 501, segmentation: expected polygons"),
    "runs too short": (
        annotation(segmentation={"counts": [10, 20], "size": [48, 64]}),
        "annotation 501, segmentation: counts: expected run lengths of 3,072 pixels",
    ),
    "an empty annotation": (lambda new: new["annotations"].append({}), "7 are listed, 6 are in the file"),
    "an annotation elsewhere": (lambda new: new.update(info=dict(new["annotations"][0])), "6 are listed, 7 are"),
    "an image twice": (image(id=10), "image 10, id: listed twice"),
    "a file twice": (image(file_name="2008_000001.png"), "lists 2008_000001 more than once"),
    "no file": (image(file_name=None), "image 11, file_name: expected a name, found None"),
    "a file of another folder": (image(file_name="../val/x.jpg"), "image 11, file_name: expected a file below"),
    "an absolute file": (image(file_name="/etc/x.jpg"), "image 11, file_name: expected a file below"),
    "a file called .": (image(file_name="."), "image 11, file_name: expected a file below"),
    "a file with a zero byte": (image(file_name="a\0.jpg"), "image 11, file_name: expected a name"),
    "no height": (image(height="48"), "image 11, height: expected a whole number"),
    "a category twice": (category(id=61), "categories: expected ids and names that differ"),
    "a name twice": (category(name="person"), "categories: expected ids and names that differ"),
    "a category called background": (category(name="background"), "none called background"),
    "a category without a name": (category(name=""), "name: expected a name"),
    "too many categories": (
        lambda new: new.update(categories=[{"id": i, "name": f"c{i}"} for i in range(255)]),
        "categories: 255, the limit is 254",
    ),
    "no images": (lambda new: new.update(images=[]), "images: none are listed"),
    "images that are none": (lambda new: new.update(images=[1]), "images: expected a list of objects"),
    "no annotations": (lambda new: new.pop("annotations"), "annotations: expected a list of objects"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_file_annotation_and_field(root: Path, fault: str) -> None:
    edit, message = FAULTS[fault]
    with pytest.raises(ValueError, match=rf"(?s)instances_train\.json.*{message}"):
        open_coco(edited(root, edit), "train")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b'{"images": [', b"\xff\xfe", b"[" * 100_000, b'{"id": ' + b"1" * 5000 + b"}"]
)
def test_a_file_of_something_else_is_named(root: Path, data: bytes) -> None:
    (root / "annotations/instances_train.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"instances_train\.json: "):
        open_coco(root, "train")


def test_annotations_travel_to_workers_as_a_few_arrays(root: Path) -> None:
    def repeat(new: dict[str, Any]) -> None:
        new["annotations"] = [
            {**new["annotations"][i % 5], "id": i, "segmentation": [[1.5, 2.5] * 20]} for i in range(1000)
        ]

    dataset = open_coco(edited(root, repeat), "train")
    per_annotation = len(pickle.dumps(dataset)) / 1000
    assert per_annotation < 40 * 4 + 100  # the polygon of 40 float32, and everything else


def test_splits_are_the_files_of_instances(root: Path, tmp_path: Path) -> None:
    (root / "annotations/person_keypoints_train.json").write_text("{}")
    assert LAYOUT.splits(root) == ("train", "val")
    (tmp_path / "plain").write_text("a file")
    assert LAYOUT.splits(tmp_path / "plain") == ()
    with pytest.raises(ValueError, match=r"has the splits train, val, not 'test'"):
        open_coco(root, "test")


@needs("coco-person.zip")
def test_masks_agree_with_those_that_another_program_painted_of_the_same_outlines(tmp_path: Path) -> None:
    unpack("coco-person.zip", tmp_path)
    dataset = open_coco(tmp_path, "val")
    wrong = counted = 0
    for index in range(30):
        sample = dataset[index]
        reference = np.asarray(Image.open(tmp_path / f"VOCdevkit/VOC2017/SegmentationClass/{sample.name}.png"))
        assert sample.mask is not None
        certain = reference != IGNORE_INDEX
        wrong += int((sample.mask != reference)[certain].sum())
        counted += int(certain.sum())
    assert wrong < counted / 1000
