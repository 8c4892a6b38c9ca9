"""Counts multiply-accumulates: of convolutions and linear layers, as published figures do."""

from typing import Any

import torch
from torch import Tensor, nn


def count_macs(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates for one image of `size` (height, width); on the device "meta" counting costs nothing."""
    total = 0

    def count(module: nn.Module, args: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        total += output.numel() * module.weight[0].numel()

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.inference_mode():
        model(torch.zeros(1, 3, *size, device=next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return total
