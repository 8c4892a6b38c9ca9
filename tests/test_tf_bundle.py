"""Promises of the reader of TensorFlow bundles: the exact arrays, or a refusal that names the place."""

from pathlib import Path

import numpy as np
import pytest
from checkpoint_writers import (
    Arrays,
    all_types,
    entry,
    number,
    part,
    partitioned_entry,
    same,
    write_table,
    write_tf_bundle,
)

from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import read_checkpoint, recognise
from veduta.legacy.tf_bundle import Extent, slice_key

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    write_tf_bundle(tmp_path / "model.ckpt-7", all_types(), num_shards=2)
    return tmp_path / "model.ckpt-7"


def index_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def shard_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.data-00000-of-00001")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def write_raw(tmp_path: Path, entries: dict[bytes, bytes], data: bytes = bytes(64)) -> Path:
    """A bundle of one data file with these entries, whatever they say."""
    prefix = tmp_path / "raw"
    index_of(prefix).write_bytes(write_table({b"": number(1, 1), **entries}))
    shard_of(prefix).write_bytes(data)
    return prefix


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tf_tiny", "tf_tiny"), ("tf_tiny_sharded", "tf_tiny"), ("tf_tiny_adam", "tf_tiny_adam")],
)
def test_what_tensorflow_wrote_is_read_bit_for_bit(name: str, expected: str) -> None:
    with np.load(GOLDEN / f"{expected}_expected.npz") as recorded:
        wanted = {key.replace("|", "/"): recorded[key] for key in recorded if key != "meta"}
    same(read_checkpoint(GOLDEN / f"{name}.ckpt"), wanted)


def test_every_variable_of_a_real_network_is_found() -> None:
    found = read_checkpoint(GOLDEN / "tf_names.ckpt.index")
    assert len(found) == 1_173 and found["global_step"] == 30_000
    assert found["xception_65/entry_flow/conv1_1/weights"].shape == (3,)


def test_all_types_and_shapes_come_back_from_several_data_files(prefix: Path) -> None:
    same(read_checkpoint(prefix), all_types())
    assert [path.name for path in recognise(prefix).files()] == [
        "model.ckpt-7.index",
        "model.ckpt-7.data-00000-of-00002",
        "model.ckpt-7.data-00001-of-00002",
    ]


def test_an_index_of_many_blocks_is_read(tmp_path: Path) -> None:
    many: Arrays = {f"layer_{k}/weights": np.full(2, k, np.float32) for k in range(300)}
    write_tf_bundle(tmp_path / "m", many, block_bytes=400)
    same(read_checkpoint(tmp_path / "m"), dict(sorted(many.items())))


def test_bfloat16_becomes_float32_exactly(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, np.inf, 2.0**-130, 0.0], np.float32)
    write_tf_bundle(tmp_path / "m", {"w": (values.view(np.uint32) >> 16).astype(np.uint16)}, bfloat16=["w"])
    same(read_checkpoint(tmp_path / "m"), {"w": values})


def test_names_of_tensorflow_2_lose_their_suffix_and_its_object_graph_is_skipped(tmp_path: Path) -> None:
    kernel = np.ones((2, 2), np.float32)
    graph = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.frombuffer(b"graph of objects", np.uint8)}
    write_tf_bundle(tmp_path / "m", {"model/kernel/.ATTRIBUTES/VARIABLE_VALUE": kernel}, strings=graph)
    contents = recognise(tmp_path / "m").read()
    same(contents.arrays, {"model/kernel": kernel})
    assert contents.skipped == {"_CHECKPOINTABLE_OBJECT_GRAPH": "strings"}


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    write_tf_bundle(tmp_path / "m", {"a": one, "a/.ATTRIBUTES/VARIABLE_VALUE": one})
    with pytest.raises(CheckpointError, match="'a' occurs twice"):
        read_checkpoint(tmp_path / "m")


SLICES: list[list[list[Extent]]] = [
    [[(0, 2), (0, -1)], [(2, 3), (0, -1)]],
    [[(0, -1), (0, 100)], [(0, -1), (100, 200)]],
    [[(0, 3), (0, 150)], [(0, 3), (150, 150)], [(3, 2), (0, -1)]],
    [[(0, -1), (0, -1)]],
]


@pytest.mark.parametrize("slices", SLICES)
def test_the_parts_of_a_partitioned_variable_become_one_array(tmp_path: Path, slices: list[list[Extent]]) -> None:
    whole: Arrays = {"w": np.arange(1500, dtype=np.int32).reshape(5, 300), "v": np.ones(3, np.float32)}
    write_tf_bundle(tmp_path / "m", whole, num_shards=2, slices={"w": slices})
    same(read_checkpoint(tmp_path / "m"), dict(sorted(whole.items())))


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([[(0, 2)], [(3, 2)]], "leave gaps"),
        ([[(0, 3)], [(2, 3)]], "overlap or leave gaps"),
        ([[(0, 3)], [(1, 2)]], "overlaps another part"),
        ([[(0, 3)], [(3, 4)]], "reaches out"),
        ([[(0, 3), (0, 1)], [(3, 2)]], "2 extents"),
    ],
)
def test_parts_that_overlap_leave_gaps_or_reach_out_are_refused(
    tmp_path: Path, slices: list[list[Extent]], message: str
) -> None:
    parts = {slice_key("w", s): entry(np.zeros([n for _, n in s], np.int32)) for s in slices}
    entries = {b"w": partitioned_entry(3, [5], slices), **parts}
    with pytest.raises(CheckpointError, match=f"'w'.*{message}"):
        read_checkpoint(write_raw(tmp_path, entries))


