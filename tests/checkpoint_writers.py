"""Writes old checkpoints for tests: TensorFlow bundles, frozen graphs and MindSpore files; fast at full size too."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.legacy.errors import CheckpointError
from veduta.legacy.table import MAGIC, block_entries, read_handle
from veduta.legacy.tf_bundle import Extent, slice_key
from veduta.ops.crc32c import masked_crc32c

Arrays = Mapping[str, NDArray[Any]]

TF_TYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
BFLOAT16 = 14
STRING = 7


def same(found: Arrays, expected: Arrays) -> None:
    """Assert equal names, types, shapes and bytes."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def all_types() -> dict[str, NDArray[Any]]:
    """Arrays of every type of TensorFlow that numpy has, a scalar and an empty one."""
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {
        f"type/{name}": rng.integers(0, 2, (3, 4)).astype(name) if name == "bool" else rng.normal(size=5).astype(name)
        for name in TF_TYPES
        if not name.startswith("u")
    }
    unsigned = {f"type/{n}": rng.integers(0, 255, (2, 1, 3)).astype(n) for n in TF_TYPES if n.startswith("u")}
    return found | unsigned | {"step": np.array(30_000), "none": np.zeros((0, 3), np.float32)}


def varint(value: int) -> bytes:
    value %= 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + value.to_bytes(4, "little")


def shape_proto(shape: Iterable[int]) -> bytes:
    return b"".join(part(2, number(1, size)) for size in shape)


def entry(array: NDArray[Any], *, shard: int = 0, offset: int = 0, dtype: int | None = None) -> bytes:
    """The BundleEntry of one tensor that lies at `offset` of a shard."""
    dtype = TF_TYPES[array.dtype.name] if dtype is None else dtype
    place = number(3, shard) + number(4, offset) + number(5, array.nbytes)
    return number(1, dtype) + part(2, shape_proto(array.shape)) + place + fixed32(6, masked_crc32c(array))


def partitioned_entry(dtype: int, shape: Sequence[int], slices: Iterable[Sequence[Extent]]) -> bytes:
    """The BundleEntry of a variable whose parts have entries of their own."""
    encoded = []
    for extents in slices:
        each = [part(1, b"" if n == -1 else number(1, start) + number(2, n)) for start, n in extents]
        encoded.append(part(7, b"".join(each)))
    return number(1, dtype) + part(2, shape_proto(shape)) + b"".join(encoded)


def write_table(entries: Mapping[bytes, bytes], *, block_bytes: int = 1 << 18, restart: int = 16) -> bytes:
    """A sorted table: prefix-compressed blocks of about `block_bytes`, the empty meta-index, the index, the footer."""
    out = bytearray()

    def add_block(items: Sequence[tuple[bytes, bytes]]) -> bytes:
        block, restarts, last = bytearray(), [], b""
        for k, (key, value) in enumerate(items):
            shared = 0
            if k % restart == 0:
                restarts.append(len(block))
            else:
                while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                    shared += 1
            block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        block += np.array([*(restarts or [0]), max(len(restarts), 1)], "<u4").tobytes() + b"\0"
        handle = varint(len(out)) + varint(len(block) - 1)
        out.extend(block + masked_crc32c(bytes(block)).to_bytes(4, "little"))
        return handle

    index: list[tuple[bytes, bytes]] = []
    items: list[tuple[bytes, bytes]] = []
    size = 0
    for key in sorted(entries):
        items.append((key, entries[key]))
        size += len(key) + len(entries[key])
        if size >= block_bytes:
            index.append((key, add_block(items)))
            items, size = [], 0
    if items:
        index.append((items[-1][0] + b"\0", add_block(items)))
    handles = add_block([]) + add_block(index)
    return bytes(out) + handles.ljust(40, b"\0") + MAGIC


def write_tf_bundle(
    prefix: Path,
    arrays: Arrays,
    *,
    num_shards: int = 1,
    slices: Mapping[str, Sequence[Sequence[Extent]]] | None = None,
    bfloat16: Iterable[str] = (),
    strings: Arrays | None = None,
    block_bytes: int = 1 << 18,
) -> None:
    """Write `prefix`.index and its data files.

    `slices`: the parts in which a variable is kept. `bfloat16`: names whose uint16 arrays are the bits of that type.
    `strings`: entries of the type of strings, with any bytes.
    """
    entries = {b"": number(1, num_shards) + part(3, number(1, 1))}
    shards = [prefix.with_name(f"{prefix.name}.data-{k:05d}-of-{num_shards:05d}").open("wb") for k in range(num_shards)]
    turn = 0

    def add(key: bytes, array: NDArray[Any], dtype: int) -> None:
        nonlocal turn
        shard, turn = turn % num_shards, turn + 1
        array = np.ascontiguousarray(array).reshape(array.shape)
        entries[key] = entry(array, shard=shard, offset=shards[shard].tell(), dtype=dtype)
        array.tofile(shards[shard])

    for name, array in arrays.items():
        dtype = BFLOAT16 if name in bfloat16 else TF_TYPES[array.dtype.name]
        parts = (slices or {}).get(name)
        if parts is None:
            add(name.encode(), array, dtype)
            continue
        entries[name.encode()] = partitioned_entry(dtype, array.shape, parts)
        for extents in parts:
            place = tuple(slice(start, None if n == -1 else start + n) for start, n in extents)
            add(slice_key(name, extents), array[place], dtype)
    for name, array in (strings or {}).items():
        add(name.encode(), array, STRING)
    for shard in shards:
        shard.close()
    prefix.with_name(f"{prefix.name}.index").write_bytes(write_table(entries, block_bytes=block_bytes))


