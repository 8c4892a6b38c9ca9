"""The published networks compute what their reference implementations computed."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_data import Golden, recorded
from torch import nn

from veduta.models import build_model, resnest

FAST = ("1s1x64d", "2s1x64d", "4s1x64d", "1s2x40d", "2s2x40d", "4s2x40d", "1s4x24d")
CLASSIFIERS = {
    "resnest50": "resnest50",
    "resnest101": "resnest101",
    "timm_resnest14d": "resnest14",
    "timm_resnest26d": "resnest26",
    **{f"resnest50_fast_{fast}": f"resnest50_fast_{fast}" for fast in FAST},
}

# The reference's names of DeepLabV3 -> ours.
DEEPLAB_NAMES = {
    r"^pretrained\.": "backbone.",
    r"^head\.aspp\.b([0-3])": r"aspp.branches.\1",
    r"^head\.aspp\.b4\.gap\.1": "aspp.pooling.0",
    r"^head\.aspp\.b4\.gap\.2": "aspp.pooling.1",
    r"^head\.aspp\.project": "aspp.project",
    r"^head\.block\.2$": "head.1",
    r"^head\.block\.([01])\.": r"head.1.\1.",
    r"^head\.block\.4": "head.3",
    r"^auxlayer\.conv5\.([01])\.": r"aux_head.0.\1.",
    r"^auxlayer\.conv5\.4": "aux_head.2",
    r"^auxlayer$": "aux_head",
}


def resnest_name(name: str) -> str:
    return re.sub("avd_layer|avd_last", "pool", name)


def deeplab_name(name: str) -> str:
    for pattern, replacement in DEEPLAB_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def check_features(model: nn.Module, golden: Golden, rename: Callable[[str], str], at_least: int) -> Any:
    """Run the recording's input, compare every feature in order, return the outputs."""
    with recorded(model.eval(), golden, rename) as found, torch.inference_mode():
        outputs = model(golden.images())
    assert len(found) >= at_least
    for name in found:
        golden.check("features", name, found[name])
    return outputs


@pytest.mark.parametrize("recording", CLASSIFIERS)
def test_resnest_classifiers_agree_with_the_reference(recording: str) -> None:
    golden = Golden(recording)
    model = build_model(CLASSIFIERS[recording], 1000)
    model.load_state_dict(golden.weights())
    model.normalize = nn.Identity()  # the recorded input is normalised already
    outputs = check_features(model, golden, resnest_name, at_least=8)
    golden.check("outputs", "logits", outputs["class_logits"])


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_resnest_agrees_with_the_authors_release(output_stride: int) -> None:
    golden = Golden(f"resnest50_os{output_stride}")
    model = resnest.resnest50(output_stride=output_stride)
    model.load_state_dict({name: value for name, value in golden.weights().items() if not name.startswith("fc.")})
    outputs = check_features(model, golden, resnest_name, at_least=14)
    for name, output in zip(("c1", "c2", "c3", "c4"), outputs, strict=True):
        golden.check("outputs", name, output)


def test_deeplabv3_resnest_agrees_with_the_reference() -> None:
    golden = Golden("deeplabv3_resnest50_citys")
    model = build_model("deeplabv3_resnest50", 19)
    model.load_state_dict({deeplab_name(name): value for name, value in golden.weights().items()})
    model.normalize = nn.Identity()
    outputs = check_features(model, golden, deeplab_name, at_least=12)
    golden.check("outputs", "main", outputs["mask_logits"])
    golden.check("outputs", "aux", outputs["aux_mask_logits"])
