"""Int8: standard operators whose outputs stay near those in float, and layers kept in float where that helps."""

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from veduta.backends.departures import broken
from veduta.backends.onnx import open_session
from veduta.engine.progress import ProgressLine
from veduta.export.int8 import find_ranges, layers, quantize, run, scale_and_zero
from veduta.export.sensitivity import KEPT_GROUPS, MARGIN, candidates, measured_bounds, relative_error
from veduta.model_info import Bounds, Departure
from veduta.models import build_model

SIZES = {"resnest_tiny": (32, 48), "deeplabv3plus_tiny": (64, 96), "blitznet_tiny": (64, 96)}
NETWORKS = ["resnest_tiny", "deeplabv3plus_tiny", pytest.param("blitznet_tiny", marks=pytest.mark.slow)]
SILENT = ProgressLine(silent=True)


def photos(height: int, width: int, *, count: int = 6) -> list[np.ndarray]:
    """Smooth random images (1, 3, H, W) uint8: noise has no edges that a network could find."""
    rng = np.random.default_rng(0)
    coarse = rng.random((count, 1, 3, height // 16, width // 16))
    return [(255 * image.repeat(16, 2).repeat(16, 3)).astype(np.uint8) for image in coarse]


@cache
def exported(name: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    model = build_model(name, num_classes=4)
    for module in model.modules():  # as if trained: no branch is switched off, no statistics are those of a start
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    for image in photos(*SIZES[name]):
        model.train()(torch.from_numpy(image.repeat(2, 0)) / 255)
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        model.eval(),
        (torch.rand(2, 3, *SIZES[name]),),
        dynamo=True,
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
        input_names=["images"],
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    return exported(request.param), photos(*SIZES[request.param])


Network = tuple[onnx.ModelProto, list[np.ndarray]]


def ranges_of(network: Network) -> dict[str, tuple[float, float]]:
    return dict(find_ranges(*network, lambda done, total: None))


def outputs(proto: onnx.ModelProto, images: list[np.ndarray]) -> list[list[np.ndarray]]:
    session = open_session(proto.SerializeToString())
    return [run(session, image) for image in images]


def test_a_quantised_network_says_nearly_the_same_at_sizes_it_was_not_calibrated_on(network: Network) -> None:
    proto, images = network
    quantised = quantize(proto, ranges_of(network))
    height, width = images[0].shape[2:]
    others = photos(height + 32, width + 16, count=2)
    for shown in (images, others):
        assert 0 < relative_error(outputs(proto, shown), outputs(quantised, shown)) < 0.15


def test_a_quantised_network_is_a_valid_file_of_standard_operators(network: Network) -> None:
    quantised = quantize(network[0], ranges_of(network))
    onnx.checker.check_model(quantised, full_check=True)
    assert {node.domain for node in quantised.graph.node} <= {"", "ai.onnx"}
    assert quantised.graph.input == network[0].graph.input and quantised.graph.output == network[0].graph.output


def test_weights_take_a_quarter_of_the_bytes(network: Network) -> None:
    quantised = quantize(network[0], ranges_of(network))

    def size_of_kernels(proto: onnx.ModelProto) -> int:
        return sum(len(numpy_helper.to_array(t).tobytes()) for t in proto.graph.initializer if len(t.dims) == 4)

    assert size_of_kernels(quantised) == size_of_kernels(network[0]) // 4


def test_every_convolution_runs_in_int8(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    onnxruntime.InferenceSession(quantize(network[0], ranges_of(network)).SerializeToString(), options)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "QLinearConv" in kinds
    assert not {"Conv", "FusedConv"} & {*kinds}


def test_a_network_of_which_all_is_kept_is_unchanged(network: Network) -> None:
    proto, images = network
    kept = quantize(proto, ranges_of(network), layers(proto))
    assert relative_error(outputs(proto, images), outputs(kept, images)) < 1e-6
    assert [node.op_type for node in kept.graph.node] == [node.op_type for node in proto.graph.node]


def test_candidates_keep_more_and_more_in_float_and_come_nearer() -> None:
    proto, images = exported("resnest_tiny"), photos(*SIZES["resnest_tiny"])
    found = list(candidates(proto, images, SILENT))
    assert len(found) == 1 + len(KEPT_GROUPS)
    assert found[0].kept == ()
    for one, other in itertools.pairwise(found):
        assert {*one.kept} < {*other.kept} < {*layers(proto)}
    assert found[-1].error < found[0].error


def test_the_most_sensitive_layers_are_kept_first() -> None:
    """Of three convolutions the middle one has large weights for a channel that is 0, and few steps for all others."""
    rng = np.random.default_rng(1)
    kernels = [rng.normal(size=(8, channels, 3, 3)).astype(np.float32) / 5 for channels in (3, 8, 8)]
    kernels[0][0], kernels[1][:, 0] = 0, 60
    names = ["images", "a", "b", "c"]
    nodes = [
        helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], name=f"conv{i}", pads=[1, 1, 1, 1])
        for i in range(3)
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 8, "H", "W"])],
        [numpy_helper.from_array(kernel, f"w{i}") for i, kernel in enumerate(kernels)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    first, second, *_ = candidates(proto, photos(32, 32), SILENT)
    assert second.kept == ("conv1",)
    assert second.error < first.error


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-2.0, 0.0), (0.0, 0.0)])
def test_zero_is_a_whole_number_and_both_ends_are_within_half_a_step(low: float, high: float) -> None:
    scale, zero = scale_and_zero(low, high)
    assert 0 <= zero <= 255
    for value in (low, 0.0, high):
        whole = np.clip(round(value / scale) + zero, 0, 255)
        assert abs((whole - zero) * scale - value) <= (scale / 2 + 1e-9 if value else 0)


def test_a_channel_without_weights_keeps_its_bias() -> None:
    weight, bias = np.zeros((2, 3, 1, 1), np.float32), np.array([5.0, -7.0], np.float32)
    weight[0] = 1
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w", "b"], ["x"], name="conv"),
            helper.make_node("Relu", ["x"], ["y"], name="relu"),
            helper.make_node("Neg", ["y"], ["out"], name="neg"),
        ],
        "dead",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 2, "H", "W"])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.abs(bias), "b")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    images = photos(32, 32)
    quantised = quantize(proto, find_ranges(proto, images, lambda done, total: None))
    for one, other in zip(outputs(proto, images), outputs(quantised, images), strict=True):
        np.testing.assert_allclose(other[0], one[0], atol=0.05)


def test_bounds_are_what_was_measured_with_a_margin_and_never_below_those_of_float() -> None:
    found = [
        Departure(case="a", output="mask_logits", largest=0.02, agreement=0.99),
        Departure(case="b", output="boxes", largest=0.1, box_shift=3.0),
    ]
    bounds = measured_bounds(found)
    assert (bounds.largest, bounds.box_shift) == (MARGIN * 0.1, MARGIN * 3.0)
    assert bounds.agreement == pytest.approx(1 - MARGIN * 0.01)
    assert measured_bounds([]) == Bounds()


def test_an_output_that_is_no_number_is_beyond_the_bounds_of_int8() -> None:
    broken_one = Departure(case="tiny", output="mask_logits", largest=float("inf"))
    assert broken(broken_one, measured_bounds([broken_one]))
