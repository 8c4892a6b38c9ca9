"""Exporting networks of tests: BatchNorm that does something, a file, and how far it departs from the network."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veduta.backends import Backend
from veduta.backends.torch import TorchBackend
from veduta.data.label_maps import VOC
from veduta.export.onnx import save_onnx, to_onnx
from veduta.export.trace import Shape, trace
from veduta.model_info import OF_TRAINING, ModelInfo
from veduta.models import build_model
from veduta.recipes import find_recipe

OPEN: Shape = (None, 3, None, None)


class Size(NamedTuple):
    batch: int
    height: int
    width: int


SIZES = (Size(1, 64, 64), Size(3, 96, 96), Size(1, 64, 128), Size(2, 128, 64), Size(1, 65, 97), Size(2, 33, 47))
TINY_SIZES = (Size(1, 16, 16), Size(1, 9, 150), Size(3, 1, 1))


def info_of(model: str) -> ModelInfo:
    recipe = replace(find_recipe("demo"), model=model, model_options={})
    return ModelInfo(recipe=recipe, labels=VOC, step=1, scores={"val_mean_iou": 0.25})


def lively(name: str, num_classes: int = 7, **options: object) -> nn.Module:
    """A network in eval mode whose BatchNorm scales and shifts, as after a training; the same each time."""
    torch.manual_seed(0)
    model = build_model(name, num_classes, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)  # type: ignore[arg-type]
    return model.eval()


def export_onnx(model: nn.Module, name: str, path: Path, shape: Shape = OPEN) -> ModelInfo:
    info = info_of(name)
    return save_onnx(to_onnx(trace(model, shape), info), info, path)


def images_of(size: Size) -> NDArray[np.uint8]:
    return np.random.default_rng(size.height).integers(0, 256, (size.batch, 3, size.height, size.width), np.uint8)


class Difference(NamedTuple):
    """largest: as a share of the output's range. agreement: of the largest along the classes."""

    size: Size
    output: str
    largest: float
    agreement: float


def differences(model: nn.Module, exported: Backend, sizes: Iterable[Size]) -> Iterator[Difference]:
    reference = TorchBackend(model, exported.info, torch.device("cpu"))
    reference.info = replace(exported.info, recipe=replace(exported.info.recipe, precision="fp32"))
    for size in sizes:
        images = images_of(size)
        expected, found = reference(images), exported(images)
        assert list(found) == [name for name in expected if name not in OF_TRAINING]
        for name, output in found.items():
            yield Difference(size, name, *_measured(expected[name].numpy(), as_array(output), class_axis(name)))


def class_axis(output: str) -> int:
    return 1 if output == "mask_logits" else -1


def as_array(output: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
    return output.numpy() if isinstance(output, Tensor) else output


def _measured(expected: NDArray[np.float32], found: NDArray[np.float32], axis: int) -> tuple[float, float]:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    largest = np.abs(found - expected).max() / (expected.max() - expected.min())
    return float(largest), float((found.argmax(axis) == expected.argmax(axis)).mean())
