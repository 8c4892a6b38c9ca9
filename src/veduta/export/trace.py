"""Tracing: a network as a graph that PyTorch can run, keep and translate, for images of open or fixed sizes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from veduta.model_info import OF_TRAINING

Shape = tuple[int | None, int, int | None, int | None]  # of images, (N, 3, H, W); None: whatever length comes


# Example lengths of what is open: not 1, which would be taken for a constant, and no two the same.
_EXAMPLE = (2, 3, 224, 288)


class _WithoutTraining(nn.Module):
    """A network without its outputs OF_TRAINING."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {name: output for name, output in self.network(images).items() if name not in OF_TRAINING}


def trace(model: nn.Module, shape: Shape) -> ExportedProgram:
    """A network in eval mode, on the CPU -> its program, which takes "images", float32 (N, 3, H, W) RGB in [0, 1].

    Its outputs are the network's by name and order, see `output_names`. Raises ValueError in training mode, where
    BatchNorm reads its batch, and for networks that do not run on images of this shape.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("The network is in training mode. Call its eval() before it is exported.")
    lengths = tuple(example if length is None else length for length, example in zip(shape, _EXAMPLE, strict=True))
    is_open = {axis: Dim.DYNAMIC for axis, length in enumerate(shape) if length is None}
    images = torch.zeros(lengths, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            return torch.export.export(_WithoutTraining(model), (images,), dynamic_shapes=(is_open,))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"The network does not run on images of shape {lengths}: {_first_line(error)}") from error


def output_names(program: ExportedProgram) -> list[str]:
    spec: Any = program.call_spec.out_spec
    return list(spec.context)  # a dict's: its keys


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
