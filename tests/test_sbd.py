"""What the SBD layout and the reader of .mat files promise."""

import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import PICTURES, Picture
from writers import sbd, voc

from veduta.data.layouts.matlab import MAX_FILE, MAX_UNPACKED, parse_struct, read_struct
from veduta.data.layouts.sbd import LAYOUT, SbdMask, open_sbd, read_boxes
from veduta.data.layouts.voc import open_voc

PICTURE: Picture = PICTURES["train"][0]
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return sbd.write(tmp_path)


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    path = tmp_path / "a.mat"
    path.write_bytes(sbd.class_file(PICTURE))
    return path


def list_names(root: Path, **lists: list[str]) -> None:
    """Writes lists of SBD (train, val) and of VOC beside it (voc_train, voc_val)."""
    for name, names in lists.items():
        folder = root / "VOCdevkit/VOC2012/ImageSets/Segmentation" if name.startswith("voc_") else None
        path = (folder or root / "benchmark_RELEASE/dataset") / f"{name.removeprefix('voc_')}.txt"
        path.write_text("\n".join(names))


def test_sbd_is_found_from_any_of_its_folders(root: Path) -> None:
    for place in (root, root / "benchmark_RELEASE", root / "benchmark_RELEASE/dataset"):
        assert LAYOUT.splits(place) == ("train", "val")
        assert len(open_sbd(place, "train")) == 4
    with pytest.raises(FileNotFoundError, match="holds no SBD"):
        open_sbd(root / "benchmark_RELEASE/dataset/img", "train")


def test_boxes_are_the_extents_of_instances_and_an_instance_without_a_pixel_has_none(tmp_path: Path) -> None:
    instances = np.zeros((5, 7), np.uint8)
    instances[1:3, 2:6], instances[4, 6] = 1, 3
    fields = {"Segmentation": sbd.numbers(instances), "Categories": sbd.numbers(np.array([[15.0], [2.0], [9.0]]))}
    path = tmp_path / "a.mat"
    path.write_bytes(sbd.mat_file("GTinst", fields))
    boxes = read_boxes(path)
    assert boxes.xyxy.tolist() == [[2, 1, 6, 3], [6, 4, 7, 5]] and boxes.xyxy.dtype == np.float32
    assert boxes.classes.tolist() == [15, 9] and not boxes.difficult.any()
    for categories, fault in (([15.0, 2.0], "instance 3 has no class"), ([15.0, 2.0, 21.0], "expected classes from 1")):
        fields["Categories"] = sbd.numbers(np.array([categories]))
        path.write_bytes(sbd.mat_file("GTinst", fields))
        with pytest.raises(ValueError, match=rf"a\.mat: .*{fault}"):
            read_boxes(path)


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan, 1e300])
def test_a_mask_of_other_than_class_ids_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(sbd.mat_file("GTcls", {"Segmentation": sbd.numbers(np.full((2, 3), value))}))
    with pytest.raises(ValueError, match=r"a\.mat: Segmentation of \(2, 3\) is no mask"):
        SbdMask(path)((2, 3))


def test_a_class_that_voc_does_not_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(sbd.mat_file("GTcls", {"Segmentation": sbd.numbers(np.full((2, 3), 21, np.uint8))}))
    with pytest.raises(ValueError, match=r"a\.mat: value 21 at row 0"):
        SbdMask(path)((2, 3))


def test_mixed_splits_are_the_published_algebra_of_sets_sorted_by_name(root: Path) -> None:
    voc.write(root)
    list_names(root, train=["e", "b", "v1"], val=["a", "c", "v2"], voc_train=["x", "b", "c"], voc_val=["v2", "y", "v1"])
    assert LAYOUT.splits(root) == ("train", "val", "noval", "minus_voc", "train_aug")
    assert list(open_sbd(root, "train").keys) == ["e", "b", "v1"]
    assert list(open_sbd(root, "noval").keys) == ["a", "b", "c", "e"]
    assert list(open_sbd(root, "minus_voc").keys) == ["a", "e"]


def test_names_are_compared_without_their_line_ends(root: Path) -> None:
    voc.write(root)
    list_names(root, train=["a", "b\r"], val=["v "], voc_train=["b"], voc_val=["x", "v"])
    assert list(open_sbd(root, "minus_voc").keys) == ["a"]


