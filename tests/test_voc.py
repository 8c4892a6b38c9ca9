"""What the PASCAL VOC layout promises on its own."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import PICTURES
from PIL import Image
from writers.voc import annotation, write, write_year

from veduta.data.label_maps import VOC, bit_reversed_color
from veduta.data.layout import NoMask
from veduta.data.layouts.voc import LAYOUT, MAX_XML, open_voc, read_boxes
from veduta.labels import IGNORE_INDEX

NAMES = {split: [picture.name for picture in pictures] for split, pictures in PICTURES.items()}


@pytest.fixture
def year(tmp_path: Path) -> Path:
    return write_year(tmp_path / "VOCdevkit" / "VOC2012")


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    path = tmp_path / "a.xml"
    path.write_text(annotation(PICTURES["train"][0]))
    return path


def edited(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_a_year_is_found_from_the_folder_the_devkit_or_the_folder_above(year: Path) -> None:
    for root in (year, year.parent, year.parent.parent):
        assert list(open_voc(root, "train").keys) == NAMES["train"]
        assert LAYOUT.splits(root) == ("train", "val", "main-train", "main-val")


def test_several_years_go_before_the_splits(tmp_path: Path) -> None:
    write_year(tmp_path / "VOC2007")
    write_year(tmp_path / "VOC2012")
    assert LAYOUT.splits(tmp_path)[:3] == ("2007/train", "2007/val", "2007/main-train")
    assert open_voc(tmp_path, "2012/main-val").record(0).image.path.parent.parent.name == "VOC2012"
    with pytest.raises(ValueError, match="has the splits 2007/train, .*, not 'train'"):
        open_voc(tmp_path, "train")


def test_boxes_count_from_0_and_parts_are_no_objects(xml: Path) -> None:
    boxes = read_boxes(xml, VOC)
    assert boxes.xyxy.tolist() == [[4, 6, 20, 40], [30, 10, 62, 30]]
    assert boxes.classes.tolist() == [15, 7] and boxes.difficult.tolist() == [False, True]


def test_coordinates_may_have_fractions_and_stay_as_they_are(xml: Path) -> None:
    edited(xml, "<xmin>5</xmin>", "<xmin>45.70000076293945</xmin>")
    assert read_boxes(xml, VOC).xyxy[0].tolist() == [np.float32(44.7), 6, 20, 40]


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "1e9"])
def test_a_box_without_numbers_is_refused_with_its_object(xml: Path, value: str) -> None:
    edited(xml, "<xmax>62</xmax>", f"<xmax>{value}</xmax>")
    with pytest.raises(ValueError, match=r"a\.xml, object 2: expected a <bndbox>"):
        read_boxes(xml, VOC)


@pytest.mark.parametrize("name", ["zebra", "background", ""])
def test_an_unknown_class_is_refused_with_the_known_ones(xml: Path, name: str) -> None:
    edited(xml, "<name>person</name>", f"<name>{name}</name>")
    with pytest.raises(ValueError, match=rf"a\.xml, object 1: class '{name}'.*aeroplane, bicycle.*labels\.txt"):
        read_boxes(xml, VOC)


def test_a_document_type_is_refused_in_any_encoding(xml: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    for encoding in ("utf-8", "utf-16"):
        xml.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{bomb}'.encode(encoding))
        with pytest.raises(ValueError, match=r"a\.xml: not readable XML \(it declares a DOCTYPE"):
            read_boxes(xml, VOC)


def test_a_huge_file_another_root_and_a_missing_one_are_refused(xml: Path) -> None:
    xml.write_text("<kml></kml>")
    with pytest.raises(ValueError, match="expected <annotation>, found <kml>"):
        read_boxes(xml, VOC)
    xml.write_bytes(b" " * (MAX_XML + 1))
    with pytest.raises(ValueError, match="the limit is 2,097,152"):
        read_boxes(xml, VOC)
    with pytest.raises(FileNotFoundError, match=r"b\.xml not found"):
        read_boxes(xml.with_name("b.xml"), VOC)


def test_damaged_annotations_raise_value_errors_only(xml: Path) -> None:
    whole = b'<?xml version="1.0" encoding="utf-8"?>' + xml.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b"<>/&\"'x0-\xff\x00")
        xml.write_bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.2 else data)
        try:
            read_boxes(xml, VOC)
        except ValueError:
            refused += 1
    assert 0 < refused < 400


def test_an_image_of_a_detection_list_without_a_mask_is_all_void(year: Path) -> None:
    (year / f"SegmentationClass/{NAMES['train'][1]}.png").unlink()
    dataset = open_voc(year, "main-train")
    assert isinstance(dataset.record(1).mask, NoMask)
    mask, other = dataset[1].mask, dataset[0].mask
    assert mask is not None and (mask == IGNORE_INDEX).all()
    assert other is not None and (other == PICTURES["train"][0].mask).all()
    with pytest.raises(FileNotFoundError, match=r"SegmentationClass/2008_000002\.png not found"):
        open_voc(year, "train")[1]


def test_a_set_for_detection_only_has_no_masks(year: Path) -> None:
    shutil.rmtree(year / "SegmentationClass")
    sample = open_voc(year, "main-val")[0]
    assert sample.mask is None and sample.boxes is not None


def test_a_set_for_segmentation_only_has_no_boxes(year: Path) -> None:
    shutil.rmtree(year / "Annotations")
    sample = open_voc(year, "val")[0]
    assert sample.mask is not None and sample.boxes is None


def test_one_missing_annotation_does_not_take_the_boxes_of_the_others(year: Path) -> None:
    (year / "Annotations" / f"{NAMES['train'][0]}.xml").unlink()
    dataset = open_voc(year, "train")
    assert dataset[1].boxes is not None
    with pytest.raises(FileNotFoundError, match=f"{NAMES['train'][0]}.xml"):
        dataset.record(0)


def test_the_list_of_a_class_has_the_images_that_show_it_be_it_a_difficult_one(year: Path) -> None:
    assert list(open_voc(year, "main-train:person").keys) == ["2008_000001"]
    assert list(open_voc(year, "main-train:car").keys) == ["2008_000001"]  # difficult: flag 0
    assert list(open_voc(year, "main-train:tvmonitor").keys) == ["2008_000004"]
    with pytest.raises(ValueError, match=r"sofa_train\.txt lists no images"):
        open_voc(year, "main-train:sofa")
    with pytest.raises(ValueError, match="has the splits train, .*, not 'main-train:zebra'"):
        open_voc(year, "main-train:zebra")
    with pytest.raises(ValueError, match="not 'train:person'"):
        open_voc(year, "train:person")


def test_a_test_split_has_labels_where_they_were_published(year: Path) -> None:
    for task in ("Main", "Segmentation"):
        shutil.copy(year / f"ImageSets/{task}/val.txt", year / f"ImageSets/{task}/test.txt")
    for split in ("test", "main-test"):  # as of 2007
        sample = open_voc(year, split)[0]
        assert sample.mask is not None and sample.boxes is not None
    shutil.rmtree(year / "Annotations")
    shutil.rmtree(year / "SegmentationClass")
    for split in ("test", "main-test"):  # as of 2012
        sample = open_voc(year, split)[0]
        assert sample.mask is None and sample.boxes is None


@pytest.mark.parametrize("index", ["Segmentation/train_aug", "Segmentation/trainaug", "SegmentationAug/train_aug"])
def test_train_aug_takes_vocs_own_mask_before_that_of_sbd(year: Path, index: str) -> None:
    file = year / f"ImageSets/{index}.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text("2008_000001\n2008_000002\n")
    with pytest.raises(FileNotFoundError, match="SegmentationClassAug not found"):
        open_voc(year, "train_aug")
    (year / "SegmentationClassAug").mkdir()
    assert "train_aug" in LAYOUT.splits(year)
    for picture in PICTURES["train"][:2]:
        Image.fromarray(np.full(picture.size, 3, np.uint8)).save(year / f"SegmentationClassAug/{picture.name}.png")
    (year / "SegmentationClass/2008_000002.png").unlink()
    first, second = open_voc(year, "train_aug")[0].mask, open_voc(year, "train_aug")[1].mask
    assert first is not None and (first == PICTURES["train"][0].mask).all()
    assert second is not None and (second == 3).all()


def test_a_missing_train_aug_says_what_it_needs_and_where_else_it_is(year: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"Segmentation/train_aug\.txt not found.* Data set sbd has the same split"
    ):
        open_voc(year, "train_aug")


def test_labels_txt_says_other_classes(year: Path) -> None:
    (year / "labels.txt").write_text("background\nboat\ncar\nperson\n")
    labels = open_voc(year, "train").labels
    assert labels.names == ("background", "boat", "car", "person") and labels.void_ids == (255,)
    assert labels.classes[3].color == bit_reversed_color(3)
    (year / "labels.txt").write_text("\n".join(VOC.names))
    assert open_voc(year, "train").labels == VOC


@pytest.mark.parametrize("text", ["", "person\ncar\n", "background\n", "background\ncar\ncar\n"])
def test_a_labels_txt_that_is_none_is_refused(year: Path, text: str) -> None:
    (year / "labels.txt").write_text(text)
    with pytest.raises(ValueError, match=r"labels\.txt: "):
        open_voc(year, "train")


def test_lists_are_refused_by_line(year: Path) -> None:
    index = year / "ImageSets/Segmentation/train.txt"
    for text, fault in (
        ("a\n\nb 1\n", r"train\.txt, line 3: expected one name, found 'b 1'"),
        ("a\nb\na\n", "lists a more than once"),
        ("\n", "lists no images"),
    ):
        index.write_text(text)
        with pytest.raises(ValueError, match=fault):
            open_voc(year, "train")
    (year / "ImageSets/Main/person_train.txt").write_text("a 1\nb yes\n")
    with pytest.raises(ValueError, match=r"person_train\.txt, line 2: expected `name flag`"):
        open_voc(year, "main-train:person")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no year of VOC"):
        open_voc(tmp_path, "train")
    assert list(open_voc(write(tmp_path), "val").keys) == NAMES["val"]
