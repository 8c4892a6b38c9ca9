"""Models without weights: one reads the class of each pixel off the red of tests/layouts.py, one is any function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from layouts import LEVELS, TINY
from numpy.typing import NDArray
from torch import Tensor

from veduta.backends.torch import channels_last
from veduta.config import Data, Optim, ProtocolName, Recipe
from veduta.data.batch import to_unit_range
from veduta.data.label_maps import numbered
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo

RECIPE = Recipe(
    name="stub", model="deeplabv3plus_tiny", data=Data(dataset="folder", batch_size=2), optim=Optim(lr=0.1), steps=7
)


class StubBackend:
    """Right everywhere, except that class 0 takes the place of class `blind_to`. `batch_sizes` of the calls so far."""

    runtime, device = "a stub", torch.device("cpu")

    def __init__(self, labels: LabelMap = TINY, *, blind_to: int | None = None) -> None:
        self.info = ModelInfo(recipe=RECIPE, labels=labels, step=7, weights_sha256="0123456789abcdef")
        self.blind_to = blind_to
        self.batch_sizes: list[int] = []

    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        assert images.dtype == np.uint8
        self.batch_sizes.append(len(images))
        last = self.info.labels.num_classes - 1
        # a lossy photo may hold any red
        ids = torch.from_numpy(images[:, 0] // LEVELS).long().clamp(max=last)
        if self.blind_to is not None:
            ids[ids == self.blind_to] = 0
        return {"mask_logits": F.one_hot(ids, last + 1).permute(0, 3, 1, 2).float()}


class FunctionBackend:
    """A function of images (N, 3, H, W) in [0, 1] that gives `reads`. shapes: of all that it was shown."""

    runtime, device = "a stub", torch.device("cpu")

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        protocol: ProtocolName,
        *,
        crop: tuple[int, int],
        num_classes: int = 4,
        reads: str = "mask_logits",
        **changes: Any,
    ) -> None:
        data = replace(RECIPE.data, crop_size=crop)
        recipe = replace(RECIPE, data=data, protocol=protocol, **changes)
        labels = numbered(num_classes, images=reads == "class_logits")
        self.info = ModelInfo(recipe=recipe, labels=labels, step=7, weights_sha256="0123456789abcdef")
        self.network, self.reads = network, reads
        self.shapes: list[tuple[int, ...]] = []

    @torch.inference_mode()
    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        self.shapes.append(tuple(images.shape))
        return {self.reads: self.network(to_unit_range(channels_last(images), self.device))}
