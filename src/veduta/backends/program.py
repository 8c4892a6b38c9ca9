"""PyTorch: runs a program of `veduta export` (`.pt2`) on any device."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from veduta.backends.program_file import read_program
from veduta.backends.runtime import IMAGES, check_images, check_ports, in_words, with_changes
from veduta.backends.torch import channels_last
from veduta.data.batch import to_unit_range
from veduta.device import select_device
from veduta.model_info import ModelInfo, OpenShape


class ProgramBackend:
    """A traced network on one device, in float32."""

    def __init__(self, program: ExportedProgram, info: ModelInfo, device: torch.device) -> None:
        self.module = program.module(check_guards=False)  # the file says which images it takes
        self.info, self.runtime, self.device = info, in_words("torch"), device

    @torch.inference_mode()
    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        check_images(self.info, images.shape)
        outputs: dict[str, Tensor] = self.module(to_unit_range(channels_last(images), self.device))
        return outputs


def open_program(path: Path, *, device: str, changes: Sequence[str]) -> ProgramBackend:
    """Raises ValueError or FileNotFoundError: see `read_program`, and for files that hold other than they tell."""
    archive, info = read_program(path)
    info = with_changes(info, changes, source=path)
    where = select_device(device)
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it tells of failures beside raising
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(archive)
        images, outputs = shapes_of(program)
    except Exception as error:  # of any type: PyTorch trusts what it reads
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{path}: PyTorch cannot open it ({lines[0][:300]}). Export the model again.") from error
    finally:
        logger.setLevel(level)
    check_ports(info, path, inputs={IMAGES: images}, outputs=outputs)
    return ProgramBackend(move_to_device_pass(program, where), info, where)


def shapes_of(program: ExportedProgram) -> tuple[OpenShape, dict[str, OpenShape]]:
    """Of the images, and of the outputs by name."""
    nodes: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    (images,) = (_shape(nodes[name]) for name in signature.user_inputs if isinstance(name, str))
    spec: Any = program.call_spec.out_spec
    found = [nodes[name] for name in signature.user_outputs if isinstance(name, str)]
    return images, {name: _shape(value) for name, value in zip(spec.context, found, strict=True)}


def _shape(value: Tensor) -> OpenShape:
    return tuple(length if isinstance(length, int) else None for length in value.shape)
