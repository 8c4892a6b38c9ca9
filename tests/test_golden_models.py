"""The published networks compute what their reference implementations computed, through the import of their names."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rule
import torch
from golden_data import FOLDER, Golden, cut, recorded
from numpy.typing import NDArray
from torch import Tensor, nn

from veduta.backends.torch import TorchBackend
from veduta.config import Data
from veduta.data.label_maps import VOC
from veduta.engine.multi_scale import DeepLab
from veduta.engine.predictor import Predictor
from veduta.engine.protocols import DEEPLAB_SCALES
from veduta.legacy import from_arrays
from veduta.model_info import ModelInfo
from veduta.models import resnest
from veduta.models.deeplab import DeepLabV3Plus
from veduta.models.refinenet import RefineNet
from veduta.models.xception import Xception
from veduta.recipes import find_recipe

WORKSHOP = Path(__file__).parents[2] / "shared" / "golden"

FAST = ("1s1x64d", "2s1x64d", "4s1x64d", "1s2x40d", "2s2x40d", "4s2x40d", "1s4x24d")
CLASSIFIERS = {  # recording -> model, source
    "resnest50": ("resnest50", "zhanghang"),
    "resnest101": ("resnest101", "zhanghang"),
    "timm_resnest14d": ("resnest14", "timm"),
    "timm_resnest26d": ("resnest26", "timm"),
    "ms_resnest50": ("resnest50", "mindspore"),
    **{f"resnest50_fast_{fast}": (f"resnest50_fast_{fast}", "zhanghang") for fast in FAST},
}
BACKBONES = {"resnest50_os8": 8, "resnest50_os16": 16}
DEEPLABV3 = ("deeplabv3_resnest50_citys",)
REFINENETS = {
    "refinenet101_voc": "drsleep",
    "refinenet101_voc_odd": "drsleep",
    "ms_refinenet101_129": "mindspore",
    "ms_refinenet101_even": "mindspore",
}
XCEPTIONS = {  # recording -> Xception's depth, output stride
    "deeplabv3plus_xception65_os16_129": (65, 16),
    "deeplabv3plus_xception65_os8_129": (65, 8),
    "deeplabv3plus_xception65_os16_513": (65, 16),
    "deeplabv3plus_xception65_os8_513": (65, 8),
    "deeplabv3plus_xception41_os16_129": (41, 16),
    "deeplabv3plus_xception71_os16_129": (71, 16),
}
MOBILE = "deeplabv3_mobilenetv2_os16_129"
MULTISCALE = "deeplabv3plus_xception65_os8_multiscale"
ELSEWHERE = {"blitznet300_resnet50_x4", "blitznet300_resnet50_nox4"}  # test_golden_blitznet.py

# The references' names of modules -> ours, where a recording names a feature by its module.
RENAMED = {
    "avd_layer|avd_last": "pool",
    r"^pretrained\.": "backbone.",
    r"^head\.aspp\.b([0-3])": r"aspp.branches.\1",
    r"^head\.aspp\.project": "aspp.project",
    r"^head\.block\.2$": "head.1",
    r"^auxlayer$": "aux_head",
}
REFINENET_MODULES = {
    r"^(conv1|maxpool|layer\d)$": r"backbone.\1",
    r"^p_ims1d2_outl(\d)_dimred$": r"paths.\1.reduce",
    r"^adapt_stage(\d)_b$": r"paths.\1.adapt",
    r"^adapt_stage(\d)_b2_joint_varout_dimred$": r"paths.\1.fuse",
    r"^mflow_conv_g(\d)_pool$": r"paths.\1.pool",
    r"^mflow_conv_g(\d)_b$": r"paths.\1.refine",
    r"^mflow_conv_g(\d)_b3_joint_varout_dimred$": r"paths.\1.pass_on",
    "^clf_conv$": "head",
}
DEEPLAB_MODULES = {
    "^input_normalised$": "normalize",
    r"^conv1_(\d)$": r"backbone.conv\1",
    r"^(entry|exit)_flow_block(\d)$": r"backbone.\1.\2",
    "^middle_flow_unit_1$": "backbone.middle.1",
    "^image_pooling$": "aspp.pooling",
    r"^aspp(\d)$": r"aspp.branches.\1",
    "^aspp_projection$": "aspp.project",
    "^decoder_low_level$": "low_level",
    r"^decoder_conv(\d)$": r"decoder.\1",
}


def renamed(name: str, rules: dict[str, str]) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def resnet_name(name: str) -> str:
    return renamed(name, RENAMED)


def counted_from_0(name: str) -> str:
    return re.sub(r"(paths|entry|exit|middle)\.(\d+)", lambda m: f"{m[1]}.{int(m[2]) - 1}", name)


def refinenet_name(name: str) -> str:
    return counted_from_0(renamed(name, REFINENET_MODULES))


def check_features(
    model: nn.Module,
    golden: Golden,
    rename: Callable[[str], str],
    part: Callable[[str, Any], Tensor] = lambda name, output: output,
    *,
    at_least: int,
) -> Any:
    """Run the recording's input, compare every feature in order, return the outputs."""
    with recorded(model, golden, rename, part) as found, torch.inference_mode():
        outputs = model(golden.images())
    assert len(found) >= at_least
    for name in golden.meta["features"]:
        if name in found:
            golden.check("features", name, found[name])
    return outputs