def node(name: str, op: str, *, inputs: Iterable[str] = (), tensor: bytes = b"") -> bytes:
    """One NodeDef as a field of a GraphDef; a Const has a tensor."""
    attribute = part(5, part(1, b"value") + part(2, part(8, tensor))) if tensor else b""
    dtype = part(5, part(1, b"dtype") + part(2, number(6, 1)))
    read = b"".join(part(3, source.encode()) for source in inputs)
    return part(1, part(1, name.encode()) + part(2, op.encode()) + read + dtype + attribute)


def frozen_variable(name: str, tensor: bytes) -> bytes:
    """What freeze_graph makes of a variable: a Const and the Identity that reads it."""
    return node(name, "Const", tensor=tensor) + node(f"{name}/read", "Identity", inputs=[name])


def tensor_proto(array: NDArray[Any]) -> bytes:
    content = part(4, array.tobytes()) if array.nbytes else b""
    return number(1, TF_TYPES[array.dtype.name]) + part(2, shape_proto(array.shape)) + content


OPERATOR_CONSTANTS: Arrays = {  # such as stand in every graph, beside its variables
    "mul/x": np.array(2 / 255, np.float32),
    "sub/y": np.ones(1, np.float32),
    "concat/axis": np.array(3, np.int32),
    "ResizeBilinear/size": np.array([65, 65], np.int32),
    "AvgPool2D/Const": np.array([1, 2], np.int32),
}


def write_frozen_graph(
    path: Path, arrays: Arrays, *, nodes: bytes = b"", constants: Arrays = OPERATOR_CONSTANTS, optimised: bool = False
) -> None:
    """Write what freeze_graph writes: each array as a frozen variable, constants of operators, and `nodes` behind them.

    optimised: without the Identity nodes, as optimize_for_inference leaves it.
    """
    out = [node("ImageTensor", "Placeholder")]
    for name, array in arrays.items():
        tensor = tensor_proto(array)
        out.append(node(name, "Const", tensor=tensor) if optimised else frozen_variable(name, tensor))
        out.append(node(f"{name}/use", "Mul", inputs=["ImageTensor", name if optimised else f"{name}/read"]))
    for name, array in constants.items():
        out += [node(name, "Const", tensor=tensor_proto(array)), node(f"{name}/use", "Mul", inputs=["mul", name])]
    if not optimised:
        out.append(node("SemanticPredictions", "Identity", inputs=["ArgMax:0", "^mul/x"]))
    path.write_bytes(b"".join([*out, nodes, part(4, number(1, 27))]))


def mindspore_entry(name: str, type_text: str, dims: Iterable[int], data: bytes) -> bytes:
    tensor = b"".join(number(1, size) for size in dims) + part(2, type_text.encode()) + part(3, data)
    return part(1, part(1, name.encode()) + part(2, tensor))


def mindspore_type(array: NDArray[Any]) -> str:
    name = array.dtype.name
    return f"UInt{name[4:]}" if name.startswith("uint") else name.capitalize()


def write_mindspore(path: Path, arrays: Arrays, *, slices: int = 1) -> None:
    """Write a MindSpore checkpoint; every array in `slices` entries, each with the shape of the whole."""
    out = []
    for name, array in arrays.items():
        for piece in np.array_split(array.reshape(-1), slices):
            out.append(mindspore_entry(name, mindspore_type(array), array.shape, piece.tobytes()))
    path.write_bytes(b"".join(out))


def remade_table(data: bytes) -> bytes:
    """A table with the checksums of all its blocks put right, as far as they can be found: for damage that a checksum
    would hide from the code behind it."""
    out = bytearray(data)
    for offset, size in _blocks(data):
        crc = masked_crc32c(bytes(out[offset : offset + size + 1]))
        out[offset + size + 1 : offset + size + 5] = crc.to_bytes(4, "little")
    return bytes(out)


def _blocks(data: bytes) -> list[tuple[int, int]]:
    """(offset, size) of the blocks of a table, found from its end."""
    view = memoryview(data)
    found: list[tuple[int, int]] = []
    try:
        footer = view[-48:]
        meta, position = read_handle(footer, 0, "")
        index, _ = read_handle(footer, position, "")
        found += [meta, index]
        for _, value in block_entries(view[index[0] : index[0] + index[1]], ""):
            found.append(read_handle(value, 0, "")[0])
    except CheckpointError:
        pass
    return [(offset, size) for offset, size in found if offset + size + 5 <= len(data) - 48]
