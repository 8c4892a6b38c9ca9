"""MindSpore checkpoints (`.ckpt`): one message of named tensors, without a header."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from veduta.legacy.contents import Contents, array_of, checked_shape, item_size
from veduta.legacy.errors import CheckpointError
from veduta.ops import wire

TYPES = {  # MindSpore's text -> numpy type
    "Float16": "float16",
    "Float32": "float32",
    "Float64": "float64",
    "BFloat16": "bfloat16",
    "Int8": "int8",
    "Int16": "int16",
    "Int32": "int32",
    "Int64": "int64",
    "UInt8": "uint8",
    "UInt16": "uint16",
    "UInt32": "uint32",
    "UInt64": "uint64",
    "Bool": "bool",
}


class Part(NamedTuple):
    """One entry of the file: a tensor, or a slice of the tensor that the entries around it continue."""

    name: str
    type_text: str
    dims: list[int]
    data: memoryview


def read_mindspore(path: Path) -> Contents:
    """All tensors of a MindSpore checkpoint; slices, which are neighbours of one name, are joined.

    Entries that are no tensors, such as texts, are skipped. Raises CheckpointError for damage.
    """
    data = np.memmap(path, np.uint8, "r").data if path.stat().st_size else memoryview(b"")
    contents = Contents()
    waiting: list[Part] = []
    for field in wire.fields(data, str(path)):
        if field.number != 1:
            raise CheckpointError(
                f"{path}: field {field.number} is of no MindSpore checkpoint. Damaged, encrypted, or something else?"
            )
        part = read_part(wire.message(field, str(path)), str(path))
        if waiting and waiting[-1].name != part.name:
            _add(contents, waiting, path)
            waiting = []
        waiting.append(part)
    if waiting:
        _add(contents, waiting, path)
    return contents


def read_part(data: memoryview, where: str) -> Part:
    """One entry of a checkpoint. Raises CheckpointError where it is none."""
    name, type_text, content = "", "", memoryview(b"")
    dims: list[int] = []
    for field in wire.fields(data, where):
        if field.number == 1:
            name = wire.text(field, where)
        elif field.number == 2:
            where = f"{where}, '{name}'"
            for inner in wire.fields(wire.message(field, where), where):
                if inner.number == 1:
                    dims += wire.integers(inner, where)
                elif inner.number == 2:
                    type_text = wire.text(inner, where)
                elif inner.number == 3:
                    content = wire.message(inner, where)
    return Part(name, type_text, dims, content)


def _add(contents: Contents, parts: list[Part], path: Path) -> None:
    name, type_text, dims, _ = parts[-1]
    where = f"{path}, '{name}'"
    if type_text not in TYPES:
        contents.skipped[name] = f"of type '{type_text}'" if type_text else "no tensor"
        return
    if any(part.type_text != type_text for part in parts):
        raise CheckpointError(f"{where}: slices of different types. The file is damaged; copy it again.")
    octets = np.empty(sum(len(part.data) for part in parts), np.uint8)
    end = 0
    for part in parts:
        start, end = end, end + len(part.data)
        octets[start:end] = part.data
    contents.add(name, _join(octets, parts, TYPES[type_text], where), where)


def _join(octets: NDArray[np.uint8], parts: list[Part], type_name: str, where: str) -> NDArray[Any]:
    dims = parts[-1].dims
    size = item_size(type_name)
    if dims == [0] and octets.size == size:
        dims = []  # older files write a scalar so
    elif len(parts) > 1 and all(_fills(part, size) for part in parts):
        # Each slice says its own shape; otherwise each says the shape of the whole.
        if any(part.dims[1:] != dims[1:] or not part.dims for part in parts):
            raise CheckpointError(f"{where}: slices of shapes that do not fit together. The file is damaged.")
        dims = [sum(part.dims[0] for part in parts), *dims[1:]]
    return array_of(octets, type_name, checked_shape(dims, where), where)


def _fills(part: Part, size: int) -> bool:
    return len(part.data) == math.prod(part.dims) * size
