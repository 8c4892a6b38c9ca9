"""Classification: one class per image."""

from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from veduta.config import Loss
from veduta.data.sample import Batch
from veduta.labels import LabelMap
from veduta.tasks.class_metric import ClassMetric
from veduta.tasks.losses import Mixup, soft_cross_entropy
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction


class Classify:
    """Reads `class_logits` (N, num_classes)."""

    reads: ClassVar[str] = "class_logits"
    truth: ClassVar[str] = "scene_class"
    scores: ClassVar[tuple[str, ...]] = ("top1", "top5")
    reads_of_loss: ClassVar[tuple[str, ...]] = ("smoothing", "smoothing_over", "mixup", "cutmix")

    def __init__(self, labels: LabelMap, loss: Loss) -> None:
        self.labels, self.loss = labels, loss

    def fit_classes(self, pixel_counts: NDArray[np.int64]) -> None:
        """Nothing: no published classifier weighs its classes."""

    def losses(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name; `batch.scene_classes` may be soft, (N, num_classes), as mixup leaves them."""
        assert batch.scene_classes is not None
        loss = soft_cross_entropy(
            outputs["class_logits"],
            batch.scene_classes,
            smoothing=self.loss.smoothing,
            smoothing_over=self.loss.smoothing_over,
        )
        return {"class": loss}

    def predict(self, outputs: dict[str, Tensor]) -> list[Prediction]:
        """One per image: the soft-max over the classes, (num_classes,) float32."""
        scores = outputs["class_logits"].float().softmax(dim=1).cpu().numpy()
        return [Prediction(class_scores=row) for row in scores]

    def average_mirrored(self, outputs: dict[str, Tensor], mirrored: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of the images and of their mirror images -> outputs for `predict`: soft-max, then the mean."""
        one, other = (logits["class_logits"].float() for logits in (outputs, mirrored))
        probabilities = one.softmax(dim=1) + other.softmax(dim=1)
        return {"class_logits": (probabilities / 2).log()}

    def metric(self, rules: Rules) -> ClassMetric:
        return ClassMetric(self.labels.num_classes, rules)


def mix_batch(
    images: Tensor, batch: Batch, num_classes: int, *, mixup: float, cutmix: float, rng: np.random.Generator
) -> tuple[Tensor, Batch]:
    """Images (N, 3, H, W) in [0, 1] and the batch with soft `scene_classes`, mixed alike, all with one share.

    mixup, cutmix: alphas, not both 0. Images are blended (see `Mixup`), or have a patch of their partner pasted in:
    Yun 2019, https://arxiv.org/abs/1905.04899. Where both are above 0, a batch gets one of the two, each as likely.
    """
    assert batch.scene_classes is not None and (mixup or cutmix)
    blend = not cutmix or (mixup > 0 and rng.random() < 0.5)
    mix = Mixup.draw(len(images), mixup if blend else cutmix, rng)
    if blend:
        images = mix(images)
    else:
        height, width = images.shape[-2:]
        rows = _draw_interval(height, (1 - mix.share) ** 0.5, rng)
        columns = _draw_interval(width, (1 - mix.share) ** 0.5, rng)
        patches = images[mix.partners.to(images.device), :, rows, columns]
        images = images.clone()
        images[:, :, rows, columns] = patches
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        mix = Mixup(1 - area / (height * width), mix.partners)  # at the edge a patch is smaller than its share
    classes = F.one_hot(batch.scene_classes, num_classes).float()
    return images, batch._replace(scene_classes=mix(classes))


def _draw_interval(length: int, share: float, rng: np.random.Generator) -> slice:
    """`share` of an axis around a random pixel, cut off at the ends."""
    centre, reach = int(rng.integers(length)), round(length * share) // 2
    return slice(max(centre - reach, 0), min(centre + reach, length))
