"""ResNeSt: a ResNet whose 3x3 convolutions are split into branches that attend to each other.

Zhang et al. 2020, https://arxiv.org/abs/2004.08955. State-dict names are those of the authors' PyTorch release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import (
    Backbone,
    Normalize,
    Stage,
    conv_bn_relu,
    init_convs,
    plan_stages,
)

EXPANSION = 4


@dataclass(frozen=True)
class Variant:
    """What tells one ResNeSt from another. The paper's `2s1x64d` is radix 2, cardinality 1, base_width 64."""

    depths: Sequence[int]
    stem_width: int = 32
    radix: int = 2
    cardinality: int = 1
    base_width: int = 64  # channels of one cardinal group in stage 1
    pool_first: bool = False  # a strided block pools before its 3x3 convolution ("fast"), not after
    widths: Sequence[int] = (64, 128, 256, 512)  # of the stages; their blocks give EXPANSION times as many channels
    stem_pool: bool = True  # without it every map is twice as fine: for images of 32 pixels


class SplitAttention(nn.Module):
    """A 3x3 convolution into `radix` splits, summed with weights that depend on the whole map (paper, sec. 3.1).

    The weights of one channel are a soft-max over its splits; with a single split they are a sigmoid gate.
    Shape: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, *, radix: int, cardinality: int, dilation: int) -> None:
        super().__init__()
        self.radix, self.cardinality = radix, cardinality
        split_channels = channels * radix
        inner_channels = max(split_channels // 4, 32)
        groups = cardinality * radix
        self.conv = nn.Conv2d(channels, split_channels, 3, 1, dilation, dilation, groups, bias=False)
        self.bn0 = nn.BatchNorm2d(split_channels)
        self.fc1 = nn.Conv2d(channels, inner_channels, 1, groups=cardinality)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.fc2 = nn.Conv2d(inner_channels, split_channels, 1, groups=cardinality)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv(x)), inplace=True)
        # The mean of the sum is the sum of the means: pooling first saves a pass over the full maps.
        pooled = torch.unflatten(x.mean((2, 3), keepdim=True), 1, (self.radix, -1)).sum(1)
        logits: Tensor = self.fc2(F.relu(self.bn1(self.fc1(pooled)), inplace=True))
        if self.radix == 1:
            return x * logits.sigmoid()
        # fc2 orders its channels (cardinality, radix, rest), conv orders them (radix, cardinality, rest).
        logits = torch.unflatten(logits, 1, (self.cardinality, self.radix, -1)).transpose(1, 2)
        weights = logits.softmax(1).flatten(1, 3)
        # Split by split: several times faster than one 5-d sum, and a channels_last layout survives.
        splits = zip(x.chunk(self.radix, 1), weights.chunk(self.radix, 1), strict=True)
        return reduce(torch.add, (split * weight for split, weight in splits))


class Bottleneck(nn.Module):
    """1x1, split attention, 1x1, and a shortcut (paper, fig. 2).

    With `pool_stride` a 3x3 average pool does the striding. It stays, at stride 1, where a stage is dilated instead.
    Shape: (N, in_channels, H, W) -> (N, 4 * width, ceil(H / pool_stride), ceil(W / pool_stride)).
    """

    def __init__(
        self, in_channels: int, width: int, variant: Variant, *, dilation: int = 1, pool_stride: int | None = None
    ) -> None:
        super().__init__()
        radix, cardinality = variant.radix, variant.cardinality
        channels = width * variant.base_width // 64 * cardinality
        out_channels = width * EXPANSION
        self.pool_first = variant.pool_first
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = SplitAttention(channels, radix=radix, cardinality=cardinality, dilation=dilation)
        self.pool = nn.Identity() if pool_stride is None else nn.AvgPool2d(3, pool_stride, padding=1)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(pool_stride or 1, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        # The paper trains with this. The authors' PyTorch code means to, but resets the value to 1 afterwards.
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.conv2(self.pool(out)) if self.pool_first else self.pool(self.conv2(out))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.downsample(x), inplace=True)


class ResNeSt(Backbone):
    """Deep stem and four stages of split-attention blocks.

    Shape: normalised (N, 3, H, W) -> four maps, finest first, strides 4, 8, 16, 32, none coarser than `output_stride`;
    without the stem's pool 2, 4, 8, 16.
    """

    def __init__(self, variant: Variant, *, output_stride: int = 32) -> None:
        super().__init__()
        stem_width = variant.stem_width
        self.out_channels = tuple(width * EXPANSION for width in variant.widths)
        self.conv1 = nn.Sequential(
            *conv_bn_relu(3, stem_width, 3, stride=2),
            *conv_bn_relu(stem_width, stem_width, 3),
            nn.Conv2d(stem_width, 2 * stem_width, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(2 * stem_width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if variant.stem_pool else nn.Identity()
        stages = plan_stages((1, 2, 2, 2), stem_stride=4 if variant.stem_pool else 2, output_stride=output_stride)
        in_channels = (2 * stem_width, *self.out_channels[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(variant, i, in_channels[i], stage) for i, stage in enumerate(stages)
        )
        init_convs(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def _stage(variant: Variant, index: int, in_channels: int, stage: Stage) -> nn.Sequential:
    width = variant.widths[index]
    pool_stride = None if index == 0 else stage.stride  # stage 1 follows the stem's pool and has none of its own
    first = Bottleneck(in_channels, width, variant, dilation=stage.first_dilation, pool_stride=pool_stride)
    others = (
        Bottleneck(width * EXPANSION, width, variant, dilation=stage.dilation) for _ in range(variant.depths[index] - 1)
    )
    return nn.Sequential(first, *others)


class ResNeStClassifier(ResNeSt):
    """(N, 3, H, W) RGB in [0, 1] -> {"class_logits": (N, num_classes)}. A subclass, so that names stay as published."""

    def __init__(self, variant: Variant, num_classes: int) -> None:
        super().__init__(variant)
        self.normalize = Normalize(self.mean, self.std)
        self.fc = nn.Linear(self.out_channels[-1], num_classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # a model, no longer a backbone
        features = super().forward(self.normalize(images))
        return {"class_logits": self.fc(features[-1].mean((2, 3)))}


def _builders(variant: Variant) -> tuple[partial[ResNeSt], partial[ResNeStClassifier]]:
    """The backbone, called with the keyword output_stride, and the classifier, called with num_classes."""
    return partial(ResNeSt, variant), partial(ResNeStClassifier, variant)


def _fast(radix: int, cardinality: int, base_width: int) -> tuple[partial[ResNeSt], partial[ResNeStClassifier]]:
    """ResNeSt-50 of the paper's ablation: cheaper, as it strides before the 3x3 convolution."""
    return _builders(
        Variant((3, 4, 6, 3), radix=radix, cardinality=cardinality, base_width=base_width, pool_first=True)
    )


