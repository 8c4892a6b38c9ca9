"""TensorFlow frozen graphs (`.pb`): the constants of a GraphDef, under the names of their nodes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.legacy import wire
from veduta.legacy.contents import Contents, array_of, checked_shape, item_size
from veduta.legacy.errors import CheckpointError
from veduta.legacy.tf_bundle import OTHER_TYPES, TYPES, shape_of

VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}  # nodes that keep their values outside of the graph

_CONTENT = 4  # field of a TensorProto: raw bytes
_NUMBERS: dict[int, Callable[[wire.Field, str], list[int] | list[float]]] = {
    5: wire.floats,
    6: wire.doubles,
    7: wire.integers,  # int32 and all that is narrower
    10: wire.integers,
    11: wire.integers,  # bool
    13: wire.integers,  # float16 and bfloat16, as their bits
    16: wire.integers,
    17: wire.integers,
}
_FIELD_OF_TYPE = {"float32": 5, "float64": 6, "int64": 10, "bool": 11, "float16": 13, "bfloat16": 13, "uint32": 16}
_FIELD_OF_TYPE["uint64"] = 17
_FIELD_OF_NARROW = 7

_MOST_FILLED = 1 << 26  # bytes of all arrays that one number fills: a few bytes could otherwise ask for all memory


def read_frozen_graph(path: Path) -> Contents:
    """Every numeric Const node of a GraphDef -> array under the node's name.

    Constants of other types are skipped. Raises CheckpointError for damage and for graphs that are not frozen.
    """
    graph = np.memmap(path, np.uint8, "r").data if path.stat().st_size else memoryview(b"")
    contents = Contents()
    variables, room = [], _MOST_FILLED
    for field in wire.fields(graph, str(path)):
        if field.number != 1:
            continue  # versions and functions
        name, op, values = _node(wire.message(field, str(path)), str(path))
        where = f"{path}, node '{name}'"
        if op in VARIABLES:
            variables.append(name)
        if op != "Const":
            continue
        if values is None:
            raise CheckpointError(f"{where}: a constant without a value. The file is damaged; copy it again.")
        dtype = _type_of(values, where)
        if dtype not in TYPES:
            contents.skipped[name] = OTHER_TYPES.get(dtype, f"TensorFlow's data type {dtype}")
            continue
        array, filled = _tensor(values, TYPES[dtype], room, where)
        room -= filled
        contents.add(name, array, where)
    if variables:
        raise CheckpointError(
            f"{path}: not frozen, {len(variables)} variables such as '{variables[0]}' keep their values elsewhere. "
            "Give the checkpoint that belongs to it (model.ckpt-NUMBER.index)."
        )
    return contents


def _node(data: memoryview, where: str) -> tuple[str, str, memoryview | None]:
    """Name, kind and, if it has one, the tensor in the attribute `value` of a NodeDef."""
    name = op = ""
    values = None
    for field in wire.fields(data, where):
        if field.number == 1:
            name = wire.text(field, where)
        elif field.number == 2:
            op = wire.text(field, where)
        elif field.number == 5 and op == "Const":  # TensorFlow writes fields in the order of their numbers
            values = _value_attribute(wire.message(field, where), f"{where}, node '{name}'") or values
    return name, op, values


def _value_attribute(data: memoryview, where: str) -> memoryview | None:
    key, value = "", None
    for field in wire.fields(data, where):
        if field.number == 1:
            key = wire.text(field, where)
        elif field.number == 2:
            value = wire.message(field, where)
    if key != "value" or value is None:
        return None
    return next((wire.message(field, where) for field in wire.fields(value, where) if field.number == 8), None)


def _type_of(data: memoryview, where: str) -> int:
    return next((wire.integer(field, where) for field in wire.fields(data, where) if field.number == 1), 0)


def _tensor(data: memoryview, type_name: str, room: int, where: str) -> tuple[NDArray[Any], int]:
    """A TensorProto -> array, and how many bytes of it are repetitions of one number (at most `room`)."""
    dims: list[int] = []
    content: memoryview | None = None
    expected = _FIELD_OF_TYPE.get(type_name, _FIELD_OF_NARROW)
    numbers: list[Any] = []
    for field in wire.fields(data, where):
        if field.number == 2:
            dims = shape_of(wire.message(field, where), where)
        elif field.number == _CONTENT:
            content = wire.message(field, where)
        elif field.number == expected:
            numbers += _NUMBERS[expected](field, where)
        elif field.number in _NUMBERS:
            raise CheckpointError(f"{where}: numbers of another type than {type_name} (field {field.number}).")
    shape = checked_shape(dims, where)
    if content:
        if numbers:
            raise CheckpointError(f"{where}: raw bytes and single numbers at once. The file is damaged.")
        return array_of(np.frombuffer(content, np.uint8).copy(), type_name, shape, where), 0
    count = math.prod(shape)
    if len(numbers) > count:
        raise CheckpointError(f"{where}: {len(numbers)} numbers for the shape {list(shape)}. The file is damaged.")
    filled = (count - len(numbers)) * max(item_size(type_name), 4)
    if filled > room:
        raise CheckpointError(
            f"{where}: {len(numbers)} numbers are to fill the shape {list(shape)}; graphs with more than "
            f"{_MOST_FILLED >> 20} MiB of repeated numbers are not read."
        )
    return _fill(numbers, type_name, count, where).reshape(shape), filled


def _fill(numbers: list[Any], type_name: str, count: int, where: str) -> NDArray[Any]:
    """(count,) array that begins with the numbers; the last one is repeated, or zero where there is none."""
    bits = {"float16": "uint16", "bfloat16": "uint16"}.get(type_name)
    stored = np.dtype(bits or type_name)
    if stored.kind == "u":
        numbers = [number % (1 << 64) if type_name == "uint64" else number for number in numbers]
    try:
        head = np.array(numbers, stored)
    except OverflowError:
        raise CheckpointError(
            f"{where}: a number that is no {type_name}. The file is damaged; copy it again."
        ) from None
    found = np.zeros(count, stored)
    found[: len(head)] = head
    if numbers:
        found[len(head) :] = head[-1]
    return array_of(found.view(np.uint8), type_name, (count,), where) if bits else found
