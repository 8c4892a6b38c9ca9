"""The sorted table of LevelDB, as it stands in the index of a TensorFlow bundle: blocks of prefix-compressed keys."""

from collections.abc import Iterator

from veduta.legacy.errors import CheckpointError
from veduta.ops.crc32c import masked_crc32c
from veduta.ops.wire import varint

MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of the file

_FOOTER = 48  # bytes: two handles, padding, magic
_TRAILER = 5  # bytes behind each block: kind of compression, checksum
_COMPRESSIONS = {1: "Snappy", 2: "Zstandard"}
_MOST_KEY_BYTES = 1 << 26  # of all keys written out; prefixes could turn a small file into any amount of them


def read_table(data: bytes, where: str) -> dict[bytes, memoryview]:
    """All entries of a table, keys ascending. Raises CheckpointError for damage of any kind, naming the place."""
    if len(data) < _FOOTER or not data.endswith(MAGIC):
        raise CheckpointError(
            f"{where}: does not end as the index of a TensorFlow bundle does. It was cut off, or is something else; "
            "copy it again."
        )
    view = memoryview(data)
    footer = view[len(data) - _FOOTER :]
    meta_handle, position = read_handle(footer, 0, f"{where}, footer")
    _block(view, meta_handle, where)  # empty in bundles, but part of the file: it has to be whole
    index_handle, _ = read_handle(footer, position, f"{where}, footer")
    entries: dict[bytes, memoryview] = {}
    last, key_bytes = None, 0
    for _, value in block_entries(_block(view, index_handle, where), f"{where}, block of blocks"):
        handle, _ = read_handle(value, 0, f"{where}, block of blocks")
        for key, found in block_entries(_block(view, handle, where), f"{where}, block at byte {handle[0]:,}"):
            # Ascending keys also mean that no block is listed twice, so the work is bounded by the file's size.
            if last is not None and key <= last:
                raise CheckpointError(f"{where}: {_shown(key)} follows {_shown(last)}, keys must ascend. Damaged file?")
            key_bytes += len(key)
            if key_bytes > _MOST_KEY_BYTES:
                raise CheckpointError(f"{where}: the keys take more than {_MOST_KEY_BYTES:,} bytes. Damaged file?")
            last = key
            entries[key] = found
    return entries


def _shown(key: bytes) -> str:
    return repr(key[:80].decode("utf-8", "backslashreplace"))


def read_handle(data: memoryview, position: int, where: str) -> tuple[tuple[int, int], int]:
    offset, position = varint(data, position, where)
    size, position = varint(data, position, where)
    return (offset, size), position


def _block(data: memoryview, handle: tuple[int, int], where: str) -> memoryview:
    """The bytes of one block, checked against their CRC."""
    offset, size = handle
    where = f"{where}, block at byte {offset:,}"
    if offset + size + _TRAILER > len(data) - _FOOTER:
        raise CheckpointError(f"{where}: {size:,} bytes do not fit into the file. Cut off or damaged; copy it again.")
    kind = data[offset + size]
    if kind:
        name = _COMPRESSIONS.get(kind, f"kind {kind}")
        raise CheckpointError(
            f"{where}: compressed with {name}; bundles of TensorFlow never are. A table of something else, or an old "
            "V1 checkpoint: save it once as V2 with TensorFlow's Saver."
        )
    stored = int.from_bytes(data[offset + size + 1 : offset + size + _TRAILER], "little")
    if masked_crc32c(data[offset : offset + size + 1]) != stored:
        raise CheckpointError(f"{where}: the checksum does not fit the bytes. The file is damaged; copy it again.")
    return data[offset : offset + size]


def block_entries(block: memoryview, where: str) -> Iterator[tuple[bytes, memoryview]]:
    """Keys, written out, and values of one block. Its restart points serve searching only and are skipped."""
    if len(block) < 4:
        raise CheckpointError(f"{where}: {len(block)} bytes are too few. The file is damaged; copy it again.")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise CheckpointError(f"{where}: more restart points than bytes. The file is damaged; copy it again.")
    position, key, data = 0, b"", block[:end]
    while position < end:
        shared, position = varint(data, position, where)
        unshared, position = varint(data, position, where)
        length, position = varint(data, position, where)
        if shared > len(key) or unshared > end - position or length > end - position - unshared:
            raise CheckpointError(f"{where}: an entry does not fit into its block. The file is damaged; copy it again.")
        key = key[:shared] + bytes(data[position : position + unshared])
        position += unshared
        yield key, data[position : position + length]
        position += length
