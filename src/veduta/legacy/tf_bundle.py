"""TensorFlow V2 checkpoints: `PREFIX.index` names the tensors, `PREFIX.data-00000-of-00001` and so on hold them."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from veduta.legacy.contents import Contents, array_of, checked_shape, item_size
from veduta.legacy.errors import CheckpointError
from veduta.legacy.table import read_table
from veduta.ops import wire
from veduta.ops.crc32c import masked_crc32c

TYPES = {  # TensorFlow's DataType -> numpy type
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
OTHER_TYPES = {7: "strings", 8: "complex64", 18: "complex128", 20: "a resource", 21: "a variant"}

OBJECT_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # TensorFlow 2 puts it behind the name of each variable

_MOST_SHARDS = 99_999  # five digits in the name of a data file
_LARGEST_INDEX = 1 << 28  # bytes; the index of ten thousand variables takes one of these MiB

Extent = tuple[int, int]  # start and length along one dimension; length -1 means all of it


@dataclass(frozen=True)
class Entry:
    """One tensor of the index. slices: the extents of each part, where the variable was partitioned."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[tuple[Extent, ...], ...]


def index_file(prefix: Path) -> Path:
    """`PREFIX.index`."""
    return prefix.with_name(f"{prefix.name}.index")


def shard_files(prefix: Path) -> list[Path]:
    """The data files that the index speaks of, in order. Raises CheckpointError where one is missing."""
    return _Index(prefix).shards


def read_tf_bundle(prefix: Path) -> Contents:
    """All tensors of a bundle under their variables' names, partitioned ones whole, each checked against its CRC.

    Strings (such as the object graph of TensorFlow 2) are skipped. Raises CheckpointError for damage, missing or short
    data files, sizes that do not fit shapes, and parts that overlap or leave gaps; FileNotFoundError without an index.
    """
    index = _Index(prefix)
    contents = Contents()
    with _Shards(index.shards) as shards:
        for name, entry in index.tensors():
            where = f"{index.path}, '{name}'"
            if entry.dtype not in TYPES:
                contents.skipped[name] = OTHER_TYPES.get(entry.dtype, f"TensorFlow's data type {entry.dtype}")
                continue
            read = _read_slices if entry.slices else _read_whole
            contents.add(name.removesuffix(OBJECT_SUFFIX), read(index, shards, name, entry, where), where)
    return contents


class _Index:
    """The entries of an index file, still encoded, and the data files that its header speaks of."""

    def __init__(self, prefix: Path) -> None:
        self.path = index_file(prefix)
        if self.path.stat().st_size > _LARGEST_INDEX:
            raise CheckpointError(f"{self.path}: larger than any index of a TensorFlow bundle. Is it something else?")
        self.entries = read_table(self.path.read_bytes(), str(self.path))
        count = _shard_count(self.entries.pop(b"", None), f"{self.path}, header")
        self.shards = [prefix.with_name(f"{prefix.name}.data-{k:05d}-of-{count:05d}") for k in range(count)]
        missing = next((shard for shard in self.shards if not shard.is_file()), None)
        if missing is not None:
            raise CheckpointError(
                f"{missing} is missing: {self.path.name} speaks of {count} data file{'s' * (count > 1)}. Put all files "
                f"that begin with {prefix.name}. into one folder."
            )

    def tensors(self) -> Iterator[tuple[str, Entry]]:
        """Names and entries, without the parts of partitioned variables."""
        for key, value in self.entries.items():
            if key.startswith(b"\0"):
                continue
            try:
                name = key.decode()
            except UnicodeDecodeError:
                raise CheckpointError(f"{self.path}: the name {key[:80]!r} is no text. Damaged file?") from None
            yield name, _entry(value, f"{self.path}, '{name}'")


