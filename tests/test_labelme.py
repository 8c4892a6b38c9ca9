"""What the LabelMe layout promises on its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import LABELS, PICTURES
from writers.labelme import content, write

from veduta.data.layouts.labelme import LAYOUT, open_labelme
from veduta.labels import IGNORE_INDEX

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


def edited(root: Path, edit: Edit) -> Path:
    """The data set with another content of its first file."""
    new = content(PICTURES["train"][0])
    edit(new)
    (root / "train/2008_000001.json").write_text(json.dumps(new))
    return root


def drawn(root: Path, *shapes: dict[str, object]) -> Path:
    return edited(root, lambda new: new.update(shapes=[{"label": "cat", **shape} for shape in shapes]))


def square(left: float, side: float, **fields: object) -> dict[str, object]:
    return {"points": [[left, 4], [left + side, 4 + side]], "shape_type": "rectangle", **fields}


@pytest.mark.parametrize("split", PICTURES)
def test_samples_are_the_pictures_sorted_by_name(root: Path, split: str) -> None:
    dataset = open_labelme(root, split)
    assert dataset.labels.names == LABELS.names
    for index, picture in enumerate(PICTURES[split]):
        sample, expected = dataset[index], picture.expected
        assert sample.name == expected.name
        for field in ("mask", "boxes", "box_classes"):
            assert np.array_equal(getattr(sample, field), getattr(expected, field))


def test_without_a_label_file_the_classes_are_background_and_all_labels_sorted(root: Path) -> None:
    (root / "classes.csv").unlink()
    present = {LABELS.names[thing.train_id] for pictures in PICTURES.values() for p in pictures for thing in p.things}
    for split in PICTURES:
        dataset = open_labelme(root, split)
        assert dataset.labels.names == ("background", *sorted(present))
    mask = dataset[0].mask
    assert mask is not None and set(np.unique(mask)) == {0, dataset.labels.names.index("dog")}


def test_later_shapes_are_painted_over_earlier_ones(root: Path) -> None:
    mask = open_labelme(drawn(root, square(0, 20), square(5, 5, label="dog")), "train")[0].mask
    assert mask is not None
    assert mask[5, 6] == LABELS.names.index("dog") and mask[5, 1] == LABELS.names.index("cat") and mask[0, 0] == 0


def test_a_circle_is_a_disc_and_its_box_is_around_it(root: Path) -> None:
    circle: dict[str, object] = {"shape_type": "circle", "points": [[30, 20], [30, 32]]}
    sample = open_labelme(drawn(root, circle), "train")[0]
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    disc = (x - 30) ** 2 + (y - 20) ** 2 < 12**2
    assert sample.mask is not None and sample.boxes is not None
    assert ((sample.mask > 0) != disc).sum() <= 4  # it has 256 corners
    assert np.abs(sample.boxes - [18, 8, 42, 32]).max() < 0.01


def test_shapes_of_one_label_and_group_are_one_object(root: Path) -> None:
    shapes = (
        square(0, 5, group_id=1),
        square(40, 5, group_id=1),
        square(20, 5, group_id=1, label="dog"),
        square(30, 2),
    )
    sample = open_labelme(drawn(root, *shapes), "train")[0]
    assert sample.boxes is not None and sample.box_classes is not None
    assert sample.boxes.tolist() == [[0, 4, 45, 9], [20, 4, 25, 9], [30, 4, 32, 6]]
    assert [LABELS.names[i] for i in sample.box_classes] == ["cat", "dog", "cat"]


def test_ignored_shapes_are_void_and_background_is_background_without_boxes(root: Path) -> None:
    shapes = (square(0, 20), square(2, 3, label="__ignore__"), square(8, 3, label="_background_"))
    sample = open_labelme(drawn(root, *shapes), "train")[0]
    assert sample.mask is not None and sample.boxes is not None
    assert sample.mask[5, 3] == IGNORE_INDEX and sample.mask[5, 9] == 0 and len(sample.boxes) == 1


def test_what_no_shape_covers_is_void_where_no_class_is_background(root: Path) -> None:
    (root / "classes.csv").write_text("index,name,r,g,b\n0,cat,1,2,3\n1,dog,4,5,6\n")
    for path in (root / "train").glob("2008_00000[234].json"):
        path.unlink()
    mask = open_labelme(drawn(root, square(0, 20)), "train")[0].mask
    assert mask is not None and mask[5, 5] == 0 and mask[0, 0] == IGNORE_INDEX


def test_a_copy_of_the_image_inside_of_the_file_is_not_needed_and_paths_may_come_from_windows(root: Path) -> None:
    (root / "photos").mkdir()
    (root / "train/2008_000001.jpg").rename(root / "photos/a.jpg")
    edited(root, lambda new: new.update(imagePath="..\\photos\\a.jpg", imageData="aGVsbG8="))
    assert open_labelme(root, "train")[0].name == "2008_000001"


def test_a_missing_image_is_named_with_its_file(root: Path) -> None:
    (root / "train/2008_000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2008_000001\.json: imagePath: .*2008_000001\.jpg not found"):
        open_labelme(root, "train")


def test_a_relative_folder_has_the_same_border(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert len(open_labelme(Path(), "train")) == len(PICTURES["train"])
    edited(root, lambda new: new.update(imagePath="../../secret.png"))
    with pytest.raises(ValueError, match=r"2008_000001\.json: imagePath: .*secret\.png is not below \."):
        open_labelme(Path(), "train")


def test_two_files_of_one_image_are_refused(root: Path) -> None:
    edited(root, lambda new: new.update(imagePath="../train/2008_000002.jpg"))
    with pytest.raises(ValueError, match=r"2008_000002\.json: .*2008_000002\.jpg is the image of .*2008_000001\.json"):
        open_labelme(root, "train")


def test_an_image_of_another_size_is_refused(root: Path) -> None:
    edited(root, lambda new: new.update(imageWidth=63))
    with pytest.raises(ValueError, match=r"2008_000001\.json: 63 x 48 .* an image of 64 x 48"):
        open_labelme(root, "train")[0]


def shape(**fields: object) -> Edit:
    return lambda new: new["shapes"][1].update(fields)


FAULTS: dict[str, tuple[Edit, str]] = {
    "a line": (shape(shape_type="line"), "shape 1, shape_type: 'line' of 2 points has no area that is read"),
    "a point": (shape(shape_type="point", points=[[1, 1]]), "shape 1, shape_type: 'point' of 1 points has no area"),
    "a mask": (shape(shape_type="mask"), "shape 1, shape_type: 'mask' of 2 points"),
    "a type that is a list": (shape(shape_type=[]), "shape 1, shape_type: "),
    "a circle of three points": (shape(shape_type="circle", points=[[1, 1]] * 3), "shape 1, shape_type: 'circle' of 3"),
    "no points": (shape(points=None), r"shape 1, points: expected a list of \[x, y\]"),
    "a point of three numbers": (shape(points=[[1, 2, 3]]), "shape 1, points: expected"),
    "a point of texts": (
        shape(points=[["1", "2"], ["3", "4"]]),
        "shape 1, points: expected x, y of three or more corners",
    ),
    "a point far off": (shape(points=[[1, 2], [3, 1e300]]), "shape 1, points: expected x, y of three"),
    "a polygon of two points": (shape(shape_type="polygon"), "shape 1, points: expected x, y of three"),
    "no label": (shape(label=None), "shape 1, label: expected a name, found None"),
    "an unknown label": (shape(label="unicorn"), r"shape 1, label: 'unicorn' is no class of .*\(background, aeroplane"),
    "a group that is a text": (shape(group_id="a"), "shape 1, group_id: expected a whole number or null"),
    "a shape that is none": (lambda new: new["shapes"].append(3), "shape 2, expected label and points, found 3"),
    "no shapes": (lambda new: new.pop("shapes"), "shapes: expected a list"),
    "no image": (lambda new: new.pop("imagePath"), "imagePath: expected a name, found None"),
    "an image elsewhere": (lambda new: new.update(imagePath="../../a.jpg"), "imagePath: .* is not below"),
    "an absolute image": (lambda new: new.update(imagePath="C:\\a.jpg"), "imagePath: .* is not below"),
    "no height": (lambda new: new.update(imageHeight=None), "imageHeight: expected a whole number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_file_shape_and_field(root: Path, fault: str) -> None:
    edit, message = FAULTS[fault]
    with pytest.raises(ValueError, match=rf"2008_000001\.json: {message}"):
        open_labelme(edited(root, edit), "train")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"shapes": [', b"\xff\xfe", b"[" * 100_000])
def test_a_file_of_something_else_is_named(root: Path, data: bytes) -> None:
    (root / "train/2008_000001.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"2008_000001\.json: "):
        open_labelme(root, "train")


def test_two_label_files_are_refused(root: Path) -> None:
    (root / "labels.json").write_text("{}")
    with pytest.raises(ValueError, match=r"exactly one of labels\.json and classes\.csv, found 2"):
        open_labelme(root, "train")


def test_splits_are_the_folders_with_files_of_labelme(root: Path) -> None:
    (root / "annotations").mkdir()
    (root / "annotations/instances_train.json").write_text('{"info": {}, "images": []}')
    (root / "empty").mkdir()
    assert LAYOUT.splits(root) == ("train", "val")
    assert LAYOUT.splits(root / "classes.csv") == ()
    with pytest.raises(ValueError, match=r"has the splits train, val, not 'test'"):
        open_labelme(root, "test")
