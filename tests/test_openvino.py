"""Exported files compute in ONNX Runtime and OpenVINO what the network computes, and decode as its task does; those
for OpenVINO are refused where they lie."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from exports import OPEN, SIZES, TINY_SIZES, differences, lively
from numpy.typing import NDArray
from onnx_files import CLASSES, INFO, small_graph

from veduta.backends import open_model
from veduta.backends.openvino import load_openvino
from veduta.backends.openvino_file import hash_pair, read_pair, weights_path, with_info
from veduta.config import ProtocolName, TaskName
from veduta.data.label_maps import VOC
from veduta.engine.predictor import Predictor
from veduta.export.decode import add_decoding
from veduta.export.onnx import save_onnx, to_onnx
from veduta.export.openvino import save_openvino
from veduta.export.trace import trace
from veduta.model_info import Exported, ModelInfo, info_to_json
from veduta.recipes import find_recipe
from veduta.tasks.prediction import Prediction

NETWORKS: dict[str, TaskName] = {
    "resnest_tiny": "classify",
    "deeplabv3plus_tiny": "segment",
    "refinenet_tiny": "segment",
    "blitznet_tiny": "detect_segment",
}
MOST_DIFFERENT = 1e-4  # of an output's range; a file keeps to 1e-3
LEAST_AGREEMENT = 0.9999
IMAGES = np.random.default_rng(1).random((2, 3, 5, 4), np.float32)


def info_for(name: str, protocol: ProtocolName = "whole", *, full: bool = False) -> ModelInfo:
    recipe = replace(find_recipe("demo"), model=name, model_options={}, task=NETWORKS[name], protocol=protocol)
    exported = Exported(format="onnx", full=full, images=(), outputs={})
    return ModelInfo(recipe=recipe, labels=VOC, step=1, exported=exported)


@cache
def graph_of(name: str) -> onnx.ModelProto:
    """Traced once; what writes it takes only its metadata away."""
    return to_onnx(trace(lively(name, VOC.num_classes), OPEN), info_for(name))


def write(path: Path, proto: onnx.ModelProto, info: ModelInfo) -> Path:
    """A .onnx or a .xml, as the ending says."""
    assert info.exported is not None
    if path.suffix == ".onnx":
        save_onnx(proto, info, path)
    else:
        save_openvino(proto, replace(info, exported=replace(info.exported, format="openvino")), path)
    return path


def write_small(path: Path) -> Path:
    """A network of one convolution: images -> mask_logits."""
    save_openvino(small_graph(), INFO, path)
    return path


@pytest.mark.parametrize(
    ("name", "ending", "runtime"),
    [
        *((name, ".onnx", runtime) for name in NETWORKS for runtime in ("onnx", "openvino")),
        ("deeplabv3plus_tiny", ".xml", "openvino"),
        ("blitznet_tiny", ".xml", "openvino"),
    ],
)
def test_one_export_computes_what_the_network_computes_on_every_size(
    name: str, ending: str, runtime: str, tmp_path: Path
) -> None:
    path = write(tmp_path / f"model{ending}", graph_of(name), info_for(name))
    exported = open_model(path, backend=runtime)
    for difference in differences(lively(name, VOC.num_classes), exported, SIZES + TINY_SIZES):
        assert difference.largest < MOST_DIFFERENT and difference.agreement > LEAST_AGREEMENT, difference


def predictors(name: str, ending: str, runtime: str, folder: Path, protocol: ProtocolName = "whole") -> list[Predictor]:
    """Of the same network as it is and with its decoding inside."""
    found = []
    for full in (False, True):
        proto = add_decoding(graph_of(name), NETWORKS[name]) if full else graph_of(name)
        path = write(folder / f"full-{full}{ending}", proto, info_for(name, protocol, full=full))
        found.append(Predictor(open_model(path, backend=runtime)))
    return found


def photos(height: int, width: int) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(height).integers(0, 256, (3, height, width, 3), np.uint8))


def assert_same(found: Prediction, expected: Prediction) -> None:
    np.testing.assert_array_equal(found.mask, expected.mask)
    for name in ("class_scores", "box_scores", "boxes", "box_classes"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-3 if name == "boxes" else 2e-6)


@pytest.mark.parametrize(("ending", "runtime"), [(".onnx", "onnx"), (".onnx", "openvino"), (".xml", "openvino")])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_that_decodes_predicts_what_the_predictor_makes_of_the_network(
    name: str, ending: str, runtime: str, tmp_path: Path
) -> None:
    plain, full = predictors(name, ending, runtime, tmp_path)
    for images in (photos(70, 51), photos(64, 96)[:1]):
        for found, expected in zip(full(images), plain(images), strict=True):
            assert_same(found, expected)
            assert found.confidence is None


def test_the_padding_of_protocol_deeplab_is_cut_off_a_mask_that_was_decoded_inside(tmp_path: Path) -> None:
    plain, full = predictors("deeplabv3plus_tiny", ".onnx", "onnx", tmp_path, "deeplab")
    (image, *_) = photos(41, 30)
    (found,), (expected,) = full([image]), plain([image])
    assert found.mask is not None and found.mask.shape == (41, 30)
    assert_same(found, expected)


@pytest.mark.parametrize("protocol", ["mirrored", "windows", "encoding", "refinenet"])
def test_protocols_that_average_logits_refuse_a_file_that_decodes(protocol: ProtocolName, tmp_path: Path) -> None:
    name = "refinenet_tiny"
    path = tmp_path / "full.onnx"
    write(path, add_decoding(graph_of(name), "segment"), info_for(name, full=True))
    backend = open_model(path, backend="onnx", changes=["data.crop_size=[64,64]", f"protocol={protocol}"])
    with pytest.raises(ValueError, match=f"'{protocol}' averages logits.*--full.*protocol=whole"):
        Predictor(backend)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_signals_are_handled_after_several_files_were_opened_and_closed(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_openvino
path = test_openvino.write_small(Path({str(tmp_path)!r}) / "small.xml")
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first, second = test_openvino.open_model(path), test_openvino.open_model(path)
del first
del second
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_neither_writing_nor_opening_a_file_reaches_for_the_network_or_loads_telemetry(tmp_path: Path) -> None:
    program = f"""
