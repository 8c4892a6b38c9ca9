"""Promises of evaluation for classes of whole images and for boxes with masks, and of many processes at once."""

import json
import pickle
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from crew import run_ranks
from layouts import TINY
from numpy.typing import NDArray
from stub_backend import RECIPE
from torch import Tensor

from veduta.config import Augment, Data, ProtocolName, TaskName
from veduta.data.sample import Sample
from veduta.engine import evaluate as module
from veduta.engine.counting import Share, count_share
from veduta.engine.evaluate import evaluate
from veduta.engine.predictor import Predictor
from veduta.errors import RunStopped
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo
from veduta.ops.boxes import encode
from veduta.ranks import share_of_rank
from veduta.tasks import TASKS
from veduta.tasks.bootstrap import interval
from veduta.tasks.evaluation import Evaluation
from veduta.tasks.metrics import Metric, Rules

TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)

IMAGENET = Data(dataset="imagenet", crop_size=(32, 32), augment=Augment(pipeline="imagenet"))
PRIORS = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])  # cxcywh: two corners of the image
CORNERS = np.array([[0, 0, 16, 12], [16, 12, 32, 24]], np.float32)  # the same of 24 x 32 pixels


class Scripted:
    """A backend for one image after the other, by the red of its first pixel: the class, or how it is wrong."""

    runtime, device = "a stub", torch.device("cpu")

    def __init__(self, task: TaskName, data: Data | None = None) -> None:
        protocol: ProtocolName = "resnest-validation" if data is IMAGENET else "whole"
        recipe = replace(RECIPE, task=task, data=data or RECIPE.data, protocol=protocol)
        self.info = ModelInfo(recipe=recipe, labels=TINY, step=7, weights_sha256="0123456789abcdef")
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        self.seen.append(tuple(images.shape))
        reds = torch.from_numpy(images[:, 0]).long()
        classes = reds[:, 0, 0]
        if self.info.recipe.task == "classify":
            return {"class_logits": 4.0 * torch.nn.functional.one_hot(classes, TINY.num_classes)}
        logits = torch.zeros(len(images), 2, TINY.num_classes)
        logits[torch.arange(len(images)), 0, classes] = 9.0  # the upper left corner
        logits[:, 1, 0] = 9.0
        deltas = encode(torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), PRIORS).expand(len(images), 2, 4)
        masks = torch.nn.functional.one_hot(reds.clamp(max=2), 3).permute(0, 3, 1, 2).float()
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
        "top-1 60.00 [20.00, 100.00]  top-5 100.00  (ours val: 5 of 5 images, each once, 0 failed; 2 of 3 classes "
        "present; whole images, single scale; weights 0123456789ab at step 7; []: 95 % by bootstrap over images)"
    )
    assert evaluation.table().splitlines()[0].split() == ["class", "accuracy", "images"]
    assert [line.split()[1:3] for line in evaluation.table().splitlines()[1:]] == [
        ["33.33", "3"],
        ["100.00", "2"],
        ["-", "0"],
    ]
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
    headline = evaluation.headline()
    assert headline.startswith("AP50 25.00 [0.00, 100.00]  mIoU 49.93  (ours val: 3 of 3 images, each once")
    assert "2 objects, 1 difficult ones left out; 0.00 % void; whole images" in headline
    assert set(evaluation.table().splitlines()[0].split()) == {"class", "AP50", "IoU", "boundary", "objects", "share"}
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
        def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
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


def test_a_classifier_sees_images_of_any_size_as_one_batch_of_squares_and_the_headline_says_so() -> None:
    backend = Scripted("classify", IMAGENET)
    sizes = [(64, 80), (32, 32), (300, 40), (33, 33)]
    samples: list[Sample | None] = [classified(1, 1, i, size) for i, size in enumerate(sizes)]
    evaluation = evaluate(Predictor(backend), Listed(samples), name="ours", split="val", batch_size=8)
    assert backend.seen == [(4, 3, 32, 32)] and evaluation.scores.overall["top1"] == 1
    assert "central 32/64 of the shorter side as 32 x 32, bilinear (ResNeSt in training)" in evaluation.headline()


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
    return {**content, "order": evaluation.order, "state": contents(evaluation.metric)}


def contents(metric: Metric) -> dict[str, Any]:
    return {name: array.tolist() for name, array in metric.state().items()}


def silent(done: int, total: int) -> None:
    pass


def share_of(source: Predictor, dataset: Listed, rank: int, parts: int) -> Share:
    """What process `rank` of `parts` counts."""
    indices = share_of_rank(len(dataset), rank, parts)
    share = Share(source.task.metric(Rules(full=True)), indices.start)
    count_share(source, dataset, indices, share, batch_size=4, progress=silent)
    return share


@pytest.mark.parametrize("task", TASK_NAMES)
def test_shares_of_any_number_of_processes_make_the_whole(task: TaskName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "interval", partial(interval, rounds=20))  # a thousand take their time
    for count in range(1, 18):  # with fewer images than parts, too
        dataset = Listed(some_samples(task, count))
        whole = without_time(run(task, dataset.samples))
        for parts in range(1, 5):
            predictor = Predictor(Scripted(task))

            def gather(
                share: Share, predictor: Predictor = predictor, dataset: Listed = dataset, parts: int = parts
            ) -> list[Share]:
                return [share, *(share_of(predictor, dataset, rank, parts) for rank in range(1, parts))]

            with monkeypatch.context() as patch:
                patch.setattr(module, "world_size", lambda parts=parts: parts)
                patch.setattr(module, "gathered", gather)
                evaluation = evaluate(predictor, dataset, name="ours", split="val", batch_size=4)
            assert without_time(evaluation) == whole
            assert evaluation.images_counted + len(evaluation.failed) == count
            assert list(evaluation.order) == [i for i in range(count) if i % 7 != 4]


def test_nothing_of_an_image_is_kept_but_small_numbers() -> None:
    """What 15 images leave behind, against the pixels of one."""
    dataset, predictor = Listed(some_samples("detect_segment", 17)), Predictor(Scripted("detect_segment"))
    share = share_of(predictor, dataset, 0, 1)
    assert len(share.images) == 15
    assert len(pickle.dumps(share)) < painted(0).nbytes * 15 / 5


def scored() -> list[dict[str, Any]]:
    return [without_time(run(task, some_samples(task, count))) for task in TASK_NAMES for count in (1, 2, 8)]


def refused() -> str:
    """Only the second process meets the sample without boxes."""
    with pytest.raises((ValueError, RunStopped)) as caught:
        run("detect_segment", [boxed(1, 1, 0), Sample(image=painted(0), name="bare"), boxed(1, 1, 2)])
    return str(caught.value)


def both() -> tuple[list[dict[str, Any]], str]:
    return scored(), refused()


def test_three_processes_give_the_evaluations_of_one_and_say_once_what_they_refuse() -> None:
    alone = scored()
    results = run_ranks(both, 3)
    assert [evaluations for evaluations, _ in results] == [alone] * 3
    assert results[0][1].startswith("bare of split 'val' has no boxes")
    assert [refusal for _, refusal in results[1:]] == ["", ""]
