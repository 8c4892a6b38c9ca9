"""ONNX: a traced network as one file, its weights and its ModelInfo inside."""

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch.export import ExportedProgram

from veduta import __version__
from veduta.backends.onnx_file import LARGEST, hash_contents
from veduta.backends.runtime import IMAGES
from veduta.export.trace import output_names
from veduta.files import replacing
from veduta.model_info import METADATA_KEY, Exported, ModelInfo, OpenShape, info_to_json

OPSET = 18  # the oldest that PyTorch writes: the more runtimes read it

_AXES = ("N", "C", "H", "W")
_ROOM = 64 << 20  # bytes of a file that are not weights


def to_onnx(program: ExportedProgram, info: ModelInfo) -> onnx.ModelProto:
    """The program in standard operators, BatchNorm folded into the convolutions; lengths that are open: N, H, W.

    Nothing in it tells of the machine that made it, and the same network gives the same graph. Raises ValueError for
    more weights than an ONNX file can hold.
    """
    size = sum(tensor.nbytes for tensor in (*program.state_dict.values(), *program.constants.values()))
    if size > LARGEST - _ROOM:
        raise ValueError(
            f"The weights of '{info.recipe.model}' are {size:,} bytes; one ONNX file holds at most {LARGEST:,}, and "
            "weights beside it are refused when it is opened. Export another target."
        )
    names = output_names(program)
    with _quiet(), torch.no_grad():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[IMAGES],
            output_names=names,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    proto: onnx.ModelProto = exported.model_proto
    proto.producer_name, proto.producer_version = "veduta", __version__
    graph = proto.graph
    graph.name = info.recipe.model
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]  # where in which source it came from
        part.ClearField("doc_string")
    _name_axes(graph)
    return proto


def save_onnx(proto: onnx.ModelProto, info: ModelInfo, path: Path) -> ModelInfo:
    """Write an ONNX file; returns the info that went into it, with the file's own shapes and the hash of its contents.

    info.exported may tell all else of the file. Metadata that the model has goes.
    """
    del proto.metadata_props[:]
    contents = proto.SerializeToString(deterministic=True)
    exported = info.exported or Exported(format="onnx", images=(), outputs={})
    exported = dataclasses.replace(
        exported,
        images=_shape(proto.graph.input[0]),
        outputs={output.name: _shape(output) for output in proto.graph.output},
        contents_sha256=hash_contents(contents),
    )
    info = dataclasses.replace(info, exported=exported)
    entry = onnx.StringStringEntryProto(key=METADATA_KEY, value=info_to_json(info))
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(contents)
        file.write(onnx.ModelProto(metadata_props=[entry]).SerializeToString())  # a model that follows is merged
    return info


def _shape(value: onnx.ValueInfoProto) -> OpenShape:
    return tuple(None if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim)


def _name_axes(graph: onnx.GraphProto) -> None:
    """Call the open lengths of the images N, H and W, and those of the outputs that are the same."""
    lengths = [dim for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
    known = {dim.dim_param: axis for dim, axis in zip(lengths, _AXES, strict=False)}
    for dim in lengths:
        if dim.dim_param:
            dim.dim_param = known.get(dim.dim_param, dim.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter tells its developers of packages that are not there, and of deprecations of its own."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