class _Shards:
    """Reads from data files, in all no more than they hold: a small index must not ask for all memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.files: dict[int, BinaryIO] = {}
        self.sizes: dict[int, int] = {}
        self.room: dict[int, int] = {}

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def read(self, entry: Entry, where: str) -> NDArray[np.uint8]:
        """The bytes of one tensor, (size,) uint8, checked against their CRC."""
        if not 0 <= entry.shard < len(self.paths):
            raise CheckpointError(f"{where}: lies in data file {entry.shard} of {len(self.paths)}. Damaged index?")
        path = self.paths[entry.shard]
        if entry.shard not in self.files:
            self.files[entry.shard] = path.open("rb")
            self.sizes[entry.shard] = self.room[entry.shard] = os.fstat(self.files[entry.shard].fileno()).st_size
        file, length = self.files[entry.shard], self.sizes[entry.shard]
        if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > length:
            raise CheckpointError(
                f"{path}: {length:,} bytes, but {where} is at bytes {entry.offset:,} to {entry.offset + entry.size:,}. "
                "The data file was cut off or belongs to another checkpoint; copy it again."
            )
        self.room[entry.shard] -= entry.size
        if self.room[entry.shard] < 0:
            raise CheckpointError(f"{where}: all tensors together are larger than {path.name}. Damaged index?")
        file.seek(entry.offset)
        octets = np.fromfile(file, np.uint8, entry.size)
        if octets.size != entry.size or masked_crc32c(octets) != entry.crc:
            raise CheckpointError(
                f"{where}: the checksum does not fit the bytes at {entry.offset:,} of {path}. Damaged; copy it again."
            )
        return octets


def _shard_count(header: memoryview | None, where: str) -> int:
    if header is None:
        raise CheckpointError(f"{where}: missing. A table of something else than a TensorFlow bundle?")
    count = 0
    for field in wire.fields(header, where):
        if field.number == 1 and field.kind == wire.BYTES:
            raise CheckpointError(
                f"{where}: this is no V2 bundle, it looks like an old V1 checkpoint. Load and save it once with "
                "TensorFlow's Saver, which writes V2."
            )
        if field.number == 1:
            count = wire.integer(field, where)
        elif field.number == 2 and wire.integer(field, where) != 0:
            raise CheckpointError(f"{where}: big-endian data, written on a machine of another kind; not read.")
    if not 1 <= count <= _MOST_SHARDS:
        raise CheckpointError(f"{where}: {count} data files, expected 1 to {_MOST_SHARDS:,}. Damaged file?")
    return count


def _entry(data: memoryview, where: str) -> Entry:
    numbers = dict.fromkeys((1, 3, 4, 5, 6), 0)  # what is zero is not written
    dims: list[int] = []
    slices = []
    for field in wire.fields(data, where):
        if field.number in numbers:
            numbers[field.number] = wire.integer(field, where)
        elif field.number == 2:
            dims = shape_of(wire.message(field, where), where)
        elif field.number == 7:
            slices.append(_extents(wire.message(field, where), where))
    return Entry(
        dtype=numbers[1],
        shape=checked_shape(dims, where),
        shard=numbers[3],
        offset=numbers[4],
        size=numbers[5],
        crc=numbers[6],
        slices=tuple(slices),
    )


def shape_of(data: memoryview, where: str) -> list[int]:
    """The sizes in a TensorShapeProto; -1 where one, or the whole shape, is unknown."""
    dims = []
    for field in wire.fields(data, where):
        if field.number == 2:
            parts = wire.fields(wire.message(field, where), where)
            dims.append(next((wire.integer(part, where) for part in parts if part.number == 1), 0))
        elif field.number == 3 and wire.integer(field, where):
            return [-1]
    return dims


def _extents(data: memoryview, where: str) -> tuple[Extent, ...]:
    extents = []
    for field in wire.fields(data, where):
        if field.number == 1:
            start, length = 0, -1
            for part in wire.fields(wire.message(field, where), where):
                if part.number == 1:
                    start = wire.integer(part, where)
                elif part.number == 2:
                    length = wire.integer(part, where)
            extents.append((start, length))
    return tuple(extents)


def _read_whole(index: _Index, shards: _Shards, name: str, entry: Entry, where: str) -> NDArray[Any]:
    type_name = TYPES[entry.dtype]
    expected = math.prod(entry.shape) * item_size(type_name)
    if entry.size != expected:
        raise CheckpointError(
            f"{where}: {entry.size:,} bytes, but {type_name} of shape {list(entry.shape)} takes {expected:,}. The "
            "index is damaged; copy it again."
        )
    return array_of(shards.read(entry, where), type_name, entry.shape, where)


def _read_slices(index: _Index, shards: _Shards, name: str, entry: Entry, where: str) -> NDArray[Any]:
    """Put the parts of a partitioned variable together; they must fill its shape, each element once."""
    parts = []
    for extents in entry.slices:
        part_where = f"{where}, part {list(extents)}"
        value = index.entries.get(slice_key(name, extents))
        if value is None:
            raise CheckpointError(f"{part_where}: missing in the index. It is damaged; copy it again.")
        part = _entry(value, part_where)
        place = _place(extents, entry.shape, part_where)
        lengths = tuple(p.stop - p.start for p in place)
        if part.dtype != entry.dtype or part.shape != lengths or part.slices:
            raise CheckpointError(f"{part_where}: its own entry does not fit this place (shape {list(part.shape)}).")
        parts.append((part, place, part_where))
    # Counted before anything of that size is made: a damaged shape must not ask for all memory.
    found = sum(math.prod(part.shape) for part, _, _ in parts)
    if found != math.prod(entry.shape):
        raise CheckpointError(
            f"{where}: its {len(parts)} parts hold {found:,} elements, the shape {list(entry.shape)} has "
            f"{math.prod(entry.shape):,}: parts overlap or leave gaps. The index is damaged; copy it again."
        )
    if sum(part.size for part, _, _ in parts) != found * item_size(TYPES[entry.dtype]):
        raise CheckpointError(f"{where}: the sizes of its parts do not fit their shapes. Damaged index; copy it again.")
    arrays = [_read_whole(index, shards, name, part, part_where) for part, _, part_where in parts]
    whole = np.empty(entry.shape, arrays[0].dtype)
    covered = np.zeros(entry.shape, np.bool_)
    for array, (_, place, part_where) in zip(arrays, parts, strict=True):
        if covered[place].any():
            raise CheckpointError(f"{part_where}: overlaps another part. The index is damaged; copy it again.")
        covered[place] = True
        whole[place] = array
    return whole


def _place(extents: tuple[Extent, ...], shape: tuple[int, ...], where: str) -> tuple[slice, ...]:
    if len(extents) != len(shape):
        raise CheckpointError(f"{where}: {len(extents)} extents for the shape {list(shape)}. Damaged index?")
    place = []
    for (start, length), size in zip(extents, shape, strict=True):
        stop = size if length == -1 else start + length
        if not 0 <= start <= stop <= size:
            raise CheckpointError(f"{where}: reaches out of the shape {list(shape)}. Damaged index; copy it again.")
        place.append(slice(start, stop))
    return tuple(place)


def slice_key(name: str, extents: Sequence[Extent]) -> bytes:
    """The key under which the index keeps one part of a partitioned variable."""
    count = len(extents).to_bytes((len(extents).bit_length() + 7) // 8, "big")
    numbers = b"".join(_ordered(start) + _ordered(length) for start, length in extents)
    return b"\0" + name.encode() + b"\0\1" + bytes([len(count)]) + count + numbers


def _ordered(value: int) -> bytes:
    """A signed number in as few bytes as hold it, such that the bytes sort as the numbers do.

    The first bits say how many bytes there are: as many ones as bytes, for positive numbers, then a zero.
    """
    length = (~value if value < 0 else value).bit_length() // 7 + 1
    header = (0xFF << 8 - length & 0xFF) << 8 * (length - 1)
    return ((value & (1 << 8 * length) - 1) ^ header).to_bytes(length, "big")
