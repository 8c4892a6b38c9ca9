"""Crops, colours, fits and averaged evaluations give what those of the references gave.

Where the references drew random numbers, ours get the same ones, drawn again from their streams.
"""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rule
import torch
from golden_data import Golden
from numpy.typing import NDArray
from stub_backend import FunctionBackend
from torch import Tensor

from veduta.config import ProtocolName
from veduta.data.augment.blitznet_crops import ORDERS
from veduta.data.augment.photometric import ADJUST
from veduta.data.augment.published_crops import DEEPLAB, ENCODING, REFINENET, cut
from veduta.data.fit import CentralSquare, LongerSide, Padded, Range, Stretched, encoding_size
from veduta.data.sample import Sample
from veduta.engine.multi_scale import Encoding, RefineNet
from veduta.engine.predictor import Predictor
from veduta.labels import IGNORE_INDEX
from veduta.ops.resize import resize_aligned_nearest
from veduta.tasks.confusion import ConfusionMatrix

PIPELINES, TENSORFLOW = Golden("pipelines"), Golden("tf_ops")
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # of ImageNet, RGB
ONE_LEVEL = 1 / STD.min()


def parts(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    assert sample.mask is not None
    return sample.image, sample.mask


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_training_crops_of_refinenet_are_mindspores(seed: int) -> None:
    stream = np.random.RandomState(seed)  # noqa: NPY002 - the reference's own
    sample = Sample(image=rule.image_u8(301, (60, 80, 3)), mask=rule.labels(303, (60, 80), 21), name="")
    factor = stream.uniform(0.5, 3.0)
    size = (int(factor * 60), int(factor * 80))
    at = (stream.randint(0, max(size[0] - 65, 0) + 1), stream.randint(0, max(size[1] - 65, 0) + 1))
    flip = stream.uniform() > 0.5
    image, mask = parts(cut(sample, (65, 65), REFINENET, size=size, at=at, flip=flip))
    normalised = ((image - MEAN) / STD).transpose(2, 0, 1)[:, ::4, ::4]
    np.testing.assert_allclose(normalised, PIPELINES.arrays[f"rf_train_{seed}"], atol=1.01 * ONE_LEVEL)
    np.testing.assert_array_equal(mask[::2, ::2], PIPELINES.arrays[f"rf_train_label_{seed}"])


@pytest.mark.parametrize("seed", [3, 4])
def test_training_crops_of_encoding_are_the_references(seed: int) -> None:
    stream = random.Random(seed)
    sample = Sample(image=rule.image_u8(322, (40, 80, 3)), mask=rule.labels(323, (40, 80), 34, ignore=0), name="")
    flip = stream.random() < 0.5
    size = encoding_size((40, 80), stream.randint(int(104 * 0.5), int(104 * 2.0)))
    left, top = stream.randint(0, max(size[1] - 48, 0)), stream.randint(0, max(size[0] - 48, 0))
    image, mask = parts(cut(sample, (48, 48), ENCODING, size=size, at=(top, left), flip=flip))
    found = np.where(mask == IGNORE_INDEX, 0, mask)  # the reference pads with 0, which its labels call unlabeled
    np.testing.assert_allclose(image[::2, ::2], PIPELINES.arrays[f"enc_sync_image_{seed}"], atol=1)
    np.testing.assert_array_equal(found[::2, ::2], PIPELINES.arrays[f"enc_sync_mask_{seed}"])


DEEPLAB_IMAGE, DEEPLAB_MASK = rule.image_u8(370, (45, 61, 3)), rule.labels(371, (45, 61), 21)
HALF_A_LEVEL = 0.51  # DeepLab goes on with fractions of a level, ours are rounded


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 2])
def test_scaling_of_deeplab_is_tensorflows(factor: float) -> None:
    size = (int(45 * factor), int(61 * factor))
    sample = Sample(image=DEEPLAB_IMAGE, mask=DEEPLAB_MASK, name="")
    image, mask = parts(cut(sample, size, DEEPLAB, size=size, at=(0, 0), flip=False))
    np.testing.assert_allclose(image[::3, ::3], TENSORFLOW.arrays[f"scale{factor}_image"], atol=HALF_A_LEVEL)
    np.testing.assert_array_equal(mask, TENSORFLOW.arrays[f"scale{factor}_label"])


