"""What CamVid, the folder layout and generated scenes promise beyond the contract of every layout."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, SIZE, TINY, paint, save

from veduta.config import Data
from veduta.data import open_dataset
from veduta.data.layouts.camvid import open_camvid
from veduta.data.layouts.folder import open_folder
from veduta.data.sample import Sample, SampleDataset
from veduta.labels import IGNORE_INDEX

ALL = ("camvid", "folder", "scenes")  # all layouts on disk: test_layouts.py
CSV = "index,name,r,g,b\n10,sky,1,2,3\n0,road,4,5,6\n7,car,7,8,9\n255,void,0,0,0\n3,ignore,0,0,0\n"


def opened(name: str, tmp_path: Path, split: str = "train") -> SampleDataset:
    root = LAYOUTS[name](tmp_path / name)
    return open_dataset(Data(dataset=name, root=str(root or "")), split)


def same(a: Sample, b: Sample) -> bool:
    assert a.mask is not None and b.mask is not None
    return a.name == b.name and bool((a.image == b.image).all()) and bool((a.mask == b.mask).all())


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", ALL)
def test_samples_are_uint8_images_with_train_ids_of_their_size(name: str, split: str, tmp_path: Path) -> None:
    dataset = opened(name, tmp_path, split)
    allowed = {*range(dataset.labels.num_classes), IGNORE_INDEX}
    for sample in (dataset[0], dataset[len(dataset) - 1]):
        assert sample.mask is not None
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        assert sample.image.shape == (*sample.mask.shape, 3)
        assert set(np.unique(sample.mask).tolist()) <= allowed


@pytest.mark.parametrize("name", ALL)
def test_names_are_unique_inside_a_split_and_have_no_ending(name: str, tmp_path: Path) -> None:
    dataset = opened(name, tmp_path)
    names = [dataset[i].name for i in range(min(len(dataset), 5))]
    assert len(set(names)) == len(names) >= 3
    assert not any("." in n for n in names)


@pytest.mark.parametrize("name", ALL)
def test_a_sample_is_the_same_again_and_in_a_worker(name: str, tmp_path: Path) -> None:
    dataset = opened(name, tmp_path)
    in_worker: SampleDataset = pickle.loads(pickle.dumps(dataset))
    assert same(dataset[1], dataset[1]) and same(dataset[1], in_worker[1])


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_split_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="(?=.*'trane')(?=.*train,)(?=.*val)"):
        opened(name, tmp_path, "trane")


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_the_pixels_on_disk_are_the_pixels_of_the_sample(name: str, tmp_path: Path) -> None:
    image, train_ids = paint(0, opened(name, tmp_path).labels.num_classes)
    assert same(opened(name, tmp_path)[0], Sample(image=image, mask=train_ids, name=opened(name, tmp_path)[0].name))


def test_a_data_set_opens_by_the_recipe_and_an_unknown_one_gets_a_hint(folder_root: Path) -> None:
    assert len(open_dataset(Data(dataset="folder", root=str(folder_root)), "val")) == 3
    with pytest.raises(ValueError, match=r"dataset 'foldr' is not known\. Did you mean folder\?"):
        open_dataset(Data(dataset="foldr"), "val")


def test_camvid_keeps_the_order_of_its_list_and_void_is_11(camvid_root: Path) -> None:
    dataset = open_camvid(camvid_root, "val")
    assert [dataset[i].name for i in range(3)] == ["val0", "val1", "val2"]
    assert dataset.labels.num_classes == 11 and dataset.labels.void_ids == (11,)


def test_camvid_is_found_one_folder_above(camvid_root: Path) -> None:
    assert len(open_camvid(camvid_root.parent, "test")) == 3


def test_camvid_reads_the_published_lists_with_their_absolute_paths(camvid_root: Path) -> None:
    listed = (camvid_root / "val.txt").read_text()
    absolute = re.sub(r"\bval(annot)?/", r"/SegNet/CamVid/\g<0>", listed)
    expected = open_camvid(camvid_root, "val")[2]
    (camvid_root / "val.txt").write_text(absolute)
    assert same(open_camvid(camvid_root, "val")[2], expected)


def test_a_camvid_line_without_a_mask_is_refused_with_its_number(camvid_root: Path) -> None:
    (camvid_root / "val.txt").write_text("val/val0.png valannot/val0.png\n\nval/val1.png\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 3: expected `image mask`, found 'val/val1\.png'"):
        open_camvid(camvid_root, "val")


def test_an_empty_camvid_list_is_refused(camvid_root: Path) -> None:
    (camvid_root / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt lists no images"):
        open_camvid(camvid_root, "val")


def test_a_missing_camvid_mask_is_named(camvid_root: Path) -> None:
    (camvid_root / "valannot" / "val1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"valannot/val1\.png not found"):
        open_camvid(camvid_root, "val")[1]


def test_a_folder_is_paired_by_name_in_sorted_order_sub_folders_included(folder_root: Path) -> None:
    shutil.move(folder_root / "images/train/b.png", folder_root / "images/train/b.PNG")
    dataset = open_folder(folder_root, "train")
    assert [dataset[i].name for i in range(len(dataset))] == ["a", "b", "sub/c"]
    assert dataset.labels == TINY


def test_a_folder_can_have_lists_in_place_of_split_folders(folder_root: Path) -> None:
    for part in ("images", "masks"):
        for file in (folder_root / part / "train").glob("*.png"):
            shutil.move(file, folder_root / part / f"x.{file.name}")
    (folder_root / "dev.txt").write_text("x.b.png\n\nx.a\ntrain/sub/c\n")
    dataset = open_folder(folder_root, "dev")
    assert [dataset[i].name for i in range(len(dataset))] == ["x.b", "x.a", "train/sub/c"]
    image, train_ids = paint(1, TINY.num_classes)
    assert same(dataset[0], Sample(image=image, mask=train_ids, name="x.b"))


def test_a_folder_takes_classes_csv_as_well(folder_root: Path) -> None:
    (folder_root / "labels.json").unlink()
    (folder_root / "classes.csv").write_text(CSV)
    dataset = open_folder(folder_root, "train")
    assert dataset.labels.names == TINY.names and dataset.labels.void_ids == TINY.void_ids
    assert dataset[0].image.shape == (*SIZE, 3)


def test_a_folder_with_two_or_no_label_files_is_refused(folder_root: Path) -> None:
    (folder_root / "classes.csv").write_text(CSV)
    with pytest.raises(ValueError, match=r"exactly one of labels\.json and classes\.csv, found 2"):
        open_folder(folder_root, "train")
    (folder_root / "classes.csv").unlink()
    (folder_root / "labels.json").unlink()
    with pytest.raises(ValueError, match="found 0"):
        open_folder(folder_root, "train")


def test_images_without_masks_are_counted_and_the_first_is_named(folder_root: Path) -> None:
    shutil.rmtree(folder_root / "masks/train/sub")
    (folder_root / "masks/train/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"train/b\.png not found: 2 of 3 images of split 'train' have no mask"):
        open_folder(folder_root, "train")


def test_two_images_of_one_name_are_refused(folder_root: Path) -> None:
    save(folder_root / "images/train/a.jpg", paint(0, 3)[0])
    with pytest.raises(ValueError, match=r"a\.(jpg|png) and .*a\.(jpg|png) have the same name"):
        open_folder(folder_root, "train")


def test_a_listed_name_without_an_image_is_named(folder_root: Path) -> None:
    (folder_root / "dev.txt").write_text("train/a\ntrain/zebra.png\n")
    with pytest.raises(FileNotFoundError, match=r"dev\.txt lists train/zebra, but no image of that name"):
        open_folder(folder_root, "dev")


def test_a_split_without_images_is_refused(folder_root: Path) -> None:
    (folder_root / "images/empty").mkdir()
    with pytest.raises(ValueError, match="split 'empty' of .* holds no images"):
        open_folder(folder_root, "empty")


def test_a_folder_without_masks_is_refused(folder_root: Path) -> None:
    shutil.rmtree(folder_root / "masks")
    with pytest.raises(FileNotFoundError, match="folder .*masks not found"):
        open_folder(folder_root, "train")


def test_a_name_listed_twice_is_refused(folder_root: Path) -> None:
    (folder_root / "images" / "a.png").write_bytes((folder_root / "images" / "train" / "a.png").read_bytes())
    (folder_root / "train.txt").write_text("a\na.png\n")
    with pytest.raises(ValueError, match="lists a more than once"):
        open_folder(folder_root, "train")


def test_linked_sub_folders_are_read_as_any_other(folder_root: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        shutil.move(folder_root / part / "train/sub", tmp_path / "disk" / part)
        (folder_root / part / "train/sub").symlink_to(tmp_path / "disk" / part)
    dataset = open_folder(folder_root, "train")
    assert [dataset[i].name for i in range(len(dataset))] == ["a", "b", "sub/c"]


@pytest.mark.parametrize("target", [".", "sub"])
def test_a_link_that_shows_a_folder_again_is_refused(folder_root: Path, target: str) -> None:
    (folder_root / "images/train/again").symlink_to(folder_root / "images/train" / target)
    with pytest.raises(ValueError, match=r"again.* one folder; every image counts once"):
        open_folder(folder_root, "train")


def test_hidden_files_and_folders_are_no_images(folder_root: Path) -> None:
    (folder_root / "images/train/._a.png").write_bytes(b"\x00\x05\x16\x07")
    shutil.copytree(folder_root / "images/train/sub", folder_root / "images/train/.ipynb_checkpoints")
    dataset = open_folder(folder_root, "train")
    assert [dataset[i].name for i in range(len(dataset))] == ["a", "b", "sub/c"]
