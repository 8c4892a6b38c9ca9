"""Export: a network as a file that other runtimes open, proven before it gets its name. TARGETS: what can be made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.export import ExportedProgram

    from veduta.config import Recipe
    from veduta.export.trace import Shape
    from veduta.model_info import ModelInfo


@dataclass(frozen=True)
class Graph:
    """A traced network. proto: the same as ONNX, None where the target is none that is made of it.

    kept: of int8, the names of the nodes that stay in float.
    """

    program: "ExportedProgram"
    proto: "ModelProto | None"
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """What can be made of a network.

    ending: of the file; of a folder none. format: what is written, and which backend opens it again.
    write: a graph and its info into a file; returns the info that went into it. bundle: moves the proven file into a
    new folder, with all that belongs to it. shape: of the images, where the target cannot leave open what was left so.
    """

    ending: str
    format: Literal["onnx", "openvino", "torch"]
    write: "Callable[[Graph, ModelInfo, Path], ModelInfo]"
    bundle: "Callable[[Path, ModelInfo, Path], None] | None" = None
    shape: "Callable[[nn.Module, Recipe, Shape], Shape]" = lambda network, recipe, shape: shape


# What writes is large, so each is imported when it is asked for.


def _onnx(graph: Graph, info: "ModelInfo", path: Path) -> "ModelInfo":
    from veduta.export.onnx import save_onnx

    assert graph.proto is not None
    return save_onnx(graph.proto, info, path)


def _openvino(graph: Graph, info: "ModelInfo", path: Path) -> "ModelInfo":
    from veduta.export.openvino import save_openvino

    assert graph.proto is not None
    return save_openvino(graph.proto, info, path)


def _torch(graph: Graph, info: "ModelInfo", path: Path) -> "ModelInfo":
    from veduta.export.program import save_program

    return save_program(graph.program, info, path)


def _triton(model: Path, info: "ModelInfo", folder: Path) -> None:
    from veduta.export.triton import write_triton

    write_triton(model, info, folder)


def _ascend(model: Path, info: "ModelInfo", folder: Path) -> None:
    from veduta.export.ascend import write_ascend

    write_ascend(model, info, folder)


def _fixed(network: "nn.Module", recipe: "Recipe", shape: "Shape") -> "Shape":
    from veduta.export.ascend import fixed_shape

    return fixed_shape(network, recipe, shape)


TARGETS: dict[str, Target] = {
    # One file for ONNX Runtime and most others.
    "onnx": Target(ending=".onnx", format="onnx", write=_onnx),
    # Two files for OpenVINO, .xml and .bin.
    "openvino": Target(ending=".xml", format="openvino", write=_openvino),
    # A program for PyTorch, without Veduta's code.
    "torch": Target(ending=".pt2", format="torch", write=_torch),
    # A model repository for the Triton server.
    "triton": Target(ending="", format="onnx", write=_onnx, bundle=_triton),
    # A folder of which ATC makes a model for Ascend's chips.
    "ascend": Target(ending="", format="onnx", write=_onnx, bundle=_ascend, shape=_fixed),
}
