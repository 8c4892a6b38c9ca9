"""Promises of evaluation for classes of whole images and for boxes with masks, and of many processes at once."""

import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from crew import run_ranks
from layouts import TINY
from numpy.typing import NDArray
from stub_backend import RECIPE
from torch import Tensor

from veduta.checkpoint import ModelInfo
from veduta.config import Augment, Data, ProtocolName, TaskName
from veduta.data.sample import Sample
from veduta.engine import evaluate as module
from veduta.engine.evaluate import Share, evaluate, score_share
from veduta.engine.predictor import Predictor
from veduta.labels import LabelMap
from veduta.ops.boxes import encode
from veduta.tasks import TASKS
from veduta.tasks.evaluation import Evaluation

TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)

IMAGENET = Data(dataset="imagenet", crop_size=(32, 32), augment=Augment(pipeline="imagenet"))
PRIORS = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])  # cxcywh: two corners of the image
CORNERS = np.array([[0, 0, 16, 12], [16, 12, 32, 24]], np.float32)  # the same of 24 x 32 pixels


class Scripted:
    """A backend for one image after the other, by the red of its first pixel: the class, or how it is wrong."""

    device = torch.device("cpu")

    def __init__(self, task: TaskName, data: Data | None = None) -> None:
        protocol: ProtocolName = "resnest-validation" if data is IMAGENET else "whole"
        recipe = replace(RECIPE, task=task, data=data or RECIPE.data, protocol=protocol)
        self.info = ModelInfo(recipe=recipe, labels=TINY, step=7, weights_sha256="0123456789abcdef")
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.seen.append(tuple(images.shape))
        classes = images[:, 0, 0, 0].long()
        if self.info.recipe.task == "classify":
            return {"class_logits": 4.0 * torch.nn.functional.one_hot(classes, TINY.num_classes)}
        logits = torch.zeros(len(images), 2, TINY.num_classes)
        logits[torch.arange(len(images)), 0, classes] = 9.0  # the upper left corner
        logits[:, 1, 0] = 9.0
        deltas = encode(torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), PRIORS).expand(len(images), 2, 4)
        masks = torch.nn.functional.one_hot(images[:, 0].long().clamp(max=2), 3).permute(0, 3, 1, 2).float()
        return {"class_logits": logits, "box_deltas": deltas, "priors": PRIORS, "mask_logits": masks}


class Listed:
    """A data set of given samples; None cannot be read."""

    def __init__(self, samples: list[Sample | None], labels: LabelMap = TINY) -> None:
        self.samples, self.labels = samples, labels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if sample is None:
            raise ValueError(f"{index}.png: not a readable image")
        return sample


def painted(red: int, size: tuple[int, int] = (24, 32)) -> NDArray[np.uint8]:
    return np.full((*size, 3), red, np.uint8)


def classified(truth: int, guess: int, number: int, size: tuple[int, int] = (24, 32)) -> Sample:
    return Sample(image=painted(guess, size), name=f"{number}", scene_class=truth)


def boxed(box_class: int, guess: int, number: int, *, difficult: bool = False) -> Sample:
    """One object in the upper left corner, and a mask of `guess` everywhere but in one pixel of class 0."""
    mask = np.full((24, 32), guess, np.uint8)
    mask[0, 0] = 0
    return Sample(
        image=painted(guess),
        name=f"{number}",
        mask=mask,
        boxes=CORNERS[:1],
        box_classes=np.array([box_class]),
        box_difficult=np.array([difficult]),
    )


def run(task: TaskName, samples: list[Sample | None], **changes: Any) -> Evaluation:
    return evaluate(Predictor(Scripted(task)), Listed(samples), name="ours", split="val", batch_size=4, **changes)


def test_every_task_gives_the_scores_that_it_names() -> None:
    for name in TASK_NAMES:
        samples: list[Sample | None] = [boxed(1, 1, 0) if name != "classify" else classified(1, 1, 0)]
        assert tuple(run(name, samples).scores.overall) == TASKS[name].scores


