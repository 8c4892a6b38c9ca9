"""Xception as DeepLabV3+ aligned it: separable convolutions throughout, strides in place of pooling.

Chollet 2016, https://arxiv.org/abs/1610.02357; Chen et al. 2018, https://arxiv.org/abs/1802.02611, fig. 4.
Old names: legacy/names_deeplab.py.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import Backbone, conv_bn_relu, init_convs, plan_stages, set_batch_norm


class SeparableConv(nn.Module):
    """Depthwise 3x3, BN, pointwise 1x1, BN. One ReLU before all of it or, with `relu_inside`, one after each BN.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dilation: int, relu_inside: bool) -> None:
        super().__init__()
        self.relu_inside = relu_inside
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, dilation, dilation, groups=in_channels, bias=False
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.relu_inside:
            x = F.relu(self.bn1(self.depthwise(x)), inplace=True)
            return F.relu(self.bn2(self.pointwise(x)), inplace=True)
        x = self.bn1(self.depthwise(F.relu(x)))  # not in place: shortcut and decoder read the map before its ReLU
        return self.bn2(self.pointwise(x))


class Block(nn.Module):
    """Three separable convolutions, the last with the stride, and a shortcut on the input as it is, before any ReLU.

    Shape: (N, in_channels, H, W) -> (N, channels[1], H, W), and (N, channels[2], H', W') divided by `stride`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        stride: int = 1,
        dilation: int = 1,
        shortcut: Literal["conv", "identity", "none"] = "conv",
        relu_inside: bool = False,
    ) -> None:
        super().__init__()
        first, second, last = channels
        self.conv1 = SeparableConv(in_channels, first, stride=1, dilation=dilation, relu_inside=relu_inside)
        self.conv2 = SeparableConv(first, second, stride=1, dilation=dilation, relu_inside=relu_inside)
        self.conv3 = SeparableConv(second, last, stride=stride, dilation=dilation, relu_inside=relu_inside)
        self.shortcut: nn.Module | None = nn.Identity() if shortcut == "identity" else None
        if shortcut == "conv":
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, last, 1, stride, bias=False), nn.BatchNorm2d(last))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the third convolution, still at the stride of `x`; and the block's output."""
        inner = self.conv2(self.conv1(x))
        out = self.conv3(inner)
        return inner, out if self.shortcut is None else out + self.shortcut(x)


# Channels and stride of the entry flow's blocks.
ENTRY = ((128, 2), (256, 2), (728, 2))
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))


class Xception(Backbone):
    """Stem, entry flow, `middle_blocks` equal blocks, exit flow of two blocks.

    Shape: normalised (N, 3, H, W) -> four maps of 256, 728, 1024 and 2048 channels, finest first, strides 4, 8, 16, 32,
    none coarser than `output_stride`. The first three are taken inside a block, before the convolution that strides
    and before its ReLU: DeepLabV3+ decodes from there.
    """

    out_channels = (256, 728, 1024, 2048)
    mean = std = (0.5, 0.5, 0.5)

    def __init__(
        self, *, entry: Sequence[tuple[int, int]] = ENTRY, middle_blocks: int = 16, output_stride: int = 32
    ) -> None:
        super().__init__()
        strides = [*(stride for _, stride in entry), *[1] * middle_blocks, 2, 1]
        plan = plan_stages(strides, stem_stride=2, output_stride=output_stride)
        self.taps = [i for i, stride in enumerate(strides) if stride > 1][1:]  # blocks that stride from 4 on
        self.conv1 = conv_bn_relu(3, 32, 3, stride=2)
        self.conv2 = conv_bn_relu(32, 64, 3)
        self.entry, self.middle, self.exit = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        in_channels = 64
        for (channels, _), stage in zip(entry, plan, strict=False):
            self.entry.append(Block(in_channels, [channels] * 3, stride=stage.stride, dilation=stage.first_dilation))
            in_channels = channels
        for stage in plan[len(entry) : -2]:
            self.middle.append(
                Block(in_channels, [in_channels] * 3, dilation=stage.first_dilation, shortcut="identity")
            )
        last, after = plan[-2:]
        self.exit.append(Block(in_channels, (728, 1024, 1024), stride=last.stride, dilation=last.first_dilation))
        self.exit.append(
            Block(1024, (1536, 1536, 2048), dilation=after.first_dilation, shortcut="none", relu_inside=True)
        )
        init_convs(self)
        set_batch_norm(self, eps=1e-3, momentum=3e-4)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv2(self.conv1(x))
        features = []
        for i, block in enumerate((*self.entry, *self.middle, *self.exit)):
            inner, x = block(x)
            if i in self.taps:
                features.append(inner)
        return [*features, x]


def xception41(*, output_stride: int) -> Xception:
    return Xception(middle_blocks=8, output_stride=output_stride)


def xception65(*, output_stride: int) -> Xception:
    return Xception(output_stride=output_stride)


def xception71(*, output_stride: int) -> Xception:
    return Xception(entry=ENTRY_71, output_stride=output_stride)
