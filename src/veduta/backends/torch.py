"""PyTorch: runs the network that the recipe names, with the weights of a model file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from veduta.checkpoint import load_model
from veduta.config import set_fields
from veduta.data.sample import to_unit_range
from veduta.device import autocast, select_device
from veduta.model_info import ModelInfo
from veduta.models import build_loaded


class TorchBackend:
    """A network in eval mode on one device. Precision is the recipe's."""

    def __init__(self, model: nn.Module, info: ModelInfo, device: torch.device) -> None:
        self.model, self.info, self.device = model.eval(), info, device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.info.recipe.precision):
            outputs: dict[str, Tensor] = self.model(to_unit_range(images, self.device))
        return outputs


def open_torch(path: Path, *, device: str, changes: Sequence[str]) -> TorchBackend:
    weights, info = load_model(path)
    recipe = set_fields(info.recipe, changes)
    info = dataclasses.replace(info, recipe=recipe)
    try:
        model = build_loaded(recipe.model, info.labels.num_classes, weights, **recipe.model_options)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit model '{recipe.model}' of this Veduta: {error}") from error
    where = select_device(device)
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchBackend(model, info, where)
