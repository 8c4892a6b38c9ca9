"""Classification: one class per image."""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from veduta.config import Loss
from veduta.data.sample import Batch
from veduta.labels import LabelMap
from veduta.tasks.losses import Mixup, soft_cross_entropy
from veduta.tasks.prediction import Prediction


class Classify:
    """Reads `class_logits` (N, num_classes)."""

    reads = "class_logits"

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


def mix_batch(
    images: Tensor, batch: Batch, num_classes: int, *, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Batch]:
    """Images (N, 3, H, W) in [0, 1] and the batch with soft `scene_classes`, blended by one and the same `Mixup`."""
    assert batch.scene_classes is not None
    mix = Mixup.draw(len(images), alpha, rng)
    classes = F.one_hot(batch.scene_classes, num_classes).float()
    return mix(images), batch._replace(scene_classes=mix(classes))
