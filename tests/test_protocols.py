"""Promises of protocols: each has its words and its tasks, shows what it says, and averages what it should."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from layouts import TINY
from numpy.typing import NDArray
from PIL import Image
from stub_backend import RECIPE, FunctionBackend, StubBackend
from torch import Tensor

from veduta.config import ProtocolName, TaskName
from veduta.data.fit import Size
from veduta.engine.multi_scale import WINDOWS, DeepLab, Encoding, RefineNet
from veduta.engine.predictor import Predictor
from veduta.engine.protocols import PROTOCOLS, open_protocol
from veduta.errors import RunStopped
from veduta.legacy.build import Imported
from veduta.legacy.importer import imported_recipe
from veduta.legacy.sources import IMPORTS
from veduta.recipes import RECIPES
from veduta.tasks import TASKS

DOCS = Path(__file__).parents[1] / "docs" / "protocols.md"
WEIGHTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Network:
    """One matrix for every pixel, which a mirror cannot change.

    tilt: what is added to class 0 from left to right, which a mirror does change. half: gives half precision.
    """

    def __init__(self, *, tilt: float = 0.0, half: bool = False) -> None:
        self.tilt, self.half = tilt, half

    def __call__(self, images: Tensor) -> Tensor:
        logits = torch.einsum("kc,nchw->nkhw", WEIGHTS, images)
        logits[:, 0] += self.tilt * torch.linspace(0, 1, images.shape[-1])
        return logits.half() + 8 if self.half else logits


def picture(height: int, width: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def unit(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 255


def opened(
    protocol: ProtocolName, crop: Size, network: Any = None, **changes: Any
) -> tuple[Predictor, FunctionBackend]:
    backend = FunctionBackend(network or Network(), protocol, crop=crop, **changes)
    return Predictor(backend), backend


def scores(predictor: Predictor, image: NDArray[np.uint8]) -> Tensor:
    """What the task reads, as probabilities where the protocol averages these."""
    assert isinstance(predictor.show, DeepLab | RefineNet | Encoding)
    (outputs,) = predictor.show(predictor.backend, predictor.task, [image])
    logits = outputs["mask_logits"]
    return logits if isinstance(predictor.show, RefineNet) else logits.exp()


def test_every_name_has_a_protocol_and_a_row_in_the_docs() -> None:
    assert tuple(PROTOCOLS) == get_args(ProtocolName)
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCS.read_text(), flags=re.MULTILINE)
    assert rows == list(PROTOCOLS)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_words_are_of_this_recipe(name: ProtocolName) -> None:
    protocol = PROTOCOLS[name]
    crop = (513, 513)
    predictor, _ = opened(name, crop, task=protocol.tasks[0])
    assert "{" not in predictor.protocol and predictor.rules.boxes == protocol.boxes
    assert ("513" in predictor.protocol) == ("{crop}" in protocol.words or "{side}" in protocol.words)


def test_words_say_how_many_scales_there_are() -> None:
    words = opened("encoding-multiscale", (768, 768))[0].protocol
    assert words == "windows of 768 x 768, 7 scales from 0.75 to 2.25 with mirror images (PyTorch-Encoding)"
    words = opened("deeplab-multiscale", (513, 513))[0].protocol
    assert words == "padded to at least 513 x 513, 6 scales from 0.5 to 1.75 with mirror images (DeepLab)"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_for_another_task_is_one_error_that_names_those_for_it(name: ProtocolName) -> None:
    for task in get_args(TaskName):
        recipe = replace(RECIPE, task=task, protocol=name)
        if task in PROTOCOLS[name].tasks:
            open_protocol(recipe)
            continue
        with pytest.raises(ValueError, match=f"protocol '{name}' is for .* stub is {task}. .*: whole, ") as error:
            open_protocol(recipe)
        for other in str(error.value).rstrip(".").split(": ")[1].split(", "):
            assert task in PROTOCOLS[other].tasks  # type: ignore[index]


@pytest.mark.parametrize("name", ["resnest", "timm", "resnest-converted", "refinenet", "encoding"])
def test_a_crop_that_is_no_square_is_refused_where_squares_are_shown(name: ProtocolName) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' shows squares; data.crop_size is 64 x 96"):
        opened(name, (64, 96), task=PROTOCOLS[name].tasks[0])


@pytest.mark.parametrize("crop", [(512, 512), (513, 520)])
def test_crops_that_scales_would_not_hit_are_refused(crop: Size) -> None:
    with pytest.raises(
        ValueError, match=rf"multiple of 16 and one pixel more; data.crop_size is {crop[0]} x {crop[1]}"
    ):
        opened("deeplab-multiscale", crop)
    with pytest.raises(ValueError, match="multiple of 64"):
        opened("deeplab-multiscale", (529, 529), model="deeplabv3_mobilenet_v2")
    opened("deeplab-multiscale", (545, 513), model="deeplabv3_mobilenet_v2", model_options={"output_stride": 8})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_protocol_for_its_task(name: str) -> None:
    for stage in RECIPES[name]().stages:
        open_protocol(stage)


@pytest.mark.parametrize("source", IMPORTS)
def test_every_source_has_a_protocol_for_its_task(source: str) -> None:
    for family in IMPORTS[source]:
        assert family.task in PROTOCOLS[family.protocol].tasks


@pytest.mark.parametrize(
    ("source", "model", "task", "num_classes", "protocol", "side"),
    [
        ("zhanghang", "resnest50", "classify", 1000, "resnest", 224),
        ("zhanghang", "resnest269", "classify", 1000, "resnest", 416),
        ("encoding", "deeplabv3_resnest50", "segment", 19, "encoding", 768),
        ("encoding", "deeplabv3_resnest101", "segment", 150, "encoding", 480),
        ("mindspore", "refinenet_resnet101", "segment", 21, "refinenet", 513),
        ("tensorflow", "blitznet300", "detect_segment", 21, "blitznet-voc12", 513),
        ("tensorflow", "blitznet300", "detect_segment", 81, "coco", 513),
    ],
)
def test_imported_networks_are_shown_images_as_their_source_does(
    source: str, model: str, task: TaskName, num_classes: int, protocol: ProtocolName, side: int
) -> None:
    (family,) = {f.task: f for f in IMPORTS[source] if f.task == task}.values()
    imported = Imported(
        model=torch.nn.Identity(),
        name=model,
        options={},
        num_classes=num_classes,
        task=task,
        protocol=family.protocol,
        source=source,
        rows=[],
    )
    recipe = imported_recipe(imported)
    assert recipe.protocol == protocol and recipe.data.crop_size == (side, side)
    open_protocol(recipe)


# Images of several sizes, seen as one batch of squares: (protocol, model, crop) -> the first image by hand.
SQUARE = picture(300, 400)
CENTRE = Image.fromarray(SQUARE[19:282, 69:332])  # 300 * 224 / 256 = 262.5, from 18.75 and 68.75 on


def pillow(image: Image.Image, side: int, kernel: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(image.resize((side, side), kernel))


def shorter_side(shorter: int, crop: int, kernel: Image.Resampling) -> NDArray[np.uint8]:
    image = np.asarray(Image.fromarray(SQUARE).resize((shorter * 400 // 300, shorter), kernel))
    top, left = (round((length - crop) / 2) for length in image.shape[:2])
    return image[top : top + crop, left : left + crop]


BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
SQUARES: dict[tuple[ProtocolName, str, int], NDArray[np.uint8]] = {
    ("resnest", "resnest50", 224): pillow(CENTRE, 224, BICUBIC),
    ("resnest-validation", "resnest50", 224): pillow(CENTRE, 224, BILINEAR),
    ("resnest-gluon", "resnest50", 224): shorter_side(256, 224, BILINEAR),
    ("resnest-gluon", "resnest101", 256): shorter_side(293, 256, BILINEAR),  # 292.57, rounded up
    ("timm", "resnest101", 256): shorter_side(292, 256, BILINEAR),
    ("timm", "resnest200", 320): shorter_side(352, 320, BICUBIC),  # 320 / 0.909
    ("timm", "resnest269", 416): shorter_side(448, 416, BICUBIC),
    ("timm", "resnest50_fast_1s4x24d", 224): shorter_side(256, 224, BICUBIC),
    ("resnest-mindspore", "resnest50", 224): cv2.resize(SQUARE, (320, 320))[32:288, 32:288],
    ("resnest-converted", "resnest50", 224): cv2.resize(SQUARE, (256, 256))[16:240, 16:240],
    ("resnest-converted", "resnest269", 416): cv2.resize(SQUARE, (416, 416)),
}


@pytest.mark.parametrize(("protocol", "model", "crop"), SQUARES)
def test_classifiers_see_the_squares_of_each_reference(protocol: ProtocolName, model: str, crop: int) -> None:
    shown: list[Tensor] = []

    def network(images: Tensor) -> Tensor:
        shown.append(images)
        return images.mean((2, 3))

    predictor, _ = opened(
        protocol, (crop, crop), network, task="classify", model=model, reads="class_logits", num_classes=3
    )
    images = [SQUARE, picture(460, 450), picture(500, 100)]
    assert len({predictor.shown_size(image) for image in images}) == 1
    predictions = predictor(images)
    expected = SQUARES[protocol, model, crop]
    assert shown[0].shape == (3, 3, *expected.shape[:2]) and len(shown) == 1
    np.testing.assert_array_equal((255 * shown[0][0]).round().permute(1, 2, 0).numpy(), expected)
    assert [p.class_scores is not None and p.class_scores.shape == (3,) for p in predictions] == [True] * 3


def test_whole_images_and_mirror_images() -> None:
    predictor, backend = opened("mirrored", (64, 64), Network(tilt=4))
    images = [picture(30, 41, seed) for seed in (0, 1)]
    (one, other), half = predictor(images), torch.linspace(0, 4, 41)
    logits = torch.einsum("kc,nchw->nkhw", WEIGHTS, torch.cat([unit(image) for image in images]))
    tilted = [logits.clone(), logits.clone()]
    tilted[0][:, 0] += half
    tilted[1][:, 0] += half.flip(0)
    expected = (tilted[0].softmax(1) + tilted[1].softmax(1)).argmax(1).numpy()
    assert one.mask is not None and other.mask is not None
    assert (np.stack([one.mask, other.mask]) == expected).mean() > 0.999  # but for rounding
    assert backend.shapes == [(2, 3, 30, 41)] * 2
    assert predictor.shown_size(images[0]) == (30, 41)


def test_images_of_any_size_are_padded_into_one_batch_and_what_is_beyond_them_is_cut_off() -> None:
    predictor, backend = opened("deeplab", (65, 81))
    images = [picture(40, 81), picture(65, 20), picture(1, 1)]
    assert {predictor.shown_size(image) for image in images} == {(65, 81)}
    for image, prediction in zip(images, predictor(images), strict=True):
        assert prediction.mask is not None
        np.testing.assert_array_equal(prediction.mask, Network()(unit(image))[0].argmax(0).numpy())
    assert backend.shapes == [(3, 3, 65, 81)]


def test_larger_images_of_deeplab_are_shown_whole_with_aligned_corners() -> None:
    predictor, backend = opened("deeplab", (65, 81))
    (prediction,) = predictor([picture(70, 81)])
    assert prediction.mask is not None and prediction.mask.shape == (70, 81) and backend.shapes == [(1, 3, 81, 81)]
    assert opened("deeplab", (513, 513))[0].shown_size(np.empty((1024, 2048, 3), np.uint8)) == (1025, 2049)


def test_deeplab_averages_probabilities() -> None:
    predictor, backend = opened("deeplab-multiscale", (33, 49), Network(tilt=3.0))
    assert isinstance(predictor.show, DeepLab)
    image, show = picture(33, 49), predictor.show
    found = scores(predictor, image)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 33, 49))
    sizes = [(17, 25), (25, 37), (33, 49), (41, 61), (49, 73), (57, 85)]
    assert backend.shapes == [(1, 3, *size) for size in sizes for _ in range(2)]
    singles = []
    for scale in show.scales:
        predictor.show = replace(show, scales=(scale,))
        singles.append(scores(predictor, image))
    torch.testing.assert_close(found, torch.stack(singles).mean(dim=0))


def test_small_scales_of_deeplab_are_brought_to_the_grid_of_scale_1_first() -> None:
    image = picture(33, 49)

    def resize(x: Tensor, size: Size) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def network(images: Tensor) -> Tensor:
        """Its own logits come at a quarter, as the published network's."""
        coarse = Network()(images)[..., ::4, ::4]
        return resize(coarse, (images.shape[-2], images.shape[-1]))

    predictor, _ = opened("deeplab-multiscale", (33, 49), network)
    assert isinstance(predictor.show, DeepLab)
    predictor.show = replace(predictor.show, scales=(0.75,), mirrored=False)
    logits = Network()(resize(unit(image), (25, 37)))[..., ::4, ::4]
    assert logits.shape[-2:] == (7, 10)
    expected = resize(resize(logits, (9, 13)), (33, 49)).softmax(dim=1)
    torch.testing.assert_close(scores(predictor, image), expected, rtol=1e-4, atol=1e-6)


