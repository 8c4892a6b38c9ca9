"""The wire format of protocol buffers, read field by field within bounds; no schema, no recursion.

A message is a run of fields; a field is a key (its number and kind as one varint) and a value. Messages in messages are
walked by whoever knows them, so the depth is that of the code and not that of the file.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # 3 and 4, groups, are of no format that is read here
_LONGEST_VARINT = 10  # bytes: 64 bits, 7 in each
_MOST_VALUES = 1 << 24  # packed numbers in one field; real ones are written as raw bytes long before


class WireError(ValueError):
    """Bytes that are damaged, unsafe or of another format. The message names the file and the place in it."""


class Field(NamedTuple):
    """number: as in the schema. value: int for VARINT, FIXED32 and FIXED64 (unsigned), a view of the data for BYTES.

    start: where the value begins in the data that `fields` was given.
    """

    number: int
    kind: int
    value: int | memoryview
    start: int


def varint(data: memoryview, position: int, where: str) -> tuple[int, int]:
    """(value, position behind it); unsigned, below 2^64. Raises WireError at the end of the data."""
    value = 0
    for k in range(_LONGEST_VARINT):
        if position + k >= len(data):
            raise WireError(f"{where}: ends inside a number, at byte {position + k:,}. Cut off? Copy it again.")
        byte = data[position + k]
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + k + 1
    raise WireError(f"{where}: a number of more than 64 bits at byte {position:,}. Damaged, or another format.")


def fields(data: memoryview, where: str) -> Iterator[Field]:
    """The fields of one message, in order. Raises WireError for whatever is not the wire format."""
    position = 0
    while position < len(data):
        start = position
        key, position = varint(data, position, where)
        number, kind = key >> 3, key & 7
        if not number or number >> 29:
            raise WireError(f"{where}: {number} is no field number (byte {start:,}). Damaged file?")
        if kind == VARINT:
            value, end = varint(data, position, where)
            yield Field(number, kind, value, position)
            position = end
            continue
        if kind == BYTES:
            length, position = varint(data, position, where)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise WireError(f"{where}: no field of kind {kind} is expected (byte {start:,}). Damaged file?")
        if length > len(data) - position:
            raise WireError(
                f"{where}: a field of {length:,} bytes at byte {start:,}, where {len(data) - position:,} are left. Cut "
                "off or damaged; copy it again."
            )
        part = data[position : position + length]
        yield Field(number, kind, part if kind == BYTES else int.from_bytes(part, "little"), position)
        position += length


def message(field: Field, where: str) -> memoryview:
    """The bytes of a field that holds a message or raw bytes."""
    if isinstance(field.value, int):
        raise WireError(f"{where}: field {field.number} holds a number, bytes were expected. Damaged file?")
    return field.value


def text(field: Field, where: str) -> str:
    """The text of a field. Raises WireError where it is no UTF-8 or holds a zero byte."""
    found = _utf8(bytes(message(field, where)))
    if found is None:
        raise WireError(f"{where}: field {field.number} is no text. Damaged, or another format.")
    return found


def _utf8(data: bytes) -> str | None:
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def integer(field: Field, where: str) -> int:
    """The number of a field, signed, in 64 bits."""
    if not isinstance(field.value, int):
        raise WireError(f"{where}: field {field.number} holds bytes, a number was expected. Damaged file?")
    return _signed(field.value)


def integers(field: Field, where: str) -> list[int]:
    """The numbers of one occurrence of a repeated field, signed: one, or many packed as varints."""
    if isinstance(field.value, int):
        return [_signed(field.value)]
    if len(field.value) > _MOST_VALUES:
        raise WireError(f"{where}: field {field.number} packs {len(field.value):,} bytes of numbers; too many.")
    found, position = [], 0
    while position < len(field.value):
        value, position = varint(field.value, position, where)
        found.append(_signed(value))
    return found


def floats(field: Field, where: str) -> list[float]:
    """The numbers of one occurrence of a repeated field of 32-bit floats: one, or many packed."""
    return _floats(field, "<f4", where)


def doubles(field: Field, where: str) -> list[float]:
    """As `floats`, of 64 bits each."""
    return _floats(field, "<f8", where)


def _floats(field: Field, type_name: str, where: str) -> list[float]:
    size = np.dtype(type_name).itemsize
    data: bytes | memoryview
    if isinstance(field.value, int):
        if field.kind != (FIXED32 if size == 4 else FIXED64):
            raise WireError(f"{where}: field {field.number} has kind {field.kind}; a float was expected.")
        data = field.value.to_bytes(size, "little")
    else:
        data = field.value
    if len(data) % size or len(data) > _MOST_VALUES * size:
        raise WireError(f"{where}: field {field.number} packs {len(data):,} bytes of floats. Damaged file?")
    found: list[float] = np.frombuffer(data, type_name).tolist()
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