import os, sys
seen = []
names = ("socket.", "urllib.", "http.", "subprocess.", "os.system", "os.fork", "os.posix_spawn", "os.exec")
def watch(event, arguments):
    if event.startswith(names):
        seen.append((event, arguments))
sys.addaudithook(watch)
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_openvino
path = test_openvino.write_small(Path({str(tmp_path)!r}) / "small.xml")
backend = test_openvino.open_model(path)
backend(test_openvino.IMAGES)

assert not seen, seen
loaded = [name for name, module in sys.modules.items() if module and name.split(".")[0] == "openvino_telemetry"]
assert not loaded, loaded
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_pair_opens_with_the_info_that_went_in_and_openvino_reads_it_too(tmp_path: Path) -> None:
    strange = replace(INFO, scores={"<\"&'> ä \u2028 ]]>": 0.5})
    info = save_openvino(small_graph(), strange, tmp_path / "small.xml")
    backend = open_model(tmp_path / "small.xml")
    assert backend.info == info and info.exported is not None
    assert info.exported.images == (None, 3, None, None)
    assert info.exported.outputs == {"mask_logits": (None, CLASSES, None, None)}
    assert backend(IMAGES)["mask_logits"].shape == (2, CLASSES, 5, 4)
    model = load_openvino(tmp_path).Core().read_model(tmp_path / "small.xml")
    assert model.get_rt_info(["veduta"]).value == info_to_json(info)


