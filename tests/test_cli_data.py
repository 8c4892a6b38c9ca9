"""Promises of `veduta data` beyond its check: lists, pictures of training samples, packing and unpacking."""

from pathlib import Path

import numpy as np
import pytest
from layouts import write_camvid, write_folder
from pictures import PICTURES
from PIL import Image
from typer.testing import CliRunner, Result
from writers import imagenet, voc

from veduta.cli import app
from veduta.data import open_layout, recognise


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def mistake(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 2 and result.output.count("error: ") == 1, result.output
    return result.output


def test_the_splits_are_listed_with_their_sizes(tmp_path: Path) -> None:
    result = run("list", voc.write(tmp_path))
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split()[1] for line in result.output.splitlines()[1:]}
    assert rows["train"] == "4" and rows["val"] == "2"


def test_the_list_of_a_split_is_a_data_set_of_lists(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "CamVid")
    result = run("list", root, "--split", "val")
    assert result.output.splitlines()[0] == "val/val0.png\tvalannot/val0.png"
    (tmp_path / "classes.csv").write_text("index,name,r,g,b\n0,sky,1,2,3\n")
    assert run("list", root, "--split", "val", "--out", root / "mine.txt").exit_code == 0
    (root / "classes.csv").write_text(
        "index,name,r,g,b\n" + "".join(f"{i},c{i},{i},0,0\n" for i in range(11)) + "11,void,0,0,0\n"
    )
    again, dataset = open_layout("lists", root, "mine"), open_layout("camvid", root, "val")
    assert len(again) == len(dataset)
    assert np.array_equal(again[1].image, dataset[1].image)


def test_classified_images_are_listed_with_the_index_of_their_class(tmp_path: Path) -> None:
    root = imagenet.write(tmp_path)
    dataset = open_layout("imagenet", root, "train")
    lines = run("list", root, "--split", "train").output.splitlines()
    assert [int(line.split("\t")[1]) for line in lines] == [dataset[i].scene_class for i in range(len(dataset))]
    assert all((root / line.split("\t")[0]).is_file() for line in lines)


def test_packed_samples_are_listed_by_name_since_they_are_no_files(tmp_path: Path) -> None:
    assert run("pack", voc.write(tmp_path / "voc"), "--split", "train", "--out", tmp_path / "shards").exit_code == 0
    lines = run("list", tmp_path / "shards", "--split", "train").output.splitlines()
    assert lines == [picture.name for picture in PICTURES["train"]]


def test_packing_and_unpacking_keep_everything(tmp_path: Path) -> None:
    root = voc.write(tmp_path / "voc")
    result = run("pack", root, "--split", "train", "--split", "val", "--out", tmp_path / "shards", "--workers", "1")
    assert "train: 4 samples in 1 shards" in result.output and "val: 2 samples" in result.output
    result = run("unpack", tmp_path / "shards", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert list(recognise(tmp_path / "again")) == ["folder"]
    for split in ("train", "val"):
        before, after = open_layout("voc", root, split), open_layout("folder", tmp_path / "again", split)
        assert len(before) == len(after) == len(PICTURES[split])
        for index in range(len(before)):
            a, b = before[index], after[index]
            assert a.name == b.name
            for field in ("image", "mask", "boxes", "box_classes", "box_difficult"):
                assert np.array_equal(getattr(a, field), getattr(b, field)), field


@pytest.mark.parametrize("pipeline", ["window", "blitznet"])
def test_training_samples_are_drawn_as_the_network_sees_them(pipeline: str, tmp_path: Path) -> None:
    root, out = voc.write(tmp_path / "voc"), tmp_path / "seen.png"
    settings = ["data.dataset=voc", "data.crop_size=[48,48]", f'data.augment={{"pipeline":"{pipeline}"}}']
    words = [word for setting in settings for word in ("--set", setting)]
    result = run("show", "camvid", "--data", root, "--out", out, "--count", "9", *words)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("4 samples in")  # all there are
    with Image.open(out) as picture:
        assert picture.size == (4 * 48, 2 * 48)
        rows = np.asarray(picture)
    assert not np.array_equal(rows[:48], rows[48:])  # the labels are drawn over the lower row


def test_classified_images_are_drawn_with_the_names_of_their_classes(tmp_path: Path) -> None:
    root, out = imagenet.write(tmp_path / "set"), tmp_path / "seen.png"
    settings = ["task=classify", "data.dataset=imagenet", 'data.augment={"pipeline":"imagenet"}']
    words = [word for setting in settings for word in ("--set", setting)]
    result = run("show", "camvid", "--data", root, "--out", out, *words, "--set", "data.crop_size=[64,64]")
    assert result.exit_code == 0, result.output
    with Image.open(out) as picture:
        rows = np.asarray(picture).astype(int)
    half = rows.shape[0] // 2
    changed = np.abs(rows[:half] - rows[half:]).max(axis=2) > 0
    assert changed[half - 20 :].any() and not changed[: half - 30].any()  # words at the bottom, nothing else


def test_mistakes_are_told_in_one_message(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()
    assert "fits none of the layouts" in mistake("list", tmp_path / "empty")
    assert "is no folder" in mistake("pack", tmp_path / "nowhere", "--out", tmp_path / "shards")
    assert "Did you mean folder?" in mistake("list", root, "--layout", "foldr")
    assert "split 'dev' not found" in mistake("list", root, "--split", "dev")
    assert "add --split" in mistake("list", root, "--out", tmp_path / "list.txt")
    assert "holds no shards" in mistake("unpack", root, "--out", tmp_path / "again")
    (tmp_path / "there.png").write_bytes(b"")
    assert "nothing is overwritten" in mistake("show", "demo", "--out", tmp_path / "there.png")
    assert "ends in .png" in mistake("show", "demo", "--out", tmp_path / "seen.jpg")
    assert "split 'nope' not found" in mistake(
        "pack", root, "--split", "train", "--split", "nope", "--out", tmp_path / "no"
    )
    assert not (tmp_path / "no").exists()
    assert run("pack", root, "--out", tmp_path / "shards").exit_code == 0
    assert "nothing is overwritten" in mistake("pack", root, "--out", tmp_path / "shards")


def test_tars_of_other_programs_are_indexed(tmp_path: Path) -> None:
    assert run("pack", write_folder(tmp_path / "tiny"), "--out", tmp_path / "shards").exit_code == 0
    for path in (tmp_path / "shards").glob("*.index.*"):
        path.unlink()
    assert "veduta data index" in mistake("unpack", tmp_path / "shards", "--out", tmp_path / "again")
    assert run("index", tmp_path / "shards", "--split", "train").output == "train: 3 samples in 1 shards\n"
    assert len(open_layout("shards", tmp_path / "shards", "train")) == 3


def test_a_joined_split_is_packed_under_a_name_that_opens(tmp_path: Path) -> None:
    result = run("pack", voc.write(tmp_path / "voc"), "--split", "train+val", "--out", tmp_path / "shards")
    assert result.exit_code == 0, result.output
    assert len(open_layout("shards", tmp_path / "shards", "train_val")) == 6


def test_a_folder_without_splits_is_not_packed_in_silence(tmp_path: Path) -> None:
    assert "holds no split of layout folder" in mistake(
        "pack", tmp_path, "--layout", "folder", "--out", tmp_path / "shards"
    )
