"""Backbones of timm under our heads; and what one is told where timm is missing or cannot do it."""

import builtins
from typing import Any

import pytest
import torch
from torch import nn

from veduta.models import MODELS, build_model, build_skeleton
from veduta.models.timm_backbone import TimmBackbone

HEADS = [name for name in MODELS if name.endswith("_timm")]

REASON = ""
try:
    import timm
except (ImportError, RuntimeError) as error:
    REASON = f"timm, the optional extra, cannot be imported: {error}"

needs_timm = pytest.mark.skipif(bool(REASON), reason=REASON)


def on_meta(name: str, output_stride: int = 32) -> TimmBackbone:
    with torch.device("meta"):
        return TimmBackbone(name, output_stride=output_stride).eval()


@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'timm'"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
@pytest.mark.parametrize("name", HEADS)
def test_without_timm_the_error_says_how_to_get_it(
    name: str, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def fails_for_timm(module: str, *args: Any, **kwargs: Any) -> Any:
        if module == "timm":
            raise failure
        return real_import(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fails_for_timm)
    with pytest.raises(ValueError, match=r"pip install 'veduta\[timm\]'.*torchvision.*built for torch \d") as caught:
        build_model(name, 5, backbone="resnet18")
    assert str(failure) in str(caught.value)


@pytest.mark.skipif(not REASON, reason="timm is there")
def test_here_without_timm_the_error_says_how_to_get_it() -> None:
    with pytest.raises(ValueError, match=r"timm cannot be imported.*pip install 'veduta\[timm\]'"):
        TimmBackbone("resnet18")


@pytest.mark.parametrize("name", HEADS)
def test_the_backbone_must_be_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}' needs the option 'backbone': name it in the recipe's model_options"):
        build_model(name, 5)


@needs_timm
@pytest.mark.parametrize(
    ("name", "output_stride"),
    [
        ("resnet18", 8),
        ("resnet18", 16),
        ("resnet18", 32),
        ("convnext_atto", 16),  # four maps where others have five
        ("xception41", 16),  # its maps come from hooks
        ("vgg11", 32),  # six maps
        ("mambaout_femto", 32),  # channels last
        ("swin_tiny_patch4_window7_224", 32),  # channels last, of images of one size where not told otherwise
    ],
)
def test_our_maps_are_timms_finest_first(name: str, output_stride: int) -> None:
    torch.manual_seed(0)
    ours = TimmBackbone(name, output_stride=output_stride).eval()
    options = {"output_stride": output_stride} if output_stride < 32 else {}
    if "swin" in name:
        options["strict_img_size"] = False
    theirs = timm.create_model(name, features_only=True, **options).eval()
    theirs.load_state_dict(ours.features.state_dict())
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        features, expected = ours(images), theirs(images)[-4:]
    if theirs.output_fmt == "NHWC":
        expected = [feature.permute(0, 3, 1, 2) for feature in expected]
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, 64 // stride, 96 // stride) for c, stride in zip(ours.out_channels, strides, strict=True)
    ]


@needs_timm
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "efficientnet_b0"])
def test_masks_have_the_size_of_the_image_whatever_it_is(name: str) -> None:
    model = build_skeleton("refinenet_timm", 5, backbone=name).to("meta").eval()
    for size in [(33, 33), (34, 51), (65, 97)]:
        assert model(torch.rand(1, 3, *size, device="meta"))["mask_logits"].shape == (1, 5, *size)


