"""Promises of comparing: images are paired, chance is not taken for a difference, nothing unlike is compared."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import LEVELS, TINY, paint, save
from model_files import random_backend
from numpy.typing import NDArray
from small_runs import TASKS, small_recipe, write_data
from stub_backend import StubBackend
from torch import Tensor

from veduta.data import open_dataset
from veduta.data.layouts.folder import open_folder
from veduta.data.sample import Sample
from veduta.engine import compare as module
from veduta.engine.compare import compare, speeds, with_pictures
from veduta.engine.evaluate import evaluate
from veduta.engine.predictor import Predictor
from veduta.engine.sources import Source
from veduta.errors import Unreadable
from veduta.labels import LabelMap
from veduta.model_info import Exported
from veduta.tasks.bootstrap import ROUNDS, paired_interval
from veduta.tasks.comparison import PICTURES, Comparison, Cost

NAMES = ("runs/a", "runs/b")


@pytest.fixture
def folder(folder_root: Path) -> Path:
    """The split val with nine pictures: in some there is more of class 1, in others of class 2."""
    rng = np.random.default_rng(0)
    for i in range(9):
        name = ("a", "b", "sub/c")[i] if i < 3 else f"n{i}"
        share = (i + 1) / 10
        ids = rng.choice(3, p=(0.1, 0.9 * share, 0.9 * (1 - share)), size=(24, 28 + 4 * i)).astype(np.uint8)
        image = rng.integers(0, 256, (*ids.shape, 3), np.uint8)
        image[..., 0] = LEVELS * ids
        save(folder_root / "images/val" / f"{name}.png", image)
        save(folder_root / "masks/val" / f"{name}.png", TINY.decode(ids))
    return folder_root


def stub(labels: LabelMap = TINY, *, blind_to: int | None = None) -> Predictor:
    return Predictor(StubBackend(labels, blind_to=blind_to))


def compared(root: Path, a: Source, b: Source, **changes: Any) -> Comparison:
    settings: dict[str, Any] = {"names": NAMES, "name": "folder", "split": "val", "batch_size": 2}
    return compare(a, b, open_folder(root, "val"), **settings | changes)


def test_what_is_better_on_every_image_is_better(folder: Path) -> None:
    comparison = compared(folder, stub(blind_to=2), stub())
    assert (comparison.wins, comparison.losses, comparison.same) == (9, 0, 0)
    assert comparison.interval is not None and 0 < comparison.interval[0] <= comparison.difference
    assert comparison.verdict == "B is better"
    headline = comparison.headline()
    assert headline.startswith("B beats A on 9 images, loses on 0, same 0; mIoU +") and headline.endswith(
        ": B is better"
    )


def test_the_other_way_round_is_the_same_with_the_sign_turned(folder: Path) -> None:
    one, other = (compared(folder, *pair) for pair in ((stub(blind_to=2), stub()), (stub(), stub(blind_to=2))))
    assert (other.wins, other.losses) == (0, 9) and other.verdict == "A is better"
    assert one.interval is not None and other.interval == (-one.interval[1], -one.interval[0])
    assert other.difference == -one.difference


def test_the_difference_and_its_interval_are_those_of_both_evaluations(folder: Path) -> None:
    a, b = stub(blind_to=1), stub(blind_to=2)
    comparison = compared(folder, a, b)
    one, other = (
        evaluate(source, open_folder(folder, "val"), name="folder", split="val", batch_size=4) for source in (a, b)
    )
    assert comparison.a.scores.overall == one.scores.overall and comparison.b.scores.overall == other.scores.overall
    assert comparison.difference == other.scores.overall["mean_iou"] - one.scores.overall["mean_iou"]
    assert comparison.interval == paired_interval(one.metric, other.metric, one.order, other.order)
    by_name = {image.name: image.scores["mean_iou"] for image in one.per_image}
    wins = sum(image.scores["mean_iou"] > by_name[image.name] for image in other.per_image)
    losses = sum(image.scores["mean_iou"] < by_name[image.name] for image in other.per_image)
    assert (comparison.wins, comparison.losses) == (wins, losses) and wins > 0 and losses > 0


def test_an_interval_that_holds_0_shows_no_difference_whatever_the_wins(folder: Path) -> None:
    comparison = compared(folder, stub(blind_to=1), stub(blind_to=2))
    low, high = comparison.interval or (math.nan, math.nan)
    assert low < 0 < high and comparison.verdict == "no difference shown"


def test_the_same_weights_differ_nowhere_and_that_they_are_the_same_is_said(folder: Path) -> None:
    comparison = compared(folder, stub(blind_to=1), stub(blind_to=1))
    assert (comparison.wins, comparison.losses, comparison.same) == (0, 0, 9)
    assert comparison.headline().endswith("mIoU +0.00 [+0.00, +0.00]: no difference shown")
    assert comparison.most_changed == ()
    assert any("A and B are the same weights or files, weights 0123456789ab" in w for w in comparison.warnings)


def test_a_file_in_int8_is_not_taken_for_the_network_that_it_was_made_of(folder: Path) -> None:
    quantised = stub(blind_to=1)
    exported = Exported(format="onnx", precision="int8", images=(None, 3, None, None), outputs={})
    quantised.backend.info = replace(quantised.backend.info, exported=exported)
    assert not any("the same weights" in warning for warning in compared(folder, stub(blind_to=1), quantised).warnings)


def test_a_few_images_show_no_difference_even_where_all_are_on_one_side(folder_root: Path) -> None:
    few = compared(folder_root, stub(blind_to=2), stub())
    assert "3 images are few: an interval drawn from them is a rough one" in few.warnings
    assert few.interval is not None and few.interval[0] > 0 and few.wins == 3
    assert few.headline().endswith("]: too few images to show a difference")
    for name in ("b", "sub/c"):
        (folder_root / f"images/val/{name}.png").unlink()
        (folder_root / f"masks/val/{name}.png").unlink()
    one = compared(folder_root, stub(blind_to=2), stub())
    assert one.interval is None and one.wins == 1
    assert one.headline().endswith(": too few images to show a difference") and "[" not in one.headline()


def test_images_without_anything_to_count_are_the_same(folder: Path) -> None:
    save(folder / "masks/val/b.png", np.full((24, 32), 255, np.uint8))  # of the same size, and void
    comparison = compared(folder, stub(blind_to=2), stub())
    assert (comparison.wins, comparison.losses, comparison.same) == (8, 0, 1)
    assert "b" not in [pair.a.name for pair in comparison.most_changed]
    json.loads(comparison.to_json(), parse_constant=pytest.fail)


def test_images_that_failed_are_left_out_of_both_and_warned_about(folder: Path) -> None:
    (folder / "images/val/b.png").write_bytes(b"")
    comparison = compared(folder, stub(blind_to=2), stub())
    assert (comparison.wins, len(comparison.pairs)) == (8, 8)
    assert "1 of 9 images failed and are left out" in comparison.warnings
    assert len(comparison.a.failed) == len(comparison.b.failed) == 1


def test_data_that_changes_while_it_is_read_ends_the_comparison(folder: Path) -> None:
    class Destructive(Predictor):
        def predict(self, samples: Any) -> Any:
            if samples[-1].name == "sub/c":  # the last one
                (folder / "images/val/sub/c.png").write_bytes(b"")
            return super().predict(samples)

    with pytest.raises(Unreadable, match="0 images failed for A, 1 for B, and not the same ones"):
        compared(folder, Destructive(StubBackend()), stub())


def test_the_pictures_that_changed_most_come_first_with_what_both_say(folder: Path) -> None:
    a, b = stub(blind_to=1), stub(blind_to=2)
    dataset = open_folder(folder, "val")
    comparison = with_pictures(compared(folder, a, b), a, b, dataset)
    changes = [abs(one.score.scores["mean_iou"] - other.score.scores["mean_iou"]) for one, other in comparison.changed]
    assert changes == sorted(changes, reverse=True) and len(changes) == 9
    assert [one.score.name for one, _ in comparison.changed] == [pair.a.name for pair in comparison.most_changed]
    for one, other in comparison.changed:
        assert one.sample is other.sample and one.sample.name == one.score.name == other.score.name
        assert one.prediction.mask is not None and not (one.prediction.mask == 1).any()
        assert other.prediction.mask is not None and not (other.prediction.mask == 2).any()
    assert len(comparison.pairs) <= PICTURES


def test_classes_have_arrows_and_differences(folder: Path) -> None:
    comparison = compared(folder, stub(blind_to=1), stub(blind_to=2))
    sky, road, car = comparison.per_class
    assert [pair.name for pair in (sky, road, car)] == list(TINY.names)
    assert (road.a, road.b, road.arrow) == (0, 1, "↑") and (car.a, car.b, car.arrow) == (1, 0, "↓")
    assert road.difference == 1
    lines = [line.split() for line in comparison.table().splitlines()]
    assert ["IoU", "A", "B", "B", "-", "A"] in lines
    assert ["road", "0.00", "100.00", "↑", "+100.00"] in lines and ["car", "100.00", "0.00", "↓", "-100.00"] in lines


def test_the_table_says_who_they_are_and_which_images_changed_most(folder: Path) -> None:
    comparison = replace(
        compared(folder, stub(blind_to=1), stub(blind_to=2)),
        cost=(Cost(images_per_second=12.345, parameters=1_234_567, file_bytes=4_938_268), Cost()),
    )
    first, second, *rest = comparison.table().splitlines()
    assert first.startswith("A  runs/a: mIoU ")
    assert "; 12.3 images/s, 1,234,567 parameters, 4.9 MB; whole images" in first
    assert first.endswith("weights 0123456789ab at step 7")
    assert second.startswith("B  runs/b: mIoU ") and "images/s" not in second
    assert "images that changed most, by their own mIoU" in rest and " -> " in rest[-1]


def test_the_json_holds_every_figure_of_both(folder: Path) -> None:
    comparison = compared(folder, stub(blind_to=1), stub(blind_to=2))
    content = json.loads(comparison.to_json(), parse_constant=pytest.fail)
    assert content["headline"] == comparison.headline() and content["score"] == "mean_iou"
    assert content["interval"] == list(comparison.interval or ())
    assert content["a"]["mean_iou"] == comparison.a.scores.overall["mean_iou"]
    assert len(content["b"]["per_image"]) == 9 and content["b"]["given"] == "runs/b"
    assert content["classes"][1] == {"name": "road", "a": 0.0, "b": 1.0, "difference": 1.0}
    assert content["changed"][0] == comparison.pairs[0].a.name
    assert (content["wins"], content["losses"], content["same"]) == (
        comparison.wins,
        comparison.losses,
        comparison.same,
    )


def test_other_classes_are_refused_with_both_lists(folder: Path) -> None:
    turned = LabelMap(name="turned", classes=TINY.classes[::-1], void_ids=TINY.void_ids)
    with pytest.raises(ValueError, match=r"A knows 3 classes \(sky, road, car\), B 3 \(car, road, sky\)"):
        compared(folder, stub(), stub(turned))


def test_another_task_is_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    recipes = [small_recipe(task, data) for task in ("segment", "detect_segment")]
    dataset = open_dataset(recipes[0].data, "val")
    a, b = (Predictor(random_backend(recipe, dataset.labels, 0)) for recipe in recipes)
    with pytest.raises(ValueError, match="A is scored with the mask of an image, B with its boxes"):
        compare(a, b, dataset, names=NAMES, name="voc", split="val", batch_size=2)


def test_progress_counts_both(folder: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    compared(folder, stub(), stub(blind_to=1), progress=lambda *call: calls.append(call))
    assert ("evaluating A", 9, 9) in calls and ("evaluating B", 9, 9) in calls
    assert calls[-1] == ("drawing images anew", ROUNDS, ROUNDS)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_compared(tmp_path: Path, task: str) -> None:
    recipe = small_recipe(task, write_data(tmp_path))
    dataset = open_dataset(recipe.data, "val")
    a, b = (Predictor(random_backend(recipe, dataset.labels, seed)) for seed in (0, 1))
    comparison = compare(a, b, dataset, names=NAMES, name="small", split="val", batch_size=2)
    first = next(iter(comparison.a.scores.overall))
    assert comparison.score == first and comparison.interval is not None
    assert len(comparison.pairs) == len(dataset) == comparison.wins + comparison.losses + comparison.same
    assert len(comparison.per_class) == dataset.labels.num_classes
    json.loads(comparison.to_json(), parse_constant=pytest.fail)
    assert comparison.headline() in json.loads(comparison.to_json())["headline"] and comparison.table()


def test_speed_is_that_of_the_fastest_turn_of_each_on_the_same_batch_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Taking(Predictor):
        def __init__(self, letter: str, *seconds: float) -> None:
            super().__init__(StubBackend())
            self.letter, self.seconds = letter, list(seconds)

        def predict(self, samples: Any) -> Any:
            now[0] += self.seconds.pop(0)
            calls.append((self.letter, [sample.name for sample in samples]))
            return super().predict(samples)

    samples = [Sample(image=paint(0, 3)[0], name=name) for name in "ac"]
    assert speeds(Taking("A", 9.0, 1.0, 2.0), Taking("B", 0.5, 4.0, 0.25), samples) == [2 / 1.0, 2 / 0.25]
    assert calls == [("A", ["a", "c"]), ("B", ["a", "c"])] * 3
    assert speeds(Taking("A", 30.0), Taking("B", 10.0), samples) == [2 / 30, 2 / 10]  # slow ones run once
    assert speeds(stub(), stub(), []) == [None, None]


def test_speed_is_measured_on_images_of_one_size_that_are_not_too_large_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watching(StubBackend):
        def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
            shapes.append((len(images), *images.shape[2:]))
            return super().__call__(images)

    for most, expected in ((1 << 26, 3), (2 * 24 * 32, 2)):
        shapes: list[tuple[int, ...]] = []
        for name in ("a", "b", "n3"):
            image, train_ids = paint(0, 3, (24, 32))
            save(folder / "images/val" / f"{name}.png", image)
            save(folder / "masks/val" / f"{name}.png", TINY.decode(train_ids))
        monkeypatch.setattr(module, "MOST_PIXELS", most)
        compared(folder, Predictor(Watching()), stub(), batch_size=4)
        assert shapes[-3:] == [(expected, 24, 32)] * 3  # b is the third picture, n4 the fourth and of another size


def test_parameters_are_counted_and_what_cannot_be_told_is_none(folder: Path) -> None:
    recipe = small_recipe("segment", folder)
    backend = random_backend(recipe, TINY, 0)
    comparison = compared(folder, Predictor(backend), stub(), file_bytes=(5, None))
    one, other = comparison.cost
    assert one.parameters == sum(p.numel() for p in backend.model.parameters()) > 10_000
    assert one.file_bytes == 5 and one.images_per_second is not None and one.images_per_second > 0
    assert other.parameters is None and other.file_bytes is None
