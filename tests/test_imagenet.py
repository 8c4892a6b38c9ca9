"""What the layout of ImageNet promises on its own, and what the folder layout says of masks that are nearly there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import PICTURES
from real_sets import needs, unpack
from writers import folder
from writers.imagenet import CLASSES, class_of, write

from veduta.data.layouts.folder import LAYOUT as FOLDER
from veduta.data.layouts.folder import open_folder
from veduta.data.layouts.imagenet import LAYOUT, open_imagenet

VAL = sorted(PICTURES["val"], key=lambda picture: picture.name)

LISTS: dict[str, Callable[[], str]] = {
    "val.txt": lambda: "".join(f"{p.name}.JPEG {CLASSES.index(class_of(p))}\n" for p in reversed(VAL)),
    "LOC_val_solution.csv": lambda: (
        "ImageId,PredictionString\n" + "".join(f"{p.name},{class_of(p)} 1 2 3 4 tall 5 6 7 8 \n" for p in reversed(VAL))
    ),
    "imagenet_2012_validation_synset_labels.txt": lambda: "".join(f"{class_of(p)}\n" for p in VAL),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.fixture
def flat(root: Path) -> Path:
    """All images of val in one folder."""
    for name in CLASSES:
        for path in (root / "val" / name).iterdir():
            path.rename(root / "val" / path.name)
        (root / "val" / name).rmdir()
    return root


@pytest.mark.parametrize("split", PICTURES)
def test_samples_have_the_class_of_their_folder_and_no_mask(root: Path, split: str) -> None:
    dataset = open_imagenet(root, split)
    assert dataset.labels.of == "images" and dataset.labels.names == CLASSES
    found = {sample.name: sample for sample in (dataset[i] for i in range(len(dataset)))}
    assert [*found] == sorted(f"{class_of(p)}/{p.name}" for p in PICTURES[split])
    for picture in PICTURES[split]:
        sample = found[f"{class_of(picture)}/{picture.name}"]
        assert sample.scene_class == CLASSES.index(class_of(picture))
        assert np.abs(sample.image.astype(int) - picture.expected.image).max() <= 3  # two JPEG decoders
        assert sample.mask is None and sample.boxes is None


def test_all_splits_have_the_classes_of_train(root: Path) -> None:
    shutil.rmtree(root / "val/tall")
    dataset = open_imagenet(root, "val")
    assert dataset.labels == open_imagenet(root, "train").labels
    assert dataset[0].scene_class == 1


def test_a_class_that_train_lacks_is_refused(root: Path) -> None:
    (root / "val/tall").rename(root / "val/thin")
    with pytest.raises(ValueError, match="val/thin is none of the 2 classes"):
        open_imagenet(root, "val")


@pytest.mark.parametrize("name", LISTS)
def test_images_in_one_folder_have_the_classes_of_a_list(flat: Path, name: str) -> None:
    (flat / name).write_text(LISTS[name]())
    dataset = open_imagenet(flat, "val")
    assert [(sample.name, sample.scene_class) for sample in (dataset[i] for i in range(len(dataset)))] == [
        (picture.name, CLASSES.index(class_of(picture))) for picture in VAL
    ]
    assert LAYOUT.splits(flat) == ("train", "val")


@pytest.mark.parametrize("names", ["imagenet_class_index.json", "LOC_synset_mapping.txt", "synset_words.txt"])
def test_without_train_the_classes_are_those_of_a_file_of_names(flat: Path, names: str) -> None:
    shutil.rmtree(flat / "train")
    (flat / "val.txt").write_text(LISTS["val.txt"]())
    with pytest.raises(FileNotFoundError, match=r"val\.txt needs the classes"):
        open_imagenet(flat, "val")
    table = {"0": ["tall", "high_format"], "1": ["wide", "broad"]}
    lines = "tall high format, upright\nwide broad\n"
    (flat / names).write_text(json.dumps(table) if names.endswith("json") else lines)
    dataset = open_imagenet(flat, "val")
    assert dataset.labels.names == ("high format", "broad")
    assert dataset[0].scene_class == CLASSES.index(class_of(VAL[0]))
    assert LAYOUT.splits(flat) == ("val",)


def test_two_classes_of_one_word_are_told_apart_by_their_folders(root: Path) -> None:
    (root / "LOC_synset_mapping.txt").write_text("tall crane\nwide crane, machine\nother thing\n")
    assert open_imagenet(root, "train").labels.names == ("crane (tall)", "crane (wide)")


def test_the_tree_of_kaggle_is_found(flat: Path, tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    (root / "ILSVRC/Data/CLS-LOC").mkdir(parents=True)
    for split in PICTURES:
        shutil.move(flat / split, root / "ILSVRC/Data/CLS-LOC" / split)
    (root / "LOC_val_solution.csv").write_text(LISTS["LOC_val_solution.csv"]())
    assert LAYOUT.splits(root) == ("train", "val")
    assert len(open_imagenet(root, "train")) == 4 and len(open_imagenet(root, "val")) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("val.txt", "2009_000001.JPEG 0\n2009_000002.JPEG 2\n", r"line 2: .*the class is not known\. There are 2"),
        ("val.txt", "2009_000001.JPEG 0\n2009_000002.JPEG -1\n", "line 2: .*the class is not known"),
        ("val.txt", "2009_000001.JPEG\n", "line 1: .*the class is not known"),
        ("val.txt", "2009_000001.JPEG 0\n2009_000001.JPEG 0\n", "line 2: .*the image is listed before"),
        ("val.txt", "2009_000001.JPEG 0\n", "lists 1 images, there are 2: 2009_000002 is not listed"),
        ("val.txt", LISTS["val.txt"]() + "x.JPEG 1\n", "lists 3 images, there are 2: x has no image"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\n2009_000001,n01 1 2\n", "line 2: .*the class is not known"),
        ("imagenet_2012_validation_synset_labels.txt", "tall\n", "has 1 lines for 2 images"),
        ("val.txt", "\udcff", "not UTF-8 text"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_its_line(flat: Path, name: str, text: str, message: str) -> None:
    (flat / name).write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        open_imagenet(flat, "val")


def test_images_without_classes_ask_for_a_list(flat: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"needs a list in .*: val\.txt, LOC_val_solution\.csv or "):
        open_imagenet(flat, "val")
    assert LAYOUT.splits(flat) == ("train", "val")  # told by its name, not passed over


def test_images_beside_folders_of_classes_are_refused(root: Path) -> None:
    shutil.copy(root / "train/wide/2008_000001.JPEG", root / "train/a.JPEG")
    assert "train" in LAYOUT.splits(root)
    with pytest.raises(ValueError, match=r"train holds folders of classes, and images: a\.JPEG"):
        open_imagenet(root, "train")


def test_two_images_of_one_name_are_refused(root: Path) -> None:
    shutil.copy(root / "train/wide/2008_000001.JPEG", root / "train/wide/2008_000001.png")
    with pytest.raises(ValueError, match="lists wide/2008_000001 more than once"):
        open_imagenet(root, "train")


def test_a_split_without_images_is_refused(root: Path) -> None:
    for path in (root / "val").glob("*/*"):
        path.unlink()
    with pytest.raises(ValueError, match="val holds no images"):
        open_imagenet(root, "val")


@pytest.mark.parametrize("data", ["[]", "{}{", '{"0": ["a"]}', '{"0": [1, 2]}', '{"0": ["a", "\\ud800"]}'])
def test_a_wrong_class_index_is_named(root: Path, data: str) -> None:
    (root / "imagenet_class_index.json").write_text(data)
    with pytest.raises(ValueError, match=r"imagenet_class_index\.json: "):
        open_imagenet(root, "train")


def test_hidden_folders_and_other_files_are_no_classes(root: Path) -> None:
    (root / "train/.ipynb_checkpoints").mkdir()
    (root / "train/wide/.ipynb_checkpoints").mkdir()
    (root / "train/wide/notes.txt").write_text("")
    (root / "val/._y.png").write_text("")
    assert open_imagenet(root, "train").labels.names == CLASSES
    assert LAYOUT.splits(root) == ("train", "val")


@pytest.mark.parametrize("split", PICTURES)
@pytest.mark.parametrize("file", ["notes.txt", "._y.png", "deep/x.png"])
def test_a_folder_of_train_without_images_is_no_class_and_refused(root: Path, split: str, file: str) -> None:
    (root / "train/lost+found" / file).parent.mkdir(parents=True)
    (root / "train/lost+found" / file).write_text("")
    with pytest.raises(ValueError, match=r"train/lost\+found holds no image; every folder of train counts as a class"):
        open_imagenet(root, split)


def test_a_stray_folder_is_refused_where_the_classes_are_those_of_the_split(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "val/lost+found").mkdir()
    with pytest.raises(ValueError, match=r"val/lost\+found holds no image; every folder of val counts as a class"):
        open_imagenet(root, "val")


def test_images_further_down_are_refused_and_not_left_out(root: Path) -> None:
    shutil.copytree(root / "train/wide", root / "train/wide/deep")
    with pytest.raises(ValueError, match="train/wide/deep is a folder in the folder of a class"):
        open_imagenet(root, "train")


def test_folders_of_other_layouts_are_not_taken_for_classes(root: Path, tmp_path: Path) -> None:
    photos = tmp_path / "x"
    for place in ("CamVid/train", "dataset/img", "images/train", "VOC2012/JPEGImages", "train2017"):
        (photos / place).mkdir(parents=True)
        shutil.copy(root / "train/wide/2008_000001.JPEG", photos / place / "a.jpg")
    assert LAYOUT.splits(photos) == LAYOUT.splits(photos / "CamVid") == LAYOUT.splits(root / "train/wide") == ()


@needs("cifar10-mini.zip")
def test_cifar_10_is_of_this_layout(tmp_path: Path) -> None:
    unpack("cifar10-mini.zip", tmp_path, "/test/")
    root = tmp_path / "cifar10-mini"
    assert LAYOUT.splits(root) == ("test",)
    dataset = open_imagenet(root, "test")
    assert len(dataset) == 1000 and dataset.labels.names[:2] == ("airplane", "automobile")
    assert dataset[999].name.startswith("truck/") and dataset[999].scene_class == 9


@pytest.mark.parametrize("name", ["2008_000001.bmp", "2008_000001_mask.png", "2008_000001.jpg.png"])
def test_a_mask_that_is_nearly_there_is_named(tmp_path: Path, name: str) -> None:
    root = folder.write(tmp_path)
    (root / "masks/train/2008_000001.png").rename(root / "masks/train" / name)
    with pytest.raises(FileNotFoundError, match=rf"2008_000001\.png not found: 1 of 4 .* There is {name}\."):
        open_folder(root, "train")


def test_a_mask_may_end_in_capitals(tmp_path: Path) -> None:
    root = folder.write(tmp_path)
    (root / "masks/train/2008_000001.png").rename(root / "masks/train/2008_000001.PNG")
    mask = open_folder(root, "train")[0].mask
    assert mask is not None and np.array_equal(mask, PICTURES["train"][0].mask)


def test_splits_of_a_folder_have_masks_or_are_lists_of_images(tmp_path: Path) -> None:
    root = folder.write(tmp_path)
    (root / "images/unlabelled").mkdir()
    (root / "README.txt").write_text("Read me\n")
    (root / "dev.txt").write_text("train/2008_000001\n")
    assert FOLDER.splits(root) == ("dev", "train", "val")