def test_padding_of_deeplab_is_tensorflows_in_training_and_evaluation() -> None:
    sample = Sample(image=DEEPLAB_IMAGE, mask=DEEPLAB_MASK, name="")
    image, mask = parts(cut(sample, (65, 65), DEEPLAB, size=(45, 61), at=(0, 0), flip=False))
    expected = TENSORFLOW.arrays["pad_image"]
    assert (expected == 127.5).any()  # what becomes 128 here
    np.testing.assert_allclose(image[::4, ::4], expected, atol=HALF_A_LEVEL)
    np.testing.assert_array_equal(mask, TENSORFLOW.arrays["pad_label"])
    np.testing.assert_array_equal(Padded((65, 65))(DEEPLAB_IMAGE), image)


@pytest.mark.parametrize("case", TENSORFLOW.meta["resize_to_range"], ids=lambda case: str(case["size_out"]))
def test_resizing_to_a_range_is_deeplabs(case: dict[str, Any]) -> None:
    fit = Range(case["min_size"], case["max_size"], case["factor"])
    image = fit(DEEPLAB_IMAGE)
    assert image.shape[:2] == fit.content((45, 61)) == tuple(case["size_out"])
    expected = TENSORFLOW.arrays[f"range{case['case']}_image"]
    np.testing.assert_allclose(image[::4, ::4], expected, atol=HALF_A_LEVEL)
    mask = resize_aligned_nearest(torch.from_numpy(DEEPLAB_MASK), case["size_out"])
    np.testing.assert_array_equal(mask.numpy(), TENSORFLOW.arrays[f"range{case['case']}_label"])


@pytest.mark.parametrize("case", TENSORFLOW.meta["resize"], ids=lambda case: f"{case['size_in']}-{case['size_out']}")
def test_pixels_of_scaled_masks_are_tensorflows(case: dict[str, Any]) -> None:
    for axis, before, after in zip(("rows", "cols"), case["size_in"], case["size_out"], strict=True):
        expected = TENSORFLOW.arrays[f"resize{case['case']}_nearest_aligned_{axis}"]
        np.testing.assert_array_equal(DEEPLAB.places(before, after), expected)


def test_stretching_for_blitznet_is_tensorflows() -> None:
    case = TENSORFLOW.meta["resize"][12]  # 3 x 3 to a square of 75
    levels = np.round(63 * (rule.image(312, (1, 3, 3, 2), "NHWC")[0] + 2))  # linear, so the recording scales with it
    image = np.concatenate([levels, levels[..., :1]], axis=2).clip(0, 255).astype(np.uint8)
    expected = 63 * (TENSORFLOW.arrays["resize12_bilinear_legacy"] + 2)
    assert case["size_out"] == [75, 75]
    np.testing.assert_allclose(Stretched(75)(image)[::4, ::4, :2], expected, atol=1.01)


def colour_names() -> list[str]:
    return [name for name in TENSORFLOW.arrays if name.startswith("colour_") and name.split("_")[1] in ADJUST]


def test_the_colour_recordings_are_of_this_image() -> None:
    image = rule.image_u8(360, (24, 30, 3)).astype(np.float32) / 255
    assert rule.checksum(image) == TENSORFLOW.arrays["colour_input_checksum"]
    assert len(colour_names()) == 12


@pytest.mark.parametrize("name", colour_names())
def test_colour_changes_are_tensorflows(name: str) -> None:
    _, change, amount = name.split("_")
    image = rule.image_u8(360, (24, 30, 3)).astype(np.float32) / 255
    ADJUST[change](image, float(amount))
    np.testing.assert_allclose(image, TENSORFLOW.arrays[name], atol=2e-6)


@pytest.mark.parametrize(("number", "order"), TENSORFLOW.meta["colour"]["orders"].items())
def test_orders_of_colour_changes_are_blitznets(number: str, order: list[str]) -> None:
    image = rule.image_u8(360, (24, 30, 3)).astype(np.float32) / 255
    for change in order:
        ADJUST[change](image, TENSORFLOW.meta["colour"]["order_parameters"][change])
    np.testing.assert_allclose(image.clip(0, 1), TENSORFLOW.arrays[f"colour_order{number}"], atol=2e-6)
    assert tuple(order) == ORDERS[int(number)]


@pytest.mark.parametrize(("seed", "size"), [(311, (90, 121)), (312, (130, 77))])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_central_squares_are_those_of_the_authors_resnest(kernel: Any, seed: int, size: tuple[int, int]) -> None:
    image = CentralSquare(48, kernel)(rule.image_u8(seed, (*size, 3)))
    np.testing.assert_allclose(image, PIPELINES.arrays[f"zh_center_{kernel}_{seed}"].astype(int), atol=1)


