"""PyTorch: runs the network that the recipe names, with the weights of a model file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veduta.backends.runtime import in_words
from veduta.checkpoint import load_model
from veduta.config import set_fields
from veduta.data.batch import to_unit_range
from veduta.device import autocast, place, select_device
from veduta.model_info import ModelInfo
from veduta.models import build_loaded


class TorchBackend:
    """A network in eval mode on one device. Precision is the recipe's."""

    def __init__(self, model: nn.Module, info: ModelInfo, device: torch.device) -> None:
        self.model, self.info, self.runtime, self.device = model.eval(), info, in_words("torch"), device

    @torch.inference_mode()
    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        with autocast(self.device, self.info.recipe.precision):
            outputs: dict[str, Tensor] = self.model(to_unit_range(channels_last(images), self.device))
        return outputs


def channels_last(images: NDArray[Any]) -> Tensor:
    """(N, 3, H, W) in any layout -> the same as a tensor, in the layout that convolutions prefer."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def open_torch(path: Path, *, device: str, changes: Sequence[str]) -> TorchBackend:
    weights, info = load_model(path)
    recipe = set_fields(info.recipe, changes)
    info = dataclasses.replace(info, recipe=recipe)
    try:
        model = build_loaded(recipe.model, info.labels.num_classes, weights, **recipe.model_options)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit model '{recipe.model}' of this Veduta: {error}") from error
    where = select_device(device)
    return TorchBackend(place(model, where), info, where)
