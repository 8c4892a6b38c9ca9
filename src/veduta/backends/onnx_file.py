"""ONNX files: their bytes are checked before any runtime sees them, and give the ModelInfo that travelled inside.

Field numbers are those of onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from veduta.backends.runtime import check_contents, check_format
from veduta.model_info import IMPORT_HINT, METADATA_KEY, ModelInfo, info_from_json
from veduta.ops import wire

LARGEST = (1 << 31) - 1  # bytes; protocol buffers have no larger message

_METADATA = 14  # of a model: pairs of texts, the only field that the hash of the contents leaves out
_LARGEST_INFO = 16 << 20  # bytes
_MOST_FIELDS = 1_000_000  # of all messages; a network of a thousand layers has some 50,000
_DEEPEST = 32  # messages in messages; a graph in a graph is three

# Message -> number of a field -> the message which that holds, for all that can hold tensors or operators.
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse tensor", 23: "sparse tensor"},
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {},
}
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # of a tensor
_OPERATOR, _DOMAIN = 4, 7  # of a node
_STANDARD = ("", "ai.onnx")  # domains of the operators that ONNX itself defines


class OnnxFile(NamedTuple):
    """data: the file as it was checked; a runtime gets these bytes, and no path."""

    data: bytes
    info: ModelInfo


def read_onnx(path: Path) -> OnnxFile:
    """The bytes of a file of `veduta export`. Raises ValueError or FileNotFoundError.

    Refused are damaged files, weights that lie outside of the file, operators that are none of ONNX's own, and graphs
    nested without end.
    """
    data = _read(path)
    _check(data, str(path))
    text = _metadata(data, str(path))
    if text is None:
        raise ValueError(
            f"{path}: an ONNX file without recipe and label map, so nobody can say what it predicts. Open one that "
            f"`veduta export` wrote. {IMPORT_HINT}"
        )
    info = info_from_json(text, source=path)
    check_contents(check_format(info, "onnx", path), hash_contents(data), path)
    return OnnxFile(data, info)


def hash_contents(data: bytes) -> str:
    """sha256 over all fields of a serialised model but its metadata, in their order."""
    digest = hashlib.sha256()
    for field in wire.fields(memoryview(data), "model"):
        if field.number != _METADATA:
            value = field.value if isinstance(field.value, memoryview) else str(field.value).encode()
            digest.update(f"{field.number} {field.kind} {len(value)}\n".encode())
            digest.update(value)
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected an ONNX file of `veduta export`.")
    if path.stat().st_size > LARGEST:  # read(LARGEST) would ask for as much memory at once
        raise ValueError(f"{path}: larger than {LARGEST:,} bytes, which no ONNX file is that holds its weights.")
    return path.read_bytes()


def _check(data: bytes, where: str) -> None:
    """Walk all messages that can hold tensors or operators; nothing is copied."""
    waiting = [("model", memoryview(data), 0)]
    room = _MOST_FIELDS
    while waiting:
        kind, message, depth = waiting.pop()
        operator = ""
        for field in wire.fields(message, where):
            room -= 1
            if room < 0:
                raise ValueError(f"{where}: more than {_MOST_FIELDS:,} fields. Damaged, or made to harm.")
            inner = _INSIDE[kind].get(field.number)
            if inner is not None:
                if depth == _DEEPEST:
                    raise ValueError(f"{where}: graphs nested more than {_DEEPEST // 3} deep. Made to harm?")
                waiting.append((inner, wire.message(field, where), depth + 1))
            elif kind == "node" and field.number == _OPERATOR:
                operator = wire.text(field, where)
            elif kind == "node" and field.number == _DOMAIN and wire.text(field, where) not in _STANDARD:
                raise ValueError(
                    f"{where}: uses the operator '{operator}' of {wire.text(field, where)!r}, which is none of ONNX's "
                    "own; refused. Export the model again."
                )
            elif kind == "tensor" and field.number in (_EXTERNAL_DATA, _DATA_LOCATION):
                _refuse_outside(message, where)


def _refuse_outside(tensor: memoryview, where: str) -> None:
    """Raises ValueError where a tensor says that its values lie in another file."""
    name, location, outside = "", "", False
    for field in wire.fields(tensor, where):
        if field.number == _NAME:
            name = wire.text(field, where)
        elif field.number == _DATA_LOCATION:
            outside = outside or wire.integer(field, where) != 0
        elif field.number == _EXTERNAL_DATA:
            outside = True
            key, value = _pair(wire.message(field, where), where)
            location = value if key == "location" else location
    if outside:
        raise ValueError(
            f"{where}: holds weights outside of the file ({location or 'it does not say where'}, for '{name}'): "
            "refused. Export the model again: `veduta export` writes all into one file."
        )


def _metadata(data: bytes, where: str) -> str | None:
    """The ModelInfo as JSON, where there is one."""
    found = None
    for field in wire.fields(memoryview(data), where):
        if field.number == _METADATA:
            entry = wire.message(field, where)
            if len(entry) > _LARGEST_INFO:
                raise ValueError(f"{where}: {len(entry):,} bytes of metadata in one entry. Damaged, or made to harm.")
            key, value = _pair(entry, where)
            if key == METADATA_KEY and found is not None:
                raise ValueError(f"{where}: says twice what it is. Damaged, or made to harm.")
            found = value if key == METADATA_KEY else found
    return found


def _pair(entry: memoryview, where: str) -> tuple[str, str]:
    """Key and value of an entry that holds both as texts."""
    key = value = ""
    for field in wire.fields(entry, where):
        if field.number == 1:
            key = wire.text(field, where)
        elif field.number == 2:
            value = wire.text(field, where)
    return key, value
