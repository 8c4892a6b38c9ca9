"""The ONNX file that a network becomes: what it takes and gives, what it tells of itself, and what it does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exports import OPEN, Size, differences, export_onnx, images_of, info_of, lively
from torch import nn

from veduta.backends import open_model
from veduta.backends.runtime import num_threads
from veduta.data.fit import unit_range
from veduta.export import onnx as export_of_onnx
from veduta.export.onnx import save_onnx, to_onnx
from veduta.export.trace import output_names, trace
from veduta.model_info import Departure, Exported
from veduta.models.deeplab import DeepLabV3
from veduta.models.resnet import BasicBlock, ResNet

NAME = "deeplabv3plus_tiny"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return lively(NAME)


@pytest.fixture(scope="module")
def graph(network: nn.Module) -> onnx.ModelProto:
    return to_onnx(trace(network, OPEN), info_of(NAME))


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_the_graph_takes_images_of_open_sizes_and_names_its_axes(graph: onnx.ModelProto) -> None:
    assert [(i.name, axes(i)) for i in graph.graph.input] == [("images", ["N", 3, "H", "W"])]
    assert [(o.name, axes(o)) for o in graph.graph.output] == [("mask_logits", ["N", 7, "H", "W"])]


def test_the_graph_is_of_onnx_own_operators_with_batch_norm_inside_the_convolutions(graph: onnx.ModelProto) -> None:
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 18)]
    operators = {node.op_type for node in graph.graph.node}
    assert "Conv" in operators and "BatchNormalization" not in operators
    assert not graph.functions and {node.domain for node in graph.graph.node} == {""}
    onnx.checker.check_model(graph, full_check=True)


def test_the_graph_tells_nothing_of_the_machine_that_made_it(graph: onnx.ModelProto) -> None:
    data = graph.SerializeToString()
    assert graph.producer_name == "veduta" and graph.graph.name == NAME
    for word in (b".py", b"pytorch", b"torch.", b"File ", str(Path(__file__).parent).encode()):
        assert word not in data


def test_the_same_network_gives_the_same_graph(network: nn.Module, graph: onnx.ModelProto) -> None:
    again = to_onnx(trace(network, OPEN), info_of(NAME))
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


def test_what_an_exported_file_tells_of_itself_comes_back(graph: onnx.ModelProto, tmp_path: Path) -> None:
    proof = (Departure(case="one", output="mask_logits", largest=1e-6, agreement=1.0),)
    told = Exported(format="onnx", images=(), outputs={}, proof=proof, probes_sha256="ab")
    info = save_onnx(graph, replace(info_of(NAME), exported=told), tmp_path / "model.onnx")
    assert open_model(tmp_path / "model.onnx", backend="onnx").info == info
    assert info.exported is not None and info.exported.proof == proof and info.exported.probes_sha256 == "ab"
    assert info.exported.images == (None, 3, None, None)
    assert info.exported.outputs == {"mask_logits": (None, 7, None, None)}
    again = save_onnx(graph, info, tmp_path / "again.onnx")
    assert again == info and (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_an_export_that_fails_leaves_nothing(graph: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OSError, match=r"model\.onnx"):
        save_onnx(graph, info_of(NAME), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_sizes_can_be_fixed(network: nn.Module, tmp_path: Path) -> None:
    info = export_onnx(network, NAME, tmp_path / "fixed.onnx", (1, 3, 64, None))
    assert info.exported is not None and info.exported.images == (1, 3, 64, None)
    assert info.exported.outputs == {"mask_logits": (1, 7, 64, None)}
    backend = open_model(tmp_path / "fixed.onnx", backend="onnx")
    for difference in differences(network, backend, [Size(1, 64, 64), Size(1, 64, 150)]):
        assert difference.largest < 1e-5
    with pytest.raises(ValueError, match=r"takes images of 1 x 3 x 64 x any, got 2 x 3 x 64 x 64\."):
        backend(images_of(Size(2, 64, 64)))


def test_outputs_that_only_a_loss_reads_are_left_out() -> None:
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), widths=(4, 4, 4, 4), output_stride=8)
    model = DeepLabV3(backbone, 5, output_stride=8).eval()
    assert list(model(torch.zeros(1, 3, 32, 32))) == ["mask_logits", "aux_mask_logits"]
    assert output_names(trace(model, OPEN)) == ["mask_logits"]


def test_outputs_come_in_the_order_of_the_network() -> None:
    names = output_names(trace(lively("blitznet_tiny"), OPEN))
    assert names == ["class_logits", "box_deltas", "priors", "mask_logits"]


def test_a_network_in_training_mode_is_refused() -> None:
    model = lively(NAME)
    model.get_submodule("aspp.project.1").train()
    with pytest.raises(ValueError, match=r"in training mode\. Call its eval\(\)"):
        trace(model, OPEN)


def test_more_weights_than_one_file_holds_are_refused(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_of_onnx, "LARGEST", 64 << 20)  # in place of a network of two gigabytes
    with pytest.raises(
        ValueError, match=r"weights of 'deeplabv3plus_tiny' are [0-9,]+ bytes; one ONNX file holds at most"
    ):
        to_onnx(trace(network, OPEN), info_of(NAME))


def test_runtimes_get_images_to_the_bit_as_pytorch_does() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 4, 64, 1).repeat(3, axis=3).transpose(0, 3, 1, 2)
    expected = torch.from_numpy(every.copy()).float().div_(255).numpy()
    found = unit_range(every)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(unit_range(expected), expected)


def test_threads_are_as_many_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert num_threads() == 3
    for nothing in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert num_threads() >= 1
