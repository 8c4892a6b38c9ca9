"""DeepLabV3 and DeepLabV3+: atrous convolutions at several rates, then, in V3+, a decoder at stride 4.

V3: Chen et al. 2017, https://arxiv.org/abs/1706.05587; V3+: Chen et al. 2018, https://arxiv.org/abs/1802.02611.
V3 is built as for the segmentation numbers of ResNeSt, https://arxiv.org/abs/2004.08955.
Old names: legacy/names_deeplab.py.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import Backbone, Normalize, conv_bn_relu, set_batch_norm
from veduta.models.mobilenet_v2 import MobileNetV2
from veduta.models.resnest import resnest50, resnest101, resnest200, resnest269
from veduta.models.resnet import BasicBlock, ResNet, resnet50
from veduta.models.separable_resnet import SeparableResNet
from veduta.models.timm_backbone import TimmBackbone
from veduta.models.xception import Xception, xception41, xception65, xception71
from veduta.ops.resize import mean_of_tiles


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

    Concatenated in that order, then projected by a 1x1 convolution. With `pool_window`, means of tiles of so many
    pixels each way take the place of the mean of the whole map.
    Shape: (N, in_channels, h, w) -> (N, out_channels, h, w).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int],
        *,
        separable: bool,
        pool_window: int | None = None,
    ) -> None:
        super().__init__()
        self.pool_window = pool_window
        conv = separable_conv if separable else conv_bn_relu
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, out_channels, 1)])
        self.branches.extend(conv(in_channels, out_channels, 3, dilation=rate) for rate in rates)
        self.pooling = conv_bn_relu(in_channels, out_channels, 1)
        self.project = conv_bn_relu((len(rates) + 2) * out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool_window is None:
            pooled = self.pooling(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        else:
            pooled = _resize(self.pooling(mean_of_tiles(x, self.pool_window)), x.shape[-2:])
        out: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))
        return out


class DeepLabV3(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> {"mask_logits": (N, num_classes, H, W)}.

    With `aux` also "aux_mask_logits" of the same shape, read from the last but one stage, for an auxiliary loss.
    `output_stride` is the backbone's and sets the atrous rates. `pool_window` is ASPP's.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        output_stride: int,
        aux: bool = True,
        pool_window: int | None = None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.backbone = backbone
        self.aspp = ASPP(
            backbone.out_channels[-1], 256, atrous_rates(output_stride), separable=False, pool_window=pool_window
        )
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
        self.normalize = Normalize(backbone.mean, backbone.std)
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
        outputs = {"mask_logits": _resize(self.decode(features), size)}
        if self.aux_head is not None and self.training:
            outputs["aux_mask_logits"] = self.aux_head(features[-1])
        return outputs

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The backbone's maps -> (N, num_classes, ceil(H / 4), ceil(W / 4)) logits."""
        low = self.low_level(features[0])
        x = _resize(self.dropout(self.aspp(features[-1])), low.shape[-2:])
        logits: Tensor = self.head(self.decoder(torch.cat([x, low], dim=1)))
        return logits


class DeepLabV3Mobile(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> {"mask_logits": (N, num_classes, H, W)}.

    The small form published with V3+: a pyramid without atrous branches, and no decoder.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(backbone.mean, backbone.std)
        self.backbone = backbone
        self.aspp = ASPP(backbone.out_channels[-1], 256, rates=(), separable=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Conv2d(256, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features: list[Tensor] = self.backbone(self.normalize(images))
        logits = self.head(self.dropout(self.aspp(features[-1])))
        return {"mask_logits": _resize(logits, images.shape[-2:])}


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    # Aligned corners: the published weights were trained so.
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _deeplabv3(
    build_backbone: Callable[..., Backbone],
    num_classes: int,
    *,
    output_stride: int = 8,
    aux: bool = True,
    pool_window: int | None = None,
) -> DeepLabV3:
    backbone = build_backbone(output_stride=output_stride)
    return DeepLabV3(backbone, num_classes, output_stride=output_stride, aux=aux, pool_window=pool_window)


# Called with num_classes and, as keywords, output_stride, aux, pool_window: 7 is the Ascend port's, whose source is
# not public; its windows are taken to be tiles, as in DeepLab's code of that year.
deeplabv3_resnest50 = partial(_deeplabv3, resnest50)
deeplabv3_resnest101 = partial(_deeplabv3, resnest101)
deeplabv3_resnest200 = partial(_deeplabv3, resnest200)
deeplabv3_resnest269 = partial(_deeplabv3, resnest269)


def _deeplabv3plus_xception(
    build_backbone: Callable[..., Xception], num_classes: int, *, output_stride: int = 16
) -> DeepLabV3Plus:
    """The published network: one set of weights runs at output stride 16 and 8."""
    backbone = build_backbone(output_stride=output_stride)
    model = DeepLabV3Plus(backbone, num_classes, rates=atrous_rates(output_stride))
    for part in (model.aspp, model.low_level, model.decoder):
        set_batch_norm(part, eps=1e-5, momentum=3e-4)
    return model


deeplabv3plus_xception41 = partial(_deeplabv3plus_xception, xception41)
deeplabv3plus_xception65 = partial(_deeplabv3plus_xception, xception65)
deeplabv3plus_xception71 = partial(_deeplabv3plus_xception, xception71)


def deeplabv3_mobilenet_v2(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Mobile:
    """The published network pads its strided convolutions as we do where the sides of the image are odd, as in 513."""
    backbone = MobileNetV2(output_stride=output_stride)
    backbone.mean = backbone.std = Xception.mean
    model = DeepLabV3Mobile(backbone, num_classes)
    set_batch_norm(model, eps=1e-5, momentum=3e-4)
    set_batch_norm(backbone, eps=1e-3, momentum=3e-4)
    return model


def deeplabv3plus_resnet50(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnet50(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_resnest50(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnest50(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_resnest101(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnest101(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_mobilenet_v2(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(MobileNetV2(output_stride=output_stride), num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_timm(num_classes: int, *, backbone: str, output_stride: int = 16) -> DeepLabV3Plus:
    """`backbone` is timm's name; where timm cannot dilate it, as with Swin, `output_stride` has to be 32."""
    features = TimmBackbone(backbone, output_stride=output_stride)
    return DeepLabV3Plus(features, num_classes, rates=atrous_rates(output_stride))


def deeplabv3plus_small(num_classes: int, *, output_stride: int = 16) -> DeepLabV3Plus:
    """Trains from scratch on a few CPU cores."""
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
    """For tests and demonstrations, where a wrong result has to show within seconds."""
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
