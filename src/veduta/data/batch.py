"""Batch: samples as tensors, what a training step eats."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from veduta.data.sample import Sample


class Batch(NamedTuple):
    """N samples of one size; what none of them has is None.

    images: (N, 3, H, W) uint8 RGB. masks: (N, H, W) uint8 train ids, 255 void. names: of the samples. boxes: per image
    (n, 4) float32 xyxy pixels. box_classes: per image (n,) int64 train ids. scene_classes: (N,) int64 train ids.
    """

    images: Tensor
    masks: Tensor | None
    names: tuple[str, ...]
    boxes: tuple[Tensor, ...] | None = None
    box_classes: tuple[Tensor, ...] | None = None
    scene_classes: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Every tensor on `device`; from pinned memory the copies overlap with work."""
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def in_own_memory(self) -> "Batch":
        """A copy. Memory shared with a worker goes back to the system with its batch, which takes its time."""
        return self._with_each(Tensor.clone)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def changed(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            if isinstance(value, tuple):
                return tuple(changed(part) for part in value)
            return value

        return Batch(*map(changed, self))


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one size -> Batch. Images come out channels_last, because that is how they lie in memory."""
    masks = [s.mask for s in samples if s.mask is not None]
    boxes = [torch.from_numpy(s.boxes) for s in samples if s.boxes is not None]
    box_classes = [torch.from_numpy(s.box_classes) for s in samples if s.box_classes is not None]
    scene_classes = [s.scene_class for s in samples if s.scene_class is not None]
    assert all(len(values) in (0, len(samples)) for values in (masks, boxes, box_classes, scene_classes))
    return Batch(
        images=torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
        masks=torch.from_numpy(np.stack(masks)) if masks else None,
        names=tuple(s.name for s in samples),
        boxes=tuple(boxes) or None,
        box_classes=tuple(box_classes) or None,
        scene_classes=torch.tensor(scene_classes) if scene_classes else None,
    )


def to_unit_range(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images of a batch -> float32 in [0, 1] on `device`; uint8 is what crosses to the device.

    Images that are floating point are in [0, 1] already.
    """
    images = images.to(device, non_blocking=True)
    return images if images.is_floating_point() else images.float().div_(255)
