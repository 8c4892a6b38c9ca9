"""Small evaluations and comparisons of every task, with pictures, made by the real metrics."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap
from veduta.tasks.box_metric import JointMetric
from veduta.tasks.class_metric import ClassMetric
from veduta.tasks.comparison import ClassPair, Comparison, Cost, Pair
from veduta.tasks.evaluation import Evaluation, Example, ImageScore
from veduta.tasks.mask_metric import MaskMetric
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

HOSTILE = "<script>alert(1)</script>"
LABELS = LabelMap(
    name="three",
    classes=(
        LabelClass(file_id=0, name="road & rail", color=(110, 90, 130)),
        LabelClass(file_id=1, name=HOSTILE, color=(20, 140, 150)),
        LabelClass(file_id=2, name="unicorn", color=(240, 130, 30)),
    ),
    void_ids=(IGNORE_INDEX,),
)
COUNTS = np.array([[90, 5, 0, 5], [10, 30, 0, 0], [0, 0, 0, 0]], np.int64)


def make_example(
    name: str, *, score: float = 0.5, height: int = 48, width: int = 64, horizon: float = 1 / 3, noisy: bool = False
) -> Example:
    """Void above, road in the middle, the hostile class below; it is predicted from the horizon on."""
    rng = np.random.default_rng(0)
    rows = np.indices((height, width))[0]
    image = (rows * 255 // height).astype(np.uint8)[..., None].repeat(3, axis=2)
    truth = np.where(rows < height // 2, 0, 1).astype(np.uint8)
    prediction = np.where(rows < height * horizon, 0, 1).astype(np.uint8)
    truth[:4] = IGNORE_INDEX
    if noisy:
        image = rng.integers(0, 256, image.shape, np.uint8)
        truth, prediction = rng.integers(0, 3, (2, height, width), np.uint8)
    return Example(
        score=ImageScore(name=name, scores={"mean_iou": score, "pixel_accuracy": 0.75}),
        sample=Sample(image=image, name=name, mask=truth),
        prediction=Prediction(mask=prediction),
    )


def make_evaluation(
    *, failed: tuple[tuple[str, str], ...] = (), counts: NDArray[np.int64] = COUNTS, examples: Iterable[Example] = ()
) -> Evaluation:
    """Of masks. counts: (3, 4), of the confusion. The examples are its worst ones."""
    names = ["first", "second"]
    metric = MaskMetric(LABELS, Rules())
    metric.matrix.counts, metric.matrix.void = counts, int(counts.sum() // 19)
    return Evaluation(
        dataset="towns",
        split="val",
        labels=LABELS,
        protocol="whole images, single scale",
        rules=Rules(),
        proof="weights 0123456789ab at step 1,200",
        sha256="0123456789abcdef" * 4,
        images_total=len(names) + len(failed),
        images_counted=len(names),
        failed=failed,
        scores=metric.compute(),
        per_image=tuple(ImageScore(name=name, scores={"mean_iou": 0.5, "pixel_accuracy": 0.75}) for name in names),
        order=tuple(range(len(names))),
        metric=metric,
        seconds=3.5,
        worst=tuple(examples),
    )


def boxes_from(*boxes: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(boxes, np.float32).reshape(-1, 4)


def make_joint_example(name: str, *found: tuple[float, ...]) -> Example:
    """A road at 10, another at 60, a difficult one at 100; boxes `found` of falling score, the third one below 0.5."""
    example = make_example(name, height=96, width=128)
    sample = replace(
        example.sample,
        boxes=boxes_from((10, 10, 50, 50), (60, 60, 90, 90), (100, 10, 120, 30)),
        box_classes=np.array([0, 0, 0]),
        box_difficult=np.array([False, False, True]),
    )
    prediction = replace(
        example.prediction,
        boxes=boxes_from(*found),
        box_classes=np.zeros(len(found), np.int64),
        box_scores=np.array([0.9, 0.8, 0.4][: len(found)], np.float32),
    )
    return replace(example, sample=sample, prediction=prediction)


def make_joint_evaluation() -> Evaluation:
    """One image: a road that is found, another that is not, a difficult one, a box of nothing, and one nobody sees."""
    example = make_joint_example("street", (10, 10, 50, 49), (3, 60, 23, 80), (0, 0, 9, 9))
    metric = JointMetric(LABELS, Rules())
    score = ImageScore(name="street", scores=metric.update(example.prediction, example.sample))
    return replace(
        make_evaluation(),
        images_total=1,
        images_counted=1,
        per_image=(score,),
        order=(0,),
        metric=metric,
        scores=metric.compute(),
        best=(replace(example, score=score),),
    )


def make_classification(num_classes: int = 3, *, rules: Rules | None = None) -> Evaluation:
    """Four photos, of which the second is taken for the next class."""
    classes = tuple(LabelClass(file_id=i, name=f"kind <{i}>", color=(40, 9, i % 256)) for i in range(num_classes))
    labels = LabelMap(name="kinds", classes=classes, of="images")
    metric, shown = ClassMetric(num_classes, rules or Rules()), []
    for i, (truth, guess) in enumerate([(0, 0), (0, 1), (1, 1), (1, 1)]):
        sample = replace(make_example(f"photo-{i}").sample, mask=None, scene_class=truth)
        class_scores = np.full(num_classes, 0.1 / (num_classes - 1), np.float32)
        class_scores[guess] = 0.9
        prediction = Prediction(class_scores=class_scores)
        score = ImageScore(name=sample.name, scores=metric.update(prediction, sample))
        shown.append(Example(score=score, sample=sample, prediction=prediction))
    return replace(
        make_evaluation(),
        labels=labels,
        images_total=4,
        images_counted=4,
        per_image=tuple(example.score for example in shown),
        order=tuple(range(4)),
        metric=metric,
        scores=metric.compute(),
        best=(shown[0],),
        worst=(shown[1],),
    )


def compare(a: Evaluation, b: Evaluation, *pairs: tuple[Example, Example]) -> Comparison:
    """Of two evaluations that differ as their scores say, with these pictures."""
    score, column = next(iter(a.scores.overall)), next(iter(a.scores.per_class))
    columns = (e.scores.per_class[column].tolist() for e in (a, b))
    difference = b.scores.overall[score] - a.scores.overall[score]
    return Comparison(
        names=("runs/old", "runs/new.safetensors"),
        a=a,
        b=b,
        score=score,
        difference=difference,
        interval=(difference - 0.02, difference + 0.03),
        pairs=tuple(Pair(index=i, a=one.score, b=other.score) for i, (one, other) in enumerate(pairs)),
        per_class=tuple(ClassPair(name=n, a=x, b=y) for n, x, y in zip(a.labels.names, *columns, strict=True)),
        cost=(Cost(images_per_second=12.5, parameters=1_234_567, file_bytes=5_000_000), Cost()),
        changed=pairs,
    )


def make_comparison(count: int = 3) -> Comparison:
    """B does better on every image but the last."""
    better = make_evaluation(counts=COUNTS + np.diag([40, 10, 0, 0])[:3])
    pairs = [
        (make_example(f"view-{i}", score=0.5), make_example(f"view-{i}", score=0.9 - i / 100, horizon=0.5))
        for i in range(count - 1)
    ]
    pairs.append((make_example("lost", score=0.5, horizon=0.5), make_example("lost", score=0.4, horizon=0.7)))
    return compare(make_evaluation(), better, *pairs)
