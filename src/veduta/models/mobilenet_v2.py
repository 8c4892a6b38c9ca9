"""MobileNetV2: inverted residuals with linear bottlenecks.

Sandler et al. 2018, https://arxiv.org/abs/1801.04381. State-dict names are torchvision's.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from veduta.models.layers import (
    Backbone,
    Normalize,
    conv_bn_relu,
    init_convs,
    plan_stages,
)

conv_bn_relu6 = partial(conv_bn_relu, activation=nn.ReLU6)


class Row(NamedTuple):
    """One line of the paper's table 2: `blocks` inverted residuals, the first with `stride`."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STEM_CHANNELS = 32
ROWS = (
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)
LAST_CHANNELS = 1280  # of the 1x1 convolution that only the classifier has
ENDS = (4, 7, 14, 18)  # where `features` is cut: the ends of the blocks at strides 4, 8, 16 and 32


class InvertedResidual(nn.Module):
    """1x1 up by `expansion`, depthwise 3x3, linear 1x1 down; the shortcut joins the narrow ends (paper, sec. 3.3).

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.conv = nn.Sequential(
            *([conv_bn_relu6(in_channels, inner, 1)] if expansion > 1 else []),
            conv_bn_relu6(inner, inner, 3, stride=stride, dilation=dilation, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(Backbone):
    """Stem and 17 inverted residuals.

    Shape: normalised (N, 3, H, W) -> four maps of 24, 32, 96 and 320 channels, finest first, strides 4, 8, 16, 32,
    none coarser than `output_stride`. The last is the narrow end of block 17, which DeepLab's MobileNetV2 form reads.
    """

    out_channels = (24, 32, 96, 320)

    def __init__(self, *, output_stride: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn_relu6(3, STEM_CHANNELS, 3, stride=2)]
        in_channels = STEM_CHANNELS
        stages = plan_stages([row.stride for row in ROWS], stem_stride=2, output_stride=output_stride)
        for row, stage in zip(ROWS, stages, strict=True):
            stride, dilation = stage.stride, stage.first_dilation
            for _ in range(row.blocks):
                block = InvertedResidual(
                    in_channels, row.channels, expansion=row.expansion, stride=stride, dilation=dilation
                )
                layers.append(block)
                in_channels, stride, dilation = row.channels, 1, stage.dilation
        self.features = nn.Sequential(*layers)
        init_convs(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for start, end in pairwise((0, *ENDS)):
            x = self.features[start:end](x)
            features.append(x)
        return features


class MobileNetV2Classifier(MobileNetV2):
    """(N, 3, H, W) RGB in [0, 1] -> {"class_logits": (N, num_classes)}. A subclass, so that names stay as published."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(self.mean, self.std)
        self.features.append(conv_bn_relu6(self.out_channels[-1], LAST_CHANNELS, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_CHANNELS, num_classes))
        init_convs(self.features[-1])

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # a model, no longer a backbone
        features = super().forward(self.normalize(images))
        x = self.features[-1](features[-1])
        return {"class_logits": self.classifier(x.mean((2, 3)))}