def test_every_recorded_network_is_covered() -> None:
    networks = set()
    for path in FOLDER.glob("*.npz"):
        meta = Golden(path.stem).meta if "meta" in np.load(path) else {}
        if "features" in meta or "eval_scales" in meta:
            networks.add(path.stem)
    covered = {*CLASSIFIERS, *BACKBONES, *DEEPLABV3, *REFINENETS, *XCEPTIONS, MOBILE, MULTISCALE, *ELSEWHERE}
    assert networks == covered


@pytest.mark.skipif(not WORKSHOP.is_dir(), reason="the recordings' own folder is not beside this repository")
def test_every_recording_of_a_network_is_here() -> None:
    recorded_there = {path.stem for path in WORKSHOP.glob("*.npz") if "feat:" in " ".join(np.load(path).files)}
    assert recorded_there and recorded_there <= {path.stem for path in FOLDER.glob("*.npz")}


@pytest.mark.parametrize("recording", CLASSIFIERS)
def test_resnest_classifiers_agree_with_the_reference(recording: str) -> None:
    golden = Golden(recording)
    name, source = CLASSIFIERS[recording]
    model = from_arrays(name, golden.weights(), source=source)
    model.normalize = nn.Identity()  # the recorded input is normalised already
    outputs = check_features(model, golden, resnet_name, at_least=8)["class_logits"]
    golden.check("outputs", "logits", outputs)
    assert outputs.argmax(1).tolist() == golden.arrays["out:logits"].argmax(1).tolist()


@pytest.mark.parametrize("recording", BACKBONES)
def test_dilated_resnest_agrees_with_the_authors_release(recording: str) -> None:
    golden = Golden(recording)
    model = resnest.resnest50(output_stride=BACKBONES[recording]).eval()
    weights = golden.weights().items()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights if not name.startswith("fc.")})
    outputs = check_features(model, golden, resnet_name, at_least=14)
    for name, output in zip(("c1", "c2", "c3", "c4"), outputs, strict=True):
        golden.check("outputs", name, output)


@pytest.mark.parametrize("recording", DEEPLABV3)
def test_deeplabv3_resnest_agrees_with_the_reference(recording: str) -> None:
    golden = Golden(recording)
    model = from_arrays("deeplabv3_resnest50", golden.weights(), source="encoding")
    model.normalize = nn.Identity()
    outputs = check_features(model, golden, resnet_name, at_least=12)
    golden.check("outputs", "main", outputs["mask_logits"])
    golden.check("outputs", "aux", outputs["aux_mask_logits"])


@pytest.mark.parametrize("recording", REFINENETS)
def test_refinenet_agrees_with_the_reference(recording: str) -> None:
    golden, source = Golden(recording), REFINENETS[recording]
    model = from_arrays("refinenet_resnet101", golden.weights(), source=source)
    model.normalize = nn.Identity()
    outputs = check_features(model, golden, refinenet_name, at_least=len(golden.meta["features"]))
    if source == "mindspore":  # resizes inside the network, the other leaves it to its user
        golden.check("outputs", "logits", outputs["mask_logits"])
    else:
        assert isinstance(model, RefineNet)
        with torch.inference_mode():
            golden.check("outputs", "logits", model.logits(golden.images()))


