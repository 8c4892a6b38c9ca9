"""Triton: a model repository around an ONNX file, with batches and a queue that are bounded."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from veduta.export.bundle import simple_name, take_in, write_from_template
from veduta.files import write_text
from veduta.model_info import ModelInfo

MOST_BATCH = 8  # images that the server puts together at most, where their number is open

TYPES: dict[int, str] = {  # of ONNX -> of Triton
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.UINT8: "TYPE_UINT8",
}
OF_CLASSES = ("class_logits", "class_scores")  # of a classifier: one number for each class


def write_triton(model: Path, info: ModelInfo, folder: Path) -> None:
    """Move a proven ONNX file into a new model repository: NAME/1/model.onnx, with its configuration and labels.

    Where the number of images is open, the server makes batches; an output that is the same whatever the network sees
    has no batch and lies beside as .npy.
    """
    name = simple_name(info)
    home = folder / name
    graph = onnx.load(take_in(model, home / "1" / "model.onnx"), load_external_data=False).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    batched = bool(graph.input[0].type.tensor_type.shape.dim[0].dim_param)
    outputs = [output for output in graph.output if not (batched and output.name in constants)]
    for output in graph.output:
        if output.name in constants:
            np.save(home / f"{output.name}.npy", numpy_helper.to_array(constants[output.name]))
    values = {
        "info": info,
        "name": name,
        "max_batch_size": MOST_BATCH if batched else 0,
        "preferred": [MOST_BATCH // 2, MOST_BATCH],
        "inputs": [_tensor(value, batched=batched) for value in graph.input],
        "outputs": [_tensor(value, batched=batched) for value in outputs],
        "labelled": OF_CLASSES if info.recipe.task == "classify" else (),
        "constants": [output.name for output in graph.output if output.name in constants],
    }
    write_text(home / "labels.txt", info.labels.listed)
    write_from_template("triton.config.pbtxt", home / "config.pbtxt", **values)
    write_from_template("triton.README.md", folder / "README.md", **values)


def _tensor(value: onnx.ValueInfoProto, *, batched: bool) -> dict[str, object]:
    """Name, type and lengths as Triton writes them: -1 is open, and the batch is left out where the server makes it."""
    lengths = [-1 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return {
        "name": value.name,
        "type": TYPES[value.type.tensor_type.elem_type],
        "dims": lengths[1:] if batched else lengths,
    }
