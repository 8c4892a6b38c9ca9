"""What image-mask lists promise on their own."""

import shutil
from pathlib import Path

import pytest
from layouts import write_camvid
from pictures import PICTURES
from writers.lists import write

from veduta.data.layouts.lists import LAYOUT, open_lists


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "set")


def test_a_split_is_any_list_by_the_name_of_its_file(root: Path) -> None:
    (root / "train.txt").rename(root / "sbd_train_lst.txt")
    assert LAYOUT.splits(root) == ("sbd_train_lst", "val")
    assert open_lists(root, "sbd_train_lst")[0].name == "2008_000001"
    with pytest.raises(ValueError, match="has the splits sbd_train_lst, val, not 'train'"):
        open_lists(root, "train")


def test_absolute_paths_and_paths_out_of_the_root_are_read(root: Path) -> None:
    shutil.move(root / "photos", root.parent / "elsewhere")
    lines = [f"../elsewhere/{p.name}.jpg {root.absolute()}/labels/{p.name}.png\n" for p in PICTURES["train"]]
    (root / "train.txt").write_text("".join(lines))
    dataset = open_lists(root, "train")
    assert [dataset[i].name for i in range(4)] == [picture.name for picture in PICTURES["train"]]
    assert (dataset[0].mask == PICTURES["train"][0].mask).all()  # type: ignore[union-attr]


def test_names_are_paths_below_the_folder_that_all_images_share(root: Path) -> None:
    for city in ("a", "b"):
        shutil.copytree(root / "photos", root / "photos" / city, ignore=shutil.ignore_patterns("a", "b"))
    line = "photos/{}/2008_000001.jpg labels/2008_000001.png\n"
    (root / "train.txt").write_text(line.format("a") + line.format("b/../b"))
    dataset = open_lists(root, "train")
    assert [dataset.record(i).name for i in range(2)] == ["a/2008_000001", "b/2008_000001"]
    (root / "train.txt").write_text(line.format("a") + line.format("b/../a"))
    with pytest.raises(ValueError, match=r"train\.txt lists 2008_000001 more than once"):
        open_lists(root, "train")


def test_with_a_tab_paths_may_hold_spaces(root: Path) -> None:
    (root / "photos").rename(root / "the photos")
    (root / "val.txt").write_text("the photos/2009_000001.jpg\tlabels/2009_000001.png\n")
    assert open_lists(root, "val")[0].name == "2009_000001"
    (root / "val.txt").write_text("the photos/2009_000001.jpg labels/2009_000001.png\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 1: expected `image mask`.* Paths with spaces need a tab"):
        open_lists(root, "val")


@pytest.mark.parametrize("line", ["photos/2009_000001.jpg", "a b c", "a\tb\tc", "a\t"])
def test_a_line_that_is_no_pair_is_refused_with_its_number(root: Path, line: str) -> None:
    good = (root / "val.txt").read_text().splitlines()[0]
    (root / "val.txt").write_text(f"{good}\n\n{line}\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 3: expected `image mask`"):
        open_lists(root, "val")


def test_a_list_of_files_that_are_elsewhere_says_how_paths_are_read(root: Path) -> None:
    (root / "val.txt").write_text("set/photos/2009_000001.jpg set/labels/2009_000001.png\n")
    with pytest.raises(FileNotFoundError, match=r"2009_000001\.jpg not found; .*val\.txt .* absolute or relative to"):
        open_lists(root, "val")
    assert LAYOUT.splits(root) == ("train", "val")  # told by its name, not passed over


def test_a_folder_with_two_or_no_label_files_is_refused(root: Path) -> None:
    (root / "classes.csv").write_text("index,name,r,g,b\n0,a,1,2,3\n")
    with pytest.raises(ValueError, match=r"exactly one of labels\.json and classes\.csv, found 2"):
        open_lists(root, "val")


def test_text_files_that_are_no_lists_are_no_splits(root: Path) -> None:
    (root / "README.txt").write_text("My photos.\n")
    (root / "noise.txt").write_bytes(bytes(range(256)))
    (root / "two words.txt").write_text("two words\n")
    assert LAYOUT.splits(root) == ("train", "val")
    (root / "labels.json").unlink()
    assert LAYOUT.splits(root) == ()


def test_camvid_is_a_set_of_lists_where_it_has_its_classes(tmp_path: Path) -> None:
    root = write_camvid(tmp_path)
    assert LAYOUT.splits(root) == ()
    (root / "classes.csv").write_text("index,name,r,g,b\n0,sky,1,2,3\n11,void,0,0,0\n")
    assert LAYOUT.splits(root) == ("test", "train", "val")
