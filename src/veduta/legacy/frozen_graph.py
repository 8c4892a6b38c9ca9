"""TensorFlow frozen graphs (`.pb`): the variables of a GraphDef that became constants, under their names."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.legacy.contents import Contents, array_of, checked_shape, item_size
from veduta.legacy.errors import CheckpointError
from veduta.legacy.tf_bundle import OTHER_TYPES, TYPES, shape_of
from veduta.ops import wire

VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}  # nodes that keep their values outside of the graph
READERS = {"Identity", "ReadVariableOp"}  # nodes that read a variable; freezing makes the second the first

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
    """The variables of a GraphDef that were frozen into Const nodes -> arrays under the names of these nodes.

    Freezing leaves the Identity nodes that read variables (`NAME/read`, `NAME/ReadVariableOp`), so a constant that
    none of them reads belongs to an operator, such as an axis or a size, and is skipped. Where no Identity reads any
    constant, they were optimised away: then every constant of floating type that is no scalar is taken, which keeps
    all weights and, it may be, some vectors of operators. Raises CheckpointError for damage and for graphs that are
    not frozen.
    """
    graph = np.memmap(path, np.uint8, "r").data if path.stat().st_size else memoryview(b"")
    contents, room = Contents(), _MOST_FILLED
    constants, read = _constants(graph, str(path))
    optimised = read.isdisjoint(constants)
    for name, values in constants.items():
        where = f"{path}, node '{name}'"
        if values is None:
            raise CheckpointError(f"{where}: a constant without a value. The file is damaged; copy it again.")
        dtype = _type_of(values, where)
        if dtype not in TYPES:
            contents.skipped[name] = OTHER_TYPES.get(dtype, f"TensorFlow's data type {dtype}")
        elif name in read or (optimised and "float" in TYPES[dtype] and _rank(values, where)):
            array, filled = _tensor(values, TYPES[dtype], room, where)
            room -= filled
            contents.add(name, array, where)
        else:
            contents.skipped[name] = "a constant of the graph"
    return contents


def _constants(graph: memoryview, where: str) -> tuple[dict[str, memoryview | None], set[str]]:
    """The tensors of all Const nodes, still encoded, by name, and the names of all nodes that READERS read.

    Raises CheckpointError for graphs that are not frozen and for two constants of one name.
    """
    constants: dict[str, memoryview | None] = {}
    read: set[str] = set()
    variables = []
    for field in wire.fields(graph, where):
        if field.number != 1:
            continue  # versions and functions
        name, op, inputs, values = _node(wire.message(field, where), where)
        if op in VARIABLES:
            variables.append(name)
        elif op in READERS:
            read.update(inputs)
        elif op == "Const":
            if name in constants:
                raise CheckpointError(f"{where}: the name '{name}' occurs twice. The file is damaged; copy it again.")
            constants[name] = values
    if variables:
        raise CheckpointError(
            f"{where}: not frozen, {len(variables)} variables such as '{variables[0]}' keep their values elsewhere. "
            "Give the checkpoint that belongs to it (model.ckpt-NUMBER.index)."
        )
    return constants, read


def _node(data: memoryview, where: str) -> tuple[str, str, list[str], memoryview | None]:
    """Name, kind, the nodes that a reader of variables reads, and the tensor in the attribute `value` of a constant."""
    name = op = ""
    inputs: list[str] = []
    values = None
    for field in wire.fields(data, where):  # TensorFlow writes fields in the order of their numbers
        if field.number == 1:
            name = wire.text(field, where)
        elif field.number == 2:
            op = wire.text(field, where)
        elif field.number == 3 and op in READERS:
            inputs.append(wire.text(field, where).removesuffix(":0"))  # "^NAME" only waits for it: no constant's name
        elif field.number == 5 and op == "Const":
            values = _value_attribute(wire.message(field, where), f"{where}, node '{name}'") or values
    return name, op, inputs, values


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


def _rank(data: memoryview, where: str) -> int:
    shapes = (wire.message(field, where) for field in wire.fields(data, where) if field.number == 2)
    return len(shape_of(next(shapes, memoryview(b"")), where))


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
