"""Contract of every entry of MODELS, and the exact sizes of the published networks."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from veduta.models import MODELS, build_loaded, build_model, build_skeleton, checked_options
from veduta.models.count import count_macs
from veduta.models.layers import Backbone, Normalize
from veduta.models.mobilenet_v2 import MobileNetV2
from veduta.models.published import PUBLISHED
from veduta.models.resnest import resnest50
from veduta.models.resnet import resnet18, resnet50

DEEPLABS = [name for name in MODELS if name.startswith("deeplab") and not name.endswith(("101", "200", "269"))]

SIZES = {  # trainable values and state-dict entries of the published classifiers, 1000 classes
    "resnet18": (11_689_512, 122),
    "resnet34": (21_797_672, 218),
    "resnet50": (25_557_032, 320),
    "resnet101": (44_549_160, 626),
    "resnet152": (60_192_808, 932),
    "resnest14": (10_611_688, 152),
    "resnest26": (17_069_448, 260),
    "resnest50": (27_483_240, 476),
    "resnest101": (48_275_016, 935),
    "resnest200": (70_201_544, 1826),
    "resnest269": (110_929_480, 2447),
    "resnest50_fast_1s1x64d": (26_217_896, 476),
    "resnest50_fast_2s1x64d": (27_483_240, 476),
    "resnest50_fast_4s1x64d": (31_912_712, 476),
    "resnest50_fast_1s2x40d": (25_946_680, 476),
    "resnest50_fast_2s2x40d": (26_943_792, 476),
    "resnest50_fast_4s2x40d": (30_417_592, 476),
    "resnest50_fast_1s4x24d": (25_677_000, 476),
    "mobilenet_v2": (3_504_872, 314),
}


OPTIONS = {  # what the builders need besides the number of classes
    "deeplabv3plus_timm": {"backbone": "resnet18"},
    "refinenet_timm": {"backbone": "resnet18"},
    "blitznet300_timm": {"backbone": "resnet18"},
}


@functools.cache
def on_meta(name: str, num_classes: int, **options: object) -> nn.Module:
    """The model without values: shapes and counts cost nothing, however large it is."""
    if name in OPTIONS:
        try:
            import timm  # noqa: F401
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"timm, the optional extra, cannot be imported: {error}")
    return build_skeleton(name, num_classes, **{**OPTIONS.get(name, {}), **options}).to("meta").eval()


@pytest.mark.parametrize("name", MODELS)
def test_outputs_have_the_promised_names_and_shapes(name: str) -> None:
    outputs = on_meta(name, 5)(torch.rand(2, 3, 65, 97, device="meta"))
    shapes = {key: tuple(value.shape) for key, value in outputs.items()}
    masks = {"mask_logits": (2, 5, 65, 97), "aux_mask_logits": (2, 5, 65, 97)}
    if "priors" in shapes:
        count = shapes["priors"][0]
        boxes = {"priors": (count, 4), "class_logits": (2, count, 5), "box_deltas": (2, count, 4)}
        assert shapes == {**boxes, "mask_logits": (2, 5, 65, 97)}
    else:
        assert shapes == {"class_logits": (2, 5)} or ("mask_logits" in shapes and shapes.items() <= masks.items())


@pytest.mark.parametrize("name", MODELS)
def test_models_take_any_size_from_33(name: str) -> None:
    for size in [(33, 33), (34, 51)]:
        outputs = on_meta(name, 5)(torch.rand(1, 3, *size, device="meta"))
        assert "mask_logits" not in outputs or outputs["mask_logits"].shape == (1, 5, *size)


@pytest.mark.parametrize("name", DEEPLABS)
def test_deeplabs_take_any_size_from_33_at_any_output_stride(name: str) -> None:
    for output_stride, size in [(8, (33, 33)), (16, (64, 47)), (32, (129, 98))]:
        model = on_meta(name, 5, output_stride=output_stride)
        assert model(torch.rand(1, 3, *size, device="meta"))["mask_logits"].shape == (1, 5, *size)


@pytest.mark.parametrize(
    "name",
    ["deeplabv3plus_tiny", "deeplabv3plus_mobilenet_v2", "refinenet_tiny", "blitznet_tiny", "resnet18", "resnest14"],
)
def test_a_fresh_model_gives_finite_numbers_of_moderate_size(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 5).eval()
    with torch.inference_mode():
        outputs = model(torch.rand(1, 3, 65, 97))
    assert all(values.isfinite().all() and values.abs().max() < 100 for values in outputs.values())


def test_every_model_is_listed_with_its_size() -> None:
    assert set(PUBLISHED) == {name for name in MODELS if not name.endswith("_timm")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_listed_size_is_that_of_the_model(name: str) -> None:
    published = PUBLISHED[name]
    model = on_meta(name, published.num_classes)
    assert sum(p.numel() for p in model.parameters()) == published.parameters
    macs = count_macs(model, (published.size, published.size))
    assert macs / 1e9 == pytest.approx(published.gmacs, abs=5e-5)


@pytest.mark.parametrize("name", SIZES)
def test_classifiers_have_the_published_sizes(name: str) -> None:
    model = on_meta(name, 1000)
    assert (sum(p.numel() for p in model.parameters()), len(model.state_dict())) == SIZES[name]


PARAMETERS = [  # model, classes, options, trainable values, with running statistics
    ("deeplabv3_resnest50", 19, {}, 43_929_254, None),
    ("deeplabv3_resnest101", 19, {}, 64_721_030, None),
    ("deeplabv3_resnest200", 19, {}, 86_647_558, None),
    ("deeplabv3_resnest269", 19, {}, 127_375_494, None),
    ("deeplabv3plus_xception41", 21, {}, 28_108_661, 28_241_573),
    ("deeplabv3plus_xception65", 21, {}, 41_055_413, 41_258_213),
    ("deeplabv3plus_xception65", 19, {}, 41_054_899, None),
    ("deeplabv3plus_xception71", 21, {}, 43_477_837, 43_694_413),
    ("deeplabv3_mobilenet_v2", 21, {}, 2_113_557, 2_146_645),
    ("refinenet_resnet50", 21, {}, 99_060_309, None),
    ("refinenet_resnet101", 21, {}, 118_052_437, 118_157_781),
    ("refinenet_resnet101", 19, {}, 118_047_827, None),
    ("refinenet_resnet152", 21, {}, 133_696_085, None),
    ("blitznet300", 21, {}, 59_379_951, 59_480_175),
    ("blitznet300", 21, {"stride4": False}, 58_330_841, 58_429_529),
    ("blitznet300", 81, {"shared_head": True}, 57_133_071, 57_233_295),
    ("blitznet512", 21, {}, 68_534_511, 68_647_023),
    ("blitznet512", 81, {"stride4": True}, 83_134_081, 83_248_129),
]


@pytest.mark.parametrize(("name", "num_classes", "options", "trainable", "all_values"), PARAMETERS)
def test_published_networks_have_the_published_number_of_parameters(
    name: str, num_classes: int, options: dict[str, object], trainable: int, all_values: int | None
) -> None:
    model = on_meta(name, num_classes, **options)
    assert sum(p.numel() for p in model.parameters()) == trainable
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert all_values is None or sum(value.numel() for value in state.values()) == all_values


def test_split_attention_of_each_variant_has_the_published_shapes() -> None:
    shapes = {name: tuple(value.shape) for name, value in on_meta("resnest50_fast_4s2x40d", 10).state_dict().items()}
    assert shapes["layer1.0.conv2.conv.weight"] == (320, 10, 3, 3) and shapes["layer1.0.conv2.fc1.weight"][:2] == (
        80,
        40,
    )
    assert shapes["layer4.0.conv2.conv.weight"] == (2560, 80, 3, 3)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("resnet18", ["conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.1.bias"]),
        ("resnet50", ["layer1.0.downsample.0.weight", "layer4.2.bn3.weight", "fc.bias"]),
        ("mobilenet_v2", ["features.0.0.weight", "features.1.conv.1.weight", "features.1.conv.2.bias"]),
        ("mobilenet_v2", ["features.17.conv.0.0.weight", "features.17.conv.3.bias", "features.18.1.weight"]),
        ("mobilenet_v2", ["classifier.1.weight"]),
    ],
)
def test_state_dict_names_are_torchvisions(name: str, keys: list[str]) -> None:
    assert set(keys) <= set(on_meta(name, 1000).state_dict())


def sizes(features: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(feature.shape[1:]) for feature in features]


@pytest.mark.parametrize("backbone", [resnet18, resnet50, resnest50, MobileNetV2])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_backbones_stop_striding_at_the_output_stride(backbone: Callable[..., Backbone], output_stride: int) -> None:
    with torch.device("meta"):
        model = backbone(output_stride=output_stride).eval()
        features = model(torch.rand(1, 3, 65, 97))
    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    expected = [(-(-65 // stride), -(-97 // stride)) for stride in strides]
    assert sizes(features) == [(c, *size) for c, size in zip(model.out_channels, expected, strict=True)]


@pytest.mark.parametrize("backbone", [resnet18, resnet50, MobileNetV2])
def test_dilation_computes_the_strided_features_at_the_strided_places(backbone: Callable[..., Backbone]) -> None:
    """With ResNeSt it does not: its strides are average pools."""
    torch.manual_seed(0)
    strided = backbone(output_stride=32).eval()
    for parameter in strided.parameters():
        nn.init.normal_(parameter, std=0.1)  # the zero gammas would hide the blocks
    dilated = backbone(output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    images = torch.rand(1, 3, 65, 97)
    with torch.inference_mode():
        coarse, fine = strided(images)[-1], dilated(images)[-1]
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse, rtol=1e-4, atol=1e-5)


def test_an_unknown_output_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="output_stride is 12; choose 8, 16 or 32"):
        build_model("deeplabv3plus_tiny", 5, output_stride=12)


def test_tiny_is_tiny_and_gives_every_parameter_a_gradient() -> None:
    torch.manual_seed(0)
    model = build_model("deeplabv3plus_tiny", 5)
    assert sum(p.numel() for p in model.parameters()) < 300_000
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a zero gamma hides the rest of its block in the first step
    model(torch.rand(2, 3, 65, 97))["mask_logits"].square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnest14"])
def test_residual_blocks_start_as_their_shortcut(name: str) -> None:
    model = build_model(name, 5)
    last = "bn2" if name == "resnet18" else "bn3"
    gammas = [p for n, p in model.named_parameters() if n.startswith("layer") and n.endswith(f".{last}.weight")]
    assert gammas
    assert not any(gamma.any() for gamma in gammas)


def test_normalize_is_the_published_one_and_not_in_the_state_dict() -> None:
    normalize = Normalize(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    assert normalize(images).flatten().tolist() == [-1.0, 1.0, 1.0]
    assert not normalize.state_dict()


def test_an_unknown_model_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no model 'resnset50'.*resnest50"):
        build_model("resnset50", 5)


def test_an_unknown_option_lists_those_of_the_model() -> None:
    with pytest.raises(
        ValueError, match=r"no option 'outputstride'.*output_stride, aux, pool_window\. Did you mean output_stride"
    ):
        build_model("deeplabv3_resnest50", 5, outputstride=8)
    with pytest.raises(ValueError, match=r"no option 'output_stride'\. It has none"):
        build_model("resnet50", 5, output_stride=8)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deeplabv3_resnest50", {"aux": "maybe"}, "option 'aux': .* got 'maybe'"),
        ("refinenet_resnet50", {"dropout": "abc"}, "option 'dropout': .* got 'abc'"),
        ("refinenet_resnet50", {"output_resize": "cubic"}, "'half_pixel' or 'legacy', got 'cubic'"),
        ("deeplabv3plus_tiny", {"output_stride": 8.5}, "option 'output_stride': .* got 8.5"),
        ("deeplabv3plus_tiny", {"num_classes": 0}, "option 'num_classes': .* greater than or equal to 1, got 0"),
    ],
)
def test_an_option_of_another_type_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_options(name, options)


@pytest.mark.parametrize("name", ["deeplabv3plus_tiny", "blitznet_tiny", "resnest14"])
def test_a_model_built_from_weights_equals_the_one_they_come_from(name: str) -> None:
    model, images = build_model(name, 5).eval(), torch.rand(1, 3, 40, 50)
    loaded = build_loaded(name, 5, model.state_dict()).eval()
    with torch.inference_mode():
        for key, value in model(images).items():
            assert torch.equal(loaded(images)[key], value)
    assert all(p.requires_grad for p in loaded.parameters())
    with pytest.raises(RuntimeError, match="size mismatch"):
        build_loaded(name, 6, model.state_dict())