REFINENET_IMAGES = {"landscape": rule.image_u8(301, (60, 80, 3)), "portrait": rule.image_u8(302, (90, 71, 3))}  # BGR
REFINENET_MASKS = (rule.labels(303, (60, 80), 21), rule.labels(304, (90, 71), 21))


def in_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[..., ::-1])


@pytest.mark.parametrize("name", REFINENET_IMAGES)
def test_inputs_of_refinenet_are_mindspores(name: str) -> None:
    fit, image = LongerSide(129), in_rgb(REFINENET_IMAGES[name])
    assert fit.content((image.shape[0], image.shape[1])) == tuple(PIPELINES.arrays[f"rf_pre_{name}_hw"])
    normalised = ((fit(image) - MEAN) / STD).transpose(2, 0, 1)[:, ::4, ::4]
    np.testing.assert_allclose(normalised, PIPELINES.arrays[f"rf_pre_{name}"], atol=0.5 * ONE_LEVEL)


def stand_in(x: Tensor) -> Tensor:
    """The recording's network: one matrix for every pixel, and logits of their own for every place of the canvas."""
    weights = torch.from_numpy(rule.fill("standin.weight", (21, 3), fan_in=0.3))
    normalised = (x - torch.tensor(MEAN / 255).view(3, 1, 1)) / torch.tensor(STD / 255).view(3, 1, 1)
    places = torch.from_numpy(rule.image(300, (1, 21, *x.shape[-2:])))
    return torch.einsum("kc,nchw->nkhw", weights, normalised.float()) + 2 * places


def refinenet_masks(run: str) -> list[NDArray[np.uint8]]:
    """Both images at once: each lies on a canvas of one size, whatever its own."""
    protocol: ProtocolName = "refinenet-multiscale" if run == "ms_flip" else "refinenet"
    predictor = Predictor(FunctionBackend(stand_in, protocol, crop=(129, 129), num_classes=21))
    if run == "plain":  # what the port does without its --flip
        predictor.show = RefineNet(side=129, mirrored=False)
    masks = [prediction.mask for prediction in predictor([in_rgb(image) for image in REFINENET_IMAGES.values()])]
    return [mask for mask in masks if mask is not None]


@pytest.mark.parametrize("run", ["plain", "flip", "ms_flip"])
def test_masks_of_refinenets_evaluation_are_mindspores(run: str) -> None:
    for number, mask in enumerate(refinenet_masks(run)):
        assert (mask == PIPELINES.arrays[f"rf_mask_{run}_{number}"]).mean() > 0.995


def test_scores_of_refinenets_evaluation_are_mindspores() -> None:
    metric = ConfusionMatrix(21)
    for found, mask in zip(refinenet_masks("flip"), REFINENET_MASKS, strict=True):
        metric.update(found, mask)
    np.testing.assert_array_equal(metric.counts[:, :21], PIPELINES.arrays["rf_hist"])
    scores = metric.compute()
    np.testing.assert_allclose(scores.iou, PIPELINES.arrays["rf_iou"])
    assert scores.mean_iou == pytest.approx(float(PIPELINES.arrays["rf_miou"]))


def test_the_sliding_evaluation_is_pytorch_encodings() -> None:
    """The recorded image is normalised already; it is brought to where black is 0, and back in the network."""
    weights = 0.5 * torch.from_numpy(rule.fill("standin.weight", (21, 3), fan_in=0.3))[:19]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def network(x: Tensor) -> Tensor:
        places = torch.from_numpy(rule.image(320, (1, 19, *x.shape[-2:])))
        return torch.einsum("kc,nchw->nkhw", weights, (x - mean) / std) + places

    predictor = Predictor(FunctionBackend(network, "encoding-multiscale", crop=(48, 48), num_classes=19))
    assert isinstance(predictor.show, Encoding)
    predictor.show = replace(predictor.show, base_size=104)
    normalised = torch.from_numpy(rule.image(321, (1, 3, 40, 80)))[0]
    image: Any = (normalised * std + mean).permute(1, 2, 0).numpy()
    (outputs,) = predictor.show(predictor.backend, predictor.task, [image])
    scores = outputs["mask_logits"].exp()
    np.testing.assert_allclose(scores[:, :, ::4, ::4], PIPELINES.arrays["enc_multieval_scores"], rtol=1e-4)
    (prediction,) = predictor([image])
    np.testing.assert_array_equal(prediction.mask, PIPELINES.arrays["enc_multieval_mask"][0])
