"""Int8: convolutions of an ONNX graph in whole numbers of 8 bits, for the ranges that calibration images show.

Jacob et al. 2017, https://arxiv.org/abs/1712.05877: real = scale * (whole - zero). A tensor that a layer in int8 reads
or writes passes a pair of QuantizeLinear and DequantizeLinear. Runtimes join the pairs with the layer between them to
one kernel of int8; where there is none for it, the layer computes in float, with the same rounding.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from veduta.backends.onnx import open_session
from veduta.backends.runtime import IMAGES
from veduta.data.fit import unit_range

Array = NDArray[Any]
Progress = Callable[[int, int], None]
Ranges = Mapping[str, tuple[float, float]]  # by tensor: the lowest and the highest value that was seen, and 0

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip")  # runtimes compute them together with the layer before
_ROOM = 2**30  # whole numbers of a bias stay below: with what is summed up on top they have to fit into 32 bits


def layers(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that can be computed in int8, in the graph's order.

    Those with weights, and sums of two activations, without which each residual block would go to float and back.
    """
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    typed = onnx.shape_inference.infer_shapes(proto).graph
    floats = {
        value.name
        for value in (*typed.value_info, *typed.input, *typed.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }

    def fits(node: NodeProto) -> bool:
        if node.op_type in _WEIGHTED:
            return node.input[0] in floats - constants and constants.issuperset(node.input[1:]) and _is_plain(node)
        return node.op_type == "Add" and floats - constants >= set(node.input)

    return [node.name for node in graph.node if fits(node)]


def find_ranges(proto: onnx.ModelProto, images: Sequence[NDArray[np.uint8]], progress: Progress) -> Ranges:
    """Of every tensor that `quantize` may ask for, over all images (N, 3, H, W). progress: images done, and in all."""
    named = {node.name: node for node in proto.graph.node}
    chosen = [named[name] for name in layers(proto)]
    names = list(
        dict.fromkeys(name for node in chosen for name in (*_read(proto.graph, node), _written(proto.graph, node)))
    )
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    del watched.graph.output[:]
    for name in names:
        for kind in ("Min", "Max"):
            watched.graph.node.append(helper.make_node(f"Reduce{kind}", [name], [f"{name} {kind}"], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(f"{name} {kind}", TensorProto.FLOAT, []))
    session = open_session(watched.SerializeToString())
    extremes = np.zeros((len(names), 2))
    for done, batch in enumerate(images, start=1):
        seen = np.array(run(session, batch)).reshape(-1, 2)
        extremes[:, 0] = np.minimum(extremes[:, 0], seen[:, 0])
        extremes[:, 1] = np.maximum(extremes[:, 1], seen[:, 1])
        progress(done, len(images))
    return {name: (low, high) for name, (low, high) in zip(names, extremes.tolist(), strict=True)}


def quantize(proto: onnx.ModelProto, ranges: Ranges, kept: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with its `layers` in int8, but for those in `kept`. Inputs and outputs stay float32.

    Activations become uint8, one scale each; weights int8 around 0, one scale for each output channel; biases int32:
    the mixture for which x86 processors have instructions. Only standard operators.
    """
    chosen = {*layers(proto)} - {*kept}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    outputs = {output.name for output in proto.graph.output}
    written = {_written(proto.graph, node) for node in proto.graph.node if node.name in chosen} - outputs
    read = {name for node in proto.graph.node if node.name in chosen for name in _read(proto.graph, node)}

    made: dict[tuple[str, bytes], str] = {}
    quantised = onnx.ModelProto()
    quantised.CopyFrom(proto)
    graph = quantised.graph
    del graph.node[:], graph.value_info[:]

    def add_pairs(names: Sequence[str]) -> None:
        for name in names:
            if name in written | read:
                scale, zero = scale_and_zero(*ranges[name])
                _add_constants(graph, {f"{name}_scale": np.float32(scale), f"{name}_zero": np.uint8(zero)})
                graph.node.extend(_pair(name))

    add_pairs([IMAGES])
    for node in proto.graph.node:
        inputs = list(node.input)
        if node.name in chosen and node.op_type in _WEIGHTED:
            scale, _ = scale_and_zero(*ranges[inputs[0]])
            inputs[1:] = _add_weights(graph, node, [weights[name] for name in inputs[1:]], scale, made)
        # A layer in float reads what it read before, unless there is nothing else than whole numbers.
        pairs = written | read if node.name in chosen else written
        fresh = graph.node.add()
        fresh.CopyFrom(node)
        fresh.input[:] = [f"{name}_float" if name in pairs else name for name in inputs]
        add_pairs(node.output)

    used = {name for node in graph.node for name in node.input} | outputs
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return quantised


def scale_and_zero(low: float, high: float) -> tuple[float, int]:
    """Of uint8 for what lies between low <= 0 and high >= 0; 0 is a whole number, since padding is made of it."""
    scale = (high - low) / 255 or 1.0
    return scale, round(-low / scale)


def run(session: Any, images: NDArray[np.uint8]) -> list[Array]:
    """The outputs for images (N, 3, H, W)."""
    outputs: list[Array] = session.run(None, {IMAGES: unit_range(images)})
    return outputs


def _is_plain(node: NodeProto) -> bool:
    """Whether nothing but the weights is multiplied: always so in PyTorch's exports."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return found.get("alpha", 1) == found.get("beta", 1) == 1 and not found.get("transA", 0)


def _read(graph: GraphProto, node: NodeProto) -> list[str]:
    return list(node.input[:1] if node.op_type in _WEIGHTED else node.input)


def _written(graph: GraphProto, node: NodeProto) -> str:
    """What a layer writes, together with the activation that follows it, where that alone reads it."""
    name = node.output[0]
    readers = [other for other in graph.node if name in other.input]
    if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS and name not in {out.name for out in graph.output}:
        return readers[0].output[0]
    return name


def _pair(name: str) -> list[NodeProto]:
    constants = [f"{name}_scale", f"{name}_zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *constants], [f"{name}_whole"], name=f"{name}_quantize"),
        helper.make_node(
            "DequantizeLinear", [f"{name}_whole", *constants], [f"{name}_float"], name=f"{name}_dequantize"
        ),
    ]


def _add_weights(
    graph: GraphProto, node: NodeProto, values: Sequence[Array], scale: float, made: dict[tuple[str, bytes], str]
) -> list[str]:
    """Weights and, where there is one, the bias of a layer that reads whole numbers of this scale; their new names.

    made: what there is already, by the weights and their scales: layers may share them.
    """
    weight, *biases = values
    axis = weight.ndim - 1 if _has_outputs_last(node) else 0
    others = tuple(place for place in range(weight.ndim) if place != axis)
    scales = np.abs(weight).max(axis=others) / 127
    for bias in biases:  # of a channel of tiny weights it would not fit otherwise
        scales = np.maximum(scales, np.abs(bias) / (scale * _ROOM))
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    key = node.input[1], scales.tobytes()
    if key not in made:
        steps = weight / np.expand_dims(scales, others)
        whole = np.clip(np.rint(steps), -127, 127).astype(np.int8)
        made[key] = _add_dequantized(graph, f"{node.name}_weight", whole, scales, axis)
    names = [made[key]]
    for bias in biases:
        steps = bias / (scales.astype(np.float64) * scale)
        whole = np.rint(steps).astype(np.int32)
        names.append(_add_dequantized(graph, f"{node.name}_bias", whole, (scales * scale).astype(np.float32), 0))
    return names


def _add_dequantized(graph: GraphProto, name: str, whole: Array, scales: Array, axis: int) -> str:
    """A constant in whole numbers and the node that makes it float, with one scale along the axis; the name of that."""
    _add_constants(
        graph, {f"{name}_whole": whole, f"{name}_scale": scales, f"{name}_zero": np.zeros_like(scales, whole.dtype)}
    )
    inputs = [f"{name}_whole", f"{name}_scale", f"{name}_zero"]
    graph.node.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_float"], f"{name}_dequantize", axis=axis))
    return f"{name}_float"


def _has_outputs_last(node: NodeProto) -> bool:
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not turned)


def _add_constants(graph: GraphProto, values: Mapping[str, Any]) -> None:
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
