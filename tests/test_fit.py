"""Promises of the geometry of evaluation: sizes as published, uint8 in and out, and a way back that hits its pixels."""

from typing import Literal

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from veduta.data.augment.geometry import MEAN_COLOR
from veduta.data.fit import (
    CentralSquare,
    Fit,
    LongerSide,
    Padded,
    Range,
    Reversible,
    ShorterSide,
    Stretched,
    StretchedCentre,
    restore_boxes,
)

SHAPES = [(45, 61), (90, 71), (1, 33), (120, 7), (64, 64)]
CROPPING: dict[str, Fit] = {
    "central square": CentralSquare(48, "bilinear"),
    "shorter side": ShorterSide(48, 0.875, "down", "bicubic"),
    "stretched centre": StretchedCentre(60, 48),
}
REVERSIBLE: dict[str, Reversible] = {
    "padded": Padded((129, 137)),
    "longer side": LongerSide(129),
    "range": Range(80, 200),
    "range of multiples": Range(80, 160, 16),
    "stretched": Stretched(96),
}


def noise(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", CROPPING.values(), ids=CROPPING)
def test_a_cropping_fit_gives_a_square_of_its_size(fit: Fit, shape: tuple[int, int]) -> None:
    fitted = fit(noise(shape))
    assert fitted.shape == (48, 48, 3) and fitted.dtype == np.uint8


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", REVERSIBLE.values(), ids=REVERSIBLE)
def test_what_the_network_says_comes_back_to_its_pixels(fit: Reversible, shape: tuple[int, int]) -> None:
    """A network that reads the class of a pixel off its colour: back at the size of the image it has to be right."""
    rows, columns = np.indices(shape)
    mask = (rows // 12 + columns // 15) % 2
    image = np.where(mask[..., None] == 1, np.uint8(230), np.uint8(20)).astype(np.uint8).repeat(3, axis=2)
    fitted = fit(image)
    bright = torch.from_numpy(fitted[..., 0].astype(np.float32))[None, None] - 125
    logits = fit.restore(torch.cat([-bright, bright], dim=1), shape)
    assert logits.shape == (1, 2, *shape)
    assert (logits.argmax(dim=1)[0].numpy() == mask).mean() > 0.9
    if min(shape) > 40:
        drift = [np.abs(np.roll(logits.argmax(dim=1)[0].numpy(), by, axis=(0, 1)) - mask).mean() for by in (-1, 0, 1)]
        assert np.argmin(drift) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", REVERSIBLE.values(), ids=REVERSIBLE)
def test_boxes_come_back_in_pixels_of_the_image(fit: Reversible, shape: tuple[int, int]) -> None:
    height, width = fit.content(shape)
    fitted = fit(noise(shape))
    assert fitted.shape[0] >= height and fitted.shape[1] >= width and fitted.dtype == np.uint8
    boxes = np.array([[0, 0, width, height], [0, 0, width / 2, height / 4], [-5, -5, 900, 900]], np.float32)
    found = restore_boxes(boxes, fit, shape)
    whole = (0, 0, shape[1], shape[0])
    expected = np.array([whole, (0, 0, shape[1] / 2, shape[0] / 4), whole], np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(("rounding", "shorter"), [("down", 256), ("up", 257)])
def test_the_shorter_side_is_rounded_as_each_reference_does(rounding: Literal["down", "up"], shorter: int) -> None:
    for shape in ((300, 400), (400, 300)):
        image = noise(shape)
        size = (shorter * shape[0] // 300, shorter * shape[1] // 300)
        resized = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
        top, left = (round((length - 224) / 2) for length in size)
        fitted = ShorterSide(224, 0.8745, rounding, "bicubic")(image)  # 256.15
        assert (fitted == resized[top : top + 224, left : left + 224]).all()


def test_the_published_evaluation_of_mindspores_resnest_ignores_the_aspect() -> None:
    image = noise((90, 500))
    expected = cv2.resize(image, (320, 320), interpolation=cv2.INTER_LINEAR)[32:288, 32:288]
    assert (StretchedCentre(320, 256)(image) == expected).all()


def test_padding_lies_at_the_bottom_and_the_right() -> None:
    image = noise((45, 61))
    fitted = Padded((65, 65))(image)
    assert (fitted[:45, :61] == image).all() and (fitted[45:] == 128).all() and (fitted[:, 61:] == 128).all()
    fitted = LongerSide(61)(image)
    assert (fitted[:45] == image).all() and (fitted[45:] == MEAN_COLOR).all()


def test_a_side_that_is_longer_than_the_crop_grows_to_where_corners_are_aligned() -> None:
    assert Padded((65, 65)).fitted((20, 66)) == (65, 81) and Padded((65, 65)).fitted((81, 300)) == (81, 305)
    assert Padded((513, 513)).fitted((1024, 2048)) == (1025, 2049)  # the published crop of Cityscapes
    fitted = Padded((65, 65))(noise((20, 66)))
    assert fitted.shape == (65, 81, 3) and (fitted[:20, :66] == noise((20, 66))).all() and (fitted[:, 66:] == 128).all()


def test_the_longer_side_is_enlarged_too() -> None:
    assert LongerSide(513).content((375, 500)) == (384, 513)
    assert LongerSide(513).content((500, 333)) == (513, 341)  # 341.66, cut off
    assert LongerSide(513).content((1, 2000)) == (1, 513)


def test_logits_of_refinenet_come_back_as_opencv_resizes() -> None:
    logits = np.random.default_rng(0).normal(size=(65, 65, 3)).astype(np.float32)
    found = LongerSide(65).restore(torch.from_numpy(logits).permute(2, 0, 1)[None], (30, 97))
    expected = cv2.resize(logits[:20], (97, 30), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-4)


def test_a_range_holds_both_of_its_ends() -> None:
    for shape in ((45, 61), (100, 1000), (1000, 100), (7, 7)):
        height, width = Range(40, 60, 16).content(shape)
        assert max(height, width) <= 49 and height % 16 == 1 and width % 16 == 1
        free = Range(40, 300).content(shape)
        assert min(free) == 40 or max(free) == 300
    aligned = F.interpolate(torch.arange(3.0)[None, None, None], (1, 5), mode="bilinear", align_corners=True)
    assert torch.equal(Range(5, 5).restore(torch.arange(3.0)[None, None, None], (1, 5)), aligned)
