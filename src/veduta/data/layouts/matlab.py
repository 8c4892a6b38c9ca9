"""MATLAB files (.mat, level 5): the numeric fields of one struct, read within limits.

"MAT-file format" of The MathWorks, level 5: a header of 128 bytes, then elements of a type, a size and their data.
Other variables, cells and sparse matrices are stepped over.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.stored import Stored

MAX_FILE = 1 << 24  # bytes of a .mat; a mask of SBD has a few thousand
MAX_UNPACKED = 1 << 26  # bytes that its compressed elements may become, all together
MAX_ELEMENTS = 1000  # in one element, or at the top

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15

STRUCT, NUMERIC, COMPLEX = 2, range(6, 16), 0x0800  # classes of a matrix, and the flag of an imaginary part

Elements = Iterator[tuple[int, memoryview]]  # type and data


def read_struct(path: Path, variable: str, fields: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The wanted fields of the 1x1 struct `variable`: real arrays, rows first, in the number type of the file.

    Raises FileNotFoundError, and ValueError naming the file for all that is no such file, or is too large.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_FILE:
        raise ValueError(f"{path}: {size:,} bytes, the limit is {MAX_FILE:,}. Is it the right file?")
    data = Stored(path).read()
    try:
        return parse_struct(data, variable, fields)
    except ValueError as error:
        raise ValueError(f"{path}: not a readable .mat with a struct {variable}: {error}.") from error


def parse_struct(data: bytes, variable: str, fields: Sequence[str]) -> dict[str, NDArray[Any]]:
    """As `read_struct`, from the bytes of a file. Raises ValueError alone."""
    if data.startswith(b"MATLAB 7.3"):
        raise ValueError("it is of version 7.3 (HDF5). Save it with '-v7'")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(f"{order}H", data, 124) != (0x0100,):
        raise ValueError("it does not begin with the header of one")
    left = MAX_UNPACKED
    for kind, content in _elements(memoryview(data)[128:], order):
        if kind == COMPRESSED:
            unpacked = _unpack(content, left)
            left -= len(unpacked)
            kind, content = next(_elements(memoryview(unpacked), order), (0, content))
        if kind == MATRIX:
            matrix = _elements(content, order)
            matrix_class, _, shape, name = _header(matrix, order)
            if matrix_class == STRUCT and name == variable:
                return _fields(matrix, shape, fields, order)
    raise ValueError("it holds none")


def _elements(data: memoryview, order: str) -> Elements:
    """The elements that follow each other in `data`."""
    place = 0
    for _ in range(MAX_ELEMENTS):
        if place >= len(data):
            return
        if place + 8 > len(data):
            raise ValueError("it ends inside of an element")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:  # a small element: its size is in the upper half, its data in the place of a size
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if start + size > len(data) or (start == place + 4 and size > 4):
            raise ValueError("it ends inside of an element")
        yield kind, data[start : start + size]
        place = start + size if kind == COMPRESSED else place + 8 + (0 if start == place + 4 else -(-size // 8) * 8)
    raise ValueError(f"more than {MAX_ELEMENTS} elements")


def _unpack(data: memoryview, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"its compressed data is damaged ({error})") from error
    if len(unpacked) > limit:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
    if not unpacker.eof:
        raise ValueError("its compressed data is cut off")
    return unpacked


def _take(elements: Elements, kind: int | None, what: str) -> tuple[int, memoryview]:
    found = next(elements, None)
    if found is None or kind not in (None, found[0]):
        raise ValueError(f"{what} is missing")
    return found


def _header(matrix: Elements, order: str) -> tuple[int, int, tuple[int, ...], str]:
    """What every matrix begins with: class, flags, shape and name."""
    _, flags = _take(matrix, UINT32, "the class of a matrix")
    _, shape = _take(matrix, INT32, "the shape of a matrix")
    _, name = _take(matrix, INT8, "the name of a matrix")
    if len(flags) != 8 or len(shape) not in (8, 12, 16):
        raise ValueError("a matrix has no class, or not 2 to 4 dimensions")
    word = struct.unpack_from(f"{order}I", flags)[0]
    return word & 0xFF, word & 0xFF00, struct.unpack(f"{order}{len(shape) // 4}i", shape), bytes(name).decode("latin-1")


def _fields(matrix: Elements, shape: tuple[int, ...], wanted: Sequence[str], order: str) -> dict[str, NDArray[Any]]:
    _, width = _take(matrix, INT32, "the length of its field names")
    _, names = _take(matrix, INT8, "its field names")
    length = int.from_bytes(width, "little" if order == "<" else "big")
    if prod(shape) != 1 or not 0 < length <= 64 or len(names) > length * MAX_ELEMENTS:
        raise ValueError(f"a struct array of {shape} with names of {length} bytes, expected one struct")
    fields = [bytes(names[at : at + length]).split(b"\0")[0].decode("latin-1") for at in range(0, len(names), length)]
    missing = set(wanted) - set(fields)
    if missing:
        raise ValueError(f"it has the fields {', '.join(fields)}, not {', '.join(sorted(missing))}")
    values = zip(fields, islice(matrix, len(fields)), strict=False)
    found = {name: _numbers(*value, order, name) for name, value in values if name in wanted}
    if len(found) < len(wanted):
        raise ValueError("it ends before its last field")
    return found


def _numbers(kind: int, data: memoryview, order: str, name: str) -> NDArray[Any]:
    matrix = _elements(data, order)
    matrix_class, flags, shape, _ = _header(matrix, order) if kind == MATRIX else (0, 0, (), "")
    if matrix_class not in NUMERIC or flags & COMPLEX:
        raise ValueError(f"its field {name} is no array of real numbers")
    kind, numbers = _take(matrix, None, f"the numbers of {name}")
    if kind not in NUMBERS or min(shape) < 0 or prod(shape) * np.dtype(NUMBERS[kind]).itemsize != len(numbers):
        raise ValueError(f"its field {name} of {shape} has not as many numbers")
    return np.frombuffer(numbers, order + NUMBERS[kind]).reshape(shape, order="F")
