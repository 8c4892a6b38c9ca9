"""ONNX files of others: what lies outside, lies, is damaged or made to harm is refused before a runtime sees it."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import CLASSES, INFO, small_graph, tell, write_small

from veduta.backends import open_model
from veduta.backends.onnx_file import hash_contents, read_onnx
from veduta.engine.predictor import Predictor
from veduta.export.onnx import save_onnx
from veduta.model_info import ModelInfo, find_model, info_to_json

IMAGES = np.random.default_rng(1).random((2, 3, 5, 4), np.float32)


def opened(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = open_model(path, backend="onnx")(IMAGES)
    return found


def test_a_file_of_ours_opens_with_the_info_that_went_in(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    info = save_onnx(small_graph(), INFO, path)
    backend = open_model(path, backend="onnx")
    assert backend.info == info and replace(info, exported=None) == INFO
    assert info.exported is not None and info.exported.images == (None, 3, None, None)
    assert info.exported.outputs == {"mask_logits": (None, CLASSES, None, None)}
    assert backend(IMAGES)["mask_logits"].shape == (2, CLASSES, 5, 4)
    assert find_model(path) == path


def outside(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros((CLASSES, 3, 1, 1), np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def as_initializer(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.graph.initializer[0].CopyFrom(tensor)


def as_constant(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    del proto.graph.initializer[:]
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["weights"], value=tensor))


def in_a_subgraph(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["inner"], ["out"])], "inner", [], [])
    inner.output.add(name="out").type.tensor_type.elem_type = TensorProto.FLOAT
    inner.initializer.add().CopyFrom(tensor)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.node.append(helper.make_node("If", ["yes"], ["more"], then_branch=inner, else_branch=inner))


def in_a_function(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    constant = helper.make_node("Constant", [], ["out"], value=tensor)
    proto.functions.append(helper.make_function("ai.onnx", "Weights", [], ["out"], [constant], proto.opset_import))


def as_sparse_initializer(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    places = numpy_helper.from_array(np.zeros(1, np.int64), "places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, places, [CLASSES]))


def in_training(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.training_info.add().algorithm.initializer.add().CopyFrom(tensor)


PLACES = (as_initializer, as_constant, in_a_subgraph, in_a_function, as_sparse_initializer, in_training)


@pytest.mark.parametrize("put", PLACES)
def test_weights_outside_of_the_file_are_refused_wherever_they_are_named(
    put: Callable[[onnx.ModelProto, TensorProto], None], tmp_path: Path
) -> None:
    proto = small_graph()
    put(proto, outside("../secret.bin"))
    with pytest.raises(ValueError, match=r"small\.onnx: holds weights outside of the file \(\.\./secret\.bin, for 'w"):
        open_model(write_small(tmp_path / "small.onnx", proto), backend="onnx")


@pytest.mark.parametrize("kind", ["absolute", "beside", "symbolic link"])
def test_weights_outside_are_refused_though_they_are_there(kind: str, tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(bytes(CLASSES * 3 * 4))
    (tmp_path / "link.bin").symlink_to(tmp_path / "real.bin")
    location = {"absolute": str(tmp_path / "real.bin"), "beside": "real.bin", "symbolic link": "link.bin"}[kind]
    proto = small_graph()
    as_initializer(proto, outside(location))
    with pytest.raises(ValueError, match="outside of the file"):
        open_model(write_small(tmp_path / "small.onnx", proto), backend="onnx")


def test_operators_that_are_none_of_onnx_are_refused(tmp_path: Path) -> None:
    proto = small_graph()
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Anything", "org.example"
    with pytest.raises(ValueError, match=r"'Anything' of 'org\.example', which is none of ONNX's own"):
        open_model(write_small(tmp_path / "small.onnx", proto), backend="onnx")


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    proto, inner = small_graph(), helper.make_graph([], "innermost", [], [])
    for depth in range(20):
        inner = helper.make_graph([helper.make_node("If", ["yes"], [], then_branch=inner)], f"at {depth}", [], [])
    proto.graph.node.append(helper.make_node("If", ["yes"], [], then_branch=inner))
    with pytest.raises(ValueError, match="graphs nested more than 10 deep"):
        open_model(write_small(tmp_path / "small.onnx", proto), backend="onnx")


def test_more_fields_than_any_network_has_are_refused(tmp_path: Path) -> None:
    proto = small_graph()
    proto.graph.node[0].attribute.add(name="strides", ints=[1] * 10)
    path = write_small(tmp_path / "small.onnx", proto)
    path.write_bytes(path.read_bytes() + b"\x3a\x80\x89\x7a" + b"\x5a\x00" * 1_000_000)  # a graph of a million inputs
    with pytest.raises(ValueError, match=r"more than 1,000,000 fields"):
        open_model(path, backend="onnx")


def test_a_file_of_another_program_is_refused_with_what_writes_ours(tmp_path: Path) -> None:
    onnx.save(small_graph(), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"nobody can say what it predicts\. Open one that `veduta export` wrote"):
        open_model(tmp_path / "other.onnx", backend="onnx")
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx not found"):
        read_onnx(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (
            {"outputs": {"class_logits": (None, CLASSES)}},
            r"outputs are 'class_logits' \(any x 21\), and holds 'mask_log",
        ),
        ({"outputs": {"mask_logits": (None, 9, None, None)}}, r"any x 9 x any x any.* holds .*any x 21 x any x any"),
        ({"outputs": {}}, "outputs are none"),
        ({"images": (1, 3, 64, 64)}, r"inputs are 'images' \(1 x 3 x 64 x 64\), and holds 'images' \(any x 3 x any"),
        ({"format": "openvino"}, r"not that of a \.onnx file"),
        ({"contents_sha256": "0" * 64}, r"hashes to [0-9a-f]{12}, the file says 000000000000"),
    ],
)
def test_a_file_that_holds_other_than_it_tells_is_refused(lie: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx", **lie)
    with pytest.raises(ValueError, match=words):
        open_model(path, backend="onnx")


def test_a_network_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx")
    proto = onnx.load(path)
    proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))
    onnx.save(proto, path)
    with pytest.raises(ValueError, match="It is damaged or was changed"):
        open_model(path, backend="onnx")


def test_inputs_of_other_types_and_graphs_that_are_none_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proto = small_graph()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    proto.graph.node.insert(0, helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT))
    proto.graph.node[1].input[0] = "numbers"
    with pytest.raises(ValueError, match=r"'images' is a tensor\(uint8\); expected a tensor of float"):
        open_model(write_small(tmp_path / "bytes.onnx", proto), backend="onnx")
    proto = small_graph()
    proto.graph.node[0].input[1] = "nowhere"
    with pytest.raises(ValueError, match="ONNX Runtime cannot open it"):
        open_model(write_small(tmp_path / "broken.onnx", proto), backend="onnx")
    assert capfd.readouterr().out == ""


def test_a_network_that_fails_on_images_says_on_which(tmp_path: Path) -> None:
    proto = small_graph()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([7, 7, 7, 7]), "shape"))
    proto.graph.node[0].output[0] = "maps"
    proto.graph.node.append(helper.make_node("Reshape", ["maps", "shape"], ["mask_logits"]))
    path = write_small(tmp_path / "small.onnx", proto, outputs={"mask_logits": (7, 7, 7, 7)})
    with pytest.raises(ValueError, match=r"failed on images of 2 x 3 x 5 x 4 \(.*Reshape"):
        opened(path)


def test_metadata_is_read_once(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx")
    proto = onnx.load(path)
    proto.metadata_props.append(proto.metadata_props[0])
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="says twice what it is"):
        open_model(path, backend="onnx")


def test_other_metadata_does_not_matter(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx")
    proto = onnx.load(path)
    proto.metadata_props.add(key="note", value="from the archive")
    path.write_bytes(proto.SerializeToString())
    np.testing.assert_array_equal(opened(path)["mask_logits"], opened(write_small(tmp_path / "b.onnx"))["mask_logits"])


def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    data = write_small(tmp_path / "small.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for end in range(0, len(data), max(1, len(data) // 100)):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"cut\.onnx"):
            open_model(path, backend="onnx")


def mutated(random: random.Random, data: bytes) -> bytes:
    """The bytes with one to four places changed, removed, repeated or exchanged."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place, length = random.randrange(len(changed)), random.randint(1, 16)
        kind = random.randrange(4)
        if kind == 0:
            changed[place] = random.randrange(256)
        elif kind == 1:
            changed[place] ^= 1 << random.randrange(8)
        elif kind == 2:
            del changed[place : place + length]
        else:
            changed[place:place] = changed[place : place + length]
    return bytes(changed)


