"""Optimizer, its parameter groups, and the moving average of weights."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from veduta.config import Optim


def build_optimizer(model: nn.Module, optim: Optim, *, fused: bool) -> torch.optim.Optimizer:
    """One group for each pair of rate multiplier and weight decay; a rate multiplied by 0 freezes the parameter.

    fused: whether one kernel does all of a step; where not, PyTorch takes the next best that the device has.
    Every group carries its `lr_multiplier`; whoever sets the rate of a step multiplies by it. Raises ValueError where
    an entry of `optim.lr_multipliers` names no parameter and no part of the model.
    """
    _check_multipliers(model, optim)
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        multiplier = math.prod(factor for part, factor in optim.lr_multipliers.items() if _is_in(name, part))
        if multiplier == 0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            decay = optim.weight_decay if _decays(name, parameter, optim) else 0.0
            members.setdefault((multiplier, decay), []).append(parameter)
    groups = [
        {"params": parameters, "lr": optim.lr * multiplier, "lr_multiplier": multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in members.items()
    ]
    match optim.name:
        case "sgd":
            return _sgd(groups, optim, fused=fused or None)
        case "adam":
            return TensorFlowAdam(groups, lr=optim.lr, betas=(optim.momentum, 0.999))
        case "adamw":
            return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.momentum, 0.999), fused=fused or None)


def _sgd(groups: list[dict[str, Any]], optim: Optim, *, fused: bool | None) -> torch.optim.Optimizer:
    sgd = torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=fused)
    if optim.momentum:
        # From zero, as it should be: the fused one takes memory as it comes, to fill it at the first step; where fp16
        # leaves that step out, it is never filled.
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def _decays(name: str, parameter: nn.Parameter, optim: Optim) -> bool:
    match optim.weight_decay_on:
        case "all":
            return True
        case "names":
            return "bn" not in name and "bias" not in name
        case "full-kernels":
            depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
            return parameter.ndim > 1 and not depthwise
        case "kernels":
            return parameter.ndim > 1


def _check_multipliers(model: nn.Module, optim: Optim) -> None:
    names = [name for name, _ in model.named_parameters()]
    for part in optim.lr_multipliers:
        if not any(_is_in(name, part) for name in names):
            parts = dict.fromkeys(name.split(".")[0] for name in names)
            raise ValueError(
                f"optim.lr_multipliers: no parameter is '{part}' or in it. The model's names start with "
                f"{', '.join(parts)}; the last one is {names[-1]}."
            )


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


class TensorFlowAdam(torch.optim.Optimizer):
    """Adam with epsilon outside of the bias correction: tf.train.AdamOptimizer of TensorFlow 1. Decay is L2, as there.

    With t the step: w -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps). torch's own corrects v first, so that
    its epsilon weighs less: 32 times at the first step.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "step": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "closures are for line searches"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters, tuple(p.grad for p in parameters))

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor], gradients: tuple[Tensor, ...]) -> None:
        for parameter in parameters:
            if parameter not in self.state:
                self.state[parameter] = {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        means = [self.state[p]["mean"] for p in parameters]
        squares = [self.state[p]["square"] for p in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        group["step"] += 1
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, group["eps"])
        rate = group["lr"] * math.sqrt(1 - beta2 ** group["step"]) / (1 - beta1 ** group["step"])
        torch._foreach_addcdiv_(parameters, means, divisors, -rate)


class MovingAverage:
    """Exponential moving average of all floating-point tensors of a model, running statistics included.

    `model` is the averaged copy. The decay grows during the first steps, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.step = decay, 0
        # The tensors themselves: they are changed in place, never replaced.
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present tensors."""
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([mine for mine, _ in self.averaged], [its for _, its in self.averaged], 1 - decay)
        for mine, its in self.copied:
            mine.copy_(its)
