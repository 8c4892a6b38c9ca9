"""Scores of classification: how often the true class is the first guess, and how often among the first TOP."""

import numpy as np
from numpy.typing import NDArray

from veduta.data.sample import Sample
from veduta.tasks.calibration import Calibration
from veduta.tasks.metrics import Rows, Rules, Scores, State
from veduta.tasks.prediction import Prediction


class ClassMetric:
    """A Metric. Of every image it keeps whether the first guess was right.

    Of equal scores the lower class comes first. Scores that are no numbers guess no class.
    """

    TOP = 5

    def __init__(self, num_classes: int, rules: Rules) -> None:
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), np.int64)
        self.in_top = 0
        self.hits = Rows(np.zeros(0, np.bool_))
        self.calibration = Calibration() if rules.full else None

    @property
    def images(self) -> int:
        return len(self.hits)

    def update(self, prediction: Prediction, sample: Sample) -> dict[str, float]:
        """Returns `true_class_score`, too: how sure the model was of the truth."""
        assert prediction.class_scores is not None and sample.scene_class is not None
        scores, truth = prediction.class_scores, sample.scene_class
        guess, in_top = self.num_classes, False
        if np.isfinite(scores).all():
            guess = int(scores.argmax())
            in_top = bool((scores > scores[truth]).sum() + (scores[:truth] == scores[truth]).sum() < self.TOP)
            if self.calibration is not None:
                self.calibration.add(scores[guess : guess + 1], np.array([guess == truth]))
        self.counts[truth, guess] += 1
        self.in_top += in_top
        self.hits.add(np.array([guess == truth]))
        return {"top1": float(guess == truth), "top5": float(in_top), "true_class_score": scores[truth].item()}

    def merge(self, other: "ClassMetric") -> None:
        self.counts += other.counts
        self.in_top += other.in_top
        self.hits.add(other.hits.joined())
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)

    def compute(self) -> Scores:
        images, hits = self.counts.sum(axis=1), np.diagonal(self.counts)
        total = int(images.sum())
        with np.errstate(invalid="ignore"):
            accuracy = hits / images
        details = {}
        if self.calibration is not None and self.calibration.any:
            details["calibration_error"] = self.calibration.error()
        return Scores(
            overall={
                "top1": int(hits.sum()) / total if total else float("nan"),
                "top5": self.in_top / total if total else float("nan"),
            },
            per_class={"accuracy": accuracy, "images": images},
            present=images > 0,
            confusion=self.counts,
            confusion_of="images",
            details=details,
        )

    def state(self) -> State:
        state = {"counts": self.counts, "in_top": np.array(self.in_top), "hits": self.hits.joined()}
        return state if self.calibration is None else state | self.calibration.state()

    def restore(self, state: State) -> None:
        self.counts, self.in_top = state["counts"].copy(), int(state["in_top"])
        self.hits.add(state["hits"])
        if self.calibration is not None:
            self.calibration.restore(state)

    def resampled(self, weights: NDArray[np.int64]) -> float:
        total = int(weights.sum())
        return int(weights[self.hits.joined()].sum()) / total if total else float("nan")
