"""BlitzNet: boxes and masks from one pyramid that first shrinks, then grows back.

Dvornik et al. 2017, https://arxiv.org/abs/1708.02813. Old names: legacy/names_blitznet.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from veduta.models.layers import Backbone, Normalize, Stage, conv_bn_relu
from veduta.models.resnet import BasicBlock, Bottleneck, ResNet
from veduta.models.timm_backbone import TimmBackbone
from veduta.ops.priors import PRIORS_PER_CELL, SCALES, level_sizes, prior_boxes
from veduta.ops.resize import resize_legacy, resize_legacy_nearest

CAFFE_MEAN = (123.151630838, 115.902882574, 103.062623801)  # RGB, of images in 0..255; no deviation


class UpBlock(nn.Module):
    """Resize to the skip's grid and add what a bottleneck makes of both (paper, fig. 3: ResSkip).

    Shape: (N, in_channels, h, w), (N, skip_channels, H, W) -> (N, out_channels, H, W), and the same of the shortcut.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels // Bottleneck.expansion
        self.shortcut = nn.Identity() if in_channels == out_channels else _conv_bn(in_channels, out_channels)
        self.conv1 = conv_bn_relu(in_channels + skip_channels, width, 1)
        self.conv2 = conv_bn_relu(width, width, 3)
        self.conv3 = _conv_bn(width, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        x = resize_legacy(x, skip.shape[-2:])
        shortcut = self.shortcut(x)
        residual = self.conv3(self.conv2(self.conv1(torch.cat([x, skip], dim=1))))
        return F.relu(shortcut + residual), shortcut


def _conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


class BlitzNet(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] of any size -> what is where, as boxes and as a mask.

    "class_logits" (N, P, num_classes) and "box_deltas" (N, P, 4) for the P "priors" (P, 4) cxcywh, see ops/boxes.py;
    "mask_logits" (N, num_classes, H, W), in training on the finest grid, where masks are brought to it.

    Images are stretched to a square of `image_size`. scales: of the priors, one more than there are levels; the finest
    level is at stride 4, or 8 without `stride4`. sizes: cells along a side, per level, where the backbone does not
    round up. shared_head: one detection head for all levels. The pyramid has `up_channels`, of which `mask_channels`
    per level are seen by the mask.
    """

    priors: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        image_size: int,
        scales: Sequence[float],
        stride4: bool,
        shared_head: bool,
        sizes: Sequence[int] | None = None,
        up_channels: int = 512,
        mask_channels: int = 64,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        first, num_levels = (1 if stride4 else 2), len(scales) - 1
        last = first + num_levels - 1  # the coarsest block of the backbone and the extra ones
        if sizes is None:
            sizes = level_sizes(image_size, 4 if stride4 else 8, num_levels)
        self.register_buffer("priors", prior_boxes(sizes, scales), persistent=False)

        self.normalize = Normalize(backbone.mean, backbone.std)
        self.backbone = backbone
        channels = backbone.out_channels[-1]
        self.extra = nn.ModuleDict({f"block{i}": _extra_block(channels) for i in range(5, last + 1)})
        down_channels = [*backbone.out_channels, *([channels] * len(self.extra))]
        self.up = nn.ModuleDict()
        for i in reversed(range(first, last)):
            self.up[f"rev{i}"] = UpBlock(channels, down_channels[i - 1], up_channels)
            channels = up_channels

        self.levels = [*list(self.up)[::-1], "pool6"]  # fine to coarse
        heads = ["shared"] if shared_head else self.levels
        self.box_heads = _heads(heads, up_channels, 4)
        self.class_heads = _heads(heads, up_channels, num_classes)
        self.mask_convs = nn.ModuleList(nn.Conv2d(up_channels, mask_channels, 1) for _ in self.levels)
        self.mask_head = nn.Conv2d(mask_channels * num_levels, num_classes, 3, padding=1)
        self._init()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels = self.pyramid(images)
        mask_logits = self.grid_mask_logits(levels)
        return {
            "class_logits": self._detect(self.class_heads, levels),
            "box_deltas": self._detect(self.box_heads, levels),
            "priors": self.priors,
            "mask_logits": mask_logits if self.training else resize_legacy(mask_logits, images.shape[-2:]),
        }

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """The levels' maps (N, up_channels, h, w), fine to coarse."""
        down: list[Tensor] = self.backbone(self.normalize(resize_legacy(images, [self.image_size] * 2)))
        for block in self.extra.values():
            down.append(block(down[-1]))
        x = down.pop()
        levels: list[Tensor] = []
        for block in self.up.values():
            x, shortcut = block(x, down.pop())
            if not levels:
                levels.append(shortcut.mean((2, 3), keepdim=True))  # pool6; as published, of the shortcut, not the sum
            levels.append(x)
        return levels[::-1]

    def grid_mask_logits(self, levels: Sequence[Tensor]) -> Tensor:
        """(N, num_classes, h, w) on the grid of the finest level."""
        size = levels[0].shape[-2:]
        reduced = [F.relu(conv(level)) for conv, level in zip(self.mask_convs, levels, strict=True)]
        return self.mask_head(torch.cat([resize_legacy_nearest(x, size) for x in reduced], dim=1))

    def _detect(self, heads: nn.ModuleDict, levels: Sequence[Tensor]) -> Tensor:
        """(N, P, k) in the order of the priors."""
        names = ["shared"] * len(levels) if "shared" in heads else self.levels
        maps = [heads[name](level) for name, level in zip(names, levels, strict=True)]
        rows = [x.permute(0, 2, 3, 1).unflatten(3, (PRIORS_PER_CELL, -1)).flatten(1, 3) for x in maps]
        return torch.cat(rows, dim=1)

    def _init(self) -> None:
        """As published, all but the backbone: one variance for every fan-in, smaller in the detection heads."""
        for part, factor in ((self.extra, 2.0), (self.up, 2.0), (self.box_heads, 0.1), (self.class_heads, 0.1)):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    # Cut at two deviations, which makes the rest narrower: 1.3 makes up for that.
                    std = (1.3 * factor / module.weight[0].numel()) ** 0.5
                    nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
                elif isinstance(module, nn.BatchNorm2d):
                    nn.init.ones_(module.weight)
        for module in (*self.mask_convs, self.mask_head):
            nn.init.xavier_uniform_(module.weight)
        for module in (*self.box_heads.values(), *self.class_heads.values(), *self.mask_convs, self.mask_head):
            nn.init.zeros_(module.bias)


def _extra_block(channels: int) -> nn.Sequential:
    width = channels // Bottleneck.expansion
    strides = (2, 1)
    return nn.Sequential(*(Bottleneck(channels, width, Stage(stride, 1, 1), stride_first=True) for stride in strides))


def _heads(names: Sequence[str], in_channels: int, values: int) -> nn.ModuleDict:
    """`values` per prior, by level."""
    return nn.ModuleDict({name: nn.Conv2d(in_channels, PRIORS_PER_CELL * values, 3, padding=1) for name in names})


def _published(num_classes: int, image_size: int, *, stride4: bool, shared_head: bool) -> BlitzNet:
    backbone = ResNet(Bottleneck, (3, 4, 6, 3), stride_first=True, same_pool=True)
    backbone.mean, backbone.std = [value / 255 for value in CAFFE_MEAN], [1 / 255] * 3
    return BlitzNet(
        backbone,
        num_classes,
        image_size=image_size,
        scales=SCALES[image_size, 4 if stride4 else 8],
        stride4=stride4,
        shared_head=shared_head,
    )


def blitznet300(num_classes: int, *, stride4: bool = True, shared_head: bool = False) -> BlitzNet:
    return _published(num_classes, 300, stride4=stride4, shared_head=shared_head)


def blitznet512(num_classes: int, *, stride4: bool = False, shared_head: bool = False) -> BlitzNet:
    return _published(num_classes, 512, stride4=stride4, shared_head=shared_head)


def blitznet300_timm(num_classes: int, *, backbone: str, stride4: bool = True, shared_head: bool = False) -> BlitzNet:
    """`backbone` is timm's name. Many of timm's round the sides of their maps down: the priors follow."""
    features = TimmBackbone(backbone)
    sizes = features.map_sizes(300)
    return BlitzNet(
        features,
        num_classes,
        image_size=300,
        scales=SCALES[300, 4 if stride4 else 8],
        stride4=stride4,
        shared_head=shared_head,
        sizes=[*sizes[0 if stride4 else 1 :], *level_sizes(sizes[-1], 2, 3)],
    )


def blitznet_small(num_classes: int) -> BlitzNet:
    """Trains from scratch on a few CPU cores, for objects of at least a fifth of the image."""
    return BlitzNet(
        ResNet(BasicBlock, (1, 2, 2, 2), widths=(24, 64, 96, 128)),
        num_classes,
        image_size=128,
        scales=(0.2, 0.4, 0.6, 0.85, 1.1),
        stride4=False,
        shared_head=True,
        up_channels=64,
        mask_channels=16,
    )


def blitznet_tiny(num_classes: int, *, image_size: int = 128, stride4: bool = True) -> BlitzNet:
    """For tests and demonstrations, where a wrong result has to show within seconds."""
    return BlitzNet(
        ResNet(BasicBlock, (1, 1, 1, 1), widths=(16, 32, 48, 64)),
        num_classes,
        image_size=image_size,
        scales=(0.04, 0.1, 0.22, 0.42, 0.7, 1.0) if stride4 else (0.06, 0.14, 0.3, 0.6, 1.0),
        stride4=stride4,
        shared_head=True,
        up_channels=64,
        mask_channels=16,
    )