def test_a_classification_is_scored_by_images() -> None:
    guesses = [(0, 0), (0, 1), (1, 1), (1, 1), (0, 2)]
    evaluation = run("classify", [classified(truth, guess, i) for i, (truth, guess) in enumerate(guesses)])
    assert evaluation.scores.overall == {"top1": 0.6, "top5": 1.0}
    np.testing.assert_allclose(evaluation.scores.per_class["accuracy"], [1 / 3, 1, np.nan])
    assert evaluation.scores.confusion.tolist() == [[1, 1, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert evaluation.headline() == (
        "top-1 60.00  top-5 100.00  (ours val: 5 of 5 images, each once, 0 failed; 2 of 3 classes present; whole "
        "images, single scale; weights 0123456789ab at step 7)"
    )
    assert evaluation.table().splitlines()[0].split() == ["class", "accuracy", "images"]
    assert [line.split()[1:3] for line in evaluation.table().splitlines()[1:]] == [
        ["33.33", "3"],
        ["100.00", "2"],
        ["-", "0"],
    ]
    assert [example.score.scores["top1"] for example in evaluation.worst] == [0, 0, 1, 1]
    content = json.loads(evaluation.to_json())
    assert content["top1"] == 0.6 and content["classes"][2] == {
        "name": "car",
        "accuracy": None,
        "images": 0,
        "present": False,
    }
    assert set(content["per_image"][0]) == {"name", "top1", "top5", "true_class_score"}


def test_boxes_and_masks_are_scored_in_one_pass() -> None:
    samples: list[Sample | None] = [boxed(1, 1, 0), boxed(2, 1, 1), boxed(1, 1, 2, difficult=True)]
    evaluation = run("detect_segment", samples)
    assert evaluation.scores.overall["ap50"] == 0.25  # class 1: hit, false and left out; class 2: not found
    assert evaluation.scores.facts["objects"] == 2 and evaluation.scores.facts["difficult"] == 1
    assert evaluation.headline().startswith("AP50 25.00  mIoU 49.93  (ours val: 3 of 3 images, each once")
    assert "2 objects, 1 difficult ones left out; 0.00 % void; whole images" in evaluation.headline()
    assert evaluation.table().splitlines()[0].split() == ["class", "AP50", "IoU", "objects", "share"]
    content = json.loads(evaluation.to_json())
    assert (content["ap50"], content["objects"], content["difficult"]) == (0.25, 2, 1)
    assert content["classes"][0]["ap50"] is None and content["classes"][2]["objects"] == 1


def test_boxes_are_scored_in_the_pixels_of_the_image() -> None:
    sample = boxed(1, 1, 0)
    (found,) = Predictor(Scripted("detect_segment"))([sample.image])
    assert found.boxes is not None and found.box_classes is not None
    np.testing.assert_allclose(found.boxes[found.box_classes == 1], CORNERS[:1], atol=1e-4)


def test_what_is_no_number_guesses_no_class() -> None:
    class Broken(Scripted):
        def __call__(self, images: Tensor) -> dict[str, Tensor]:
            return {"class_logits": torch.full((len(images), TINY.num_classes), float("nan"))}

    dataset = Listed([classified(0, 0, 0)])
    evaluation = evaluate(Predictor(Broken("classify")), dataset, name="ours", split="val", batch_size=4)
    assert evaluation.scores.overall == {"top1": 0, "top5": 0}
    assert evaluation.scores.confusion[0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("task", "what"), [("classify", "scene class"), ("detect_segment", "boxes"), ("segment", "mask")]
)
def test_a_split_without_the_truth_of_the_task_is_refused(task: TaskName, what: str) -> None:
    samples: list[Sample | None] = [Sample(image=painted(0), name="bare")]
    with pytest.raises(ValueError, match=f"bare of split 'val' has no {what} to compare with"):
        run(task, samples)


def test_a_classifier_sees_images_of_any_size_as_one_batch_of_squares_and_the_protocol_says_so() -> None:
    backend = Scripted("classify", IMAGENET)
    sizes = [(64, 80), (32, 32), (300, 40), (33, 33)]
    samples: list[Sample | None] = [classified(1, 1, i, size) for i, size in enumerate(sizes)]
    evaluation = evaluate(Predictor(backend), Listed(samples), name="ours", split="val", batch_size=8)
    assert backend.seen == [(4, 3, 32, 32)] and evaluation.scores.overall["top1"] == 1
    assert (
        "central 32/64 of the shorter side as 32 x 32, images of that size whole, single scale" in evaluation.headline()
    )


def test_the_square_is_that_of_the_authors_and_an_image_of_its_size_stays_whole() -> None:
    shown: list[Tensor] = []

    class Watching(Scripted):
        def __call__(self, images: Tensor) -> dict[str, Tensor]:
            shown.append(images)
            return super().__call__(images * 0)

    rows, columns = np.indices((64, 96))
    large = np.stack([rows * 2, columns * 2, rows * 0], axis=2).astype(np.uint8)
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Predictor(Watching("classify", IMAGENET))([large, small])
    middle = shown[0][0].permute(1, 2, 0).numpy()  # half of the shorter side, from (16, 32) on: not resized
    np.testing.assert_array_equal(middle, large[16:48, 32:64])
    np.testing.assert_array_equal(shown[0][1].permute(1, 2, 0).numpy(), small)


def some_samples(task: str, count: int) -> list[Sample | None]:
    """With mistakes, failures and, for boxes, difficult objects."""
    samples: list[Sample | None] = []
    for i in range(count):
        if i % 7 == 4:
            samples.append(None)
        elif task == "classify":
            samples.append(classified(i % 3, (i * i + i // 5) % 3, i))
        else:
            samples.append(boxed(1 + i % 2, 1 + (i // 3) % 2, i, difficult=i % 5 == 2))
    return samples


def without_time(evaluation: Evaluation) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(evaluation.to_json())
    del content["seconds"]
    shown = [[(e.score.name, e.sample.name) for e in examples] for examples in (evaluation.best, evaluation.worst)]
    return {**content, "shown": shown}


@pytest.mark.parametrize("task", TASK_NAMES)
def test_shares_of_any_number_of_processes_make_the_whole(task: TaskName, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 3, 4, 5, 9, 16, 17):  # with fewer images than parts, too
        dataset = Listed(some_samples(task, count))
        whole = without_time(run(task, dataset.samples))
        for parts in range(1, 5):
            predictor = Predictor(Scripted(task))

            def gather(
                share: Share, predictor: Predictor = predictor, dataset: Listed = dataset, parts: int = parts
            ) -> list[Share]:
                shares = [
                    score_share(predictor, dataset, range(rank, len(dataset), parts), batch_size=4, progress=silent)
                    for rank in range(1, parts)
                ]
                return [share, *shares]

            monkeypatch.setattr(module, "world_size", lambda parts=parts: parts)
            monkeypatch.setattr(module, "gathered", gather)
            evaluation = evaluate(predictor, dataset, name="ours", split="val", batch_size=4)
            assert without_time(evaluation) == whole
            monkeypatch.undo()


def silent(done: int, total: int) -> None:
    pass


def test_images_and_failures_come_in_the_order_of_the_data_set() -> None:
    dataset, predictor = Listed(some_samples("classify", 12)), Predictor(Scripted("classify"))
    shares = [score_share(predictor, dataset, range(rank, 12, 3), batch_size=2, progress=silent) for rank in range(3)]
    first, *others = shares
    for share in others[::-1]:
        first.merge(share)
    assert [image.score.name for image in first.images] == [f"{i}" for i in range(12) if i % 7 != 4]
    assert [index for index, _ in first.failed] == [4, 11]


def test_no_more_predictions_are_kept_than_are_shown() -> None:
    dataset, predictor = Listed(some_samples("detect_segment", 17)), Predictor(Scripted("detect_segment"))
    share = score_share(predictor, dataset, range(17), batch_size=4, progress=silent)
    assert len(share.images) == 15 and len(share.predictions) <= 2 * module.NUM_EXAMPLES


def evaluated_by_two() -> dict[str, Any]:
    return without_time(run("detect_segment", some_samples("detect_segment", 9)))


def refused_by_two() -> str:
    """Only the second process meets the sample without boxes."""
    with pytest.raises(ValueError, match="to compare with") as refused:
        run("detect_segment", [boxed(1, 1, 0), Sample(image=painted(0), name="bare"), boxed(1, 1, 2)])
    return str(refused.value)


def both() -> tuple[dict[str, Any], str]:
    return evaluated_by_two(), refused_by_two()


def test_two_processes_give_the_evaluation_of_one_or_its_refusal() -> None:
    alone = evaluated_by_two()
    for evaluation, refusal in run_ranks(both, 2):
        assert evaluation == alone
        assert refusal.startswith("bare of split 'val' has no boxes")
