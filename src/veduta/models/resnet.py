"""ResNet: residual blocks, with the stride on the 3x3 convolution (known as v1.5) or on the first 1x1 (the paper's).

He et al. 2015, https://arxiv.org/abs/1512.03385. State-dict names are torchvision's.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import Backbone, MaxPoolSame, Normalize, Stage, init_convs, plan_stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (paper, fig. 5 left).

    Shape: (N, in_channels, H, W) -> (N, width, H', W'), divided by the stage's stride and rounded up.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stage: Stage) -> None:
        super().__init__()
        stride, first_dilation, dilation = stage
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, first_dilation, first_dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)
        nn.init.zeros_(self.bn2.weight)  # the block starts as its shortcut, which lets deep stacks train from step 1

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1 down to `width`, 3x3, 1x1 up to 4 x `width`, and a shortcut (paper, fig. 5 right).

    The stride is on the 3x3 or, with `stride_first`, on the first 1x1, as in the paper and its Caffe weights.
    Shape: (N, in_channels, H, W) -> (N, 4 * width, H', W'), divided by the stage's stride and rounded up.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stage: Stage, *, stride_first: bool = False) -> None:
        super().__init__()
        stride, dilation, _ = stage
        first, second = (stride, 1) if stride_first else (1, stride)
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)
        nn.init.zeros_(self.bn3.weight)  # as in BasicBlock

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.downsample(x), inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels == out_channels:
        return nn.Identity() if stride == 1 else nn.MaxPool2d(1, stride)  # every other pixel
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(Backbone):
    """Four stages of `depths` blocks; stage i works at `widths[i]` channels and gives `expansion` times as many.

    `stride_first` is Bottleneck's. `same_pool` pads the stem's pooling as TensorFlow and MindSpore do under SAME.
    Shape: normalised (N, 3, H, W) -> four maps, finest first, strides 4, 8, 16, 32, none coarser than `output_stride`.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        output_stride: int = 32,
        stride_first: bool = False,
        same_pool: bool = False,
    ) -> None:
        super().__init__()
        build = partial(Bottleneck, stride_first=True) if stride_first else block
        stem_channels = widths[0]
        self.out_channels = tuple(width * block.expansion for width in widths)
        self.conv1 = nn.Conv2d(3, stem_channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.maxpool = MaxPoolSame(3, 2) if same_pool else nn.MaxPool2d(3, 2, 1)
        stages = plan_stages((1, 2, 2, 2), stem_stride=4, output_stride=output_stride)
        in_channels = (stem_channels, *self.out_channels[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = map(
            partial(_stage, build), in_channels, self.out_channels, widths, depths, stages
        )
        init_convs(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def _stage(
    block: Callable[[int, int, Stage], nn.Module],
    in_channels: int,
    out_channels: int,
    width: int,
    depth: int,
    stage: Stage,
) -> nn.Sequential:
    later = Stage(stride=1, first_dilation=stage.dilation, dilation=stage.dilation)
    others = (block(out_channels, width, later) for _ in range(depth - 1))
    return nn.Sequential(block(in_channels, width, stage), *others)


class ResNetClassifier(ResNet):
    """(N, 3, H, W) RGB in [0, 1] -> {"class_logits": (N, num_classes)}. A subclass, so that names stay as published."""

    def __init__(self, block: Block, depths: Sequence[int], num_classes: int) -> None:
        super().__init__(block, depths)
        self.normalize = Normalize(self.mean, self.std)
        self.fc = nn.Linear(self.out_channels[-1], num_classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # a model, no longer a backbone
        features = super().forward(self.normalize(images))
        return {"class_logits": self.fc(features[-1].mean((2, 3)))}


def _builders(block: Block, depths: Sequence[int]) -> tuple[partial[ResNet], partial[ResNetClassifier]]:
    """The backbone, called with keywords of ResNet, and the classifier, called with num_classes."""
    return partial(ResNet, block, depths), partial(ResNetClassifier, block, depths)


# Paper, table 1.
resnet18, resnet18_classifier = _builders(BasicBlock, (2, 2, 2, 2))
resnet34, resnet34_classifier = _builders(BasicBlock, (3, 4, 6, 3))
resnet50, resnet50_classifier = _builders(Bottleneck, (3, 4, 6, 3))
resnet101, resnet101_classifier = _builders(Bottleneck, (3, 4, 23, 3))
resnet152, resnet152_classifier = _builders(Bottleneck, (3, 8, 36, 3))
