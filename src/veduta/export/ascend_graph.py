"""A network as Ascend's ATC takes it: fixed shapes, an old opset, and none of the uses of operators that ATC lacks.

Those are told by CANN's lists of ONNX operators: padding with anything but 0, padding by repeated edges (on some of the
chips), and means that count their padding, which ATC leaves out without a word.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from veduta.config import TaskName
from veduta.export.opset import EMPTY, lower_opset, remove_unused


def for_atc(model: onnx.ModelProto, task: TaskName) -> onnx.ModelProto:
    """The same network, as a copy; the nodes that make its outputs are called like them, as `--out_nodes` wants it.

    Outputs that are the same for every image are left out, and BlitzNet's mask logits stay on the grid of the network:
    who reads them resizes them, once, to the size of the image. Raises ValueError where a length is open, or where
    an operator has no form in the older opset.
    """
    lengths = [dim for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim]
    if any(dim.dim_param for dim in lengths):
        raise ValueError("ATC compiles for one shape: batch, height and width of the images have to be fixed.")
    adapted = onnx.shape_inference.infer_shapes(lower_opset(model))
    graph = _Graph(adapted.graph)
    graph.pad_in_max_pools()
    graph.pad_before_average_pools()
    graph.resize_at_once()
    graph.drop_constant_outputs()
    if task == "detect_segment":
        graph.stay_on_grid("mask_logits")
    graph.write(adapted.graph)
    onnx.checker.check_model(adapted, full_check=True)
    return adapted


class _Graph:
    """The nodes of a graph, changed one kind at a time. What nobody reads any more is left out when it is written."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.added: list[onnx.TensorProto] = []
        self.outputs = {output.name: _shape(output) for output in graph.output}
        self.shapes = {value.name: _shape(value) for value in graph.value_info}

    def write(self, graph: onnx.GraphProto) -> None:
        del graph.node[:], graph.output[:]
        for node in self.nodes:
            if name := self.outputs.keys() & set(node.output):
                node.name = name.pop()
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.added)
        for name, shape in self.outputs.items():
            graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        remove_unused(graph)

    def pad_in_max_pools(self) -> None:
        """Padding with minus infinity is what a MaxPool does with its own."""
        makers = self._makers()
        for pool in self._nodes("MaxPool"):
            pad = makers.get(pool.input[0])
            if pad is None or pad.op_type != "Pad" or len(pad.input) < 3 or self.constants[pad.input[2]] != -np.inf:
                continue
            pool.input[0] = pad.input[0]
            pads = zip(_attribute(pool, "pads", [0, 0, 0, 0]), self._sides(pad), strict=True)
            _set(pool, pads=[own + added for own, added in pads])

    def pad_before_average_pools(self) -> None:
        """A mean that counts its padding is one of an image with black around it."""
        for pool in self._nodes("AveragePool"):
            pads = _attribute(pool, "pads", [0, 0, 0, 0])
            if _attribute(pool, "count_include_pad", 0) and any(pads):
                assert not _attribute(pool, "ceil_mode", 0)  # what lies beyond the padding is not counted
                padded, sides = f"{pool.output[0]}_padded", f"{pool.output[0]}_pads"
                self._add(sides, np.array([0, 0, *pads[:2], 0, 0, *pads[2:]]))
                pad = helper.make_node("Pad", [pool.input[0], sides], [padded], name=padded)
                self.nodes.insert(self.nodes.index(pool), pad)
                pool.input[0] = padded
                _set(pool, pads=[0, 0, 0, 0])
            _set(pool, count_include_pad=0)

    def resize_at_once(self) -> None:
        """TensorFlow 1's resizing: an aligned one of an image with one row and column more is an asymmetric one."""
        makers = self._makers()
        for resize in self._nodes("Resize"):
            pad, slices = makers.get(resize.input[0]), list(self._slices_of(resize.output[0]))
            if pad is None or pad.op_type != "Pad" or _attribute(pad, "mode", b"") != b"edge" or not slices:
                continue
            sizes = self.constants[resize.input[3]] - np.array([0, 0, 1, 1])
            ends = {int(self.constants[node.input[3]][0]): int(self.constants[node.input[2]][0]) for node in slices}
            assert self._sides(pad) == [0, 0, 1, 1] and ends == {2: sizes[2], 3: sizes[3]}
            target = slices[-1].output[0]
            self._add(f"{target}_size", sizes)
            del resize.attribute[:]
            _set(resize, mode="linear", coordinate_transformation_mode="asymmetric")
            resize.input[:] = [pad.input[0], EMPTY, EMPTY, f"{target}_size"]
            resize.output[0] = target
            self.nodes = [node for node in self.nodes if all(node is not cut for cut in slices)]

    def drop_constant_outputs(self) -> None:
        self.outputs = {name: shape for name, shape in self.outputs.items() if name not in self.constants}

    def stay_on_grid(self, name: str) -> None:
        """An output as it is before it is resized at the very end, if it is."""
        makers = self._makers()
        resize = makers[name]
        if resize.op_type == "Resize":
            source = resize.input[0]
            self.outputs[name] = self.shapes[source]
            self.nodes = [node for node in self.nodes if node is not resize]
            makers[source].output[0] = name

    def _makers(self) -> dict[str, onnx.NodeProto]:
        return {name: node for node in self.nodes for name in node.output}

    def _nodes(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == op_type]

    def _slices_of(self, name: str) -> Iterator[onnx.NodeProto]:
        """The Slices of the first rows or columns that follow a value, each the only reader of the one before."""
        while True:
            readers = [node for node in self.nodes if name in node.input]
            if len(readers) != 1 or readers[0].op_type != "Slice" or self.constants[readers[0].input[1]].any():
                return
            yield readers[0]
            name = readers[0].output[0]

    def _sides(self, pad: onnx.NodeProto) -> list[int]:
        """Top, left, bottom, right."""
        pads: list[int] = self.constants[pad.input[1]].tolist()
        return [*pads[2:4], *pads[6:8]]

    def _add(self, name: str, values: NDArray[Any]) -> None:
        self.constants[name] = values
        self.added.append(numpy_helper.from_array(values, name))


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _set(node: onnx.NodeProto, **attributes: Any) -> None:
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in attributes.items())])
