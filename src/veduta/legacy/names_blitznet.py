"""Old names of BlitzNet (dvornikita/blitznet)."""

from veduta.legacy.mapping import Rule, hwio_bgr, tf_conv


def _unit(scope: str, module: str) -> tuple[Rule, ...]:
    """Bottlenecks of one stage: the scope's first group is the stage, its second the unit, counted from 1."""
    return (
        *tf_conv(rf"{scope}/bottleneck_v1/conv(\d)", rf"{module}.<\2-1>.conv\3", rf"{module}.<\2-1>.bn\3"),
        *tf_conv(
            rf"{scope}/bottleneck_v1/shortcut", rf"{module}.<\2-1>.downsample.0", rf"{module}.<\2-1>.downsample.1"
        ),
    )


def _head(scope: str, module: str) -> tuple[Rule, ...]:
    return (
        *tf_conv(rf"{scope}/ssd_back/block_(rev\d)", rf"{module}.\1"),
        *tf_conv(rf"{scope}/ssd/pool6", f"{module}.pool6"),
        *tf_conv(scope, f"{module}.shared"),
    )


def tensorflow(num_levels: int) -> tuple[Rule, ...]:
    """Rules for pyramids of so many levels: 6 (300), 7 (300 with stride 4, 512) or 8 (512 with stride 4).

    Their number decides what the last of the convolutions is that have nothing but a number for a name.
    """
    return (
        *tf_conv("resnet_v1_50/conv1", "backbone.conv1", "backbone.bn1", change=hwio_bgr),
        *_unit(r"resnet_v1_50/block(\d)/unit_(\d)", r"backbone.layer\1"),
        *_unit(r"ssd/block(\d)/unit_(\d)", r"extra.block\1"),
        *tf_conv(r"ssd_back/block_(rev\d)/(conv\d|shortcut)", r"up.\1.\2.0", r"up.\1.\2.1"),
        *_head("ssd/location", "box_heads"),
        *_head("ssd/confidence", "class_heads"),
        *tf_conv("ssd/Conv", "mask_convs.0"),
        *tf_conv(rf"ssd/Conv_([1-{num_levels - 1}])", r"mask_convs.\1"),
        *tf_conv(f"ssd/Conv_{num_levels}", "mask_head"),
    )
