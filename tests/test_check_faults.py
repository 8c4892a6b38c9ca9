"""Every fault of the catalogue, planted into a tiny correct data set, is found with its file and its repair."""

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import TINY, paint, save, write_camvid, write_folder
from numpy.typing import NDArray
from PIL import Image
from writers import cityscapes, coco, imagenet, labelme, shards, voc

import veduta.data.layouts.camvid
import veduta.data.layouts.cityscapes
import veduta.data.layouts.coco
import veduta.data.layouts.folder
import veduta.data.layouts.imagenet
import veduta.data.layouts.labelme
import veduta.data.layouts.shards
import veduta.data.layouts.voc
from veduta.data import DATASETS
from veduta.data.check.faults import KINDS, finding_of
from veduta.data.check.run import DataCheck, check
from veduta.data.layout import Boxes, FileDataset, Layout, Record
from veduta.data.stored import Stored
from veduta.report.data_page import render_check

HONEST = {"class-untrained"}  # four pictures do not show all classes of VOC


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_voc(root: Path) -> Path:
    return voc.write_year(root)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "folder": write_folder,
    "voc": write_voc,
    "cityscapes": cityscapes.write,
    "coco": coco.write,
    "labelme": labelme.write,
    "imagenet": imagenet.write,
    "shards": shards.write,
    "camvid": write_camvid,
}


LAYOUTS = {
    "folder": veduta.data.layouts.folder.LAYOUT,
    "voc": veduta.data.layouts.voc.LAYOUT,
    "cityscapes": veduta.data.layouts.cityscapes.LAYOUT,
    "coco": veduta.data.layouts.coco.LAYOUT,
    "labelme": veduta.data.layouts.labelme.LAYOUT,
    "imagenet": veduta.data.layouts.imagenet.LAYOUT,
    "shards": veduta.data.layouts.shards.LAYOUT,
    "camvid": veduta.data.layouts.camvid.LAYOUT,
}


def run(root: Path, layout: str) -> DataCheck:
    return check(root, layout, LAYOUTS[layout], progress=lambda split, done, total: None)


def masks_of(root: Path) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    for path in sorted((root / "masks").rglob("*.png")):
        yield path, np.array(Image.open(path))


