"""Small pieces that several models share: input normalisation, conv-BN-ReLU, dilation in place of stride.

Dilated stages: Chen et al. 2017, https://arxiv.org/abs/1706.05587, sec. 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from veduta.ops.resize import max_pool_same

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Contract of a feature extractor: normalised (N, 3, H, W) -> list of (N, C, h, w), finest first.

    Four maps at strides 4, 8, 16, 32; none coarser than `output_stride`. `out_channels` gives each map's C.
    `mean` and `std` are the input's, of RGB in [0, 1]: the model on top builds its `Normalize` from them.
    """

    out_channels: tuple[int, ...]
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD


class Normalize(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> zero mean, unit deviation per channel. First layer of every model.

    The constants are no part of the state dict, so published weights load by their own names.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            constant = torch.from_numpy(np.array(values, np.float32)).view(-1, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class MaxPoolSame(nn.Module):
    """Max-pooling that pads an odd pixel at the bottom and the right only: see `max_pool_same`."""

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        return max_pool_same(x, self.kernel_size, self.stride)


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: type[nn.ReLU | nn.ReLU6] = nn.ReLU,
) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)), for odd kernels."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out_channels),
        activation(inplace=True),
    )


def set_batch_norm(model: nn.Module, *, eps: float, momentum: float) -> None:
    """Set both for every BatchNorm. momentum: share of the new batch in the running statistics, 1 - TensorFlow's."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = eps, momentum


def init_convs(model: nn.Module) -> None:
    """Kaiming normal, fan-out, for every convolution: He et al. 2015, https://arxiv.org/abs/1502.01852, sec. 2.2."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Stage(NamedTuple):
    """How one stage of a backbone moves: the convolution with `stride` has `first_dilation`, later ones `dilation`."""

    stride: int
    first_dilation: int
    dilation: int


def plan_stages(strides: Sequence[int], *, stem_stride: int, output_stride: int) -> list[Stage]:
    """Keep striding until `output_stride` is reached, then dilate instead.

    The convolution that would have strided still sees the grid of the stage before, so it keeps that dilation:
    strides (1, 2, 2, 2) after a stem of 4 give, at output stride 8, dilations 1, 1, then 1/2 and 2/4 (first/later).
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride is {output_stride}; choose 8, 16 or 32.")
    stages, reached, dilation = [], stem_stride, 1
    for stride in strides:
        first_dilation = dilation
        if reached * stride > output_stride:
            dilation, stride = dilation * stride, 1
        reached *= stride
        stages.append(Stage(stride, first_dilation, dilation))
    return stages
