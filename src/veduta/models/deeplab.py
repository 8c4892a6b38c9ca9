"""DeepLabV3 and DeepLabV3+: atrous convolutions at several rates, then, in V3+, a decoder at stride 4.

V3: Chen et al. 2017, https://arxiv.org/abs/1706.05587; V3+: Chen et al. 2018, https://arxiv.org/abs/1802.02611.
V3 is built as for the segmentation numbers of ResNeSt, https://arxiv.org/abs/2004.08955.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import IMAGENET_MEAN, IMAGENET_STD, Backbone, Normalize, conv_bn_relu
from veduta.models.mobilenet_v2 import MobileNetV2
from veduta.models.resnest import resnest50, resnest101
from veduta.models.resnet import BasicBlock, ResNet, resnet50
from veduta.models.separable_resnet import SeparableResNet


def separable_conv(in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1) -> nn.Sequential:
    """Depthwise, then pointwise convolution, BN and ReLU after each (V3+, sec. 3.1). Shapes as `conv_bn_relu`."""
    return nn.Sequential(
        conv_bn_relu(in_channels, in_channels, kernel_size, dilation=dilation, groups=in_channels),
        conv_bn_relu(in_channels, out_channels, 1),
    )


def atrous_rates(output_stride: int) -> tuple[int, ...]:
    """6, 12, 18 at output stride 16; half the stride, twice the rates (V3, sec. 3.3)."""
    return tuple(rate * 16 // output_stride for rate in (6, 12, 18))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, one 3x3 per rate, and the mean of the whole map (V3, sec. 3.3).

    Concatenated in that order, then projected by a 1x1 convolution.
    Shape: (N, in_channels, h, w) -> (N, out_channels, h, w).
    """

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int], *, separable: bool) -> None:
        super().__init__()
        conv = separable_conv if separable else conv_bn_relu
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, out_channels, 1)])
        self.branches.extend(conv(in_channels, out_channels, 3, dilation=rate) for rate in rates)
        self.pooling = conv_bn_relu(in_channels, out_channels, 1)
        self.project = conv_bn_relu((len(rates) + 2) * out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooling(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        out: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))
        return out


class DeepLabV3(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> {"mask_logits": (N, num_classes, H, W)}.

    With `aux` also "aux_mask_logits" of the same shape, read from the last but one stage, for an auxiliary loss.
    `output_stride` is the backbone's and sets the atrous rates.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, output_stride: int, aux: bool = True) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.backbone = backbone
        self.aspp = ASPP(backbone.out_channels[-1], 256, atrous_rates(output_stride), separable=False)
        self.head = nn.Sequential(
            nn.Dropout2d(0.5), conv_bn_relu(256, 256, 3), nn.Dropout(0.1), nn.Conv2d(256, num_classes, 1)
        )
        self.aux_head = (
            nn.Sequential(
                conv_bn_relu(backbone.out_channels[-2], 256, 3), nn.Dropout(0.1), nn.Conv2d(256, num_classes, 1)
            )
            if aux
            else None
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = images.shape[-2:]
        features: list[Tensor] = self.backbone(self.normalize(images))
        outputs = {"mask_logits": _resize(self.head(self.aspp(features[-1])), size)}
        if self.aux_head is not None:
            outputs["aux_mask_logits"] = _resize(self.aux_head(features[-2]), size)
        return outputs


class DeepLabV3Plus(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> {"mask_logits": (N, num_classes, H, W)}.

    The decoder joins the pyramid's output with the backbone's stride-4 map (V3+, sec. 3.1 and 4).
    `rates` are the pyramid's atrous rates; `separable=False` takes plain 3x3 convolutions, which CPUs run faster when
    the channels are few. In training, `train_stride` 2 gives logits for every other row and column only, from the
    first on, which the loss compares with those of the masks; `aux` adds "aux_mask_logits" at the coarsest stride.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        rates: Sequence[int],
        aspp_channels: int = 256,
        low_channels: int = 48,
        decoder_channels: int = 256,
        separable: bool = True,
        aux: bool = False,
        train_stride: int = 1,
    ) -> None:
        super().__init__()
        self.train_stride = train_stride
        conv = separable_conv if separable else conv_bn_relu
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.backbone = backbone
        self.aspp = ASPP(backbone.out_channels[-1], aspp_channels, rates, separable=separable)
        self.dropout = nn.Dropout(0.1)
        self.low_level = conv_bn_relu(backbone.out_channels[0], low_channels, 1)
        self.decoder = nn.Sequential(
            conv(aspp_channels + low_channels, decoder_channels, 3), conv(decoder_channels, decoder_channels, 3)
        )
        self.head = nn.Conv2d(decoder_channels, num_classes, 1)
        self.aux_head = nn.Conv2d(backbone.out_channels[-1], num_classes, 1) if aux else None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stride = self.train_stride if self.training else 1
        size = [-(-length // stride) for length in images.shape[-2:]]
        features: list[Tensor] = self.backbone(self.normalize(images))
        low = self.low_level(features[0])
        x = _resize(self.dropout(self.aspp(features[-1])), low.shape[-2:])
        x = self.head(self.decoder(torch.cat([x, low], dim=1)))
        outputs = {"mask_logits": _resize(x, size)}
        if self.aux_head is not None and self.training:
            outputs["aux_mask_logits"] = self.aux_head(features[-1])
        return outputs


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    # Aligned corners: the published weights were trained so.
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def deeplabv3_resnest50(num_classes: int, *, output_stride: int = 8, aux: bool = True) -> DeepLabV3:
    return DeepLabV3(resnest50(output_stride=output_stride), num_classes, output_stride=output_stride, aux=aux)


def deeplabv3_resnest101(num_classes: int, *, output_stride: int = 8, aux: bool = True) -> DeepLabV3:
    return DeepLabV3(resnest101(output_stride=output_stride), num_classes, output_stride=output_stride, aux=aux)


def deeplabv3plus_resnet50(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnet50(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_resnest50(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnest50(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_resnest101(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnest101(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_mobilenet_v2(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(MobileNetV2(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_small(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    """0.9 M parameters: trains from scratch on a few CPU cores."""
    return DeepLabV3Plus(
        SeparableResNet(widths=(32, 96, 192, 192), depths=(1, 3, 3, 3), output_stride=output_stride),
        num_classes,
        rates=[rate // 2 for rate in atrous_rates(output_stride)],  # for the small crops that a CPU trains on
        aspp_channels=96,
        low_channels=24,
        decoder_channels=48,
        aux=True,
        train_stride=2,
    )


def deeplabv3plus_tiny(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    """Below 0.3 M parameters: for tests and demonstrations, where a wrong result has to show within seconds."""
    backbone = ResNet(BasicBlock, (1, 1, 1, 1), widths=(16, 32, 48, 64), output_stride=output_stride)
    return DeepLabV3Plus(
        backbone,
        num_classes,
        rates=atrous_rates(output_stride),
        aspp_channels=32,
        low_channels=16,
        decoder_channels=32,
        separable=False,
    )
