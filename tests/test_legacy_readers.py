"""Promises of the readers of frozen graphs and MindSpore files, and of recognition: formats are told by content."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_writers import (
    OPERATOR_CONSTANTS,
    TF_TYPES,
    all_types,
    frozen_variable,
    mindspore_entry,
    node,
    number,
    part,
    same,
    shape_proto,
    tensor_proto,
    write_frozen_graph,
    write_mindspore,
    write_tf_bundle,
)
from numpy.typing import NDArray
from safetensors.torch import save_file

from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import Format, Found, read_checkpoint, recognise
from veduta.model_info import METADATA_KEY

GOLDEN = Path(__file__).parent / "golden"
ONE = {"w": np.ones(3, np.float32)}


# MindSpore


def test_what_mindspore_wrote_is_read_bit_for_bit() -> None:
    with np.load(GOLDEN / "mindspore_tiny.npz") as recorded:
        wanted = {key.removeprefix("value:"): recorded[key] for key in recorded if key.startswith("value:")}
    same(read_checkpoint(GOLDEN / "mindspore_tiny.ckpt"), wanted)


@pytest.mark.parametrize("slices", [1, 3])
def test_mindspore_tensors_of_all_types_come_back_whole_or_in_slices(tmp_path: Path, slices: int) -> None:
    wanted = {name: array for name, array in all_types().items() if slices == 1 or array.size > 3}
    write_mindspore(tmp_path / "m.ckpt", wanted, slices=slices)
    same(read_checkpoint(tmp_path / "m.ckpt"), wanted)


def test_mindspore_slices_with_shapes_of_their_own_are_joined_along_the_first_axis(tmp_path: Path) -> None:
    whole = np.arange(10, dtype=np.int16).reshape(5, 2)
    parts = [mindspore_entry("w", "Int16", piece.shape, piece.tobytes()) for piece in (whole[:3], whole[3:])]
    (tmp_path / "m.ckpt").write_bytes(b"".join(parts))
    same(read_checkpoint(tmp_path / "m.ckpt"), {"w": whole})


def test_mindspore_scalars_of_old_and_new_files_and_bfloat16_are_read(tmp_path: Path) -> None:
    value = np.float32(1.5).tobytes()
    entries = [
        mindspore_entry("old", "Float32", [0], value),
        mindspore_entry("new", "Float32", [], value),
        mindspore_entry("half", "BFloat16", [1], value[2:]),
        mindspore_entry("none", "Float32", [0], b""),
        mindspore_entry("note", "str", [], b"a text"),
    ]
    (tmp_path / "m.ckpt").write_bytes(b"".join(entries))
    contents = recognise(tmp_path / "m.ckpt").read()
    scalar = np.array(1.5, np.float32)
    same(contents.arrays, {"old": scalar, "new": scalar, "half": scalar.reshape(1), "none": np.zeros(0, np.float32)})
    assert contents.skipped == {"note": "of type 'str'"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([mindspore_entry("w", "Float32", [3], bytes(8))], r"'w': 8 bytes, but float32 of shape \[3\] takes 12"),
        ([mindspore_entry("w", "Float32", [-2], bytes(8))], "'w'.*cannot be"),
        ([mindspore_entry(name, "Int8", [1], b"a") for name in "wvw"], "'w' occurs twice"),
        (
            [mindspore_entry("w", "Int8", [1], b"a"), mindspore_entry("w", "UInt8", [1], b"a")],
            "'w': slices of different types",
        ),
        ([mindspore_entry("w", "Int8", [1], b"a"), number(2, 7)], "field 2"),
        ([mindspore_entry("w", "Int8", [1], b"a"), number(0, 7)], "0 is no field number"),
        ([mindspore_entry("w", "Int8", [1], b"a"), part(0, b"")], "0 is no field number"),
    ],
)
def test_damaged_mindspore_files_are_refused_by_name(tmp_path: Path, entries: list[bytes], message: str) -> None:
    (tmp_path / "m.ckpt").write_bytes(b"".join(entries))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "m.ckpt")


# TensorFlow graphs


def test_constants_of_a_frozen_graph_come_back_under_their_nodes_names(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path / "g.pb", all_types())
    same(read_checkpoint(tmp_path / "g.pb"), all_types())


def typed(dtype: str, shape: list[int], numbers: bytes) -> bytes:
    code = {"bfloat16": 14, "string": 7}.get(dtype) or TF_TYPES[dtype]
    return number(1, code) + part(2, shape_proto(shape)) + numbers


FLOATS = np.array([1.5, -2.0], "<f4")


@pytest.mark.parametrize(
    ("tensor", "wanted"),
    [
        (typed("float32", [2], part(5, FLOATS.tobytes())), FLOATS),
        (typed("float32", [3], part(5, FLOATS.tobytes())), np.array([1.5, -2, -2], np.float32)),
        (typed("float32", [], b"\x2d" + FLOATS[:1].tobytes()), np.array(1.5, np.float32)),
        (typed("float32", [2, 2], b""), np.zeros((2, 2), np.float32)),
        (typed("float64", [1], part(6, np.array(0.1).tobytes())), np.array([0.1])),
        (typed("int32", [2], number(7, -3) + number(7, 4)), np.array([-3, 4], np.int32)),
        (typed("uint8", [2], number(7, 200)), np.array([200, 200], np.uint8)),
        (typed("int64", [1], part(10, number(0, -5)[1:])), np.array([-5])),
        (typed("uint64", [1], number(17, (1 << 64) - 1)), np.array([(1 << 64) - 1], np.uint64)),
        (typed("bool", [2], number(11, 1)), np.array([True, True])),
        (typed("float16", [2], number(13, 0x3E00)), np.array([1.5, 1.5], np.float16)),
        (typed("bfloat16", [1], number(13, 0x3FC0)), np.array([1.5], np.float32)),
    ],
)
def test_constants_written_as_numbers_are_read_and_the_last_one_repeated(
    tmp_path: Path, tensor: bytes, wanted: NDArray[Any]
) -> None:
    write_frozen_graph(tmp_path / "g.pb", {}, nodes=frozen_variable("c", tensor))
    same(read_checkpoint(tmp_path / "g.pb"), {"c": wanted})


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (typed("float32", [1], part(5, FLOATS.tobytes())), "2 numbers for the shape"),
        (typed("float32", [3], part(4, FLOATS.tobytes())), "8 bytes, but float32"),
        (typed("float32", [-1], b""), "cannot be"),
        (typed("float32", [1 << 39], number(7, 1)), "another type"),
        (typed("float32", [1 << 39], b""), "repeated numbers"),
        (typed("uint8", [1], number(7, 300)), "a number that is no uint8"),
        (typed("float32", [2], part(4, FLOATS.tobytes()) + part(5, FLOATS.tobytes())), "at once"),
    ],
)
def test_damaged_constants_are_refused_with_their_nodes_name(tmp_path: Path, tensor: bytes, message: str) -> None:
    write_frozen_graph(tmp_path / "g.pb", ONE, nodes=frozen_variable("c", tensor))
    with pytest.raises(CheckpointError, match=f"node 'c': .*{message}"):
        read_checkpoint(tmp_path / "g.pb")


def test_constants_that_are_texts_are_skipped_and_named(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path / "g.pb", ONE, nodes=node("t", "Const", tensor=typed("string", [], part(8, b"x"))))
    contents = recognise(tmp_path / "g.pb").read()
    same(contents.arrays, ONE)
    assert contents.skipped["t"] == "strings"


def test_constants_of_a_graph_that_were_no_variables_are_skipped_and_named(tmp_path: Path) -> None:
    late = node("late", "Const", tensor=tensor_proto(ONE["w"]))
    frozen = node("late/ReadVariableOp", "Identity", inputs=["late:0"])
    write_frozen_graph(tmp_path / "g.pb", ONE, nodes=frozen + late)  # a reader may come first
    contents = recognise(tmp_path / "g.pb").read()
    same(contents.arrays, {**ONE, "late": ONE["w"]})
    assert contents.skipped == dict.fromkeys(OPERATOR_CONSTANTS, "a constant of the graph")


def test_a_constant_that_an_identity_only_waits_for_is_no_variable(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path / "g.pb", ONE, nodes=node("wait", "Identity", inputs=["w", "^sub/y"]))
    same(read_checkpoint(tmp_path / "g.pb"), ONE)


def test_of_a_graph_without_identities_all_constants_of_numbers_with_a_fraction_are_read(tmp_path: Path) -> None:
    weights: dict[str, NDArray[Any]] = {"w": np.ones((3, 3), np.float32), "half": np.ones(2, np.float16)}
    write_frozen_graph(tmp_path / "g.pb", weights, optimised=True)
    contents = recognise(tmp_path / "g.pb").read()
    same(contents.arrays, {**weights, "sub/y": OPERATOR_CONSTANTS["sub/y"]})
    assert set(contents.skipped) == {"mul/x", "concat/axis", "ResizeBilinear/size", "AvgPool2D/Const"}


def test_a_graph_that_is_not_frozen_is_refused_and_says_what_to_give(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path / "g.pb", ONE, nodes=node("conv/weights", "VariableV2"))
    with pytest.raises(CheckpointError, match="not frozen.*'conv/weights'.*Give the checkpoint"):
        read_checkpoint(tmp_path / "g.pb")


def test_two_nodes_of_one_name_are_refused(tmp_path: Path) -> None:
    write_frozen_graph(tmp_path / "g.pb", ONE, nodes=frozen_variable("w", tensor_proto(ONE["w"])))
    with pytest.raises(CheckpointError, match="'w' occurs twice"):
        read_checkpoint(tmp_path / "g.pb")


# Recognition


def test_formats_are_told_by_content_whatever_the_ending(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pb")
    torch.save({"w": torch.ones(3)}, tmp_path / "b.safetensors", _use_new_zipfile_serialization=False)
    write_mindspore(tmp_path / "c.pth", ONE)
    write_frozen_graph(tmp_path / "d.ckpt", ONE)
    save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "e.index")
    kinds = (Format.TORCH, Format.TORCH, Format.MINDSPORE, Format.TF_GRAPH, Format.SAFETENSORS)
    for path, kind in zip(sorted(tmp_path.iterdir()), kinds, strict=True):
        assert recognise(path) == Found(kind, path) and recognise(path).files() == [path]
        same(read_checkpoint(path), ONE)


def test_a_bundle_is_found_by_its_prefix_any_of_its_files_and_its_folder(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "model.ckpt-5", ONE)
    for name in ("model.ckpt-5", "model.ckpt-5.index", "model.ckpt-5.data-00000-of-00001", "."):
        assert recognise(tmp_path / name) == Found(Format.TF_BUNDLE, tmp_path / "model.ckpt-5")
        same(read_checkpoint(str(tmp_path / name)), ONE)


def test_in_a_folder_of_bundles_the_file_checkpoint_names_the_newest(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "model.ckpt-5", ONE)
    write_tf_bundle(tmp_path / "model.ckpt-6", {"w": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"2 TensorFlow bundles; give one.*model\.ckpt-5, .*model\.ckpt-6"):
        read_checkpoint(tmp_path)
    newest = 'model_checkpoint_path: "/where/it/was/trained/model.ckpt-6"\nall_model_checkpoint_paths: "model.ckpt-5"\n'
    (tmp_path / "checkpoint").write_text(newest)
    found = recognise(tmp_path)
    assert found.path == tmp_path / "model.ckpt-6"
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')  # the training goes on
    same(found.read().arrays, {"w": np.zeros(1)})
    assert [file.name for file in found.files()] == ["model.ckpt-6.index", "model.ckpt-6.data-00000-of-00001"]
    same(read_checkpoint(tmp_path), ONE)


def test_a_model_file_of_veduta_is_not_taken_for_another_programs(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "m.safetensors", {METADATA_KEY: "{}"})
    with pytest.raises(
        CheckpointError, match=r"m\.safetensors: already a model file of Veduta; use it as it is.*predict"
    ):
        read_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("named", ["../secret", "/etc/passwd", "..", "a/", "..\\secret", "model.ckpt-6"])
def test_the_file_checkpoint_never_leads_out_of_the_folder(tmp_path: Path, named: str) -> None:
    (tmp_path / "run").mkdir()
    write_tf_bundle(tmp_path / "secret", ONE)
    write_tf_bundle(tmp_path / "run" / "model.ckpt-5", ONE)
    (tmp_path / "run" / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    with pytest.raises(CheckpointError, match="Copy that checkpoint into the folder"):
        read_checkpoint(tmp_path / "run")


def test_what_is_missing_empty_or_unknown_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.ckpt-5\.index.*the prefix"):
        read_checkpoint(tmp_path / "model.ckpt-5")
    with pytest.raises(CheckpointError, match="without a TensorFlow bundle"):
        read_checkpoint(tmp_path)
    path = tmp_path / "m"
    for data, message in [
        (b"", "empty"),
        (b"GIF89a..", "first bytes are 47 49 46.*TensorFlow bundle, TensorFlow graph, MindSpore checkpoint, PyTorch"),
        (b"\x08\x01\x12\x02ab", "SavedModel"),
        (b"\n\2\n\0", "no known format"),
        (b"\x10\0\0\0\0\0\0\0{not json at all", "not a readable safetensors file"),
    ]:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path)


def test_a_meta_file_leads_to_the_checkpoint_beside_it(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "model.ckpt-5", ONE)
    (tmp_path / "model.ckpt-5.meta").write_bytes(b"\n\2\n\0")
    with pytest.raises(CheckpointError, match=r"Did you mean .*model\.ckpt-5\?"):
        read_checkpoint(tmp_path / "model.ckpt-5.meta")
    (tmp_path / "model.ckpt-5.index").unlink()
    with pytest.raises(CheckpointError, match=r"model\.ckpt-5\.index is not beside it"):
        read_checkpoint(tmp_path / "model.ckpt-5.data-00000-of-00001")


def test_an_index_under_a_foreign_name_says_how_to_call_it(tmp_path: Path) -> None:
    write_tf_bundle(tmp_path / "m", ONE)
    (tmp_path / "m.index").rename(tmp_path / "m.idx")
    with pytest.raises(CheckpointError, match=r"not called PREFIX\.index"):
        read_checkpoint(tmp_path / "m.idx")
