"""What an export may write: the traced network, or in int8 one graph after the other, until one scores well enough."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor

from veduta.backends.runtime import check_images
from veduta.backends.torch import TorchBackend
from veduta.data.sample import SampleDataset
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.export import TARGETS, Graph
from veduta.export.onnx import to_onnx
from veduta.export.request import Request
from veduta.export.trace import trace
from veduta.model_info import Exported

CALIBRATED_ON = 32  # images


def candidates(
    reference: TorchBackend, request: Request, line: ProgressLine, calibration: SampleDataset | None
) -> Iterator[Graph]:
    """Of fp32 there is one. calibration: images like those to come, for int8.

    Raises ValueError where these are shown in other sizes than the file is to take.
    """
    info, target = reference.info, TARGETS[request.target]
    line.update(f"tracing {info.recipe.model}")
    shape = target.shape(reference.model, info.recipe, request.shape)
    program = trace(reference.model, shape)
    if target.format == "torch":
        yield Graph(program, None)
        return
    line.update(f"translating {info.recipe.model} to ONNX")
    proto = to_onnx(program, info)
    found: Iterable[tuple[ModelProto, tuple[str, ...]]] = [(proto, ())]
    if request.int8:
        from veduta.export.sensitivity import candidates as in_int8

        assert calibration is not None
        asked = dataclasses.replace(info, exported=Exported(format="onnx", images=shape, outputs={}))
        shown = list(_as_shown(reference, calibration))
        for image in shown:
            check_images(asked, image.shape)
        found = ((each.proto, each.kept) for each in in_int8(proto, shown, line))
    for each, kept in found:
        if request.full:
            from veduta.export.decode import add_decoding

            each = add_decoding(each, info.recipe.task)
        yield Graph(program, each, kept)


class _Watching(TorchBackend):
    """Keeps what it is shown, the first image of each batch."""

    def __init__(self, backend: TorchBackend) -> None:
        super().__init__(backend.model, backend.info, backend.device)
        self.shown: list[NDArray[Any]] = []

    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        self.shown.append(images[:1])
        return super().__call__(images)


def _as_shown(reference: TorchBackend, samples: SampleDataset) -> Iterator[NDArray[np.uint8]]:
    """Images (1, 3, H, W) as the recipe's protocol shows them to the network first; spread evenly over a split."""
    count = min(CALIBRATED_ON, len(samples))
    for number in range(count):
        watching = _Watching(reference)
        Predictor(watching).predict([samples[number * len(samples) // count]])
        yield watching.shown[0]
