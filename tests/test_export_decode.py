"""Decoding inside an exported file gives what the tasks make of the same outputs, in ONNX Runtime and in OpenVINO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from veduta.backends.openvino import load_openvino, mend, open_core
from veduta.config import TaskName
from veduta.export.decode import add_decoding
from veduta.ops.boxes import detect
from veduta.ops.detections import KEPT_PER_IMAGE
from veduta.ops.priors import prior_boxes
from veduta.tasks.decoded import read_decoded
from veduta.tasks.prediction import Prediction

Floats = NDArray[np.float32]
Run = Callable[[Floats, Floats, Floats], dict[str, NDArray[Any]]]

PRIORS = prior_boxes((8, 4, 2, 1), (0.1, 0.22, 0.42, 0.7, 1.0)).numpy()
CLASSES = 6
HEIGHT, WIDTH = 9, 13
OUTPUTS = ["boxes", "box_classes", "box_scores", "box_counts", "mask"]
ROUNDING = 1e-6  # of scores


def with_outputs(text: str, task: TaskName, **constants: Floats) -> bytes:
    """A graph in ONNX's own notation and its constants -> serialised, decoding added."""
    graph = parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    plain = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    full = add_decoding(plain, task)
    onnx.checker.check_model(full, full_check=True)
    return full.SerializeToString()


def runner(network: bytes, runtime: str) -> Callable[..., dict[str, NDArray[Any]]]:
    """A network in a runtime, called with its inputs in order."""
    if runtime == "onnx":
        session = onnxruntime.InferenceSession(network)
        names = [output.name for output in session.get_outputs()]
        inputs = [each.name for each in session.get_inputs()]
        return lambda *arrays: dict(zip(names, session.run(None, dict(zip(inputs, arrays, strict=True))), strict=True))
    core = open_core(load_openvino(Path("network")))
    model = core.read_model(network)
    mend(model)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *arrays: {output.any_name: array for output, array in compiled(arrays).items()}


def detector(runtime: str, priors: Floats = PRIORS, classes: int = CLASSES) -> Run:
    """Decodes class_logits, box_deltas and mask_logits as they are given."""
    count = len(priors)
    text = f"""detect (float[N, {count}, {classes}] logits, float[N, {count}, 4] deltas, float[N, {classes}, H, W] grid)
        => (float[N, {count}, {classes}] class_logits, float[N, {count}, 4] box_deltas, float[{count}, 4] priors,
            float[N, {classes}, H, W] mask_logits)
    {{ class_logits = Identity(logits) box_deltas = Identity(deltas) priors = Identity(grid_priors)
       mask_logits = Identity(grid) }}"""
    return runner(with_outputs(text, "detect_segment", grid_priors=priors), runtime)


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def run(request: pytest.FixtureRequest) -> Run:
    return detector(request.param)


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Floats:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def masks_like(logits: Floats, seed: int = 0) -> Floats:
    return drawn(seed, len(logits), logits.shape[2], HEIGHT, WIDTH)


def tied(seed: int, images: int) -> tuple[Floats, Floats]:
    """Logits and deltas of so few values that most scores and many boxes are equal.

    Logits 200 apart: probabilities are 1 over a count, whatever the order in which a runtime sums them.
    """
    rng = np.random.default_rng(seed)
    logits = 200.0 * rng.integers(0, 2, (images, len(PRIORS), CLASSES))
    return logits.astype(np.float32), rng.integers(-1, 2, (images, len(PRIORS), 4)).astype(np.float32)


def crowded(seed: int, images: int) -> tuple[Floats, Floats]:
    """All priors say that there is one of every class in the middle."""
    target = np.array([0.5, 0.5, 0.3, 0.3], np.float32)
    deltas = np.concatenate(
        [(target[:2] - PRIORS[:, :2]) / PRIORS[:, 2:] / 0.1, np.log(target[2:] / PRIORS[:, 2:]) / 0.2], 1
    )
    logits = drawn(seed, images, len(PRIORS), CLASSES)
    logits[..., 0] = -5
    return logits, drawn(seed + 1, images, len(PRIORS), 4, scale=0.5) + deltas.astype(np.float32)


