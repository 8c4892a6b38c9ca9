"""Promises of averaged evaluations beside their recordings: bounded batches, mirror images, every scale once."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from veduta.engine.protocols import WINDOWS, deeplab, encoding, refinenet

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(4, 3, generator=GENERATOR)
BLACK = torch.zeros(3)


class Network:
    """One matrix for every pixel, which a mirror cannot change. Keeps the shapes that it is given.

    stride: of its logits. tilt: what is added to class 0 from left to right, which a mirror does change.
    """

    def __init__(self, *, stride: int = 1, tilt: float = 0.0) -> None:
        self.stride, self.tilt = stride, tilt
        self.shapes: list[torch.Size] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.shapes.append(images.shape)
        logits = torch.einsum("kc,nchw->nkhw", WEIGHTS, images)
        logits[:, 0] += self.tilt * torch.linspace(0, 1, images.shape[-1])
        return logits[..., :: self.stride, :: self.stride]


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_deeplab_averages_probabilities() -> None:
    image = picture(33, 49)
    network = Network(stride=4, tilt=3.0)
    found = deeplab(network, image, scales=(0.5, 1.0, 1.5), flip=True)
    assert found.shape == (1, 4, 33, 49)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 33, 49))
    singles = [deeplab(network, image, scales=(scale,), flip=True) for scale in (0.5, 1.0, 1.5)]
    torch.testing.assert_close(found, torch.stack(singles).mean(dim=0))
    assert {tuple(shape[-2:]) for shape in network.shapes} == {(17, 25), (33, 49), (49, 73)}


def test_small_scales_of_deeplab_are_brought_to_the_grid_of_scale_1_first() -> None:
    image = picture(33, 49)

    def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    found = deeplab(Network(stride=4), image, scales=(0.75,), flip=False)
    logits = Network(stride=4)(resize(image, (25, 37)))
    assert logits.shape[-2:] == (7, 10)
    torch.testing.assert_close(found, resize(resize(logits, (9, 13)), (33, 49)).softmax(dim=1))


def test_a_mirror_image_changes_nothing_where_the_network_does_not_see_it() -> None:
    image = picture(33, 49)
    alone, both = (deeplab(Network(stride=4), image, scales=(1.0,), flip=flip) for flip in (False, True))
    torch.testing.assert_close(alone, both)
    array = (255 * image[0].permute(1, 2, 0)).byte().numpy()
    alone, both = (refinenet(Network(), array, crop=65, flip=flip) for flip in (False, True))
    torch.testing.assert_close(2 * alone, both)  # logits are summed
    alone, both = (
        encoding(Network(), image, base_size=49, crop_size=24, scales=(1.0,), flip=flip, pad=BLACK)
        for flip in (False, True)
    )
    torch.testing.assert_close(alone**2, both)  # exp of the sum


def test_refinenet_at_its_own_size_is_the_network_itself() -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 65, 3), np.uint8)
    network = Network(tilt=1.0)
    found = refinenet(network, array, crop=65, flip=False)
    images = torch.from_numpy(array).permute(2, 0, 1)[None] / 255
    expected = torch.einsum("kc,nchw->nkhw", WEIGHTS, images)
    expected[:, 0] += torch.linspace(0, 1, 65)
    torch.testing.assert_close(found, expected)
    refinenet(network, array, crop=65, scales=(0.75, 1.5), flip=False)
    assert [tuple(shape[-2:]) for shape in network.shapes] == [(65, 65), (49, 49), (97, 97)]


@pytest.mark.parametrize("size", [(40, 80), (100, 30), (20, 20), (49, 50)])
@pytest.mark.parametrize("flip", [False, True])
def test_windows_that_see_a_pixel_are_averaged(size: tuple[int, int], flip: bool) -> None:
    """Of a network that looks at single pixels it makes no difference how many windows there are."""
    image = picture(*size)
    network = Network()
    found = encoding(network, image, base_size=max(size), crop_size=24, scales=(1.0,), flip=flip, pad=BLACK)
    expected = torch.einsum("kc,nchw->nkhw", WEIGHTS, image).exp()
    torch.testing.assert_close(found, expected ** (1 + flip))
    assert all(shape[-2:] == (24, 24) and shape[0] <= WINDOWS for shape in network.shapes)
    stride = 16
    windows = math.prod(max(0, math.ceil((length - 24) / stride)) + 1 for length in size)
    assert sum(shape[0] for shape in network.shapes) == windows * (1 + flip)


def test_a_network_of_half_precision_is_averaged_in_full() -> None:
    image = picture(24, 24)
    found = encoding(
        lambda x: Network()(x).half() + 8, image, base_size=24, crop_size=24, scales=(1.0,), flip=True, pad=BLACK
    )
    expected = (torch.einsum("kc,nchw->nkhw", WEIGHTS, image) + 8).exp() ** 2  # beyond half precision's 65504
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


def test_scores_of_scales_are_summed_and_padding_is_as_given() -> None:
    image = picture(30, 40)
    scales = (0.5, 1.0)
    scores = [
        encoding(Network(), image, base_size=40, crop_size=24, scales=s, flip=False, pad=BLACK)
        for s in (scales, *((scale,) for scale in scales))
    ]
    torch.testing.assert_close(scores[0], scores[1] + scores[2])

    seen: list[Tensor] = []

    def network(images: Tensor) -> Tensor:
        seen.append(images)
        return images

    encoding(network, image, base_size=20, crop_size=24, scales=(1.0,), flip=False, pad=torch.tensor([1.0, 2.0, 3.0]))
    assert seen[0][0, :, 23, 23].tolist() == [1.0, 2.0, 3.0] and seen[0][0, :, :15, :20].max() <= 1