@pytest.mark.parametrize("recording", XCEPTIONS)
def test_deeplabv3plus_xception_agrees_with_the_reference(recording: str) -> None:
    golden = Golden(recording)
    depth, output_stride = XCEPTIONS[recording]
    model = from_arrays(
        f"deeplabv3plus_xception{depth}", golden.weights(), source="tensorflow", output_stride=output_stride
    )
    assert isinstance(model, DeepLabV3Plus) and isinstance(model.backbone, Xception)
    places = {"low_level": f"backbone.entry.{2 if depth == 71 else 1}", "middle_flow": "backbone.middle.%d"}
    places["middle_flow"] %= len(model.backbone.middle) - 1

    def rename(name: str) -> str:
        return places.get(name) or counted_from_0(renamed(name, DEEPLAB_MODULES))

    def part(name: str, output: Any) -> Tensor:
        return output[0 if name == "low_level" else 1] if isinstance(output, tuple) else output

    outputs = check_features(model, golden, rename, part, at_least=len(golden.meta["features"]))
    with torch.inference_mode():
        logits = model.decode(model.backbone(model.normalize(golden.images())))
    golden.check("outputs", "logits", logits)
    golden.check("outputs", "logits_upsampled", outputs["mask_logits"])
    check_classes(golden, outputs["mask_logits"])


def test_the_mobile_form_agrees_with_the_reference() -> None:
    golden = Golden(MOBILE)
    model = from_arrays("deeplabv3_mobilenet_v2", golden.weights(), source="tensorflow")

    def rename(name: str) -> str:
        return renamed(name, {r"^layer_(\d+)$": r"backbone.features.\1", **DEEPLAB_MODULES})

    def one_less(name: str) -> str:
        return re.sub(r"features\.(\d+)", lambda m: f"features.{int(m[1]) - 1}", rename(name))

    outputs = check_features(model, golden, one_less, at_least=len(golden.meta["features"]))
    golden.check("outputs", "logits_upsampled", outputs["mask_logits"])
    check_classes(golden, outputs["mask_logits"])


def check_classes(golden: Golden, logits: Tensor) -> None:
    """Arg-max equal, but where two logits are as good as equal."""
    top = logits.topk(2, dim=1).values[0]
    sure = (top[0] - top[1] > 1e-5 * logits.abs().max()).numpy()
    assert sure.mean() > 0.999
    np.testing.assert_array_equal(logits.argmax(1)[0].numpy()[sure], golden.arrays["out:prediction"][sure])


def test_the_multi_scale_average_of_deeplab_agrees_with_the_reference() -> None:
    """Six scales and their mirror images: soft-max of each at the size of the image, then the mean."""
    golden = Golden(MULTISCALE)
    parameters = Golden("deeplabv3plus_xception65_os8_129")
    weights = {name: rule.fill(name, shape, gain=1.15) for name, shape in parameters.meta["parameters"]}
    model = from_arrays("deeplabv3plus_xception65", weights, source="tensorflow", output_stride=8)
    recipe = replace(
        find_recipe("deeplabv3plus-xception65-voc"),
        data=Data(dataset="voc", crop_size=(97, 129)),
        model_options={"output_stride": 8},
        protocol="deeplab-multiscale",
    )
    predictor = Predictor(TorchBackend(model, ModelInfo(recipe=recipe, labels=VOC, step=1), torch.device("cpu")))
    image, scales = rule.image_u8(15, (97, 129, 3)), tuple(golden.meta["eval_scales"])
    assert scales == DEEPLAB_SCALES

    def probabilities(scale: float, image: NDArray[np.uint8]) -> Tensor:
        assert isinstance(predictor.show, DeepLab)
        show = replace(predictor.show, scales=(scale,), mirrored=False)
        (outputs,) = show(predictor.backend, predictor.task, [image])
        return outputs["mask_logits"].exp()  # soft-max would change nothing: they sum to 1

    maps = []
    for scale in scales:
        maps += [probabilities(scale, image), probabilities(scale, image[:, ::-1]).flip(-1)]
    mean = torch.stack(maps).mean(0)
    for name, found in (
        ("probability_mean", mean.permute(0, 2, 3, 1)),
        ("probabilities_each", torch.stack(maps, -1).permute(0, 2, 3, 1, 4)),
    ):
        info = golden.meta["tensors"][name]
        part = cut(found.numpy(), info["slicing"])
        np.testing.assert_allclose(part, golden.arrays[name], rtol=1e-4, atol=1e-4 * info["absmax"], err_msg=name)
    (prediction,) = predictor([image])
    np.testing.assert_array_equal(prediction.mask, golden.arrays["prediction"])