@needs_timm
@pytest.mark.parametrize(
    ("name", "finest"),
    [
        ("resnet18", [75, 38, 19, 10]),
        ("convnext_atto", [75, 37, 18, 9]),
        ("swin_tiny_patch4_window7_224", [75, 38, 19, 10]),
        ("mobilevitv2_050", [75, 38, 20, 10]),
    ],
)
@pytest.mark.parametrize("stride4", [True, False])
def test_blitznet_has_a_prior_for_every_box(name: str, finest: list[int], stride4: bool) -> None:
    model = build_skeleton("blitznet300_timm", 5, backbone=name, stride4=stride4).to("meta").eval()
    outputs = model(torch.rand(1, 3, 40, 60, device="meta"))
    sides = [*finest[0 if stride4 else 1 :], 5, 3, 1]
    count = 6 * sum(side**2 for side in sides)
    assert outputs["priors"].shape == (count, 4) and outputs["box_deltas"].shape == (1, count, 4)
    assert outputs["class_logits"].shape == (1, count, 5) and outputs["mask_logits"].shape == (1, 5, 40, 60)


@needs_timm
@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_of_the_backbone_learns(name: str) -> None:
    torch.manual_seed(0)
    model: Any = build_model(name, 5, backbone="resnet10t")
    assert model.training and model.backbone.training
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a zero gamma hides the rest of its block in the first step
    outputs = model(torch.rand(2, 3, 64, 96))
    sum(outputs[key].square().mean() for key in outputs if key != "priors").backward()
    parameters = dict(model.backbone.named_parameters(prefix="backbone"))
    assert parameters.keys() <= dict(model.named_parameters()).keys()
    assert [key for key, p in parameters.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


@needs_timm
def test_state_dict_names_are_those_of_timm_below_backbone() -> None:
    names = build_skeleton("refinenet_timm", 5, backbone="resnet18").state_dict().keys()
    theirs = timm.create_model("resnet18", features_only=True).state_dict().keys()
    assert {name for name in names if name.startswith("backbone.")} == {f"backbone.features.{name}" for name in theirs}


@needs_timm
@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("resnet18", (0.485, 0.456, 0.406)),
        ("xception41", (0.5, 0.5, 0.5)),
        ("efficientnet_b0.ra_in1k", (0.485, 0.456, 0.406)),
        ("tf_efficientnet_b0.ap_in1k", (0.5, 0.5, 0.5)),
        ("tf_efficientnet_b0.aa_in1k", (0.485, 0.456, 0.406)),  # the tag decides
    ],
)
def test_images_are_normalised_as_for_timms_weights(name: str, mean: tuple[float, ...]) -> None:
    model: Any = build_model("deeplabv3plus_timm", 5, backbone=name)
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor(mean))
    expected = (0.5, 0.5, 0.5) if mean[0] == 0.5 else (0.229, 0.224, 0.225)
    torch.testing.assert_close(model.normalize.std.flatten(), torch.tensor(expected))


@needs_timm
@pytest.mark.parametrize(
    ("name", "output_stride", "message"),
    [
        ("resnset50", 32, r"timm has no model 'resnset50'\. Nearest: resnet50, "),
        ("resnet50.a1_in2k", 32, r"timm has no model 'resnet50\.a1_in2k'\. Nearest: .*resnet50\.a1_in1k"),
        ("hf-hub:timm/resnet50.a1_in1k", 32, "timm has no model 'hf-hub:timm/resnet50"),  # nothing is downloaded
        ("vit_tiny_patch16_224", 32, r"strides 16, 16, 16; 4, 8, 16, 32 are needed: choose .*convnext_tiny"),
        ("levit_128s", 32, "levit_128s' gives .*needed"),
        ("swin_tiny_patch4_window7_224", 16, r"does not take output_stride=16; choose 32\. timm: .*output_stride"),
        ("vgg11", 16, r"does not take output_stride=16; choose 32\. timm: AssertionError"),
        ("resnet18", 12, "output_stride is 12; choose 8, 16 or 32"),
    ],
)
def test_what_timm_cannot_do_is_refused_by_name(name: str, output_stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_meta(name, output_stride)


@needs_timm
def test_a_backbone_for_one_image_size_is_refused_where_the_size_is_known() -> None:
    with pytest.raises(ValueError, match="'coat_tiny' does not take images of 300 x 300 pixels: .*224"):
        build_skeleton("blitznet300_timm", 5, backbone="coat_tiny")