def refused_or_as_before(path: Path, before: dict[str, np.ndarray]) -> bool:
    """Whether a damaged file is refused; one whose damage hit nothing but words must still compute the same."""
    try:
        after = opened(path)
    except ValueError as error:
        assert path.name in str(error)
        return True
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    return False


def test_two_thousand_damaged_files_are_refused_or_compute_the_same(tmp_path: Path) -> None:
    data = write_small(tmp_path / "small.onnx").read_bytes()
    before, rng, path = opened(tmp_path / "small.onnx"), random.Random(0), tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(2000):
        path.write_bytes(mutated(rng, data))
        refused += refused_or_as_before(path, before)
    assert refused > 1500


def test_only_words_about_how_images_are_shown_can_be_changed(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx")
    backend = open_model(path, backend="onnx", changes=["protocol=whole", "data.batch_size=3"])
    assert backend.info.recipe.data.batch_size == 3
    for change in ("model_options.output_stride=8", "model=resnet18", "task=classify", "precision=bf16", "protocolx=1"):
        with pytest.raises(ValueError, match=rf"{change.split('=')[0]}.*does not change any more"):
            open_model(path, backend="onnx", changes=[change])


def test_an_unknown_backend_or_device_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx")
    with pytest.raises(ValueError, match=r"backend 'onxx' does not open '\.onnx' files\. Did you mean onnx"):
        open_model(path, backend="onxx")
    with pytest.raises(ValueError, match=r"on the CPU, and device 'tpu' was asked for"):
        open_model(path, backend="onnx", device="tpu")


def test_images_of_other_sizes_than_a_file_takes_are_refused_with_both(tmp_path: Path) -> None:
    proto = small_graph()
    for dim, length in zip(proto.graph.input[0].type.tensor_type.shape.dim, (2, 3, 5, 8), strict=True):
        dim.dim_value = length
    for dim, length in zip(proto.graph.output[0].type.tensor_type.shape.dim, (2, CLASSES, 5, 8), strict=True):
        dim.dim_value = length
    backend = open_model(write_small(tmp_path / "fixed.onnx", proto), backend="onnx")
    with pytest.raises(ValueError, match=r"takes images of 2 x 3 x 5 x 8, got 2 x 3 x 5 x 4"):
        backend(IMAGES)


def test_the_hash_leaves_out_what_the_file_tells_of_itself(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.onnx")
    before = hash_contents(path.read_bytes())
    info: ModelInfo = read_onnx(path).info
    tell(path, replace(info, scores={"val_mean_iou": 0.5}))
    assert hash_contents(path.read_bytes()) == before
    assert open_model(path, backend="onnx").info.scores == {"val_mean_iou": 0.5}
    assert info_to_json(info).encode() not in path.read_bytes()


@pytest.mark.parametrize(("backend", "runtime"), [("onnx", "ONNX Runtime"), ("openvino", "OpenVINO")])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_score_says_in_which_precision_and_runtime_a_file_ran(
    precision: str, backend: str, runtime: str, tmp_path: Path
) -> None:
    """The weights that it was made of are the same ones."""
    path = write_small(tmp_path / "small.onnx", precision=precision)
    found = Predictor(open_model(path, backend=backend)).proof
    assert re.fullmatch(rf"weights \w* at step 3, exported as {precision}, in {runtime} [0-9.]+", found), found