def test_a_mirror_image_changes_nothing_where_the_network_does_not_see_it() -> None:
    image = picture(33, 49)
    for protocol, crop in (
        ("deeplab-multiscale", (33, 49)),
        ("refinenet", (65, 65)),
        ("encoding-multiscale", (32, 32)),
    ):
        predictor, _ = opened(protocol, crop)  # type: ignore[arg-type]
        assert isinstance(predictor.show, DeepLab | RefineNet | Encoding)
        predictor.show = replace(predictor.show, scales=(1.0,))
        both = scores(predictor, image)
        predictor.show = replace(predictor.show, mirrored=False)
        alone = scores(predictor, image)
        torch.testing.assert_close(both, alone**2 if protocol.startswith("encoding") else alone)  # exp of the sum


def test_refinenet_at_its_own_size_is_the_network_itself() -> None:
    image = picture(40, 65)
    predictor, backend = opened("refinenet", (65, 65), Network(tilt=1.0))
    predictor.show = RefineNet(side=65, mirrored=False)
    torch.testing.assert_close(scores(predictor, image), Network(tilt=1.0)(unit(image)))
    predictor.show = RefineNet(side=65, scales=(0.75, 1.5), mirrored=False)
    predictor([image])
    assert [shape[-2:] for shape in backend.shapes[1:]] == [(49, 49), (97, 97)]


