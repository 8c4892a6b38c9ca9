"""A package for a test server: every image once and legal, or no package; and its bytes score as their source does."""

import gzip
import io
import shutil
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import veduta
from layouts import write_camvid
from numpy.typing import NDArray
from pictures import PICTURES, Picture
from PIL import Image
from real_sets import needs, unpack
from typer.testing import CliRunner, Result
from writers import cityscapes, voc

from veduta.checkpoint import save_model
from veduta.cli import app
from veduta.config import Data, Loss, Optim, Recipe, TaskName
from veduta.data.images import read_ids
from veduta.data.label_maps import CITYSCAPES, VOC, bit_reversed_color
from veduta.data.layout import FileDataset
from veduta.data.layouts.camvid import LABELS as CAMVID
from veduta.data.layouts.cityscapes import open_cityscapes
from veduta.data.layouts.voc import open_voc
from veduta.data.sample import Sample
from veduta.data.stored import Stored
from veduta.engine.evaluate import evaluate
from veduta.engine.predictions.source import Predictions
from veduta.engine.progress import ProgressLine
from veduta.engine.sources import Source, open_source
from veduta.engine.submit import Form, check_package, chosen_on, submit
from veduta.engine.submit_cityscapes import CityscapesMasks
from veduta.engine.submit_voc import VocBoxes, VocMasks, forms_of, voc_form
from veduta.errors import BadPrediction, Unreadable
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo, Origin
from veduta.models import build_model
from veduta.tasks import TASKS
from veduta.tasks.evaluation import Evaluation
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

BY_NAME = {picture.name: picture for pictures in PICTURES.values() for picture in pictures}
VAL = [picture.name for picture in PICTURES["val"]]
LINE = ProgressLine(silent=True)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """VOC with splits test and main-test, of the images of val, that nobody has labels of."""
    root = voc.write(tmp_path / "voc")
    year = root / "VOCdevkit/VOC2012"
    for number, picture in enumerate(PICTURES["val"], start=1):
        shutil.copy(year / f"JPEGImages/{picture.name}.jpg", year / f"JPEGImages/2010_{number:06}.jpg")
    names = "".join(f"2010_{number:06}\n" for number in range(1, 1 + len(VAL)))
    for lists in ("Segmentation", "Main"):
        (year / f"ImageSets/{lists}/test.txt").write_text(names)
    return root


@pytest.fixture
def city(tmp_path: Path) -> Path:
    root = cityscapes.write(tmp_path / "cityscapes")
    shutil.copytree(root / "leftImg8bit/val", root / "leftImg8bit/test")
    return root