def test_the_same_network_gives_the_same_contents(tmp_path: Path) -> None:
    first = save_openvino(small_graph(), INFO, tmp_path / "first.xml")
    second = save_openvino(small_graph(), replace(INFO, step=4), tmp_path / "second.xml")
    assert first.exported is not None and second.exported is not None
    assert first.exported.contents_sha256 == second.exported.contents_sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.bin", "first.xml", "second.bin", "second.xml"]


def test_equals_keep_their_order_in_a_file_too(tmp_path: Path) -> None:
    write(
        tmp_path / "model.xml", add_decoding(graph_of("resnest_tiny"), "classify"), info_for("resnest_tiny", full=True)
    )
    model = load_openvino(tmp_path).Core().read_model(tmp_path / "model.xml")
    sorting = [operator for operator in model.get_ops() if operator.get_type_name() == "TopK"]
    assert sorting and all(operator.get_attributes()["stable"] for operator in sorting)


def test_any_damage_to_either_file_is_refused(tmp_path: Path) -> None:
    path, rng = write_small(tmp_path / "small.xml"), random.Random(0)
    for file in (path, weights_path(path)):
        whole = file.read_bytes()
        info = range(whole.find(b"<veduta"), whole.find(b"</rt_info>")) if file == path else range(0)
        for place in rng.sample([each for each in range(len(whole)) if each not in info], 60):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=str(tmp_path)):
                open_model(path)
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=str(tmp_path)):
                open_model(path)
        file.write_bytes(whole)
    open_model(path)


def test_weights_of_another_export_are_refused_as_a_write_that_was_cut_off_would_leave_them(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.xml")
    other = small_graph()
    weights = np.frombuffer(other.graph.initializer[0].raw_data, np.float32) + 1
    other.graph.initializer[0].raw_data = weights.tobytes()
    save_openvino(other, INFO, tmp_path / "other.xml")
    (tmp_path / "other.bin").replace(tmp_path / "small.bin")
    with pytest.raises(ValueError, match="small.bin hash to .* not of one export"):
        open_model(path)


def test_one_file_without_the_other_is_refused_with_the_name_of_what_is_missing(tmp_path: Path) -> None:
    path = write_small(tmp_path / "small.xml")
    weights_path(path).unlink()
    with pytest.raises(FileNotFoundError, match="small.bin not found.*copy both"):
        open_model(path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.bin").mkdir()
    with pytest.raises(OSError, match="small.bin"):
        write_small(tmp_path / "small.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["small.bin"]


def resigned(path: Path, change: Callable[[bytes], bytes], **said: object) -> Path:
    """A pair whose .xml is changed, and whose hash is right all the same."""
    xml, weights, info = read_pair(path)
    assert info.exported is not None
    xml = change(xml)
    exported = replace(info.exported, **{"contents_sha256": hash_pair(xml, weights), **said})  # type: ignore[arg-type]
    path.write_bytes(with_info(xml, replace(info, exported=exported)))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda xml: xml.replace(b'<?xml version="1.0"?>', b'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "b">]>'),
        lambda xml: xml.replace(b"</layers>", b"</layers><!-- -->"),
        lambda xml: xml.replace(b"\t<rt_info>", b'\t<rt_info>\n\t\t<veduta value="{}" />'),
        lambda xml: xml.replace(b"</rt_info>\n</net>", b'\t<veduta value="{}" />\n\t</rt_info>\n</net>'),
    ],
)
def test_declarations_and_a_second_info_are_refused(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"small\.xml"):
        open_model(resigned(write_small(tmp_path / "small.xml"), change))


@pytest.mark.parametrize(
    "change",
    [
        lambda xml: xml.replace(b'offset="0"', b'offset="100000000000"'),
        lambda xml: xml.replace(b'type="Convolution"', b'type="Unheard"'),
        lambda xml: xml.replace(b'to-layer="2"', b'to-layer="77"'),
        lambda xml: xml.replace(b"</edges>", b""),
        lambda xml: b"<net>\t</rt_info>\n</net>",
    ],
)
def test_files_that_openvino_cannot_open_are_refused_in_a_sentence(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"small\.xml: .*Export the model again"):
        open_model(resigned(write_small(tmp_path / "small.xml"), change))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"outputs": {"class_logits": (None, CLASSES, None, None)}}, "its outputs are 'class_logits'"),
        ({"outputs": {"mask_logits": (None, CLASSES + 1, None, None)}}, "its outputs are"),
        ({"images": (1, 3, None, None)}, "its inputs are"),
        ({"format": "onnx"}, r"not that of a \.xml file"),
    ],
)
def test_a_file_that_holds_other_than_it_tells_is_refused(said: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        open_model(resigned(write_small(tmp_path / "small.xml"), lambda xml: xml, **said))


def test_a_file_of_others_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    openvino = load_openvino(tmp_path)
    model = openvino.Core().read_model(small_graph().SerializeToString())
    openvino.save_model(model, tmp_path / "theirs.xml")
    with pytest.raises(ValueError, match="without recipe and label map"):
        open_model(tmp_path / "theirs.xml")


def test_a_network_of_a_fixed_size_tells_which_images_it_takes(tmp_path: Path) -> None:
    proto = small_graph()
    for value in (proto.graph.input[0], proto.graph.output[0]):
        for axis, length in ((0, 1), (2, 8), (3, 6)):
            value.type.tensor_type.shape.dim[axis].dim_value = length
    info = save_openvino(proto, INFO, tmp_path / "small.xml")
    assert info.exported is not None and info.exported.images == (1, 3, 8, 6)
    backend = open_model(tmp_path / "small.xml")
    assert backend(np.zeros((1, 3, 8, 6), np.uint8))["mask_logits"].shape == (1, CLASSES, 8, 6)
    with pytest.raises(ValueError, match="takes images of 1 x 3 x 8 x 6, got 2 x 3 x 5 x 4"):
        backend(IMAGES)


def test_threads_that_call_at_the_same_time_each_get_their_own(tmp_path: Path) -> None:
    backend = open_model(write_small(tmp_path / "small.xml"))
    images = [np.full((1, 3, 32 + i, 32), i / 8, np.float32) for i in range(8)]
    expected = [backend(each)["mask_logits"] for each in images]
    found: dict[int, NDArray[np.float32]] = {}

    def ask(i: int) -> None:
        for _ in range(20):
            found[i] = backend(images[i])["mask_logits"]
            np.testing.assert_array_equal(found[i], expected[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], expected[i]) for i in range(len(images)))


