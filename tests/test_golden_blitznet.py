"""BlitzNet computes, matches, detects and learns as its reference implementation recorded it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rule
import torch
from golden_data import Golden, cut, recorded, to_unit
from torch import Tensor

from veduta.config import Optim
from veduta.engine.optim import build_optimizer
from veduta.legacy import from_arrays
from veduta.legacy.mapping import explain
from veduta.legacy.names_blitznet import tensorflow
from veduta.models.blitznet import BlitzNet
from veduta.ops.boxes import corners, decode, detect, encode, match
from veduta.ops.priors import SCALES, level_sizes, prior_boxes
from veduta.tasks.losses import cross_entropy
from veduta.tasks.multibox import assign, multibox_loss

NETWORKS = {"blitznet300_resnet50_x4": True, "blitznet300_resnet50_nox4": False}  # recording -> stride4

MODULES = {  # the reference's names of features -> ours
    "conv1": "backbone.bn1",
    "pool1": "backbone.maxpool",
    **{f"resnet_v1_50/block{i}": f"backbone.layer{i}" for i in range(1, 5)},
    **{f"ssd/block{i}": f"extra.block{i}" for i in range(5, 8)},
    **{f"ssd_back/block_rev{i}": f"up.rev{i}" for i in range(1, 7)},
}


def load(golden: Golden, *, stride4: bool) -> BlitzNet:
    model = from_arrays("blitznet300", golden.weights(), source="tensorflow", stride4=stride4)
    assert isinstance(model, BlitzNet)
    return model


@pytest.mark.parametrize("recording", NETWORKS)
def test_network_agrees_with_the_reference(recording: str) -> None:
    golden, stride4 = Golden(recording), NETWORKS[recording]
    model = load(golden, stride4=stride4)

    def part(name: str, output: Any) -> Tensor:
        if name == "conv1":
            return output.relu()
        return output[0] if isinstance(output, tuple) else output  # the up-stream's blocks also give their shortcut

    with torch.inference_mode(), recorded(model, golden, lambda name: MODULES.get(name, name), part) as found:
        outputs = model(golden.images())
        levels = model.pyramid(golden.images())
        masks = model.grid_mask_logits(levels)
    found["ssd/pool6"] = levels[-1]
    assert set(found) == set(golden.meta["features"])
    for name in golden.meta["features"]:
        golden.check("features", name, found[name])
    golden.check("outputs", "confidence", outputs["class_logits"])
    golden.check("outputs", "location", outputs["box_deltas"])
    golden.check("outputs", "segmentation", masks)
    for name, found_logits in (("confidence", outputs["class_logits"]), ("segmentation", masks.permute(0, 2, 3, 1))):
        part_of_it = cut(found_logits.numpy(), golden.meta["outputs"][name]["slice"])
        np.testing.assert_array_equal(part_of_it.argmax(-1), golden.arrays[f"out:{name}"].argmax(-1))


@pytest.fixture(scope="module")
def priors() -> Tensor:
    return prior_boxes(level_sizes(300, 4, 7), SCALES[300, 4])


@pytest.fixture(scope="module")
def matching() -> Golden:
    return Golden("blitznet300_x4_anchors_matching")


def test_priors_are_the_recorded_ones_bit_by_bit(priors: Tensor, matching: Golden) -> None:
    found = torch.cat([corners(priors)[:, :2], priors[:, 2:]], dim=1)
    np.testing.assert_array_equal(found.numpy(), matching.arrays["anchors"])


def xyxy(boxes_xywh: np.ndarray) -> Tensor:
    """float64, which holds width and height exactly."""
    boxes = torch.from_numpy(boxes_xywh).double()
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


@pytest.mark.parametrize("case", range(10))
def test_matching_and_encoding_are_the_recorded_ones(priors: Tensor, matching: Golden, case: int) -> None:
    recording = {k.removeprefix(f"case{case}_"): v for k, v in matching.arrays.items() if k.startswith(f"case{case}_")}
    boxes, classes = xyxy(recording["gt_boxes"]), torch.from_numpy(recording["gt_classes"])
    objects = match(priors, boxes)
    positive = (objects >= 0).nonzero()[:, 0]
    np.testing.assert_array_equal(positive.numpy(), recording["positive_anchors"])
    np.testing.assert_array_equal(classes[objects[positive]].numpy(), recording["classes"])
    deltas = encode(boxes[objects[positive]], priors[positive]).float()
    np.testing.assert_allclose(deltas.numpy(), recording["offsets"], rtol=1e-6, atol=2e-5)
    labels, targets = assign(priors, [boxes], [classes])
    np.testing.assert_array_equal(labels[0].nonzero()[:, 0].numpy(), recording["positive_anchors"])
    np.testing.assert_allclose(targets[0, positive].numpy(), recording["offsets"], rtol=1e-6, atol=2e-5)


def test_decoding_is_the_recorded_one(priors: Tensor, matching: Golden) -> None:
    deltas, rows = torch.from_numpy(matching.arrays["decode_offsets"]), matching.arrays["decode_anchor_index"]
    found = decode(deltas, priors[rows])[:, [1, 0, 3, 2]]
    np.testing.assert_allclose(found.numpy(), matching.arrays["decode_boxes_y1x1y2x2"], rtol=0, atol=5e-7)


@pytest.mark.parametrize("case", range(5))
def test_detections_are_the_recorded_ones(priors: Tensor, case: int) -> None:
    golden = Golden("blitznet300_x4_nms")
    rows, logits, deltas, (width, height), boxes, scores, classes = (
        golden.arrays[f"case{case}_{name}"]
        for name in ("rows", "logits", "offsets", "wh", "boxes", "scores", "classes")
    )
    class_logits, box_deltas = torch.zeros(len(priors), 21), torch.zeros(len(priors), 4)
    class_logits[:, 0] = 20
    class_logits[rows], box_deltas[rows] = torch.from_numpy(logits), torch.from_numpy(deltas)
    found = detect(class_logits, box_deltas, priors)
    np.testing.assert_allclose(found.scores.numpy(), scores, rtol=0, atol=1e-6)
    found_boxes = found.boxes.numpy() * [width, height, width, height]
    found_boxes[:, 2:] -= found_boxes[:, :2]
    found_rows = np.column_stack([found.labels.numpy(), found_boxes])
    expected_rows = np.column_stack([classes, boxes])
    for first in range(0, len(scores)):  # scores may be equal, and then the order is open
        equal = np.flatnonzero(np.abs(scores - scores[first]) < 1e-6)
        nearest = np.abs(found_rows[equal] - expected_rows[first]).max(axis=1).min()
        assert nearest < 1e-3


@pytest.mark.parametrize("case", range(4))
def test_losses_and_their_gradients_are_the_recorded_ones(case: int) -> None:
    golden = Golden("blitznet300_x4_loss")
    recording = {k.removeprefix(f"case{case}_"): v for k, v in golden.arrays.items() if k.startswith(f"case{case}_")}
    logits, deltas, mask_logits = (
        torch.from_numpy(recording[name]).requires_grad_() for name in ("confidence", "location", "seg_logits")
    )
    classes = torch.from_numpy(recording["classes"] * recording["positive"]).long()
    class_loss, box_loss = multibox_loss(logits, deltas, classes, torch.from_numpy(recording["offsets"]))
    mask_loss = cross_entropy(mask_logits.permute(0, 3, 1, 2), torch.from_numpy(recording["seg_labels"]))
    (class_loss + box_loss + mask_loss).backward()
    expected = dict(zip(recording["expected_names"].tolist(), recording["expected"].tolist(), strict=True))
    for name, loss in (("class", class_loss), ("bbox", box_loss), ("segmentation", mask_loss)):
        assert loss.item() == pytest.approx(expected[f"loss/{name}"], rel=1e-6)
    for name, leaf in (("confidence", logits), ("location", deltas), ("seg_logits", mask_logits)):
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), recording[f"grad_{name}"], rtol=1e-5, atol=1e-7)


def test_two_training_steps_agree_with_the_reference(priors: Tensor) -> None:
    """The recording asks for 1e-4 of the first losses and a few per cent of the norms of gradients.

    BatchNorm over the eight values of a channel at the coarsest grid makes all that comes before it sensitive to
    rounding, and Adam's first steps turn the sign of the smallest gradient into a whole step: later on, medians count.
    """
    golden = Golden("blitznet300_train")
    meta = golden.meta
    model = load(golden, stride4=True).train()
    optim = Optim(name="adam", lr=meta["lr"], weight_decay=meta["weight_decay"])
    optimizer = build_optimizer(model, optim, fused=False)
    images = torch.cat([to_unit(rule.image_u8(421 + k, (300, 300, 3))) for k in range(2)])
    masks = torch.from_numpy(np.stack([rule.labels(431 + k, (75, 75), 21) for k in range(2)]))
    boxes = [xyxy(np.array(boxes, np.float32)) for boxes in meta["inputs"]["boxes_xywh"]]
    targets = assign(priors, boxes, [torch.tensor(classes) for classes in meta["inputs"]["classes"]])
    assert (targets[0] > 0).sum(dim=1).tolist() == meta["positives"]
    named = dict(named_as_recorded(model, golden))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    assert len(decayed) == len(meta["regularised"])

    for step in range(meta["steps"]):
        outputs = model(images)
        class_loss, box_loss = multibox_loss(outputs["class_logits"], outputs["box_deltas"], *targets)
        mask_loss = cross_entropy(outputs["mask_logits"], masks)
        optimizer.zero_grad()
        (class_loss + box_loss + mask_loss).backward()
        expected = dict(zip(meta["loss_names"], golden.arrays["losses"][step].tolist(), strict=True))
        for name, loss in (("class", class_loss), ("bbox", box_loss), ("segmentation", mask_loss)):
            assert loss.item() == pytest.approx(expected[f"loss/{name}"], rel=1e-4 if step == 0 else 0.05)
        decay = meta["weight_decay"] / 2 * sum(p.detach().square().sum().item() for p in decayed)
        assert decay == pytest.approx(expected["loss/weight_decay"], rel=1e-5)
        if step == 0:
            check_gradients(named, golden)
        optimizer.step()

    before = golden.weights()
    for key, after in golden.arrays.items():
        name = key.removeprefix("after:")
        if name == key or not after.any():  # the finest level has no positive, so its box head does not move
            continue
        found = named[name].detach().numpy()
        if "moving" in name:  # what the two batches added
            added = (found - 0.81 * before[name]) / (after - 0.81 * before[name])
            assert np.median(added) == pytest.approx(1, abs=0.02)
        else:
            assert np.median(np.abs(found - after)) < 0.25 * 2 * meta["lr"]


def check_gradients(named: dict[str, Tensor], golden: Golden) -> None:
    """Norms of all gradients, weight decay included, and the gradients of the heads' biases, of the first step."""
    gradients = {name: value.grad for name, value in named.items() if value.grad is not None}
    assert set(gradients) == set(golden.meta["trainable"])
    decay = golden.meta["weight_decay"]
    norms = [
        (gradients[name] + (decay * named[name].detach() if name.endswith("/weights") else 0)).norm().item()
        for name in golden.meta["trainable"]
    ]
    np.testing.assert_allclose(norms, golden.arrays["gradient_norms0"], rtol=0.03, atol=1e-6)
    for key, expected in golden.arrays.items():
        if key.startswith(("gradient:ssd/location", "gradient:ssd/confidence")):
            found = gradients[key.removeprefix("gradient:")].numpy()
            np.testing.assert_allclose(found, expected, atol=3e-3 * np.abs(expected).max(), err_msg=key)


def named_as_recorded(model: BlitzNet, golden: Golden) -> Iterator[tuple[str, Tensor]]:
    """Parameters and running statistics by the names of the recording."""
    ours = model.state_dict(keep_vars=True)
    _, targets = explain([name for name, _ in golden.meta["parameters"]], tensorflow(7))
    for name, sources in targets.items():
        yield sources[0][0], ours[name]
