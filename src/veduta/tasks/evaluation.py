"""Evaluation: a score with its proof: what was counted, what failed, what was void, by which weights."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.labels import LabelMap
from veduta.tasks.metrics import SegmentationScores


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """Scores of one image, 0..1; nan where the image has no counted pixel."""

    name: str
    mean_iou: float
    pixel_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture to look at. image: (H, W, 3) uint8 RGB; truth, prediction: (H, W) uint8 train ids."""

    score: ImageScore
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `veduta evaluate`. confusion: (C, C + 1) int64, see tasks/metrics.py."""

    dataset: str
    split: str
    labels: LabelMap
    protocol: str
    weights_sha256: str
    step: int
    images_total: int
    images_counted: int
    failed: tuple[tuple[str, str], ...]  # (name, why)
    void_share: float
    scores: SegmentationScores
    confusion: NDArray[np.int64]
    per_image: tuple[ImageScore, ...]
    seconds: float
    best: tuple[Example, ...] = field(default=(), repr=False)
    worst: tuple[Example, ...] = field(default=(), repr=False)

    @property
    def proved(self) -> bool:
        """Every image was counted, once, and none failed."""
        names = {score.name for score in self.per_image}
        return self.images_counted == self.images_total == len(names) and not self.failed

    def headline(self) -> str:
        """One line that proves itself."""
        present = int(self.scores.present.sum())
        return (
            f"mIoU {percent(self.scores.mean_iou)}  pixel accuracy {percent(self.scores.pixel_accuracy)}  "
            f"({self.dataset} {self.split}: {self.images_counted:,} of {self.images_total:,} images"
            f"{', each once' if self.proved else ''}, {len(self.failed)} failed; "
            f"{present} of {self.labels.num_classes} classes present; {percent(self.void_share)} % void; "
            f"{self.protocol}; weights {self.weights_sha256[:12]} at step {self.step:,})"
        )

    def table(self) -> str:
        """IoU and pixel share per class, in the order of the label map."""
        width = max(len(name) for name in self.labels.names)
        rows = [f"{'class':{width}}     IoU   share"]
        for name, iou, share, present in zip(
            self.labels.names, self.scores.iou, self.scores.share, self.scores.present, strict=True
        ):
            note = "" if present else "   absent from the truth"
            rows.append(f"{name:{width}}  {percent(iou):>6}  {percent(share):>6}{note}")
        return "\n".join(rows)

    def to_json(self) -> str:
        """Every figure, per class and per image; undefined ones are null."""
        scores = self.scores
        classes = [
            {"name": name, "iou": _number(iou), "share": _number(share), "present": bool(present)}
            for name, iou, share, present in zip(
                self.labels.names, scores.iou, scores.share, scores.present, strict=True
            )
        ]
        content: dict[str, Any] = {
            "headline": self.headline(),
            "proved": self.proved,
            "dataset": self.dataset,
            "split": self.split,
            "protocol": self.protocol,
            "weights_sha256": self.weights_sha256,
            "step": self.step,
            "images_total": self.images_total,
            "images_counted": self.images_counted,
            "failed": [{"name": name, "why": why} for name, why in self.failed],
            "void_share": _number(self.void_share),
            "mean_iou": _number(scores.mean_iou),
            "pixel_accuracy": _number(scores.pixel_accuracy),
            "classes": classes,
            "confusion": self.confusion.tolist(),
            "per_image": [
                {"name": s.name, "mean_iou": _number(s.mean_iou), "pixel_accuracy": _number(s.pixel_accuracy)}
                for s in self.per_image
            ],
            "seconds": round(self.seconds, 3),
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def percent(value: float) -> str:
    """0..1 -> '12.34', undefined -> '-'."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