def edit_json(path: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_labels(root: Path, edit: Callable[[Any], None]) -> None:
    edit_json(root / "labels.json", edit)


def replace(path: Path, old: str, new: str) -> None:
    before, found, after = path.read_text().rpartition(old)
    assert found
    path.write_text(before + new + after)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Folder layout. TINY: 10 sky, 0 road, 7 car; 255 and 3 are void.


def plant_value(root: Path) -> None:
    path = root / "masks/train/a.png"
    mask = np.array(Image.open(path))
    mask[3, 5] = 99
    save(path, mask)


def plant_binary(root: Path) -> None:
    for path, mask in masks_of(root):
        save(path, np.where(mask == 7, 255, 0).astype(np.uint8))


def plant_undeclared_binary(root: Path) -> None:
    edit_labels(root, lambda content: content.update(void_ids=[3]))
    plant_binary(root)


def plant_values(root: Path, count: int, pixels: int) -> None:
    path = root / "masks/train/a.png"
    mask = np.array(Image.open(path))
    for i in range(count):
        mask[2 * i, :pixels] = 100 + i
    save(path, mask)


def plant_shift(root: Path) -> None:
    (root / "labels.json").unlink()
    (root / "classes.csv").write_text("index,name,r,g,b\n0,sky,1,2,3\n1,road,4,5,6\n2,car,7,8,9\n255,void,0,0,0\n")
    for path, mask in masks_of(root):
        save(path, np.select([mask == 10, mask == 0, mask == 7], [1, 2, 3], 255).astype(np.uint8))


def plant_smooth(root: Path) -> None:
    mask = Image.open(root / "masks/val/b.png")
    mask.resize((64, 48), Image.Resampling.BILINEAR).resize(mask.size).save(root / "masks/val/b.png")


def plant_colors(root: Path) -> None:
    save(root / "masks/train/b.png", np.full((24, 32, 3), 77, np.uint8))


def plant_deep_mask(root: Path) -> None:
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(root / "masks/train/b.png")


def plant_jpeg_mask(root: Path) -> None:
    Image.open(root / "masks/train/b.png").convert("L").save(root / "masks/train/b.png", format="JPEG")


def plant_size(root: Path) -> None:
    save(root / "masks/val/a.png", np.zeros((24, 30), np.uint8))


def rotate(root: Path, orientation: int, file: str = "images/train/a.png") -> None:
    image = Image.open(root / file)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(root / file, exif=exif)


def plant_void_most(root: Path) -> None:
    edit_labels(root, lambda content: content.update(classes=content["classes"][2:], void_ids=[0, 10, 255, 3]))


def plant_void_class(root: Path) -> None:
    edit_labels(root, lambda content: content["classes"][1].update(name="Unlabeled"))


def plant_untrained(root: Path) -> None:
    for path, mask in masks_of(root):
        save(path, np.where(mask == 7, 0, mask).astype(np.uint8))


def plant_void_split(root: Path) -> None:
    for path in (root / "masks/val").rglob("*.png"):
        save(path, np.full((24, 32), 255, np.uint8))


def plant_void_test(root: Path) -> None:
    plant_void_split(root)
    for part in ("images", "masks"):
        (root / part / "val").rename(root / part / "test")


def plant_pages(root: Path) -> None:
    (root / "images/train/a.png").unlink()
    page = Image.fromarray(paint(0, 3)[0])
    page.save(root / "images/train/a.tif", save_all=True, append_images=[page])


def plant_deep_image(root: Path) -> None:
    (root / "images/train/a.png").unlink()
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(root / "images/train/a.tif")


def plant_imbalance(root: Path) -> None:
    for path, mask in masks_of(root):
        rare = np.zeros_like(mask)
        rare[0, :2] = (7, 10)
        save(path, rare)


# VOC layout: JPEGImages, Annotations, SegmentationClass of 2008_000001...

XML = "Annotations/2008_000002.xml"  # an aeroplane, 1 1 45 20 as VOC counts, in an image of 45 x 60


def plant_box(root: Path, corner: str, old: int, new: int) -> None:
    replace(root / XML, f"<{corner}>{old}</{corner}>", f"<{corner}>{new}</{corner}>")


def plant_far_box(root: Path) -> None:
    plant_box(root, "xmin", 1, 101)
    plant_box(root, "xmax", 45, 145)


def plant_unmasked(root: Path, name: str) -> None:
    (root / f"SegmentationClass/{name}.png").unlink()
    replace(root / "ImageSets/Segmentation/train.txt", f"{name}\n", "")


def plant_mirrored_boxes(root: Path) -> None:
    plant_unmasked(root, "2008_000001")
    rotate(root, 3, "JPEGImages/2008_000001.jpg")


# Cityscapes layout


def city(root: Path, split: str, name: str) -> tuple[Path, Path]:
    image = root / f"leftImg8bit/{split}/{cityscapes.CITY}/{name}_leftImg8bit.png"
    return image, root / f"gtFine/{split}/{cityscapes.CITY}/{name}_gtFine_labelIds.png"


def plant_city_value(root: Path) -> None:
    _, path = city(root, "val", "2009_000001")
    mask = np.array(Image.open(path))
    mask[1] = 77
    save(path, mask)


def plant_train_ids(root: Path) -> None:
    for path in root.glob("gtFine/*/*/*_labelIds.png"):
        mask = np.array(Image.open(path))
        save(path, (np.indices(mask.shape)[0] % 19).astype(np.uint8))


def plant_city_leak(root: Path) -> None:
    shutil.copy(city(root, "train", "2008_000002")[0], city(root, "val", "2009_000002")[0])
    shutil.copy(city(root, "train", "2008_000002")[1], city(root, "val", "2009_000002")[1])


# COCO, LabelMe, ImageNet, shards


def edit_coco(root: Path, split: str, part: str, **fields: object) -> None:
    """Change the first annotation or image of a split."""
    edit_json(root / f"annotations/instances_{split}.json", lambda content: content[part][0].update(fields))


def plant_category(root: Path) -> None:
    path = root / "annotations/instances_val.json"
    edit_json(path, lambda content: content["categories"].append({"id": 500, "name": "pony"}))


def plant_flip(root: Path) -> None:
    path = root / "train-000001.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # behind the last file
    path.write_bytes(data)


def plant_camvid_value(root: Path) -> None:
    save(root / "valannot/val1.png", np.full((24, 32), 255, np.uint8))


@dataclass(frozen=True)
class Plant:
    """A fault to plant, the id it is found by, the file that is named, and a word of the repair."""

    layout: str
    plant: Callable[[Path], object]
    kind: str
    file: str
    repair: str


PLANTS = {
    "a value of no class": Plant("folder", plant_value, "mask-value", "masks/train/a.png", "add 99 to void_ids"),
    "0 and 255": Plant("folder", plant_undeclared_binary, "mask-binary", "", "mask > 0"),
    "0 and 255, which is void": Plant("folder", plant_binary, "mask-binary-void", "", "as a class"),
    "classes that nobody declared": Plant(
        "folder", lambda r: plant_values(r, 11, 32), "mask-value", "and 3 other values", "void_ids"
    ),
    "specks of values between": Plant(
        "folder", lambda r: plant_values(r, 11, 1), "mask-smooth", "11 such values", "declare them"
    ),
    "values from 1": Plant("folder", plant_shift, "mask-shifted", "masks/train/a.png", "file_id"),
    "smoothed masks": Plant("folder", plant_smooth, "mask-smooth", "masks/val/b.png", "anti-aliasing"),
    "foreign colours": Plant("folder", plant_colors, "mask-colors", "masks/train/b.png", "colours of the label map"),
    "16-bit masks": Plant("folder", plant_deep_mask, "mask-depth", "masks/train/b.png", "8-bit"),
    "JPEG masks": Plant("folder", plant_jpeg_mask, "mask-jpeg", "masks/train/b.png", "as PNG"),
    "another size": Plant("folder", plant_size, "size", "masks/val/a.png", "nearest neighbour"),
    "rotated photo": Plant("folder", lambda r: rotate(r, 6), "exif-mask", "masks/train/a.png", "mogrify"),
    "mirrored photo": Plant("folder", lambda r: rotate(r, 3), "exif-unclear", "images/train/a.png", "Look at"),
    "cut image": Plant(
        "folder", lambda r: cut(r / "images/train/a.png"), "image-unreadable", "images/train/a.png", "again"
    ),
    "empty image": Plant(
        "folder", lambda r: (r / "images/val/a.png").write_bytes(b""), "image-empty", "val/a.png", "again"
    ),
    "cut mask": Plant(
        "folder", lambda r: cut(r / "masks/train/a.png"), "mask-unreadable", "masks/train/a.png", "again"
    ),
    "empty mask": Plant(
        "folder", lambda r: (r / "masks/val/a.png").write_bytes(b""), "mask-empty", "val/a.png", "again"
    ),
    "no mask": Plant("folder", lambda r: (r / "masks/val/a.png").unlink(), "open", "masks/val/a.png", "message"),
    "no label map": Plant("folder", lambda r: (r / "labels.json").unlink(), "open", "labels.json", "message"),
    "a list of nothing": Plant("folder", lambda r: (r / "train.txt").write_text("x\n"), "open", "train.txt", "message"),
    "the same twice": Plant(
        "folder",
        lambda r: shutil.copy(r / "images/train/a.png", r / "images/train/b.png"),
        "duplicate",
        "images/train/b.png",
        "one of each",
    ),
    "train in val": Plant(
        "folder",
        lambda r: shutil.copy(r / "images/train/a.png", r / "images/val/b.png"),
        "leak",
        "images/val/b.png",
        "never saw",
    ),
    "mostly void": Plant("folder", plant_void_most, "void-most", "", "class of its own"),
    "void as a class": Plant("folder", plant_void_class, "void-class", "", "void_ids"),
    "class not in train": Plant("folder", plant_untrained, "class-untrained", "", "Add images"),
    "void split": Plant("folder", plant_void_split, "split-void", "", "void ids"),
    "void test split": Plant("folder", plant_void_test, "split-void", "", "void ids"),
    "several pages": Plant("folder", plant_pages, "image-frames", "images/train/a.tif", "one image per file"),
    "16-bit image": Plant("folder", plant_deep_image, "image-depth", "images/train/a.tif", "8 bits"),
    "imbalance": Plant("folder", plant_imbalance, "imbalance", "", "class_weights=log"),
    "broken XML": Plant("voc", lambda r: cut(r / XML), "annotation", "2008_000002.xml", "Replace the file"),
    "unknown class": Plant(
        "voc", lambda r: replace(r / XML, "aeroplane", "plane"), "annotation", "2008_000002.xml", "Replace the file"
    ),
    "no annotation": Plant("voc", lambda r: (r / XML).unlink(), "annotation", "2008_000002.xml", "Replace the file"),
    "no image": Plant(
        "voc", lambda r: (r / "JPEGImages/2008_000003.jpg").unlink(), "image-missing", "2008_000003.jpg", "Copy them"
    ),
    "no photos at all": Plant(
        "voc", lambda r: shutil.rmtree(r / "JPEGImages"), "image-missing", "2008_000001.jpg", "Copy them"
    ),
    "case of an image": Plant(
        "voc",
        lambda r: (r / "JPEGImages/2008_000003.jpg").rename(r / "JPEGImages/2008_000003.JPG"),
        "image-case",
        "2008_000003.jpg",
        "Rename",
    ),
    "no segmentation": Plant(
        "voc",
        lambda r: (r / "SegmentationClass/2008_000003.png").unlink(),
        "mask-missing",
        "2008_000003.png",
        "Copy them",
    ),
    "case of a PNG": Plant(
        "voc",
        lambda r: (r / "SegmentationClass/2008_000003.png").rename(r / "SegmentationClass/2008_000003.PNG"),
        "mask-case",
        "2008_000003.png",
        "Rename",
    ),
    "listed twice": Plant(
        "voc",
        lambda r: replace(r / "ImageSets/Segmentation/val.txt", "2009_000002", "2009_000001"),
        "open",
        "val.txt",
        "message",
    ),
    "cut photo": Plant(
        "voc", lambda r: cut(r / "JPEGImages/2008_000003.jpg"), "image-unreadable", "2008_000003.jpg", "Copy them again"
    ),
    "box outside": Plant("voc", plant_far_box, "box-outside", "2008_000002.xml", "another image"),
    "box over": Plant("voc", lambda r: plant_box(r, "xmax", 45, 58), "box-over", "2008_000002.xml", "clipped"),
    "box of no area": Plant("voc", lambda r: plant_box(r, "xmin", 1, 46), "box-empty", "2008_000002.xml", "redraw"),
    "box inverted": Plant("voc", lambda r: plant_box(r, "ymin", 1, 50), "box-inverted", "2008_000002.xml", "Swap"),
    "boxes of a mirrored photo": Plant(
        "voc", plant_mirrored_boxes, "exif-unclear", "2008_000001.jpg orientation 3, boxes", "Look at"
    ),
    "unlisted photo": Plant(
        "voc",
        lambda r: shutil.copy(r / "JPEGImages/2008_000001.jpg", r / "JPEGImages/2008_000009.jpg"),
        "unlisted",
        "JPEGImages",
        "forgotten",
    ),
    "a value that Cityscapes has not": Plant(
        "cityscapes", plant_city_value, "mask-value", "000001_gtFine_labelIds.png", "77"
    ),
    "labelTrainIds": Plant("cityscapes", plant_train_ids, "mask-train-ids", "values 0 to 18", "not labelTrainIds"),
    "train city in val": Plant("cityscapes", plant_city_leak, "leak", "2009_000002_leftImg8bit.png", "never saw"),
    "no labelIds": Plant(
        "cityscapes",
        lambda r: city(r, "val", "2009_000001")[1].unlink(),
        "open",
        "000001_gtFine_labelIds.png",
        "message",
    ),
    "case of a labelIds": Plant(
        "cityscapes",
        lambda r: city(r, "val", "2009_000001")[1].rename(city(r, "val", "2009_000001")[1].with_suffix(".PNG")),
        "open",
        "There is 2009_000001_gtFine_labelIds.PNG: rename it",
        "message",
    ),
    "a category that is none": Plant(
        "coco",
        lambda r: edit_coco(r, "val", "annotations", category_id=77),
        "open",
        "annotations/instances_val.json",
        "message",
    ),
    "a category more": Plant("coco", plant_category, "labels-of-splits", "not in both: pony", "one list"),
    "cut JSON": Plant(
        "coco", lambda r: cut(r / "annotations/instances_train.json"), "open", "instances_train.json", "message"
    ),
    "no photo": Plant(
        "coco", lambda r: (r / "train/2008_000003.jpg").unlink(), "image-missing", "2008_000003.jpg", "Copy them"
    ),
    "resized without its annotations": Plant(
        "coco",
        lambda r: save(r / "val/2009_000001.jpg", np.zeros((30, 30, 3), np.uint8)),
        "mask-outline",
        "instances_val.json",
        "annotation",
    ),
    "bbox of another image": Plant(
        "coco",
        lambda r: edit_coco(r, "val", "annotations", bbox=[500, 4, 20, 20]),
        "box-outside",
        "instances_val.json",
        "another image",
    ),
    "bbox of no width": Plant(
        "coco",
        lambda r: edit_coco(r, "val", "annotations", bbox=[5, 4, 0, 20]),
        "box-empty",
        "instances_val.json",
        "redraw",
    ),
    "photo in train and val": Plant(
        "imagenet",
        lambda r: shutil.copy(r / "train/wide/2008_000001.JPEG", r / "val/tall/new.JPEG"),
        "leak",
        "val/tall/new.JPEG",
        "never saw",
    ),
    "a class that train has not": Plant(
        "imagenet", lambda r: shutil.copytree(r / "val/tall", r / "val/round"), "open", "val/round", "message"
    ),
    "cut JPEG": Plant(
        "imagenet",
        lambda r: cut(r / "train/wide/2008_000001.JPEG"),
        "image-unreadable",
        "train/wide/2008_000001.JPEG",
        "again",
    ),
    "a shape of no class": Plant(
        "labelme",
        lambda r: edit_json(r / "val/2009_000001.json", lambda content: content["shapes"][0].update(label="pony")),
        "open",
        "val/2009_000001.json",
        "message",
    ),
    "a byte of a shard": Plant("shards", plant_flip, "shard-changed", "train-000001.tar", "pack"),
    "wrong void": Plant("camvid", plant_camvid_value, "mask-value", "valannot/val1.png", "255,void,0,0,0"),
    # Notes
    "only boxes": Plant("voc", lambda r: plant_unmasked(r, "2008_000003"), "no-mask", "2008_000003.jpg", "boxes only"),
    "a void mask": Plant(
        "folder",
        lambda r: save(r / "masks/val/a.png", np.full((24, 32), 3, np.uint8)),
        "mask-void",
        "masks/val/a.png",
        "teach nothing",
    ),
    "a test split": Plant(
        "cityscapes", lambda r: save(city(r, "test", "x")[0], paint(9, 3, (48, 64))[0]), "held-out", "", "server"
    ),
    "class not in val": Plant("voc", lambda r: None, "class-absent", "aeroplane", "undefined"),
    "small images": Plant("folder", lambda r: None, "image-tiny", "images/train/a.png", "little"),
    "one name twice": Plant("folder", lambda r: None, "same-name", "such as a", "two folders"),
    "grey image": Plant(
        "folder",
        lambda r: save(r / "images/val/a.png", np.arange(768, dtype=np.uint8).reshape(24, 32)),
        "image-mode",
        "images/val/a.png",
        "RGB",
    ),
    "cut PNG": Plant(
        "cityscapes", lambda r: cut(city(r, "train", "2008_000004")[0]), "image-unreadable", "2008_000004", "again"
    ),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_a_correct_data_set_has_no_fault(layout: str, tmp_path: Path) -> None:
    result = run(WRITERS[layout](tmp_path / "data"), layout)
    assert not result.failed
    assert {fault.id for fault in result.faults if fault.severity == "warning"} <= HONEST


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found_with_its_file_and_its_repair(name: str, tmp_path: Path) -> None:
    plant = PLANTS[name]
    root = WRITERS[plant.layout](tmp_path / "data")
    plant.plant(root)
    result = run(root, plant.layout)
    found = {fault.id: fault for fault in result.faults}
    assert plant.kind in found, result.text()
    fault = found[plant.kind]
    assert any(plant.file in f"{finding.file} {finding.detail}" for finding in fault.findings), fault
    assert plant.repair in fault.repair
    assert result.failed == any(KINDS[kind].severity == "error" for kind in found)
    others = {f.id for f in result.faults if f.severity == "error"} - {plant.kind}
    assert not others, f"one fault was planted, {others} are told as well:\n{result.text()}"


def test_every_kind_of_fault_is_planted_here() -> None:
    assert {plant.kind for plant in PLANTS.values()} | MADE.keys() == KINDS.keys()


# What no reader of today gives, and one of tomorrow could.


def made_record(key: tuple[Path, Boxes | None]) -> Record:
    path, boxes = key
    return Record(name=path.stem, image=Stored(path), boxes=boxes)


def boxes_of(*corners: float) -> Boxes:
    xyxy = np.array([corners], np.float32)
    return Boxes(xyxy=xyxy, classes=np.array([1]), difficult=np.array([False]), source=Path("made.json"))


MADE: dict[str, list[Boxes | None]] = {
    "labels-differ": [boxes_of(0, 0, 9, 9), None],
    "split-empty": [],
    "box-broken": [boxes_of(0, 0, 9, float("nan"))],
}


def run_made(folder: Path, keys: list[tuple[Path, Boxes | None]]) -> DataCheck:
    dataset = FileDataset(TINY, keys, made_record)
    layout = Layout(open=lambda root, split: dataset, splits=lambda root: ("train",), about="")
    return check(folder, "made", layout, progress=lambda split, done, total: None)


@pytest.mark.parametrize("kind", MADE)
def test_what_a_new_layout_could_give_is_judged_too(kind: str, tmp_path: Path) -> None:
    keys = [(save(tmp_path / f"{i}.png", paint(i, 3)[0]), boxes) for i, boxes in enumerate(MADE[kind])]
    result = run_made(tmp_path, keys)
    assert kind in {fault.id for fault in result.faults} and result.failed


def test_broken_samples_do_not_make_up_for_those_without_labels(tmp_path: Path) -> None:
    keys = [(save(tmp_path / f"{i}.png", paint(i, 3)[0]), boxes_of(0, 0, 9, 9) if i else None) for i in range(3)]
    cut(keys[2][0])
    [fault] = [fault for fault in run_made(tmp_path, keys).faults if fault.id == "labels-differ"]
    assert fault.findings[0].detail == "1 of 2 have boxes"


def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path: Path) -> None:
    result = run_made(tmp_path, [(tmp_path / "a\0b.png", None), (save(tmp_path / "c.png", paint(0, 3)[0]), None)])
    assert result.faults[0].id == "image-missing" and len(result.cards["train"]) == 2
    assert r"a\x00b.png" in result.text()


def test_names_neither_reach_the_terminal_nor_the_shell(tmp_path: Path) -> None:
    (tmp_path / "A'; rm x; '\x1b[2J.png").touch()
    path = tmp_path / "a'; rm x; '\x1b[2J.png"
    result = run_made(tmp_path, [(path, None)])
    command = result.faults[0].findings[0].detail.partition(".png: ")[2]
    assert shlex.split(command) == ["mv", "--", str(path.with_name("A" + path.name[1:])), str(path)]
    assert result.text().replace("\n", "").isprintable()


@pytest.mark.parametrize(("one", "other"), [("Train", "Val"), ("training", "validation"), ("train", "testing")])
def test_leaks_are_seen_however_the_splits_are_called(one: str, other: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    shutil.copy(root / "images/train/a.png", root / "images/val/b.png")
    for part in ("images", "masks"):
        (root / part / "train").rename(root / part / one)
        (root / part / "val").rename(root / part / other)
    assert "leak" in {fault.id for fault in run(root, "folder").faults}


def test_boxes_with_an_empty_folder_of_masks_are_no_void_split(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "data")
    shutil.rmtree(root / "SegmentationClass")
    (root / "SegmentationClass").mkdir()
    shutil.rmtree(root / "ImageSets/Segmentation")
    result = run(root, "voc")
    assert not result.failed and "no-mask" in {fault.id for fault in result.faults}
    assert result.cards["main-train"].masks == 0


def test_the_page_shows_splits_of_different_classes(tmp_path: Path) -> None:
    root = coco.write(tmp_path / "data")
    plant_category(root)
    assert "<bdi>pony</bdi>" in render_check(run(root, "coco"))


@pytest.mark.parametrize(
    ("message", "place"),
    {
        "/data/my, photos/x.json: broken": ("/data/my, photos/x.json", "broken"),
        "/data/my, photos/x.txt, line 3: two names": ("/data/my, photos/x.txt", "line 3: two names"),
        "/data/x.xml, object 2: class 'pony'": ("/data/x.xml", "object 2: class 'pony'"),
        "folder /data/a, b not found. Unpack it.": ("/data/a, b", "not found. Unpack it."),
        "nothing to see": ("", "nothing to see"),
    }.items(),
)
def test_a_message_is_cut_behind_its_file(message: str, place: tuple[str, str]) -> None:
    found = finding_of("open", "train", ValueError(message))
    assert (found.file, found.detail) == place


def test_photos_of_broken_annotations_are_not_told_as_forgotten(tmp_path: Path) -> None:
    root = voc.write(tmp_path)
    (next(root.rglob("Annotations")) / "2008_000001.xml").write_text("<annotation>")
    faults = {fault.id for fault in check(root, "voc", DATASETS["voc"], progress=lambda *_: None).faults}
    assert "annotation" in faults and "unlisted" not in faults


def test_a_box_outside_is_told_with_its_image_where_one_file_holds_all_boxes(tmp_path: Path) -> None:
    root = coco.write(tmp_path)
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [1000, 5, 20, 20]
    path.write_text(json.dumps(content))
    result = check(root, "coco", DATASETS["coco"], progress=lambda *_: None)
    (fault,) = (fault for fault in result.faults if fault.id == "box-outside")
    assert "2008_000001, box 1" in str(fault)


def test_a_file_that_is_there_is_not_told_to_be_renamed(tmp_path: Path) -> None:
    root = labelme.write(tmp_path)
    photo = next((root / "train").glob("*.jpg"))
    photo.rename(root / "elsewhere.jpg")
    text = check(root, "labelme", DATASETS["labelme"], progress=lambda *_: None).text()
    assert photo.name in text and "rename it" not in text
