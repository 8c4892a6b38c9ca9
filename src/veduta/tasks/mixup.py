"""Mixup and CutMix: images of a batch mixed with others of it, and their classes alike, which become soft."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from veduta.data.batch import Batch


@dataclass(frozen=True)
class Mixup:
    """Every sample of a batch blended with a partner, all with one share: Zhang 2018, https://arxiv.org/abs/1710.09412.

    share: of the sample itself. partners: (N,) int64, a permutation of the batch.
    """

    share: float
    partners: Tensor

    @classmethod
    def draw(cls, batch_size: int, alpha: float, rng: np.random.Generator) -> "Mixup":
        """The share from Beta(alpha, alpha), then the partners."""
        return cls(float(rng.beta(alpha, alpha)), torch.from_numpy(rng.permutation(batch_size)))

    def __call__(self, x: Tensor) -> Tensor:
        """(N, ...) floating point: images, or one-hot targets."""
        return self.share * x + (1 - self.share) * x[self.partners.to(x.device)]


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