def test_in_train_aug_an_image_of_voc_has_vocs_mask_and_boxes_and_the_others_have_sbds(root: Path) -> None:
    voc.write(root)
    first, second, third, fourth = (picture.name for picture in PICTURES["train"])
    list_names(root, voc_train=[first, fourth], train=[first, second], val=[third, "2009_000001"])
    dataset = open_sbd(root, "train_aug")
    assert list(dataset.keys) == [first, second, third, fourth]
    assert dataset[0].box_difficult is not None and dataset[0].box_difficult.tolist() == [False, True]
    assert [dataset.record(i).image.path.parent.name for i in range(4)] == ["JPEGImages", "img", "img", "JPEGImages"]
    for index, picture in enumerate(PICTURES["train"]):
        mask = dataset[index].mask
        assert mask is not None and np.array_equal(mask, picture.mask)


def test_a_mixed_split_needs_voc_2012_beside(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="VOCdevkit/VOC2012 found neither in .* nor beside it"):
        open_sbd(root, "minus_voc")
    voc.write(root)
    assert "minus_voc" in LAYOUT.splits(root / "benchmark_RELEASE/dataset")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mat_files_of_either_byte_order_are_read_compressed_or_not(mat: Path, order: str, compressed: bool) -> None:
    mat.write_bytes(sbd.class_file(PICTURE, order=order, compressed=compressed))
    fields = read_struct(mat, "GTcls", ("CategoriesPresent", "Segmentation"))
    assert np.array_equal(fields["Segmentation"], PICTURE.mask)
    assert fields["CategoriesPresent"].tolist() == [[7.0], [15.0]]


def test_what_a_mat_file_lacks_is_said(mat: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.mat: not a readable \.mat with a struct GTinst: it holds none"):
        read_struct(mat, "GTinst", ("Segmentation",))
    with pytest.raises(ValueError, match="fields Boundaries, Segmentation, CategoriesPresent, not Categories"):
        read_struct(mat, "GTcls", ("Categories",))
    with pytest.raises(ValueError, match="field Boundaries is no array of real numbers"):
        read_struct(mat, "GTcls", ("Boundaries",))
    mat.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    with pytest.raises(ValueError, match="version 7.3"):
        read_struct(mat, "GTcls", ("Segmentation",))
    with pytest.raises(FileNotFoundError, match=r"b\.mat not found"):
        read_struct(mat.with_name("b.mat"), "GTcls", ("Segmentation",))


def test_mat_files_meet_limits_before_memory(mat: Path) -> None:
    header = mat.read_bytes()[:128]
    packed = zlib.compress(bytes(MAX_UNPACKED + 1))
    mat.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_struct(mat, "GTcls", ("Segmentation",))
    mat.write_bytes(header + bytes(8 * 2000))
    with pytest.raises(ValueError, match="more than 1000 elements"):
        read_struct(mat, "GTcls", ("Segmentation",))
    with mat.open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(ValueError, match="the limit is"):
        read_struct(mat, "GTcls", ("Segmentation",))


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_mat_files_raise_value_errors_only(compressed: bool) -> None:
    whole = sbd.class_file(PICTURE, compressed=compressed)
    rng = random.Random(0)
    refused = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):  # numbers that mean something, mostly where the structure is
            place = rng.randrange(120, min(len(data), 420))
            data[place] = rng.choice((0, 1, 2, 5, 6, 9, 14, 15, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        cut = rng.randint(1, len(data)) if rng.random() < 0.2 else len(data)
        try:
            parse_struct(bytes(data[:cut]), "GTcls", ("Segmentation", "CategoriesPresent"))
        except ValueError:
            refused += 1
    assert 0 < refused < 3000


def test_masks_of_real_photos_equal_those_of_voc_where_voc_is_not_void(tmp_path: Path) -> None:
    for name in ("sbd-format-sample", "coco-voc20"):
        if not (SHARED / f"{name}.zip").is_file():
            pytest.skip(f"{name}.zip is not here: it is no part of the repository")
        zipfile.ZipFile(SHARED / f"{name}.zip").extractall(tmp_path)
    own = {split: open_sbd(tmp_path / "sbd-format-sample", split) for split in ("train", "val")}
    known = open_voc(tmp_path / "VOCdevkit", "trainval")
    assert {split: len(dataset) for split, dataset in own.items()} == {"train": 4, "val": 2}
    for dataset in own.values():
        for index, name in enumerate(dataset.keys):
            sample, other = dataset[index], known[list(known.keys).index(name)]
            assert sample.mask is not None and other.mask is not None and sample.boxes is not None
            seen = other.mask != 255
            assert np.array_equal(sample.mask[seen], other.mask[seen])
            assert other.boxes is not None and np.abs(sample.boxes - other.boxes).max() <= 6  # borders are void there