def test_a_part_that_the_index_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'w', part \[\(0, 5\)\]: missing"):
        read_checkpoint(write_raw(tmp_path, {b"w": partitioned_entry(3, [5], [[(0, 5)]])}))


def test_keys_of_parts_sort_as_their_numbers_do() -> None:
    starts = [*range(0, 300), 8191, 8192, 8193, 2**20 - 1, 2**20, 2**31, 2**40 - 1]
    keys = [slice_key("w", [(start, 1)]) for start in starts]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert slice_key("w", [(0, -1)]) == b"\0w\0\1\1\1\x80\x7f"


def test_a_flipped_byte_in_a_tensor_is_refused_by_name(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "m", {"a": np.zeros(40, np.float32), "b": np.zeros(4, np.float32)})
    flip(shard_of(tmp_path / "m"), 163)
    with pytest.raises(CheckpointError, match="'b': the checksum does not fit"):
        read_checkpoint(tmp_path / "m")


def test_any_flipped_byte_of_the_index_is_refused(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "m", {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)})
    index = index_of(tmp_path / "m")
    whole = index.read_bytes()
    padding = range(len(whole[:-8].rstrip(b"\0")), len(whole) - 8)
    for place in set(range(len(whole))) - set(padding):
        flip(index, place)
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "m")
        index.write_bytes(whole)


@pytest.mark.parametrize("file", ["data-00000-of-00002", "data-00001-of-00002", "index"])
def test_a_file_cut_off_anywhere_is_refused_by_name(prefix: Path, file: str) -> None:
    path = prefix.with_name(f"{prefix.name}.{file}")
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=path.name):
            read_checkpoint(prefix)


def test_a_missing_data_file_is_named(prefix: Path) -> None:
    missing = prefix.with_name("model.ckpt-7.data-00001-of-00002")
    missing.unlink()
    with pytest.raises(CheckpointError, match=r"data-00001-of-00002 is missing: .* speaks of 2 data files"):
        read_checkpoint(prefix)
    with pytest.raises(CheckpointError, match="is missing"):
        recognise(prefix).files()


def changed(**numbers: int) -> bytes:
    """The entry of a float32 [4] with some numbers as given."""
    fields = {"dtype": 1, "dim": 4, "shard": 0, "offset": 0, "size": 16} | numbers
    shape = part(2, part(2, number(1, fields["dim"])))
    place = number(3, fields["shard"]) + number(4, fields["offset"]) + number(5, fields["size"])
    return number(1, fields["dtype"]) + shape + place


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (changed(dim=5), r"16 bytes, but float32 of shape \[5\] takes 20"),
        (changed(dim=-1), r"shape \[-1\] cannot be"),
        (changed(dim=1 << 50), "cannot be"),
        (changed(dim=1 << 30, size=1 << 32), "64 bytes, but"),
        (changed(shard=1), "data file 1 of 1"),
        (changed(shard=-1), "data file -1 of 1"),
        (changed(offset=49), "is at bytes 49 to 65"),
        (changed(offset=-4), "is at bytes -4"),
        (changed(size=-16), "-16 bytes"),
        (changed(), "checksum"),
        (part(1, b"text"), "a number was expected"),
        (number(2, 3), "bytes were expected"),
        (b"\x08", "ends inside a number"),
        (b"\x08" + b"\xff" * 10 + b"\1", "more than 64 bits"),
        (b"\x12\xff\xff\xff\x7f", "a field of"),
        (b"\x0b", "field of kind 3"),
        (part(2, part(2, number(1, 1)) * 33), "33 dimensions"),
    ],
)
def test_entries_that_cannot_be_are_refused_with_the_variables_name(tmp_path: Path, value: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"'w'.*{message}|{message}.*'w'"):
        read_checkpoint(write_raw(tmp_path, {b"w": value}))


def test_a_small_index_cannot_ask_for_more_than_the_data_files_hold(tmp_path: Path) -> None:
    entries = {f"w{k}".encode(): entry(np.zeros(16, np.float32)) for k in range(5)}
    with pytest.raises(CheckpointError, match="larger than raw.data"):
        read_checkpoint(write_raw(tmp_path, entries))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (number(1, 0), "0 data files"),
        (number(1, 100_000), "100000 data files"),
        (number(1, -1), "-1 data files"),
        (number(1, 1) + number(2, 1), "big-endian"),
        (part(1, b""), "V1 checkpoint"),
    ],
)
def test_headers_of_something_else_are_refused(tmp_path: Path, header: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write_raw(tmp_path, {b"": header}))


def test_a_table_without_a_header_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(write_table({b"key": b"value"}))
    with pytest.raises(CheckpointError, match="header: missing"):
        read_checkpoint(tmp_path / "m")


def test_a_compressed_table_is_refused_by_name(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "m", {"a": np.zeros(1, np.float32)})
    index = index_of(tmp_path / "m")
    data = bytearray(index.read_bytes())
    data[len(data) - 48 - 5] = 1  # the kind of the last block
    index.write_bytes(data)
    with pytest.raises(CheckpointError, match="Snappy"):
        read_checkpoint(tmp_path / "m")


@pytest.mark.slow
def test_a_checkpoint_of_full_size_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    full: Arrays = {f"block_{k:03d}/weights": rng.random((160_000,), np.float32) for k in range(520)}
    write_tf_bundle(tmp_path / "m", full, num_shards=3)
    same(read_checkpoint(tmp_path / "m"), full)
