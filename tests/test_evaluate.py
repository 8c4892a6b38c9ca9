"""Promises of evaluation: every image once, every failure named, and a score that proves itself."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from layouts import TINY, paint, save
from stub_backend import StubBackend

from veduta.data.layout import FileDataset
from veduta.data.layouts.camvid import open_camvid
from veduta.data.layouts.folder import open_folder
from veduta.data.sample import Sample
from veduta.engine.counting import read_ahead
from veduta.engine.evaluate import NUM_EXAMPLES, evaluate, example_of, with_examples
from veduta.engine.predictor import Predictor, batches_by_size
from veduta.labels import LabelMap
from veduta.tasks.confusion import ConfusionMatrix
from veduta.tasks.evaluation import Evaluation, ImageScore, find_column, percent
from veduta.tasks.prediction import Prediction


def score(root: Path, backend: StubBackend | None = None, *, batch_size: int = 2) -> Evaluation:
    predictor = Predictor(backend or StubBackend())
    return evaluate(predictor, open_folder(root, "val"), name="folder", split="val", batch_size=batch_size)


def add(root: Path, name: str, seed: int, size: tuple[int, int]) -> None:
    image, train_ids = paint(seed, TINY.num_classes, size)
    save(root / "images/val" / f"{name}.png", image)
    save(root / "masks/val" / f"{name}.png", TINY.decode(train_ids))


def make_void(root: Path, name: str) -> None:
    save(root / "masks/val" / f"{name}.png", np.full((24, 32), 255, np.uint8))


def test_a_right_model_scores_1_and_every_image_is_counted_once(folder_root: Path) -> None:
    evaluation = score(folder_root)
    assert evaluation.scores.overall == {"mean_iou": 1, "pixel_accuracy": 1}
    assert [s.name for s in evaluation.per_image] == ["a", "b", "sub/c"]
    assert evaluation.images_counted == evaluation.images_total == 3
    assert evaluation.proved and evaluation.failed == ()


def test_the_score_is_the_metric_over_all_pixels(folder_root: Path) -> None:
    add(folder_root, "z", 7, (40, 50))
    backend = StubBackend(blind_to=2)
    evaluation = score(folder_root, backend)
    metric, dataset = ConfusionMatrix(TINY.num_classes), open_folder(folder_root, "val")
    for i in range(len(dataset)):
        mask = dataset[i].mask
        assert mask is not None
        metric.update(np.where(mask == 2, 0, mask).astype(np.uint8), mask)
    expected = metric.compute()
    assert evaluation.scores.overall["mean_iou"] == expected.mean_iou < 0.6
    assert evaluation.scores.confusion.tolist() == metric.counts.tolist()
    assert evaluation.scores.facts["void_share"] == metric.void / (metric.void + metric.counts.sum()) > 0


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_nothing(folder_root: Path, batch_size: int) -> None:
    add(folder_root, "ab", 7, (40, 50))
    backend = StubBackend(blind_to=1)
    evaluation = score(folder_root, backend, batch_size=batch_size)
    assert evaluation.scores.confusion.tolist() == score(folder_root, StubBackend(blind_to=1)).scores.confusion.tolist()
    assert max(backend.batch_sizes) <= batch_size and sum(backend.batch_sizes) == 4


def test_images_of_different_sizes_are_scored_at_their_own_size(folder_root: Path) -> None:
    for i, size in enumerate([(24, 33), (25, 33), (25, 33), (200, 5)]):
        add(folder_root, f"n{i}", i, size)
    evaluation = score(folder_root)
    assert evaluation.scores.overall["mean_iou"] == 1 and evaluation.images_counted == 7 and evaluation.proved


def test_images_of_one_size_share_a_batch(folder_root: Path) -> None:
    dataset = open_folder(folder_root, "val")
    samples = [(index, dataset[index]) for index in (0, 1, 2, 0)]
    size_of = Predictor(StubBackend()).shown_size
    assert [len(batch) for batch in batches_by_size(samples, 3, size_of)] == [3, 1]
    assert list(batches_by_size([], 3, size_of)) == []


def test_an_unreadable_image_is_a_named_failure_and_the_score_is_not_proved(folder_root: Path) -> None:
    (folder_root / "images/val/b.png").write_bytes(b"")
    evaluation = score(folder_root)
    assert [s.name for s in evaluation.per_image] == ["a", "sub/c"]
    ((_, why),) = evaluation.failed
    assert "b.png: not a readable image" in why
    assert not evaluation.proved and evaluation.images_total == 3
    assert "2 of 3 images, 1 failed" in evaluation.headline() and "each once" not in evaluation.headline()


def test_when_every_image_fails_there_is_no_score(folder_root: Path) -> None:
    for name in ("a", "b", "sub/c"):
        (folder_root / f"masks/val/{name}.png").write_bytes(b"")
    evaluation = score(folder_root)
    assert not evaluation.proved and math.isnan(evaluation.scores.overall["mean_iou"]) and len(evaluation.failed) == 3
    assert evaluation.headline().startswith("mIoU -  pixel accuracy -")


def test_an_image_counted_twice_is_not_proved(folder_root: Path) -> None:
    dataset = open_folder(folder_root, "val")
    dataset.keys = 2 * list(dataset.keys[:1])
    evaluation = evaluate(Predictor(StubBackend()), dataset, name="folder", split="twice", batch_size=2)
    assert evaluation.images_counted == evaluation.images_total == 2 and not evaluation.proved


def test_progress_reaches_the_end_even_where_the_last_image_fails(folder_root: Path) -> None:
    (folder_root / "images/val/sub/c.png").write_bytes(b"")
    calls: list[tuple[int, int]] = []
    dataset = open_folder(folder_root, "val")
    predictor = Predictor(StubBackend())

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    evaluate(predictor, dataset, name="folder", split="val", batch_size=1, progress=progress)
    assert calls == sorted(calls) and calls[-1] == (3, 3)


def test_other_classes_than_the_models_are_refused(camvid_root: Path) -> None:
    expected = r"the model knows 3 classes \(sky, road, car\), the data 11 \(sky, building, .*must be the same"
    with pytest.raises(ValueError, match=expected):
        evaluate(Predictor(StubBackend()), open_camvid(camvid_root, "val"), name="c", split="val", batch_size=2)


def test_classes_in_another_order_are_refused(folder_root: Path) -> None:
    turned = LabelMap(name="turned", classes=TINY.classes[::-1], void_ids=TINY.void_ids)
    with pytest.raises(ValueError, match=r"\(car, road, sky\), the data 3 \(sky, road, car\)"):
        score(folder_root, StubBackend(turned))


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def strictly(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return content


def test_the_json_is_strict_and_complete(folder_root: Path) -> None:
    make_void(folder_root, "b")
    evaluation = score(folder_root, StubBackend(blind_to=2))
    content = strictly(evaluation.to_json())
    assert content["headline"] == evaluation.headline() and content["proved"] is True
    assert content["mean_iou"] == evaluation.scores.overall["mean_iou"]
    assert [c["name"] for c in content["classes"]] == ["sky", "road", "car"]
    assert content["per_image"][1] == {"name": "b", "mean_iou": None, "pixel_accuracy": None}
    assert content["confusion"] == evaluation.scores.confusion.tolist()
    assert content["proof"] == "weights 0123456789ab at step 7" and content["sha256"] == "0123456789abcdef"
    assert content["rules"] == {"boxes": "voc12", "full": True} and content["confusion_of"] == "pixels"
    low, high = content["interval"]
    assert low <= content["mean_iou"] <= high
    assert {"boundary_iou", "frequency_weighted_iou"} < content.keys()
    assert "environment" not in content
    assert strictly(evaluation.to_json({"torch": "2"}))["environment"] == {"torch": "2"}


def test_undefined_figures_are_null_in_json(folder_root: Path) -> None:
    for name in ("a", "b", "sub/c"):
        make_void(folder_root, name)
    content = strictly(score(folder_root).to_json())
    assert content["mean_iou"] is None and content["void_share"] == 1
    assert all(c["iou"] is c["share"] is None and not c["present"] for c in content["classes"])


def test_the_headline_and_the_table_say_what_was_measured(folder_root: Path) -> None:
    evaluation = score(folder_root)
    assert evaluation.headline() == (
        "mIoU 100.00 [100.00, 100.00]  pixel accuracy 100.00  (folder val: 3 of 3 images, each once, 0 failed; 3 of 3 "
        f"classes present; {percent(evaluation.scores.facts['void_share'])} % void; whole images, single scale; "
        "weights 0123456789ab at step 7; []: 95 % by bootstrap over images)"
    )
    assert [line.split()[0] for line in evaluation.table().splitlines()] == ["class", "sky", "road", "car"]


def test_without_what_takes_time_there_is_no_interval(folder_root: Path) -> None:
    dataset, source = open_folder(folder_root, "val"), Predictor(StubBackend())
    evaluation = evaluate(source, dataset, name="folder", split="val", batch_size=2, full=False)
    assert evaluation.interval is None and evaluation.details() == ""
    assert evaluation.headline().startswith("mIoU 100.00  pixel accuracy") and "[]" not in evaluation.headline()


def test_one_image_has_no_interval(folder_root: Path) -> None:
    dataset = open_folder(folder_root, "val")
    dataset.keys = dataset.keys[:1]
    evaluation = evaluate(Predictor(StubBackend()), dataset, name="folder", split="val", batch_size=2)
    assert evaluation.interval is None and strictly(evaluation.to_json())["interval"] is None


def test_the_table_is_sorted_by_the_column_that_is_asked_for(folder_root: Path) -> None:
    evaluation = score(folder_root, StubBackend(blind_to=1))
    ious = dict(zip(evaluation.labels.names, evaluation.scores.per_class["iou"].tolist(), strict=True))
    assert ious["road"] == 0 < ious["sky"] < ious["car"] == 1

    def order(sort: str | None) -> list[str]:
        return [line.split()[0] for line in evaluation.table(sort).splitlines()[1:]]

    assert order(None) == ["sky", "road", "car"]
    assert order("class") == ["car", "road", "sky"]
    assert order("iou") == ["car", "sky", "road"]
    shares = evaluation.scores.per_class["share"]
    assert order("share") == [evaluation.labels.names[i] for i in np.argsort(-shares)]


def test_a_column_is_found_by_its_name_or_its_word_and_an_unknown_one_names_the_nearest() -> None:
    columns = ("ap50", "iou", "objects")
    assert [find_column(name, columns) for name in ("iou", "IoU", "AP50", "class")] == ["iou", "iou", "ap50", "class"]
    with pytest.raises(ValueError, match=r"--sort object: the table has no such column\. Did you mean objects"):
        find_column("object", columns)


def test_the_best_the_typical_and_the_worst_images_come_in_order_and_only_when_asked_for(folder_root: Path) -> None:
    for i in range(12):
        add(folder_root, f"n{i:02}", i, (24, 28 + 4 * i))
    make_void(folder_root, "b")  # has no score: neither good nor bad
    source = Predictor(StubBackend(blind_to=2))
    dataset = open_folder(folder_root, "val")
    bare = evaluate(source, dataset, name="folder", split="val", batch_size=2)
    assert bare.best == bare.typical == bare.worst == ()
    calls: list[tuple[int, int]] = []
    evaluation = with_examples(bare, source, dataset, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(calls)) for done in range(1, len(calls) + 1)] and calls
    ious = [image.scores["mean_iou"] for image in evaluation.per_image]
    ranked = sorted(iou for iou in ious if not math.isnan(iou))
    assert [e.score.scores["mean_iou"] for e in evaluation.worst] == ranked[:NUM_EXAMPLES]
    assert [e.score.scores["mean_iou"] for e in evaluation.best] == ranked[::-1][:NUM_EXAMPLES]
    assert [e.score.scores["mean_iou"] for e in evaluation.typical] == ranked[::-1][5:9]  # in the middle of 14
    for example in (*evaluation.best, *evaluation.typical, *evaluation.worst):
        assert example.sample.name == example.score.name
        assert example.prediction.mask is not None and not (example.prediction.mask == 2).any()
        assert example.prediction.mask.shape == example.sample.image.shape[:2]


def test_pictures_are_those_of_the_images_counted_where_others_failed(folder_root: Path) -> None:
    (folder_root / "images/val/a.png").write_bytes(b"")
    source, dataset = Predictor(StubBackend()), open_folder(folder_root, "val")
    evaluation = with_examples(evaluate(source, dataset, name="folder", split="val", batch_size=2), source, dataset)
    assert evaluation.order == (1, 2)
    assert [example.sample.name for example in evaluation.best] == ["b", "sub/c"]


def test_a_large_picture_is_kept_small_with_its_masks_and_boxes() -> None:
    mask = np.zeros((5000, 10_000), np.uint8)
    mask[:, 5000:] = 1
    boxes = np.array([[5000, 0, 10_000, 5000]], np.float32)
    sample = Sample(image=mask[..., None].repeat(3, axis=2) * 200, name="large", mask=mask, boxes=boxes)
    prediction = Prediction(mask=mask, boxes=boxes, confidence=np.zeros((1250, 2500), np.float32))
    example = example_of(ImageScore(name="large", scores={}), sample, prediction)
    assert example.sample.image.shape == (1024, 2048, 3)
    for it in (example.sample, example.prediction):
        assert it.mask is not None and it.boxes is not None
        assert it.mask.shape == (1024, 2048) and not it.mask[:, :1024].any() and it.mask[:, 1024:].all()
        np.testing.assert_allclose(it.boxes, [[1024, 0, 2048, 1024]])
    assert example.sample.image[:, 1024:].min() == 200


def test_reading_ahead_keeps_the_order_and_its_depth(folder_root: Path) -> None:
    class Counted(FileDataset[Any]):
        started = 0

        def __getitem__(self, index: int) -> Any:
            self.started += 1
            return super().__getitem__(index)

    for i in range(20):
        add(folder_root, f"n{i:02}", i, (8, 8))
    opened = open_folder(folder_root, "val")
    dataset = Counted(opened.labels, opened.keys, opened.record_of)
    names = []
    for done, (_, sample) in enumerate(read_ahead(dataset, range(len(dataset)), most=3), start=1):
        assert not isinstance(sample, str)
        names.append(sample.name)
        assert dataset.started <= done + 3
    assert names == [name for name, _, _ in opened.keys]


def test_large_images_are_read_ahead_one_at_a_time(folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, started = open_folder(folder_root, "val"), []

    class Counted(FileDataset[Any]):
        def __getitem__(self, index: int) -> Any:
            started.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr("veduta.engine.counting.MOST_PIXELS", 24 * 32)  # the size of one
    reading = read_ahead(Counted(opened.labels, opened.keys, opened.record_of), range(3), most=8)
    for done, _ in enumerate(reading, start=1):
        assert len(started) <= done + 1


def test_the_mirror_image_joins_in_where_the_recipe_asks_and_the_protocol_says_so(folder_root: Path) -> None:
    backend = StubBackend()
    backend.info = replace(backend.info, recipe=replace(backend.info.recipe, protocol="mirrored"))
    dataset = open_folder(folder_root, "val")
    evaluation = evaluate(Predictor(backend), dataset, name="folder", split="val", batch_size=2)
    assert backend.batch_sizes == [2, 2, 1, 1]
    assert evaluation.scores.overall["mean_iou"] == 1  # mirrored back before the mean
    assert "mirror image" in evaluation.headline()
    assert "mirror" not in Predictor(StubBackend()).protocol


def test_a_split_without_masks_is_refused(folder_root: Path) -> None:
    opened = open_folder(folder_root, "val")
    dataset: FileDataset[Any] = FileDataset(
        opened.labels, opened.keys, lambda key: dataclasses.replace(opened.record_of(key), mask=None)
    )
    with pytest.raises(ValueError, match="a of split 'test' has no mask to compare with"):
        evaluate(Predictor(StubBackend()), dataset, name="folder", split="test", batch_size=2)
