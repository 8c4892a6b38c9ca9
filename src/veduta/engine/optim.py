"""Optimizer, learning-rate curve and the moving average of weights."""

import copy
import math

import torch
from torch import Tensor, nn

from veduta.config import Optim


def build_optimizer(model: nn.Module, optim: Optim, *, fused: bool) -> torch.optim.Optimizer:
    """Weights decay, biases and normalisation do not: they are the parameters of rank 1."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.momentum, 0.999), fused=fused)


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Rate of step 0..steps-1: linear warm-up, then poly with power 0.9 (DeepLab) or half a cosine, down to zero."""
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    if optim.schedule == "poly":
        return optim.lr * (1 - progress) ** 0.9
    return optim.lr * 0.5 * (1 + math.cos(math.pi * progress))


class MovingAverage:
    """Exponential moving average of all floating-point tensors of a model, running statistics included.

    `model` is the averaged copy. The decay grows during the first steps, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.step = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if value.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)
