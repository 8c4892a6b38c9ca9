"""SeparableResNet: a small residual network of separable convolutions, for training on a few CPU cores.

Residual blocks as in He et al. 2015, https://arxiv.org/abs/1512.03385, of depthwise separable convolutions as in
Chollet 2016, https://arxiv.org/abs/1610.02357. At 1/8 of the image and below, a separable convolution costs a CPU a
quarter of a plain one of the same width; at 1/4, with few channels and many pixels, the plain one is hardly dearer.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import Backbone, conv_bn_relu, init_convs, plan_stages
from veduta.models.resnet import BasicBlock


class SeparableBlock(nn.Module):
    """Two separable 3x3 convolutions and a shortcut, which pools where the block strides.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _separable(in_channels, out_channels, stride, dilation)
        self.conv2 = _separable(out_channels, out_channels, 1, dilation)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )
        nn.init.zeros_(self.conv2[-1].weight)  # type: ignore[arg-type]  # the block starts as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


def _separable(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Sequential:
    """Depthwise, BN, pointwise, BN; no activation: the caller adds first."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, dilation, dilation, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class SeparableResNet(Backbone):
    """Normalised (N, 3, H, W) -> four maps, finest first, strides 4, 8, 16, 32, none coarser than `output_stride`."""

    def __init__(self, *, widths: Sequence[int], depths: Sequence[int], output_stride: int) -> None:
        super().__init__()
        self.out_channels = tuple(widths)
        finest, *coarser = plan_stages((1, 2, 2, 2), stem_stride=4, output_stride=output_stride)
        self.stem = nn.Sequential(
            conv_bn_relu(3, widths[0], 3, stride=2), conv_bn_relu(widths[0], widths[0], 3, stride=2)
        )
        self.stages = nn.ModuleList(
            [nn.Sequential(*(BasicBlock(widths[0], widths[0], finest) for _ in range(depths[0])))]
        )
        for i, stage in enumerate(coarser, start=1):
            blocks = [SeparableBlock(widths[i - 1], widths[i], stride=stage.stride, dilation=stage.first_dilation)]
            for n in range(1, depths[i]):  # every other block looks twice as far: context without a coarser map
                blocks.append(SeparableBlock(widths[i], widths[i], dilation=stage.dilation * (1 + n % 2)))
            self.stages.append(nn.Sequential(*blocks))
        init_convs(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
