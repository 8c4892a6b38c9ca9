"""Old names of DeepLabV3+ (TensorFlow's research/deeplab) and of DeepLabV3 on ResNeSt (PyTorch-Encoding)."""

from veduta.legacy.mapping import Rule, dropped, hwio_pool_last, tf_conv, tf_depthwise


def _separable(scope: str, module: str) -> tuple[Rule, ...]:
    """Depthwise and pointwise convolution of DeepLab's head, each with its BatchNorm."""
    return (
        *tf_depthwise(f"{scope}_depthwise", f"{module}.0.0", f"{module}.0.1"),
        *tf_conv(f"{scope}_pointwise", f"{module}.1.0", f"{module}.1.1"),
    )


def _xception(flow: str, block: str, module: str) -> tuple[Rule, ...]:
    """Blocks of one flow: `block` matches the end of their scope, `module` is the template of our name."""
    scope = rf"xception_\d\d/{flow}/{block}/xception_module"
    unit = rf"{module}.conv\2"
    return (
        *tf_depthwise(rf"{scope}/separable_conv(\d)_depthwise", f"{unit}.depthwise", f"{unit}.bn1"),
        *tf_conv(rf"{scope}/separable_conv(\d)_pointwise", f"{unit}.pointwise", f"{unit}.bn2"),
        *tf_conv(rf"{scope}/shortcut", f"{module}.shortcut.0", f"{module}.shortcut.1"),
    )


_HEAD = (
    *tf_conv("image_pooling", "aspp.pooling.0", "aspp.pooling.1"),
    *tf_conv("aspp0", "aspp.branches.0.0", "aspp.branches.0.1"),
    *tf_conv("concat_projection", "aspp.project.0", "aspp.project.1", change=hwio_pool_last),
    *tf_conv("logits/semantic", "head"),
)

XCEPTION = (
    *tf_conv(r"xception_\d\d/entry_flow/conv1_(\d)", r"backbone.conv\1.0", r"backbone.conv\1.1"),
    *_xception("entry_flow", r"block(\d)/unit_1", r"backbone.entry.<\1-1>"),
    *_xception("middle_flow", r"block1/unit_(\d+)", r"backbone.middle.<\1-1>"),
    *_xception("exit_flow", r"block(\d)/unit_1", r"backbone.exit.<\1-1>"),
    *_HEAD,
    *_separable(r"aspp([1-3])", r"aspp.branches.\1"),
    *tf_conv("decoder/feature_projection0", "low_level.0", "low_level.1"),
    *_separable(r"decoder/decoder_conv([01])", r"decoder.\1"),
    dropped(r"xception_\d\d/logits/(?:weights|biases)", "dropped: the classifier of ImageNet"),
)

MOBILENET_V2 = (
    *tf_conv("MobilenetV2/Conv", "backbone.features.0.0", "backbone.features.0.1"),
    # The first block has no expansion, so its parts stand one place earlier.
    *tf_depthwise(
        "MobilenetV2/expanded_conv/depthwise", "backbone.features.1.conv.0.0", "backbone.features.1.conv.0.1"
    ),
    *tf_conv("MobilenetV2/expanded_conv/project", "backbone.features.1.conv.1", "backbone.features.1.conv.2"),
    *tf_conv(
        r"MobilenetV2/expanded_conv_(\d+)/expand",
        r"backbone.features.<\1+1>.conv.0.0",
        r"backbone.features.<\1+1>.conv.0.1",
    ),
    *tf_depthwise(
        r"MobilenetV2/expanded_conv_(\d+)/depthwise",
        r"backbone.features.<\1+1>.conv.1.0",
        r"backbone.features.<\1+1>.conv.1.1",
    ),
    *tf_conv(
        r"MobilenetV2/expanded_conv_(\d+)/project",
        r"backbone.features.<\1+1>.conv.2",
        r"backbone.features.<\1+1>.conv.3",
    ),
    *_HEAD,
    dropped(r"MobilenetV2/(?:Conv_1|Logits)/.*", "dropped: the classifier of ImageNet"),
)

ENCODING = (
    Rule(r"pretrained\.(.*)", r"backbone.\1"),
    Rule(r"head\.aspp\.b([0-3])\.([01]\..*)", r"aspp.branches.\1.\2"),
    Rule(r"head\.aspp\.b4\.gap\.1\.(.*)", r"aspp.pooling.0.\1"),
    Rule(r"head\.aspp\.b4\.gap\.2\.(.*)", r"aspp.pooling.1.\1"),
    Rule(r"head\.aspp\.project\.([01]\..*)", r"aspp.project.\1"),
    Rule(r"head\.block\.([01]\..*)", r"head.1.\1"),
    Rule(r"head\.block\.4\.(.*)", r"head.3.\1"),
    Rule(r"auxlayer\.conv5\.([01]\..*)", r"aux_head.0.\1"),
    Rule(r"auxlayer\.conv5\.4\.(.*)", r"aux_head.2.\1"),
)
