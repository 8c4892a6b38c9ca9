"""Lower opsets: a float network whose shapes are all fixed, in the operators of an older version of ONNX.

Operators changed little over the years: what was an attribute became an input, and attributes were added. So this is
a matter of the few operators that networks of this kind are made of; any other is refused, never guessed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 11, 6  # of 2019: what every release of Ascend's ATC since then reads
EMPTY = "no_values"  # a constant that stands for an input that is left out, where it may not be

ALIKE = frozenset(  # in opset 11 and in those after it, but for attributes that `_HARMLESS` knows
    [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Expand",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Sub",
        "Transpose",
    ]
)
AXES = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "Squeeze", "Unsqueeze"})  # their second input was `axes`
KNOWN = ALIKE | AXES | {"Resize", "Softmax", "Split"}

_HARMLESS: Mapping[str, object] = {  # attributes that came later -> the value that changes nothing
    "allowzero": None,  # no shape of fixed lengths has a 0
    "antialias": 0,
    "dilations": [1, 1],
    "keep_aspect_ratio_policy": b"stretch",
    "noop_with_empty_axes": 0,
    "num_outputs": None,  # equal parts, which is what leaving `split` out means
    "training_mode": 0,
}


def lower_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in opset OPSET, as a copy. Raises ValueError for an operator or a use of one that it lacks."""
    lowered = onnx.ModelProto()
    lowered.CopyFrom(onnx.shape_inference.infer_shapes(model))
    graph = lowered.graph
    whole = (tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.input)}
    nodes = [lower for node in graph.node for lower in _lowered(node, constants, ranks)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), EMPTY))
    del lowered.opset_import[:], lowered.functions[:]
    lowered.opset_import.append(helper.make_opsetid("", OPSET))
    lowered.ir_version = IR_VERSION
    remove_unused(graph)
    onnx.checker.check_model(lowered, full_check=True)
    return lowered


def _lowered(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], ranks: Mapping[str, int]
) -> Iterator[onnx.NodeProto]:
    """The node, or several in its place."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.domain or node.op_type not in KNOWN:
        raise ValueError(f"operator {node.domain}{node.op_type}: how it is written in opset {OPSET} is not known.")
    known = onnx.defs.get_schema(node.op_type, OPSET, "").attributes
    inputs = list(node.input)
    if node.op_type in AXES | {"Split"} and len(inputs) > 1:
        attributes["split" if node.op_type == "Split" else "axes"] = _constant(inputs.pop(1), constants, node)
    for name in [name for name in attributes if name not in known]:
        harmless = _HARMLESS.get(name, name)
        if harmless is not None and attributes[name] != harmless:
            raise ValueError(f"{node.op_type} with {name} = {attributes[name]} does not exist in opset {OPSET}.")
        del attributes[name]
    if node.op_type == "Softmax":
        yield from _softmax(node, attributes.get("axis", -1), ranks[node.input[0]])
        return
    if node.op_type == "Resize":
        inputs = [name or EMPTY for name in inputs]
    yield helper.make_node(node.op_type, inputs, list(node.output), name=node.name, **attributes)


def _softmax(node: onnx.NodeProto, axis: int, rank: int) -> Iterator[onnx.NodeProto]:
    """Over one axis. In opset 11 it is over all axes from `axis` on: the one that is meant has to be the last."""
    (source,), (target,) = node.input, node.output
    axis %= rank
    if axis == rank - 1:
        yield helper.make_node("Softmax", [source], [target], name=node.name, axis=axis)
        return
    swapped = list(range(rank))
    swapped[axis], swapped[-1] = swapped[-1], swapped[axis]
    yield helper.make_node("Transpose", [source], [f"{target}_last"], name=f"{node.name}_to_last", perm=swapped)
    yield helper.make_node("Softmax", [f"{target}_last"], [f"{target}_shares"], name=node.name, axis=rank - 1)
    yield helper.make_node("Transpose", [f"{target}_shares"], [target], name=f"{node.name}_back", perm=swapped)


def _constant(name: str, constants: Mapping[str, NDArray[Any]], node: onnx.NodeProto) -> list[int]:
    if name not in constants:
        raise ValueError(f"{node.op_type} {node.name}: {name} is computed; opset {OPSET} wants it constant.")
    values: list[int] = constants[name].tolist()
    return values


def remove_unused(graph: onnx.GraphProto) -> None:
    """Takes nodes, constants and notes on shapes away that no output depends on."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    nodes, constants = kept[::-1], [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