def blurred(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Wrong along every border, and right elsewhere."""
    return np.roll(mask, 3, axis=1)


def found_in(sample: Sample) -> Prediction:
    """What a fair model of VOC says about one of the pictures, or about a copy of one, with two boxes too many."""
    picture = BY_NAME.get(sample.name) or PICTURES["val"][int(sample.name[-1]) - 1]
    rng = np.random.default_rng(len(picture.things))
    boxes = np.array([(t.left, t.top, t.right, t.bottom) for t in picture.things], np.float32).reshape(-1, 4)
    boxes += rng.uniform(-2, 2, boxes.shape).astype(np.float32)
    boxes = np.concatenate([np.array([[0, 0, 1 / 3, 0.7], [3, 2, 44.1, 41]], np.float32), boxes])
    return Prediction(
        mask=blurred(picture.mask),
        boxes=boxes,
        box_classes=np.array([3, 12, *(thing.train_id for thing in picture.things)], np.int64),
        box_scores=-np.sort(-rng.uniform(0.01, 1, len(boxes)).astype(np.float32)),
    )


def seen_in_a_city(sample: Sample) -> Prediction:
    return Prediction(mask=blurred(cityscapes.train_ids(BY_NAME[sample.name])))


def source_of(
    find: Callable[[Sample], Prediction] = found_in, *, task: TaskName = "detect_segment", labels: LabelMap = VOC
) -> Source:
    return Predictions(
        labels=labels,
        task=TASKS[task](labels, Loss()),
        protocol="as told",
        rules=Rules(),
        proof="told by a test",
        sha256="0" * 64,
        find=find,
    )


def form_of(devkit: Path, split: str, comp: int) -> Form:
    return voc_form(open_voc(devkit, split), devkit, split, comp)


def pack(source: Source, form: Form, out: Path) -> Evaluation | None:
    return submit(source, form, out, batch_size=2, line=LINE)


def entries_of(package: Path) -> dict[str, bytes]:
    if package.suffix == ".zip":
        with zipfile.ZipFile(package) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(package) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file}


def repack(package: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The same package with other entries, made by another program."""
    entries = entries_of(package)
    change(entries)
    other = package.with_stem(f"{package.stem}-changed")
    if package.suffix == ".zip":
        with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(other, "w:gz") as archive:
            for name, data in entries.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return other


def png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue()


def test_voc_gets_a_palette_png_of_class_indices_for_each_image_in_the_order_of_the_list(
    devkit: Path, tmp_path: Path
) -> None:
    pack(source_of(), form_of(devkit, "val", 6), tmp_path / "results.tgz")
    entries = entries_of(tmp_path / "results.tgz")
    assert list(entries) == [f"results/VOC2012/Segmentation/comp6_val_cls/{name}.png" for name in VAL]
    for name, data in zip(VAL, entries.values(), strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode) == ("PNG", "P")
            assert np.array_equal(np.asarray(image), blurred(BY_NAME[name].mask))
            palette = image.getpalette()
            assert palette is not None and tuple(palette[45:48]) == bit_reversed_color(15) == (192, 128, 128)


def test_a_split_without_labels_becomes_a_package_all_the_same(devkit: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.tgz"
    assert pack(source_of(), form_of(devkit, "test", 5), out) is None
    assert [Path(name).parent.name for name in entries_of(out)] == ["comp5_test_cls"] * 2


def test_the_same_predictions_make_the_same_bytes(devkit: Path, city: Path, tmp_path: Path) -> None:
    for ending, form in (
        (".tgz", lambda: form_of(devkit, "test", 6)),
        (".tgz", lambda: form_of(devkit, "main-test", 4)),
    ):
        one, other = (tmp_path / f"{name}{ending}" for name in "ab")
        pack(source_of(), form(), one)
        pack(source_of(), form(), other)
        assert one.read_bytes() == other.read_bytes()
        one.unlink()
        other.unlink()
    for name in "ab":
        form_ = CityscapesMasks(open_cityscapes(city, "test"), "test")
        pack(source_of(seen_in_a_city, labels=CITYSCAPES), form_, tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_masks_of_a_package_score_as_their_source_does(devkit: Path, tmp_path: Path) -> None:
    source = source_of(task="segment")
    packed = pack(source, form_of(devkit, "val", 6), tmp_path / "results.tgz")
    scored = evaluate(source, open_voc(devkit, "val"), name="voc", split="val", batch_size=2)
    assert packed is not None and packed.proved
    assert packed.scores.overall == scored.scores.overall and packed.interval == scored.interval
    assert np.array_equal(packed.scores.confusion, scored.scores.confusion)
    assert 0 < packed.scores.overall["mean_iou"] < 1
    assert packed.protocol == "as told" and packed.proof == "told by a test; read back from results.tgz"


def test_the_boxes_of_a_package_are_those_of_its_source_and_score_the_same(devkit: Path, tmp_path: Path) -> None:
    out, form = tmp_path / "results.tgz", form_of(devkit, "main-val", 4)
    packed = pack(source_of(), form, out)
    scored = evaluate(source_of(), open_voc(devkit, "main-val"), name="voc", split="main-val", batch_size=2)
    assert packed is not None and packed.proved and 0 < scored.scores.overall["ap50"] < 1
    assert packed.scores.overall["ap50"] == scored.scores.overall["ap50"]
    assert np.array_equal(packed.scores.per_class["ap50"], scored.scores.per_class["ap50"], equal_nan=True)

    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, data in entries_of(out).items():
        (folder / name.rpartition("_")[2]).write_bytes(data)
    samples = [open_voc(devkit, "main-val")[index] for index in range(len(VAL))]
    for sample, read in zip(samples, form.open(folder, Rules()).predict(samples), strict=True):
        told = found_in(sample)
        assert told.boxes is not None and told.box_classes is not None and told.box_scores is not None
        assert read.boxes is not None and read.box_classes is not None and read.box_scores is not None
        assert read.boxes.tolist() == told.boxes.tolist()
        assert read.box_classes.tolist() == told.box_classes.tolist()
        assert read.box_scores.tolist() == told.box_scores.tolist()


def test_voc_gets_a_file_of_boxes_for_every_class_in_pixels_from_1(devkit: Path, tmp_path: Path) -> None:
    def one_box(sample: Sample) -> Prediction:
        return Prediction(
            boxes=np.array(
                [[0, 20, 10, 40.5]], np.float32
            ),  # an annotation of the pixels 1 to 10, rows 21 to 40 and a half
            box_classes=np.array([15]),
            box_scores=np.array([0.25], np.float32),
        )

    pack(source_of(one_box), form_of(devkit, "main-test", 3), tmp_path / "results.tgz")
    entries = entries_of(tmp_path / "results.tgz")
    assert list(entries) == [f"results/VOC2012/Main/comp3_det_test_{name}.txt" for name in VOC.names[1:]]
    lines = b"2010_000001 0.25 1 21 10 40.5\n2010_000002 0.25 1 21 10 40.5\n"
    assert [data for data in entries.values() if data] == [entries["results/VOC2012/Main/comp3_det_test_person.txt"]]
    assert entries["results/VOC2012/Main/comp3_det_test_person.txt"] == lines


def test_cityscapes_gets_grey_label_ids_under_the_name_of_the_image_that_score_the_same(
    city: Path, tmp_path: Path
) -> None:
    source, out = source_of(seen_in_a_city, task="segment", labels=CITYSCAPES), tmp_path / "results.zip"
    packed = pack(source, CityscapesMasks(open_cityscapes(city, "val"), "val"), out)
    scored = evaluate(source, open_cityscapes(city, "val"), name="cityscapes", split="val", batch_size=2)
    assert packed is not None and packed.proved and packed.scores.overall == scored.scores.overall
    entries = entries_of(out)
    assert list(entries) == [f"{name}_pred_labelIds.png" for name in VAL]
    for name, data in zip(VAL, entries.values(), strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "L" and image.size == BY_NAME[name].size[::-1]
            assert np.array_equal(np.asarray(image), CITYSCAPES.decode(blurred(cityscapes.train_ids(BY_NAME[name]))))


def test_the_folder_of_the_year_is_that_of_the_data(devkit: Path, tmp_path: Path) -> None:
    years = devkit / "VOCdevkit"
    shutil.copytree(years / "VOC2012", years / "VOC2011")
    shutil.copytree(years / "VOC2012", tmp_path / "mine")
    for root, split, year in (
        (years, "2011/val", "VOC2011"),
        (years, "2012/val", "VOC2012"),
        (tmp_path / "mine", "val", "VOC2012"),
    ):
        form = form_of(root, split, 6)
        assert isinstance(form, VocMasks) and form.folder == f"results/{year}/Segmentation/comp6_val_cls/"


def test_an_image_that_is_missing_is_told_before_the_work(devkit: Path) -> None:
    (devkit / "VOCdevkit/VOC2012/JPEGImages/2010_000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2010_000002.jpg not found: 1 of 2 images of split 'test'"):
        form_of(devkit, "test", 6)


def expect_nothing(package: Path) -> None:
    """Neither a package nor a part of one."""
    assert not list(package.parent.glob(f"*{package.name}*")) and not list(package.parent.glob(f".{package.name}*"))


def test_an_image_that_cannot_be_read_leaves_no_package(devkit: Path, tmp_path: Path) -> None:
    (devkit / "VOCdevkit/VOC2012/JPEGImages/2010_000002.jpg").write_bytes(b"no image")
    with pytest.raises(Unreadable, match=r"2010_000002.jpg: not a readable image.*nothing was packed"):
        pack(source_of(), form_of(devkit, "test", 6), tmp_path / "results.tgz")
    expect_nothing(tmp_path / "results.tgz")


def test_a_pixel_without_a_class_leaves_no_package_for_voc_and_is_unlabelled_in_cityscapes(
    devkit: Path, city: Path, tmp_path: Path
) -> None:
    def with_void(sample: Sample) -> Prediction:
        mask = np.zeros(sample.image.shape[:2], np.uint8)
        mask[3:5, 7] = 255
        return Prediction(mask=mask)

    with pytest.raises(ValueError, match=r"2010_000001: value 255 at row 3, column 7 \(2 pixels\).*takes 0 to 20"):
        pack(source_of(with_void, task="segment"), form_of(devkit, "test", 6), tmp_path / "results.tgz")
    expect_nothing(tmp_path / "results.tgz")
    form = CityscapesMasks(open_cityscapes(city, "test"), "test")
    pack(source_of(with_void, task="segment", labels=CITYSCAPES), form, tmp_path / "results.zip")
    with Image.open(io.BytesIO(entries_of(tmp_path / "results.zip")[f"{VAL[0]}_pred_labelIds.png"])) as image:
        assert np.unique(np.asarray(image)).tolist() == [0, 7]


def test_labels_that_cannot_be_read_are_no_obstacle(city: Path, tmp_path: Path) -> None:
    mask = next((city / "gtFine/val" / cityscapes.CITY).glob("*.png"))
    mask.write_bytes(b"no image")
    form = CityscapesMasks(open_cityscapes(city, "val"), "val")
    packed = pack(source_of(seen_in_a_city, task="segment", labels=CITYSCAPES), form, tmp_path / "results.zip")
    assert len(entries_of(tmp_path / "results.zip")) == 2 and packed is not None and len(packed.failed) == 1


@pytest.mark.parametrize(("labels", "count"), [(CAMVID, 11), (CITYSCAPES, 19)])
def test_a_model_of_other_classes_is_refused(devkit: Path, tmp_path: Path, labels: LabelMap, count: int) -> None:
    with pytest.raises(ValueError, match=f"knows {count} classes .* the data 21"):
        pack(source_of(labels=labels), form_of(devkit, "test", 6), tmp_path / "results.tgz")
    expect_nothing(tmp_path / "results.tgz")


def test_data_of_other_classes_is_refused(devkit: Path) -> None:
    (devkit / "VOCdevkit/VOC2012/labels.txt").write_text("background\ncat\ndog\n")
    with pytest.raises(ValueError, match="its classes are background, cat, dog; the server scores background, aero"):
        form_of(devkit, "test", 6)


def test_a_source_without_what_the_server_scores_is_refused(devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split 'main-test' is scored by boxes, which the source does not predict"):
        pack(source_of(task="segment"), form_of(devkit, "main-test", 3), tmp_path / "results.tgz")
    with pytest.raises(ValueError, match="split 'test' is scored by masks, which the source does not predict"):
        pack(source_of(task="classify"), form_of(devkit, "test", 6), tmp_path / "results.tgz")


def test_the_name_of_a_package_ends_as_the_server_wants_it(devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"results.zip: the server takes a .tgz"):
        pack(source_of(), form_of(devkit, "test", 6), tmp_path / "results.zip")


def write_masks(folder: Path, names: dict[str, Picture]) -> Path:
    folder.mkdir()
    for name, picture in names.items():
        Image.fromarray(picture.mask).save(folder / f"{name}.png")
    return folder


def test_a_folder_of_predictions_is_packed_when_it_is_whole_and_not_otherwise(devkit: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", {f"2010_00000{i}": p for i, p in enumerate(PICTURES["val"], start=1)})
    dataset, out = open_voc(devkit, "test"), tmp_path / "results.tgz"
    pack(open_source(masks, dataset=dataset), form_of(devkit, "test", 6), out)
    assert len(entries_of(out)) == 2
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "2010_000002.png")
    with pytest.raises(BadPrediction, match="2010_000002"):
        pack(open_source(masks, dataset=dataset), form_of(devkit, "test", 6), tmp_path / "second.tgz")
    (masks / "2010_000002.png").unlink()
    with pytest.raises(BadPrediction, match="2010_000002"):
        pack(open_source(masks, dataset=dataset), form_of(devkit, "test", 6), tmp_path / "second.tgz")
    expect_nothing(tmp_path / "second.tgz")


def info_of(train_split: str = "train", dataset: str = "voc", origin: Origin | None = None) -> ModelInfo:
    data = Data(dataset=dataset, train_split=train_split)
    recipe = Recipe(name="r", model="deeplabv3plus_tiny", data=data, optim=Optim(lr=0.1), steps=1)
    return ModelInfo(recipe=recipe, labels=VOC, step=1, scores={"val_mean_iou": 0.5}, origin=origin)


@pytest.mark.parametrize(
    ("dataset", "train_split", "why"),
    [
        ("sbd", "train", "trains on sbd"),
        ("voc", "train_aug", "masks of SBD"),
        ("voc", "2007/trainval+2012/trainval", "more than one year"),
    ],
)
def test_a_recipe_of_more_than_vocs_own_data_says_its_competition(
    devkit: Path, dataset: str, train_split: str, why: str
) -> None:
    info = info_of(train_split, dataset)
    for split, comp, own in (("test", 6, 5), ("main-test", 4, 3)):
        opened = open_voc(devkit, split)
        assert f"comp{comp}_" in voc_form(opened, devkit, split, None, info).about()
        with pytest.raises(ValueError, match=f"--comp {own} is for .*{why}"):
            voc_form(opened, devkit, split, own, info)


def test_a_competition_that_nobody_can_know_has_to_be_said(devkit: Path) -> None:
    origin = Origin(source="deeplab", format="bundle", files=("a",), sha256="0", preprocessing="none")
    dataset = open_voc(devkit, "test")
    for info in (None, info_of(), info_of("train+val"), info_of("train_aug", origin=origin)):
        with pytest.raises(ValueError, match="--comp must be 5 or 6 for split 'test': 5 where the model learned from"):
            voc_form(dataset, devkit, "test", None, info)
        assert "comp5_test_cls" in voc_form(dataset, devkit, "test", 5, info).about()
    with pytest.raises(ValueError, match="--comp must be 3 or 4 for split 'main-test'"):
        voc_form(open_voc(devkit, "main-test"), devkit, "main-test", 6)


@pytest.mark.parametrize("split", ["train_aug", "test+val", "main-train:person"])
def test_a_package_is_of_one_list(devkit: Path, split: str) -> None:
    dataset: FileDataset[Any] = open_voc(devkit, "val")
    with pytest.raises(ValueError, match="a package holds one list of VOC"):
        voc_form(dataset, devkit, split, 6)


def test_it_is_known_whether_the_checkpoint_was_chosen_on_the_split(devkit: Path) -> None:
    assert chosen_on(info_of(), form_of(devkit, "val", 6))
    assert not chosen_on(info_of(), form_of(devkit, "test", 6))
    assert not chosen_on(info_of(dataset="sbd"), form_of(devkit, "val", 6))


@pytest.fixture
def package(devkit: Path, tmp_path: Path) -> Path:
    pack(source_of(), form_of(devkit, "val", 6), tmp_path / "voc.tgz")
    return tmp_path / "voc.tgz"


def check(package: Path, devkit: Path) -> list[Evaluation | None]:
    return check_package(package, forms_of(package, devkit), LINE)


def test_a_package_of_another_program_is_checked_and_scored(devkit: Path, package: Path) -> None:
    scored = evaluate(source_of(task="segment"), open_voc(devkit, "val"), name="voc", split="val", batch_size=2)
    for found in (check(package, devkit), check(repack(package, lambda entries: None), devkit)):
        assert [evaluation and evaluation.scores.overall for evaluation in found] == [scored.scores.overall]
        assert found[0] is not None and found[0].proof.startswith("voc")


def test_a_package_of_masks_and_boxes_is_checked_for_both(devkit: Path, package: Path, tmp_path: Path) -> None:
    pack(source_of(), form_of(devkit, "main-test", 4), tmp_path / "boxes.tgz")
    both = repack(package, lambda entries: entries.update(entries_of(tmp_path / "boxes.tgz")))
    forms = forms_of(both, devkit)
    assert {type(form) for form in forms} == {VocMasks, VocBoxes} and {f.split for f in forms} == {"val", "main-test"}
    assert sorted(evaluation is None for evaluation in check(both, devkit)) == [False, True]


MASK = f"results/VOC2012/Segmentation/comp6_val_cls/{VAL[1]}.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.pop(MASK), f"holds 0 entries for {VAL[1]}.png"),
        (
            lambda entries: entries.update({"notes.txt": b""}),
            "'notes.txt' does not belong there. Expected only results/",
        ),
        (lambda entries: entries.update({MASK: b"no image"}), f"tgz, {VAL[1]}.png: not a readable image"),
        (
            lambda entries: entries.update({MASK: png(np.zeros((9, 7), np.uint8))}),
            "mask is a PNG of 7 x 9, expected .* 64 x 48",
        ),
        (lambda entries: entries.update({MASK: png(np.full((48, 64), 21, np.uint8))}), "value 21 at row 0, column 0"),
        (
            lambda entries: entries.update({MASK: png(np.zeros((48, 64, 3), np.uint8))}),
            "one 8-bit class index per pixel",
        ),
        (lambda entries: entries.clear(), "none of its 0 entries"),
    ],
)
def test_a_wrong_package_is_refused(
    devkit: Path, package: Path, change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(repack(package, change), devkit)


def test_an_image_that_comes_twice_is_refused(devkit: Path, package: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tgz", "w:gz") as archive:
        for name, data in [*entries_of(package).items(), (MASK, png(np.zeros((48, 64), np.uint8)))]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match=f"holds 2 entries for {VAL[1]}.png. Expected one"):
        check(tmp_path / "twice.tgz", devkit)


def test_an_extended_header_that_unpacks_to_more_than_a_name_needs_is_refused_before_it_is_read(
    devkit: Path, tmp_path: Path
) -> None:
    header = tarfile.TarInfo("much")
    header.type, header.size = tarfile.XHDTYPE, 1 << 28
    with gzip.open(tmp_path / "much.tgz", "wb", compresslevel=1) as packed:
        packed.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(1 << 8):
            packed.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="an extended header of 268,435,456 bytes, the limit is 65,536"):
        check(tmp_path / "much.tgz", devkit)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_links_and_damaged_archives_are_refused(devkit: Path, package: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tgz", "w:gz") as archive:
        link = tarfile.TarInfo(MASK)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match="link.tgz, byte 0, .* is a symbolic link; plain files are expected"):
        check(tmp_path / "link.tgz", devkit)
    data = package.read_bytes()
    (tmp_path / "short.tgz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(ValueError, match=r"short.tgz: not a readable .tgz or .zip"):
        check(tmp_path / "short.tgz", devkit)
    with pytest.raises(ValueError, match=r"text.tgz, byte 0: no header of a plain tar"):
        check(tmp_path / "text.tgz", devkit)
    with pytest.raises(FileNotFoundError, match=r"none.tgz not found"):
        check(tmp_path / "none.tgz", devkit)


@pytest.mark.parametrize(
    "line", ["x 0.5 1 1 2 2", "x" * 5000, f"{VAL[0]} 0.5 1 1 2", f"{VAL[0]} nan 1 1 2 2", f"{VAL[0]} .5 9 1 2 2", ""]
)
def test_a_line_that_is_no_box_is_refused(devkit: Path, tmp_path: Path, line: str) -> None:
    pack(source_of(), form_of(devkit, "main-val", 4), tmp_path / "boxes.tgz")
    entry = "results/VOC2012/Main/comp4_det_val_cow.txt"
    wrong = repack(tmp_path / "boxes.tgz", lambda entries: entries.update({entry: f"{line}\n".encode()}))
    with pytest.raises(
        ValueError, match=r"cow.txt, line 1: expected the name of an image of split 'main-val', its score"
    ):
        check(wrong, devkit)


def test_train_ids_for_cityscapes_are_refused_and_other_names_are_taken(city: Path, tmp_path: Path) -> None:
    def write(mask_of: Callable[[Picture], NDArray[np.uint8]]) -> Path:
        out = tmp_path / "other.zip"
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for picture in PICTURES["val"]:
                archive.writestr(f"mine/{cityscapes.CITY}/{picture.name}_leftImg8bit.png", png(mask_of(picture)))
        return out

    form = CityscapesMasks(open_cityscapes(city, "val"), "val")
    (evaluation,) = check_package(write(lambda p: CITYSCAPES.decode(cityscapes.train_ids(p))), [form], LINE)
    assert evaluation is not None and evaluation.scores.overall["mean_iou"] == 1
    with pytest.raises(ValueError, match="these look like train ids.* where road is 7"):
        check_package(write(cityscapes.train_ids), [form], LINE)


def write_model(path: Path, labels: LabelMap, dataset: str, root: Path, **data: Any) -> Path:
    torch.manual_seed(0)
    recipe = Recipe(
        name="r",
        model="deeplabv3plus_tiny",
        data=Data(dataset=dataset, root=str(root), **data),
        optim=Optim(lr=0.1),
        steps=1,
        device="cpu",
    )
    model = build_model(recipe.model, num_classes=labels.num_classes)
    info = ModelInfo(recipe=recipe, labels=labels, step=1, scores={"val_mean_iou": 0.5})
    save_model(path, model.state_dict(), info)
    return path


def run(*arguments: str | Path) -> Result:
    """The command line in this process, which has torch at hand."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def expect_mistake(result: Result, *words: str) -> None:
    """Exit 2, one error that holds all `words`, no traceback."""
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.count("error: ") == 1
    for word in words:
        assert word in result.stderr


def test_the_command_packs_a_model_as_it_evaluates(devkit: Path, tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "m.safetensors", VOC, "voc", devkit), tmp_path / "results.tgz"
    done = veduta(
        *("submit", "voc", model, "--data", devkit, "--split", "val", "--comp", "6", "--out", out),
        *("--set", "protocol=mirrored"),
        guard=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    first, headline = done.stdout.splitlines()
    masks = "results/VOC2012/Segmentation/comp6_val_cls/NAME.png of the 2 images of split 'val'"
    assert first == f"{out}: {masks}; checked, each once and legal"
    evaluated = run("evaluate", model, "--data", devkit, "--set", "protocol=mirrored")
    score = headline.split(" (")[0]
    assert score.startswith("mIoU") and score in evaluated.stdout
    assert "read back from results.tgz" in headline and "mirror" in headline
    assert "note: this checkpoint was chosen by its score on split 'val'" in done.stderr
    checked = run("submit", "check", out, "--data", devkit)
    assert checked.exit_code == 0 and score in checked.stdout
    again = run("submit", "voc", model, "--data", devkit, "--split", "val", "--comp", "6", "--out", out)
    expect_mistake(again, "results.tgz exists; nothing is overwritten")


def test_the_command_says_what_is_wrong_in_one_line(devkit: Path, tmp_path: Path) -> None:
    camvid = write_model(tmp_path / "c.safetensors", CAMVID, "camvid", write_camvid(tmp_path / "CamVid"))
    out = tmp_path / "results.tgz"
    result = run("submit", "voc", camvid, "--data", devkit, "--comp", "6", "--out", out)
    expect_mistake(result, "knows 11 classes", "the data 21")
    expect_mistake(run("submit", "voc", camvid, "--data", devkit, "--out", out), "--comp must be 5 or 6")
    expect_mistake(run("submit", "check", out, "--data", tmp_path), "neither VOC nor Cityscapes")
    expect_nothing(out)


@needs("coco-voc20.zip")
def test_a_package_of_real_photos_scores_as_the_masks_it_was_made_of(tmp_path: Path) -> None:
    unpack("coco-voc20.zip", tmp_path)
    root, masks = tmp_path / "VOCdevkit", tmp_path / "masks"
    masks.mkdir()
    dataset = open_voc(root, "val")
    for record in map(dataset.record, range(len(dataset))):
        assert isinstance(record.mask, Stored)
        truth = read_ids(record.mask)
        Image.fromarray(blurred(np.where(truth == 255, 0, truth).astype(np.uint8))).save(masks / f"{record.name}.png")
    source = open_source(masks, dataset=dataset)
    packed = pack(source, form_of(root, "val", 5), tmp_path / "results.tgz")
    scored = evaluate(source, dataset, name="voc", split="val", batch_size=1)
    assert packed is not None and packed.proved and packed.images_counted == 52
    assert packed.scores.overall == scored.scores.overall and 0.5 < packed.scores.overall["mean_iou"] < 1
    assert np.array_equal(packed.scores.confusion, scored.scores.confusion)
    assert list(entries_of(tmp_path / "results.tgz"))[0].startswith("results/VOC2017/Segmentation/comp5_val_cls/")