resnest14, resnest14_classifier = _builders(Variant((1, 1, 1, 1)))
resnest26, resnest26_classifier = _builders(Variant((2, 2, 2, 2)))
resnest50, resnest50_classifier = _builders(Variant((3, 4, 6, 3)))
resnest101, resnest101_classifier = _builders(Variant((3, 4, 23, 3), stem_width=64))
resnest200, resnest200_classifier = _builders(Variant((3, 24, 36, 3), stem_width=64))
resnest269, resnest269_classifier = _builders(Variant((3, 30, 48, 8), stem_width=64))

resnest50_fast_1s1x64d, resnest50_fast_1s1x64d_classifier = _fast(1, 1, 64)
resnest50_fast_2s1x64d, resnest50_fast_2s1x64d_classifier = _fast(2, 1, 64)
resnest50_fast_4s1x64d, resnest50_fast_4s1x64d_classifier = _fast(4, 1, 64)
resnest50_fast_1s2x40d, resnest50_fast_1s2x40d_classifier = _fast(1, 2, 40)
resnest50_fast_2s2x40d, resnest50_fast_2s2x40d_classifier = _fast(2, 2, 40)
resnest50_fast_4s2x40d, resnest50_fast_4s2x40d_classifier = _fast(4, 2, 40)
resnest50_fast_1s4x24d, resnest50_fast_1s4x24d_classifier = _fast(1, 4, 24)

# For images of some 32 pixels, from scratch on a few CPU cores.
resnest_tiny_classifier = partial(
    ResNeStClassifier, Variant((2, 2, 2, 2), widths=(16, 32, 64, 128), stem_pool=False, pool_first=True)
)