def test_the_padded_canvas_of_refinenet_is_mirrored_as_a_whole() -> None:
    """Class 0 grows to the right of the canvas, and so, mirrored, to its left: the mean is the same everywhere."""
    image = np.zeros((65, 20, 3), np.uint8)
    found = scores(opened("refinenet", (65, 65), Network(tilt=1.0))[0], image)
    torch.testing.assert_close(found[:, 0], torch.full((1, 65, 20), 0.5))


@pytest.mark.parametrize("size", [(40, 80), (100, 30), (20, 20), (49, 50)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_windows_of_encoding_that_see_a_pixel_are_averaged(size: Size, mirrored: bool) -> None:
    """Of a network that looks at single pixels it makes no difference how many windows there are."""
    image = picture(*size)
    predictor, backend = opened("encoding", (32, 32))
    assert isinstance(predictor.show, Encoding) and predictor.show.base_size is None
    predictor.show = replace(predictor.show, crop_size=24, mirrored=mirrored)
    expected = Network()(unit(image)).exp()
    torch.testing.assert_close(scores(predictor, image), expected ** (1 + mirrored))
    assert all(shape[-2:] == (24, 24) and shape[0] <= WINDOWS for shape in backend.shapes)
    windows = math.prod(max(0, math.ceil((length - 24) / 16)) + 1 for length in size)
    assert sum(shape[0] for shape in backend.shapes) == windows * (1 + mirrored)


def test_scores_of_encodings_scales_are_summed_and_beyond_the_image_is_black() -> None:
    image, found = picture(30, 40), []
    predictor, _ = opened("encoding", (32, 32))
    for scales in ((0.5, 1.0), (0.5,), (1.0,)):
        assert isinstance(predictor.show, Encoding)
        predictor.show = replace(predictor.show, scales=scales)
        found.append(scores(predictor, image))
    torch.testing.assert_close(found[0], found[1] + found[2])

    seen: list[Tensor] = []

    def network(images: Tensor) -> Tensor:
        seen.append(images)
        return Network()(images)

    opened("encoding", (64, 64), network)[0]([np.maximum(image, 1)])
    assert not seen[0][..., 30:, :].any() and not seen[0][..., 40:].any() and seen[0][..., :30, :40].all()


def test_encodings_sizes_are_those_of_its_data_sets() -> None:
    small = opened("encoding-multiscale", (480, 480))[0].show
    assert isinstance(small, Encoding) and small.base_size == 520 and small.scales == (0.5, 0.75, 1, 1.25, 1.5, 1.75)
    cityscapes = opened("encoding-multiscale", (768, 768))[0].show
    assert isinstance(cityscapes, Encoding) and cityscapes.base_size is None and len(cityscapes.scales) == 7


def test_a_network_of_half_precision_is_averaged_in_full() -> None:
    image = picture(32, 32)
    predictor, _ = opened("encoding-multiscale", (32, 32), Network(half=True))
    assert isinstance(predictor.show, Encoding)
    predictor.show = replace(predictor.show, scales=(1.0,))
    expected = (Network()(unit(image)) + 8).exp() ** 2  # beyond half precision's 65504
    torch.testing.assert_close(scores(predictor, image), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("name", [name for name, protocol in PROTOCOLS.items() if "segment" in protocol.tasks])
@pytest.mark.parametrize("size", [(24, 32), (33, 70), (1, 5)])
def test_masks_are_of_the_images_own_size_and_right_where_the_network_is(name: ProtocolName, size: Size) -> None:
    """One colour for a class, in blocks as large as the image: only what resizing mixes may be wrong."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, size[1] // 2 :, 1] = 255

    def network(images: Tensor) -> Tensor:
        return torch.stack([1 - images[:, 1], images[:, 1]], dim=1)

    predictor, _ = opened(name, (65, 65), network, num_classes=2)
    (prediction,) = predictor([image])
    assert prediction.mask is not None and prediction.mask.shape == size and prediction.mask.dtype == np.uint8
    assert np.abs(prediction.mask != (image[..., 1] > 0)).sum(axis=1).max() <= 1


def test_boxes_have_the_rules_of_their_protocol() -> None:
    names: list[ProtocolName] = ["blitznet-voc12", "blitznet-voc07", "voc12-kit", "voc07-kit", "coco"]
    found = [opened(name, (64, 64), task="detect_segment")[0].rules.boxes for name in names]
    assert found == ["voc12", "voc07", "voc12-kit", "voc07-kit", "coco"]
    assert {PROTOCOLS[name].tasks for name in names} == {("detect_segment",)} and set(TASKS) == set(get_args(TaskName))


def test_memory_that_is_out_is_one_error_that_says_what_to_set() -> None:
    def network(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    predictor, _ = opened("whole", (64, 64), network)
    with pytest.raises(
        RunStopped, match=r"memory of cpu is too small: CUDA out.*9 GiB\n.*batch_size.*protocol=windows"
    ):
        predictor([picture(30, 41)] * 2)


def test_other_failures_of_a_network_stay_what_they_are() -> None:
    def network(images: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    for name in ("whole", "windows"):
        with pytest.raises(RuntimeError, match="shapes do not match"):
            opened(name, (64, 64), network)[0]([picture(30, 41)])


def test_the_stub_reads_the_truth_through_the_default_protocol() -> None:
    predictor = Predictor(StubBackend())
    assert predictor.protocol == "whole images, single scale" and predictor.labels == TINY
