"""How much memory a training step takes, foretold without running it, and whether it is there."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from veduta.config import Recipe
from veduta.device import free_memory
from veduta.engine.optim import build_optimizer
from veduta.engine.step import set_training_mode
from veduta.models import build_skeleton
from veduta.ranks import world_size

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}  # of the weights


@dataclass(frozen=True)
class StepMemory:
    """Bytes. activations: what the forward pass keeps for the backward pass, of all images of a batch."""

    activations: int
    weights: int

    @property
    def total(self) -> int:
        return self.activations + self.weights


def forecast(recipe: Recipe, num_classes: int) -> StepMemory:
    """Of one batch at the recipe's size: counted on shapes alone, a lower bound of what the step takes.

    Kernels need some more for a moment, so that the true peak lies 10 to 60 % above it. Raises ValueError where the
    batch is one image and the network needs two.
    """
    model = build_skeleton(recipe.model, num_classes, **recipe.model_options).to("meta")
    set_training_mode(model, frozen_statistics=recipe.frozen_statistics)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    groups = build_optimizer(model, recipe.optim, fused=False).param_groups  # freezes what the recipe freezes
    kept: dict[int, int] = {}
    weights = {id(tensor) for tensor in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    batch_size = recipe.data.batch_size
    if recipe.sync_batch_norm and world_size() > 1:
        batch_size = max(batch_size, 2)  # BatchNorm sees the images of all processes
    images = torch.zeros(batch_size, 3, *recipe.data.crop_size, device="meta")
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs: Any = model(images)
    except ValueError as error:  # torch's word for a BatchNorm behind a pooling to 1x1
        if batch_size > 1:
            raise
        raise ValueError(
            f"model '{recipe.model}' cannot learn from one image at a time: a BatchNorm in it sees a single value. Set "
            "data.batch_size to 2 or more, or frozen_statistics=true."
        ) from error
    del outputs
    activations = sum(kept.values()) * BYTES[recipe.precision] // 4
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for group in groups for p in group["params"])
    held = parameters * (2 if recipe.optim.ema_decay else 1) + trained * (1 + OPTIMIZER_COPIES[recipe.optim.name])
    # A compiled network keeps less, nobody knows how much.
    return StepMemory(activations=0 if recipe.compile else activations, weights=4 * held)


def check_memory(recipe: Recipe, num_classes: int, device: torch.device) -> None:
    """Raises ValueError where one batch can never fit."""
    needed, free = forecast(recipe, num_classes), free_memory(device)
    if needed.total > free:
        height, width = recipe.data.crop_size
        raise ValueError(
            f"a step on {recipe.data.batch_size} images of {height}x{width} takes at least "
            f"{needed.total / 2**30:.1f} GiB ({needed.activations / 2**30:.1f} of it for the images, the rest for "
            f"weights and optimizer); {device} has {free / 2**30:.1f} GiB free. Lower data.batch_size and raise "
            "accumulate by as much."
        )
