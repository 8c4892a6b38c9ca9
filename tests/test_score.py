"""Promises of scoring files: the same numbers as the model's, by the same code, and no prediction may be missing."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import expect_mistake, veduta
from layouts import TINY, save, write_camvid, write_folder
from model_files import random_backend, write_model
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pictures import PICTURES
from PIL import Image
from prediction_files import WRITERS, coco_results, data_of, scored, write_masks, write_table
from small_runs import TASKS, small_recipe
from writers import cityscapes, imagenet

from veduta.data import open_dataset, open_layout
from veduta.data.label_maps import VOC
from veduta.engine.compare import compare
from veduta.engine.predict import find_images, predict
from veduta.engine.predictions.masks import Ids
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.engine.score import open_predictions
from veduta.engine.sources import open_source
from veduta.errors import BadPrediction
from veduta.tasks.evaluation import Evaluation


def expect_same_numbers(one: Evaluation, other: Evaluation) -> None:
    assert one.scores.overall.keys() == other.scores.overall.keys()
    assert_array_equal([*one.scores.overall.values()], [*other.scores.overall.values()])
    for name, column in one.scores.per_class.items():
        assert_array_equal(column, other.scores.per_class[name], err_msg=name)
    assert_array_equal(one.scores.confusion, other.scores.confusion)
    assert one.scores.facts == other.scores.facts
    assert one.scores.details.keys() == other.scores.details.keys() >= {"calibration_error"}
    assert_array_equal([*one.scores.details.values()], [*other.scores.details.values()])
    assert [asdict(image) for image in one.per_image] == [asdict(image) for image in other.per_image]
    assert (one.interval, one.protocol, one.rules) == (other.interval, other.protocol, other.rules)


# What `veduta predict` wrote


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_of_predict_scores_as_its_model_in_every_number(tmp_path: Path, task: str) -> None:
    layout = "imagenet" if task == "classify" else "voc"
    root = WRITERS[layout](tmp_path / layout)
    recipe = small_recipe(task, tmp_path)
    dataset = open_dataset(recipe.data, "val")
    predictor = Predictor(random_backend(recipe, dataset.labels, seed=5))
    images = root / ("val" if task == "classify" else "VOCdevkit/VOC2012/JPEGImages")
    line = ProgressLine(silent=True)
    assert predict(predictor, find_images([str(images)]), tmp_path / "out", line, confidence=True) == []
    source = open_source(tmp_path / "out", dataset=dataset)
    expect_same_numbers(scored(source, dataset), scored(predictor, dataset))
    assert predictor.proof in source.proof and source.sha256 != predictor.sha256
    assert len(source.sha256) == 64


@pytest.mark.parametrize("task", ["segment", "detect_segment", "classify"])
def test_a_folder_of_predict_that_was_changed_is_refused(tmp_path: Path, task: str) -> None:
    layout = "imagenet" if task == "classify" else "voc"
    root = WRITERS[layout](tmp_path / layout)
    recipe = small_recipe(task, tmp_path)
    dataset = open_dataset(recipe.data, "val")
    images = find_images([str(root / ("val" if task == "classify" else "VOCdevkit/VOC2012/JPEGImages"))])
    out = tmp_path / "out"
    predict(Predictor(random_backend(recipe, dataset.labels, seed=1)), images, out, ProgressLine(silent=True))
    content = json.loads((out / "predictions.json").read_text())

    def expect(words: str, **changes: object) -> None:
        (out / "predictions.json").write_text(json.dumps({**content, **changes}))
        with pytest.raises(BadPrediction, match=words):
            scored(open_source(out, dataset=dataset), dataset)

    first, *others = content["images"]
    val = [row for row in content["images"] if row["name"].split("/")[-1] in ("2009_000001", "2009_000002")]
    rest = [row for row in content["images"] if row not in val]
    expect(r"1 of 2 images of the split have no prediction: ", images=[*rest, val[0]])
    expect(r"is listed twice", images=[*content["images"], first])
    expect(
        r"640 x 480, its image .* is 48 x 56 \(width x height\)",
        images=[*rest, val[1], {**val[0], "height": 480, "width": 640}],
    )
    expect(r"its files would not lie in this folder", images=[*rest, val[0], {**val[1], "name": "../2009_000002"}])
    expect(r"labels.*predict again", labels=None)
    expect(r"task.*predict again", task="paint")
    expect(r"images: expected a list of objects", images={})
    if task == "detect_segment":
        expect(
            r"boxes: expected class, score, xyxy of each",
            images=[*rest, val[0], {**val[1], "boxes": [{"class": "cow"}]}],
        )
        odd: Any
        for odd in ("0.5", None, {}, True):
            wrong: dict[str, Any] = {"class": "cow", "score": odd, "xyxy": [0, 0, 1, 1]}
            expect(r"expected class, score, xyxy of each", images=[*rest, val[0], {**val[1], "boxes": [wrong]}])
        wrong = {"class": "cow", "score": 1e999, "xyxy": [0, 0, 1, 1]}
        expect(r"a number is missing or infinite", images=[*rest, val[0], {**val[1], "boxes": [wrong]}])
    (out / "predictions.json").write_text(json.dumps(content)[:-9])
    with pytest.raises(BadPrediction, match="not valid JSON"):
        open_source(out, dataset=dataset)
    (out / "predictions.json").write_text(json.dumps(content))
    if task == "classify":
        scores = np.load(out / "class_scores.npy")
        np.save(out / "class_scores.npy", scores[1:])
        with pytest.raises(BadPrediction, match=r"class_scores\.npy: float32 of shape .* wants float32 of"):
            open_source(out, dataset=dataset)
        for odd in (1.5, -0.1, np.nan):
            np.save(out / "class_scores.npy", np.full_like(scores, odd))
            with pytest.raises(BadPrediction, match=r"class_scores\.npy, image .*beyond 0 and 1"):
                open_source(out, dataset=dataset).predict([dataset[0]])
        with (out / "class_scores.npy").open("wb") as file:
            np.savez(file, scores)
        with pytest.raises(BadPrediction, match="not a readable .npy"):
            open_source(out, dataset=dataset)
        (out / "class_scores.npy").write_bytes(b"no numbers")
        with pytest.raises(BadPrediction, match="not a readable .npy"):
            open_source(out, dataset=dataset)
        (out / "class_scores.npy").unlink()
        with pytest.raises(BadPrediction, match=r"class_scores\.npy not found"):
            open_source(out, dataset=dataset)
    else:
        (out / "masks/2009_000002.png").unlink()
        with pytest.raises(BadPrediction, match=r"2009_000002\.png not found: 1 of 2 files are missing"):
            open_source(out, dataset=dataset)


def test_boxes_of_a_folder_of_predict_count_best_first_in_whatever_order_they_are(tmp_path: Path) -> None:
    WRITERS["voc"](tmp_path / "voc")
    recipe = small_recipe("detect_segment", tmp_path)
    dataset = open_dataset(recipe.data, "val")
    predictor = Predictor(random_backend(recipe, dataset.labels, seed=5))
    images = find_images([str(tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages")])
    predict(predictor, images, tmp_path / "out", ProgressLine(silent=True))
    (expected,) = open_source(tmp_path / "out", dataset=dataset).predict([dataset[0]])
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    for image in content["images"]:
        image["boxes"].reverse()
    (tmp_path / "out/predictions.json").write_text(json.dumps(content))
    (found,) = open_source(tmp_path / "out", dataset=dataset).predict([dataset[0]])
    assert found.box_scores is not None and expected.box_scores is not None and len(found.box_scores) > 1
    np.testing.assert_array_equal(found.box_scores, expected.box_scores)


def test_a_folder_of_predict_may_hold_more_images_than_the_split(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "voc")
    images = find_images([str(tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages")])
    predictor = Predictor(random_backend(small_recipe("segment", tmp_path), VOC, seed=1))
    predict(predictor, images, tmp_path / "out", ProgressLine(silent=True))
    source = open_predictions(tmp_path / "out", dataset=dataset)
    assert sorted(source.left_over) == [picture.name for picture in PICTURES["train"]]


# Index PNGs


@pytest.mark.parametrize("layout", ["camvid", "folder", "voc", "cityscapes"])
def test_the_truth_as_index_pngs_scores_100(tmp_path: Path, layout: str) -> None:
    dataset = data_of(layout, tmp_path / "data")
    source = open_predictions(write_masks(tmp_path / "masks", dataset), dataset=dataset)
    evaluation = scored(source, dataset)
    assert evaluation.scores.overall["mean_iou"] == evaluation.scores.overall["pixel_accuracy"] == 1
    assert evaluation.proved and evaluation.images_total == len(dataset)
    assert f"{len(dataset)} masks of masks, sha256 {source.sha256[:12]}" in evaluation.headline()


def test_an_index_png_is_scored_like_the_model_that_made_it(tmp_path: Path) -> None:
    recipe = small_recipe("segment", tmp_path)
    dataset = data_of("voc", tmp_path / "voc")
    predictor = Predictor(random_backend(recipe, dataset.labels, seed=5))
    images = find_images([str(tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages")])
    predict(predictor, images, tmp_path / "out", ProgressLine(silent=True))
    one = scored(open_predictions(tmp_path / "out/masks", dataset=dataset), dataset)
    assert one.scores.overall == scored(predictor, dataset).scores.overall


@pytest.mark.parametrize(
    "name_of",
    [
        lambda name: f"zurich/{name}",
        lambda name: f"{name}_gtFine_labelIds",
        lambda name: f"results/zurich/{name}_leftImg8bit",
        lambda name: f"{name}_prediction_of_mine",
    ],
)
def test_masks_for_cityscapes_are_found_as_its_own_scripts_find_them(
    tmp_path: Path, name_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cityscapes.write(tmp_path / "data")
    for number, picture in enumerate(PICTURES["val"]):  # CITY_SEQ_FRAME, as they are called
        for path in root.rglob(f"*{picture.name}*"):
            path.rename(path.with_name(path.name.replace(picture.name, f"zurich_{number:06}_000019")))
    dataset = open_layout("cityscapes", root, "val")
    masks = write_masks(tmp_path / "masks", dataset, name_of)
    assert scored(open_predictions(masks, dataset=dataset), dataset).scores.overall["mean_iou"] == 1
    other = save(masks / "zurich_000000_000019_color.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(BadPrediction, match=r"are both predictions of zurich_000000_000019"):
        open_predictions(masks, dataset=dataset)
    assert other.exists()


def test_masks_are_found_below_the_folders_of_a_package_for_vocs_server(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    write_masks(tmp_path / "results/VOC2012/Segmentation/comp5_val_cls", dataset)
    assert scored(open_predictions(tmp_path / "results", dataset=dataset), dataset).scores.overall["mean_iou"] == 1


def test_equal_names_in_two_folders_are_told_apart_by_the_folders(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    for part in ("images", "masks"):
        for name in ("a", "b"):
            (root / part / "val" / name).mkdir()
            (root / part / "val" / f"{name}.png").rename(root / part / "val" / name / "0001.png")
    dataset = open_layout("folder", root, "val")
    masks = write_masks(tmp_path / "masks", dataset)
    assert scored(open_predictions(masks, dataset=dataset), dataset).scores.overall["mean_iou"] == 1
    (masks / "a/0001.png").rename(masks / "0001.png")
    (masks / "b/0001.png").unlink()
    with pytest.raises(BadPrediction, match=r"0001 may belong to a/0001, b/0001\. Put the folders"):
        open_predictions(masks, dataset=dataset)


def test_missing_masks_are_named_before_anything_is_scored(tmp_path: Path) -> None:
    dataset = data_of("camvid", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    (masks / "val1.png").rename(masks / "other.png")
    with pytest.raises(
        BadPrediction,
        match=r"1 of 3 images of the split have no prediction: val1\. 1 others are of no image of the split: other\.",
    ):
        open_predictions(masks, dataset=dataset)


def test_masks_of_images_outside_of_the_split_are_left_over(tmp_path: Path) -> None:
    dataset = data_of("camvid", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    save(masks / "test0.png", np.zeros((4, 4), np.uint8))
    source = open_predictions(masks, dataset=dataset)
    assert source.left_over == ("test0",) and scored(source, dataset).scores.overall["mean_iou"] == 1


def test_a_mask_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    dataset = data_of("camvid", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    shutil.copy(masks / "val1.png", masks / "val1.PNG")
    with pytest.raises(BadPrediction, match=r"val1\.(png|PNG) and .*val1\.(png|PNG) are predictions of one name"):
        open_predictions(masks, dataset=dataset)
    (masks / "again").mkdir()
    (masks / "val1.PNG").rename(masks / "again/val1.png")
    with pytest.raises(BadPrediction, match="val1 and again/val1 are both predictions of val1"):
        open_predictions(masks, dataset=dataset)


def _resized(mask: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(mask[::2, ::2])


def _foreign(mask: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.where(mask == 7, 77, mask).astype(np.uint8))


def _deep(mask: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint16))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_resized, r"b\.png: 16 x 12, its image b is 32 x 24 \(width x height\)"),
        (_foreign, r"b\.png: value 77 at row \d+, column \d+ \(\d+ pixels\) is not in label map 'tiny'"),
        (_deep, r"b\.png: .*16"),
    ],
)
def test_a_wrong_mask_fails_with_its_name(
    tmp_path: Path, damage: Callable[[NDArray[np.uint8]], Image.Image], words: str
) -> None:
    dataset = data_of("folder", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    sample = dataset[1]
    assert sample.mask is not None
    damage(TINY.decode(sample.mask)).save(masks / "b.png")
    with pytest.raises(BadPrediction, match=words):
        scored(open_predictions(masks, dataset=dataset), dataset)


def test_a_mask_that_cannot_be_read_fails_with_its_name(tmp_path: Path) -> None:
    dataset = data_of("folder", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    (masks / "b.png").write_bytes((masks / "b.png").read_bytes()[:60])
    with pytest.raises(BadPrediction, match=r"b\.png"):
        scored(open_predictions(masks, dataset=dataset), dataset)


# What the values of a mask are


def test_masks_of_train_ids_are_recognised_and_read_when_asked_for(tmp_path: Path) -> None:
    dataset = data_of("cityscapes", tmp_path / "data")
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.mask is not None
        save(tmp_path / "masks" / f"{sample.name}.png", sample.mask)
    with pytest.raises(BadPrediction, match=r"all values are train ids, 0 to 18.*--ids train, or --ids file"):
        scored(open_predictions(tmp_path / "masks", dataset=dataset), dataset)
    told = scored(open_predictions(tmp_path / "masks", dataset=dataset, ids="train"), dataset)
    assert told.scores.overall["mean_iou"] == 1
    meant = scored(open_predictions(tmp_path / "masks", dataset=dataset, ids="file"), dataset)
    assert meant.scores.overall["mean_iou"] < 0.5


def test_a_palette_that_shows_other_classes_is_not_passed_over(tmp_path: Path) -> None:
    dataset = data_of("folder", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    shuffled = {0: TINY.classes[0], 1: TINY.classes[1], 7: TINY.classes[2], 255: None}
    for path in masks.rglob("*.png"):
        ids = np.asarray(Image.open(path))
        values = np.select([ids == 10, ids == 0, ids == 7], [0, 1, 7], 255).astype(np.uint8)
        palette = np.zeros((256, 3), np.uint8)
        for value, entry in shuffled.items():
            palette[value] = (0, 0, 0) if entry is None else entry.color
        image = Image.fromarray(values)
        image.putpalette(palette.tobytes())
        image.save(path)
    with pytest.raises(
        BadPrediction, match=r"shows value 0 in the colour of 'sky', which is 10.*--ids train, or --ids"
    ):
        open_predictions(masks, dataset=dataset).predict([dataset[0]])
    told = scored(open_predictions(masks, dataset=dataset, ids="colors"), dataset)
    assert told.scores.overall["mean_iou"] == 1


def test_masks_of_class_colours_are_read_by_the_label_map(tmp_path: Path) -> None:
    dataset = data_of("folder", tmp_path / "data")
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.mask is not None
        save(tmp_path / "masks" / f"{sample.name}.png", TINY.palette[sample.mask])
    ids: Ids | None
    for ids in (None, "colors"):
        source = open_predictions(tmp_path / "masks", dataset=dataset, ids=ids)
        assert scored(source, dataset).scores.overall["mean_iou"] == 1


# COCO's results


def test_the_truth_as_cocos_results_has_an_ap_of_100(tmp_path: Path) -> None:
    dataset = data_of("coco", tmp_path / "data")
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(coco_results(tmp_path / "data")))
    source = open_source(path, dataset=dataset)
    evaluation = scored(source, dataset)
    assert next(iter(evaluation.scores.overall.values())) == 1
    assert np.isnan(evaluation.scores.overall["mean_iou"])  # boxes alone were predicted
    assert "pixel_accuracy" not in evaluation.scores.details and "void" not in evaluation.headline()
    assert source.rules.boxes == "coco" and "3 boxes in 2 images by detections.json" in source.proof
    other = open_predictions(path, dataset=dataset, boxes="voc07")
    assert other.rules.boxes == "voc07" and "voc07" in scored(other, dataset).headline()
    (prediction,) = source.predict([dataset[1]])
    assert prediction.box_scores is not None and (np.diff(prediction.box_scores) <= 0).all()


def test_an_image_without_detections_is_an_image_without_detections(tmp_path: Path) -> None:
    dataset = data_of("coco", tmp_path / "data")
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(coco_results(tmp_path / "data")[:1]))
    source = open_predictions(path, dataset=dataset)
    assert "1 boxes in 1 images" in source.proof
    assert scored(source, dataset).images_counted == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"category_id": 2}, r"a detection of image 10: category_id 2 is no class\. There are "),
        ({"category_id": [2]}, r"category_id \[2\] is no class"),
        ({"bbox": [1, 2, 3]}, r"a detection of image 10: expected x, y, width, height and a score"),
        ({"bbox": [1, 2, -3, 4]}, r"a detection of image 10: bbox \[1, 2, -3, 4\] with score .* is no box"),
        ({"bbox": [1, 2, 1e9, 4]}, r"is no box of pixels"),
        ({"score": "0.5"}, r"expected x, y, width, height and a score"),
        ({"score": float("nan")}, r"is no box of pixels"),
    ],
)
def test_a_detection_that_is_none_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    dataset = data_of("coco", tmp_path / "data")
    rows = coco_results(tmp_path / "data")
    path = tmp_path / "detections.json"
    path.write_text(json.dumps([{**rows[0], **changes}, *rows[1:]]))
    with pytest.raises(BadPrediction, match=words):
        open_predictions(path, dataset=dataset)


def test_a_detection_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    dataset = data_of("coco", tmp_path / "data")
    rows = coco_results(tmp_path / "data")
    path = tmp_path / "detections.json"
    path.write_text(json.dumps([*rows, rows[1]]))
    with pytest.raises(BadPrediction, match=r"1 detections are listed twice, such as \["):
        open_predictions(path, dataset=dataset)


def test_detections_of_other_images_are_left_over_and_of_others_alone_refused(tmp_path: Path) -> None:
    dataset = data_of("coco", tmp_path / "data")
    rows = coco_results(tmp_path / "data")
    path = tmp_path / "detections.json"
    path.write_text(json.dumps([*rows, {**rows[0], "image_id": 99}]))
    assert open_predictions(path, dataset=dataset).left_over == ("99",)
    path.write_text(json.dumps([{**row, "image_id": 99} for row in rows]))
    with pytest.raises(BadPrediction, match=r"none of its images is in the split\. image_id is 99 .* split 10"):
        open_predictions(path, dataset=dataset)


@pytest.mark.parametrize("content", ['{"annotations": []}', "[1, 2]", '[{"image_id": 10}]', "[", '"text"'])
def test_a_json_that_is_no_results_is_refused(tmp_path: Path, content: str) -> None:
    dataset = data_of("coco", tmp_path / "data")
    path = tmp_path / "detections.json"
    path.write_text(content)
    with pytest.raises(BadPrediction, match=r"detections\.json: (expected a list of objects with image_id|not valid)"):
        open_predictions(path, dataset=dataset)


def test_where_data_have_no_ids_of_their_own_names_and_file_ids_stand_for_them(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    rows = []
    for picture in PICTURES["val"]:
        for thing in picture.things:
            box = [thing.left, thing.top, thing.right - thing.left, thing.bottom - thing.top]
            rows.append({"image_id": picture.name, "category_id": thing.train_id, "bbox": box, "score": 0.5})
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(rows))
    evaluation = scored(open_predictions(path, dataset=dataset, boxes="voc12"), dataset)
    assert evaluation.scores.overall["ap50"] == 1
    path.write_text(json.dumps([*rows[1:], {**rows[0], "category_id": 0}]))
    with pytest.raises(BadPrediction, match="category_id"):  # counted from 0, it would be the background
        open_predictions(path, dataset=dataset)


# Tables of classes


TRUTH: list[list[object]] = [[p.name, imagenet.class_of(p)] for p in PICTURES["val"]]  # tall, wide


@pytest.mark.parametrize("class_of", [str, lambda name: {"tall": "0", "wide": "1"}[name]])
def test_a_table_of_one_class_for_each_image_has_a_top_1_and_no_top_5(
    tmp_path: Path, class_of: Callable[[str], str]
) -> None:
    dataset = data_of("imagenet", tmp_path / "data")
    rows: list[list[object]] = [[f"{name}.JPEG", class_of(str(truth))] for name, truth in TRUTH]
    table = write_table(tmp_path / "t.csv", [["name", "class"], *rows])
    evaluation = scored(open_source(table, dataset=dataset), dataset)
    assert evaluation.scores.overall == {"top1": 1.0}
    assert evaluation.scores.details == {} and [*evaluation.per_image[0].scores] == ["top1"]
    assert "2 rows of t.csv" in evaluation.headline()


def test_a_table_of_one_class_may_be_compared_with_one_of_scores(tmp_path: Path) -> None:
    dataset = data_of("imagenet", tmp_path / "data")
    guesses = write_table(tmp_path / "a.csv", [["name", "class"], *TRUTH])
    scores = write_table(tmp_path / "b.csv", [["name", "tall", "wide"], *([name, 0.25, 0.75] for name, _ in TRUTH)])
    a, b = (open_predictions(path, dataset=dataset) for path in (guesses, scores))
    comparison = compare(a, b, dataset, names=("a", "b"), name="it", split="val", batch_size=1)
    assert (comparison.score, comparison.difference) == ("top1", -0.5)


def test_a_table_of_scores_counts_what_they_say(tmp_path: Path) -> None:
    dataset = data_of("imagenet", tmp_path / "data")
    rows: list[list[object]] = [
        ["name", "wide", "tall"],
        ["2009_000001.jpg", 0.75, 0.25],
        ["wide/2009_000002", 0.5, 0.5],
    ]
    evaluation = scored(open_predictions(write_table(tmp_path / "t.csv", rows), dataset=dataset), dataset)
    assert evaluation.scores.overall == {"top1": 0.0, "top5": 1.0}
    assert [image.scores["true_class_score"] for image in evaluation.per_image] == [0.25, 0.5]
    numbered: list[list[object]] = [["name", "0", "1"], ["2009_000001", 3, -3], ["2009_000002", -8, 8]]
    table = write_table(tmp_path / "logits.csv", numbered)
    evaluation = scored(open_predictions(table, dataset=dataset, logits=True), dataset)
    assert evaluation.scores.overall["top1"] == 1
    assert evaluation.per_image[0].scores["true_class_score"] == pytest.approx(1 / (1 + np.exp(-6)))
    with pytest.raises(BadPrediction, match=r"line 2, 2009_000001: scores are between 0 and 1.*--logits"):
        open_predictions(table, dataset=dataset)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [["name", "class"], ["2009_000001", "tall"]],
            "1 of 2 images of the split have no prediction: wide/2009_000002",
        ),
        ([["name", "class"], ["2009_000001", "red"]], r"line 2, 2009_000001: 'red' is neither the name of a class"),
        ([["name", "class"], ["2009_000001", "2"]], r"'2' is neither the name of a class"),
        ([["name", "class"], ["a", "0"], ["a.JPEG", "0"]], r"line 3, a\.JPEG: listed before"),
        ([["name", "class"], ["a", "0", "1"]], r"line 2, a: 3 cells, the header has 2"),
        (
            [["name", "tall"], ["a", 0.5]],
            r"Expected `name,class`, or `name` and a column .*; 1 are missing, such as wide",
        ),
        ([["name", "tall", "tall", "wide"]], "its header has 4 columns"),
        ([["image", "class"], ["a", 0]], "its header has 2 columns, beginning with image, class"),
        ([], "its header has 0 columns"),
        ([["name", "tall", "wide"], ["a", 0.5, "x"]], "line 2, a: could not convert string to float"),
        ([["name", "tall", "wide"], ["a", 0.5, "nan"]], "line 2, a: a score is no finite number"),
    ],
)
def test_a_table_at_fault_is_refused_with_its_line(tmp_path: Path, rows: list[list[object]], words: str) -> None:
    dataset = data_of("imagenet", tmp_path / "data")
    with pytest.raises(BadPrediction, match=words):
        open_predictions(write_table(tmp_path / "t.csv", rows), dataset=dataset)


# What else a path may be


def test_options_go_with_what_they_are_for(tmp_path: Path) -> None:
    dataset = data_of("camvid", tmp_path / "data")
    masks = write_masks(tmp_path / "masks", dataset)
    with pytest.raises(ValueError, match=r"--logits goes with a table of classes; .*masks holds index PNGs"):
        open_predictions(masks, dataset=dataset, logits=True)
    with pytest.raises(ValueError, match=r"--boxes goes with a folder of `veduta predict` and COCO results and raw"):
        open_predictions(masks, dataset=dataset, boxes="coco")
    with pytest.raises(ValueError, match=r"--set protocol=whole: .*masks holds predictions and no recipe"):
        open_source(masks, dataset=dataset, changes=["protocol=whole"])


def test_what_holds_no_predictions_is_said_to(tmp_path: Path) -> None:
    dataset = data_of("camvid", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "predictions.json").write_text("{}")
    with pytest.raises(ValueError, match=r"empty holds no predictions: .*no run folder"):
        open_source(tmp_path / "empty", dataset=dataset)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"run is a run folder and holds no predictions: `veduta evaluate "):
        open_predictions(tmp_path / "run", dataset=dataset)
    with pytest.raises(FileNotFoundError, match=r"nowhere not found"):
        open_source(tmp_path / "nowhere", dataset=dataset)
    with pytest.raises(ValueError, match=r"a\.txt is neither COCO results"):
        open_predictions(tmp_path / "a.txt", dataset=dataset)
    with pytest.raises(ValueError, match=r"Give the folder that holds it"):
        open_predictions(tmp_path / "predictions.json", dataset=dataset)


def test_a_run_or_a_model_file_is_opened_as_a_model(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "voc")
    recipe = small_recipe("segment", tmp_path)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    path = write_model(tmp_path / "run/checkpoints/best.safetensors", recipe, VOC, seed=1)
    for place in (path, tmp_path / "run"):
        source = open_source(place, dataset=dataset, device="cpu", changes=["protocol=mirrored"])
        assert isinstance(source, Predictor) and "mirror image" in source.protocol


# The command


def test_the_command_scores_and_says_what_it_counted(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "data")
    masks = write_masks(tmp_path / "masks", open_layout("camvid", root, "val"))
    save(masks / "test0.png", np.zeros((4, 4), np.uint8))
    result = veduta("score", masks, "--data", root, "--json", tmp_path / "s.json", guard=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "mIoU 100.00" in result.stdout and "3 of 3 images, each once, 0 failed" in result.stdout
    assert "note: 1 predictions are of no image of split 'val' and are not scored: test0" in result.stderr
    assert json.loads((tmp_path / "s.json").read_text())["mean_iou"] == 1
    (masks / "val2.png").unlink()
    result = veduta("score", masks, "--data", root)
    assert result.returncode == 1 and "1 of 3 images of the split have no prediction: val2" in result.stderr
    assert "Traceback" not in result.stderr and "mIoU" not in result.stdout


def test_mistakes_of_the_command_are_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (tmp_path / "masks").mkdir()
    expect_mistake(veduta("score", tmp_path / "masks"), "Add --data PATH")
    expect_mistake(
        veduta("score", tmp_path / "masks", "--data", root, "--dataset", "foldr"), "--dataset foldr", "folder"
    )