def test_images_that_openvino_fails_on_are_told_and_the_next_ones_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that is larger than the map; with one thread OpenVINO's `infer` keeps that to itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    proto = small_graph()
    proto.graph.node[0].output[0] = "features"
    pool = onnx.helper.make_node("AveragePool", ["features"], ["mask_logits"], kernel_shape=[4, 4], strides=[1, 1])
    proto.graph.node.append(pool)
    save_openvino(proto, INFO, tmp_path / "small.xml")
    backend = open_model(tmp_path / "small.xml")
    assert backend(IMAGES)["mask_logits"].shape == (2, CLASSES, 2, 1)
    with pytest.raises(ValueError, match="OpenVINO failed on images of 2 x 3 x .*larger than the data shape"):
        backend(IMAGES[..., :2])
    assert open_model(tmp_path / "small.xml")(IMAGES)["mask_logits"].shape == (2, CLASSES, 2, 1)


def test_what_one_call_gave_is_not_changed_by_the_next(tmp_path: Path) -> None:
    backend = open_model(write_small(tmp_path / "small.xml"))
    first = backend(IMAGES)["mask_logits"]
    kept = first.copy()
    backend(1 - IMAGES)
    np.testing.assert_array_equal(first, kept)


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path / "small.xml")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r"pip install 'veduta\[openvino\]'"):
        open_model(path)


def test_a_device_that_openvino_is_not_used_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device 'cuda:1' was asked for. Use auto or cpu"):
        open_model(write_small(tmp_path / "small.xml"), device="cuda:1")
