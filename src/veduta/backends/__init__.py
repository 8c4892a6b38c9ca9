"""Backends: any model file opens the same way, with the ModelInfo that travelled inside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor
from torch import device as Device

from veduta.backends.torch import TorchBackend, open_torch
from veduta.model_info import IMPORT_HINT, ModelInfo, find_model


class Backend(Protocol):
    """Runs a model. `device` is where the outputs lie."""

    info: ModelInfo
    device: Device

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """images: (N, 3, H, W) RGB of any size, uint8 or float32 in [0, 1] -> the model's named outputs."""
        ...


BACKENDS = {
    ".safetensors": open_torch,
}


def open_model(path: Path, *, device: str = "auto", changes: Sequence[str] = ()) -> Backend:
    """Open a run folder (its best checkpoint) or a model file. Raises ValueError or FileNotFoundError.

    changes: assignments to fields of its recipe, such as "model_options.output_stride=8".
    """
    path = find_model(path)
    if path.suffix not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f"{path}: no backend opens '{path.suffix}' files. Known: {known}. {IMPORT_HINT}")
    return BACKENDS[path.suffix](path, device=device, changes=changes)


__all__ = ["BACKENDS", "Backend", "TorchBackend", "open_model"]