def check(run: Run, logits: Floats, deltas: Floats, priors: Floats = PRIORS) -> list[Prediction]:
    """Compare with `detect`, image by image; returns what was read."""
    grid = masks_like(logits)
    outputs = run(logits, deltas, grid)
    found = read_decoded(outputs)
    size = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
    for i, prediction in enumerate(found):
        expected = detect(torch.from_numpy(logits[i]), torch.from_numpy(deltas[i]), torch.from_numpy(priors))
        assert prediction.boxes is not None and prediction.box_scores is not None
        np.testing.assert_array_equal(prediction.box_classes, expected.labels.numpy())
        np.testing.assert_allclose(prediction.box_scores, expected.scores.numpy(), rtol=0, atol=ROUNDING)
        expected_boxes: Floats = expected.boxes.numpy() * size
        np.testing.assert_allclose(prediction.boxes, expected_boxes, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(prediction.mask, grid[i].argmax(axis=0))
        beyond = int(outputs["box_counts"][i])
        assert not any(outputs[name][i, beyond:].any() for name in OUTPUTS[:3])
    return found


@pytest.mark.parametrize("images", [1, 3])
def test_detections_are_those_of_the_network_that_was_exported(run: Run, images: int) -> None:
    for seed in range(3):
        logits, deltas = drawn(seed, images, len(PRIORS), CLASSES, scale=2), drawn(9, images, len(PRIORS), 4)
        check(run, logits, deltas)


def test_of_equal_scores_the_lower_class_and_then_the_lower_prior_comes_first(run: Run) -> None:
    for seed in range(3):
        check(run, *tied(seed, 2))
    nothing = np.zeros((2, len(PRIORS), CLASSES), np.float32)
    check(run, nothing, np.zeros((2, len(PRIORS), 4), np.float32))


def test_boxes_that_crowd_suppress_each_other(run: Run) -> None:
    for prediction in check(run, *crowded(0, 2)):
        assert prediction.boxes is not None and 0 < len(prediction.boxes) < 20 * CLASSES


def test_an_image_without_anything_in_it_has_no_boxes_and_leaves_the_others_theirs(run: Run) -> None:
    logits, deltas = drawn(0, 3, len(PRIORS), CLASSES, scale=2), drawn(1, 3, len(PRIORS), 4)
    logits[1, :, 0] = 20
    counts = [len(prediction.boxes) for prediction in check(run, logits, deltas) if prediction.boxes is not None]
    assert counts[1] == 0 and counts[0] and counts[2]
    logits[:, :, 0] = 20
    check(run, logits, deltas)


def test_boxes_outside_of_the_image_suppress_none(run: Run) -> None:
    """Their right edge, cut at that of the image, lies left of their left one."""
    logits, deltas = drawn(0, 1, len(PRIORS), CLASSES, scale=2), np.zeros((1, len(PRIORS), 4), np.float32)
    deltas[..., 0] = 12 * drawn(1, 1, len(PRIORS)) ** 2
    (prediction,) = check(run, logits, deltas)
    assert prediction.boxes is not None and (prediction.boxes[:, 2] < prediction.boxes[:, 0]).sum() > 10


def test_scores_of_one_percent_and_less_are_no_detections(run: Run) -> None:
    """Soft-max of a logit that is log(99) lower than the background's is one percent."""
    logits = np.full((1, len(PRIORS), CLASSES), -90, np.float32)
    logits[..., 0] = 0
    logits[0, :, 1] = -np.log(99) + np.linspace(-1e-3, 1e-3, len(PRIORS), dtype=np.float32)
    (prediction,) = check(run, logits, np.zeros((1, len(PRIORS), 4), np.float32))
    assert prediction.box_scores is not None and len(prediction.box_scores) and prediction.box_scores.min() > 0.01


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_detector_of_few_priors_fills_its_rows_up_with_zeros(runtime: str) -> None:
    priors = prior_boxes((2, 1), (0.2, 0.4, 0.7)).numpy()
    run = detector(runtime, priors, classes=3)
    logits, deltas = drawn(0, 2, len(priors), 3), drawn(1, 2, len(priors), 4)
    check(run, logits, deltas, priors)
    assert run(logits, deltas, masks_like(logits))["boxes"].shape == (2, KEPT_PER_IMAGE, 4)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_types_and_order_of_the_outputs_are_those_that_are_promised(runtime: str) -> None:
    logits = drawn(0, 1, len(PRIORS), CLASSES)
    outputs = detector(runtime)(logits, drawn(0, 1, len(PRIORS), 4), masks_like(logits))
    types = {name: str(array.dtype) for name, array in outputs.items()}
    assert list(types) == OUTPUTS
    assert types == dict(zip(OUTPUTS, ("float32", "int64", "float32", "int64", "uint8"), strict=True))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_mask_takes_of_equal_logits_the_first(runtime: str) -> None:
    text = "s (float[N, 4, H, W] x) => (float[N, 4, H, W] mask_logits) { mask_logits = Identity(x) }"
    run = runner(with_outputs(text, "segment"), runtime)
    logits = drawn(0, 2, 4, HEIGHT, WIDTH).round()
    (mask,) = run(logits).values()
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, logits.argmax(axis=1))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("classes", [3, 12])
def test_a_classifier_names_its_best_classes_and_of_equals_the_first(runtime: str, classes: int) -> None:
    text = f"c (float[N, {classes}] x) => (float[N, {classes}] class_logits) {{ class_logits = Identity(x) }}"
    run = runner(with_outputs(text, "classify"), runtime)
    logits = drawn(0, 3, classes)
    logits[1] = logits[1].round()
    logits[2] = 0
    outputs = run(logits)
    scores = torch.from_numpy(logits).softmax(dim=1).numpy()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert list(outputs) == ["class_scores", "top_classes", "top_scores"]
    np.testing.assert_allclose(outputs["class_scores"], scores, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(outputs["top_classes"], order)
    np.testing.assert_array_equal(outputs["top_scores"], np.take_along_axis(outputs["class_scores"], order, axis=1))
