"""RefineNet: refine coarse features with finer ones, path by path.

Lin et al. 2017, https://arxiv.org/abs/1611.06612, with the four poolings and three output units of the authors' code.
Old names: legacy/names_refinenet.py.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import Backbone, Normalize
from veduta.models.resnet import BasicBlock, Bottleneck, ResNet
from veduta.models.timm_backbone import TimmBackbone
from veduta.ops.resize import resize_legacy

OutputResize = Literal["half_pixel", "legacy"]


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


class ResidualConvUnit(nn.Module):
    """ReLU and a 3x3 convolution, twice, added to the input as it came (paper, sec. 3.2).

    Shape: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(x))  # not in place: the sum needs the input before its ReLU
        return x + self.conv2(F.relu(out, inplace=True))


class ChainedResidualPooling(nn.Module):
    """Pool, convolve, add; again on the result. Widens context at full resolution (paper, sec. 3.2).

    Shape: (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, *, num_pools: int = 4) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(num_pools))

    def forward(self, x: Tensor) -> Tensor:
        path = x
        for conv in self.convs:
            path = conv(self.pool(path))
            x = x + path
        return x


class Refinement(nn.Module):
    """One path: adapt a feature map, add what came from the coarser path, pool in a chain (paper, fig. 3).

    feature: (N, in_channels, h, w); coarser: (N, out_channels, h', w') or None on the coarsest path
    -> (N, out_channels, h, w).
    """

    def __init__(
        self, in_channels: int, channels: int, out_channels: int, *, dropout: float, coarsest: bool, finest: bool
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.reduce = conv3x3(in_channels, channels)
        self.adapt = nn.Sequential(ResidualConvUnit(channels), ResidualConvUnit(channels))
        self.fuse = None if coarsest else conv3x3(channels, channels)
        self.pool = ChainedResidualPooling(channels)
        self.refine = nn.Sequential(*(ResidualConvUnit(channels) for _ in range(3)))
        self.pass_on = None if finest else conv3x3(channels, out_channels)

    def forward(self, feature: Tensor, coarser: Tensor | None) -> Tensor:
        x: Tensor = self.adapt(self.reduce(self.dropout(feature)))
        if self.fuse is not None:
            assert coarser is not None
            x = self.fuse(x) + F.interpolate(coarser, size=x.shape[-2:], mode="bilinear", align_corners=True)
        x = self.refine(self.pool(F.relu(x, inplace=True)))
        return x if self.pass_on is None else self.pass_on(x)


class RefineNet(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> {"mask_logits": (N, num_classes, H, W)}.

    `output_resize` brings the logits, which are at stride 4, to the size of the image: "legacy" is the MindSpore port's
    (see ops/resize.py). `dropout` acts before the two coarsest paths and before the classifier.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        channels: int = 256,
        dropout: float = 0.5,
        output_resize: OutputResize = "half_pixel",
    ) -> None:
        super().__init__()
        if output_resize not in ("half_pixel", "legacy"):
            raise ValueError(f"output_resize is {output_resize!r}; choose half_pixel or legacy.")
        self.output_resize = output_resize
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.backbone = backbone
        self.paths = nn.ModuleList()
        for level, in_channels in enumerate(reversed(backbone.out_channels)):  # coarsest first
            coarsest, finest = level == 0, level == len(backbone.out_channels) - 1
            path = Refinement(
                in_channels,
                2 * channels if coarsest else channels,
                channels,
                dropout=dropout if level < 2 else 0.0,
                coarsest=coarsest,
                finest=finest,
            )
            self.paths.append(path)
        self.dropout = nn.Dropout(dropout)
        self.head = conv3x3(channels, num_classes, bias=True)

    def logits(self, images: Tensor) -> Tensor:
        """(N, num_classes, ceil(H / 4), ceil(W / 4))."""
        features: Sequence[Tensor] = self.backbone(self.normalize(images))
        x: Tensor | None = None
        for path, feature in zip(self.paths, reversed(features), strict=True):
            x = path(feature, x)
        return self.head(self.dropout(x))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits, size = self.logits(images), images.shape[-2:]
        if self.output_resize == "legacy":
            return {"mask_logits": resize_legacy(logits, size)}
        return {"mask_logits": F.interpolate(logits, size=size, mode="bilinear", align_corners=False)}


def _refinenet(
    depths: Sequence[int],
    num_classes: int,
    *,
    dropout: float = 0.5,
    output_resize: OutputResize = "half_pixel",
    same_pool: bool = False,
) -> RefineNet:
    backbone = ResNet(Bottleneck, depths, same_pool=same_pool)
    return RefineNet(backbone, num_classes, dropout=dropout, output_resize=output_resize)


# Called with num_classes and, as keywords, dropout, output_resize and ResNet's same_pool.
refinenet_resnet50 = partial(_refinenet, (3, 4, 6, 3))
refinenet_resnet101 = partial(_refinenet, (3, 4, 23, 3))
refinenet_resnet152 = partial(_refinenet, (3, 8, 36, 3))


def refinenet_timm(num_classes: int, *, backbone: str, dropout: float = 0.5) -> RefineNet:
    """`backbone` is timm's name."""
    return RefineNet(TimmBackbone(backbone), num_classes, dropout=dropout)


def refinenet_tiny(num_classes: int) -> RefineNet:
    """For tests and demonstrations."""
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), widths=(16, 24, 32, 48))
    return RefineNet(backbone, num_classes, channels=16)
