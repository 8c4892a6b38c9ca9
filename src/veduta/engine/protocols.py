"""PROTOCOLS: how images are shown to a network and scored, by name. docs/protocols.md says whose each of them is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal
from typing import Protocol as Interface

from veduta.backends import Backend
from veduta.config import ProtocolName, Recipe, TaskName
from veduta.data.fit import CentralSquare, Padded, Pixels, ShorterSide, Size, StretchedCentre
from veduta.engine import multi_scale, single_scale
from veduta.engine.single_scale import Square, Whole
from veduta.engine.windows import Windows
from veduta.ops.arrays import Array
from veduta.tasks import Task
from veduta.tasks.metrics import BoxRules

DEEPLAB_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
REFINENET_SCALES = (1.0, 0.75, 1.5)
ENCODING_SCALES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25)  # of Cityscapes
ENCODING_SMALL = 480, 520, (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # crop, longer side and scales of all other data sets

# timm's, where they are not 0.875 and bilinear.
TIMM_SHARES = {"resnest200": 0.909, "resnest269": 0.928}
TIMM_BICUBIC = ("resnest200", "resnest269", "resnest50_fast_4s2x40d", "resnest50_fast_1s4x24d")

SEVERAL_SCALES = (multi_scale.DeepLab, multi_scale.Encoding, multi_scale.RefineNet)


class Show(Interface):
    """How one recipe's network is shown images, and what is made of its outputs."""

    def shown_size(self, size: Size, /) -> Size:
        """The size in which an image of `size` is shown; images of one such size may come together."""
        ...

    def __call__(self, backend: Backend, task: Task, images: Sequence[Pixels], /) -> Iterator[dict[str, Array]]:
        """Images (H, W, 3) uint8 RGB of one shown size -> what `task.predict` reads, of one or several, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """words: for people, beside every score; see `in_words`. tasks: those it is for. boxes: what their precision means.

    show: of a recipe; raises ValueError where its crop is not one for the protocol.
    """

    words: str
    tasks: tuple[TaskName, ...]
    show: Callable[[Recipe], Show | Windows]
    boxes: BoxRules = "voc12"


def open_protocol(recipe: Recipe) -> tuple[Protocol, Show | Windows]:
    """Raises ValueError where the recipe's protocol is not one for its task or its crop."""
    protocol = PROTOCOLS[recipe.protocol]
    if recipe.task not in protocol.tasks:
        others = [name for name, other in PROTOCOLS.items() if recipe.task in other.tasks]
        raise ValueError(
            f"protocol '{recipe.protocol}' is for task {' or '.join(protocol.tasks)}; the task of {recipe.name} is "
            f"{recipe.task}. For that there are: {', '.join(others)}."
        )
    return protocol, protocol.show(recipe)


def in_words(protocol: Protocol, show: Show | Windows, recipe: Recipe) -> str:
    """The protocol's words with the sizes and scales that are used, which memory may have made smaller."""
    height, width = show.window if isinstance(show, Windows) else recipe.data.crop_size
    scales = show.scales if isinstance(show, SEVERAL_SCALES) else (1.0,)
    return protocol.words.format(
        crop=f"{width} x {height}",
        side=width,
        outer=width + 32,
        scales=f"{len(scales)} scales from {min(scales):g} to {max(scales):g}",
    )


def averages_logits(show: Show | Windows) -> bool:
    """Whether a prediction is made of the logits of several views of an image."""
    return isinstance(show, (Windows, *SEVERAL_SCALES)) or (isinstance(show, Whole) and show.mirrored)


def _side(recipe: Recipe) -> int:
    height, width = recipe.data.crop_size
    if height != width:
        raise ValueError(
            f"protocol '{recipe.protocol}' shows squares; data.crop_size is {height} x {width}. Set it to a square, "
            f"such as data.crop_size=[{height},{height}]."
        )
    return height


def _central(kernel: Literal["bilinear", "bicubic"], recipe: Recipe) -> Square:
    side = _side(recipe)
    return Square(CentralSquare(side, kernel), side)


def _gluon(recipe: Recipe) -> Square:
    side = _side(recipe)
    fit = ShorterSide(side, 0.875, "up", "bilinear") if side < 320 else CentralSquare(side, "bicubic")
    return Square(fit, side)


def _timm(recipe: Recipe) -> Square:
    side, model = _side(recipe), recipe.model
    kernel: Literal["bilinear", "bicubic"] = "bicubic" if model in TIMM_BICUBIC else "bilinear"
    return Square(ShorterSide(side, TIMM_SHARES.get(model, 0.875), "down", kernel), side)


def _converted(recipe: Recipe) -> Square:
    side = _side(recipe)
    return Square(StretchedCentre(256 if side == 224 else side, side), side)


def _deeplab_multi_scale(recipe: Recipe) -> multi_scale.DeepLab:
    stride = 4  # of the decoder; DeepLabV3 on MobileNetV2 has none
    if recipe.model == "deeplabv3_mobilenet_v2":
        stride = int(recipe.model_options.get("output_stride", 16))
    aligned = 4 * stride  # scales are multiples of a quarter
    height, width = recipe.data.crop_size
    if height % aligned != 1 or width % aligned != 1:
        raise ValueError(
            f"protocol '{recipe.protocol}' needs a crop whose sides are a multiple of {aligned} and one pixel more; "
            f"data.crop_size is {height} x {width}. The published one is data.crop_size=[513,513]."
        )
    fit = Padded(recipe.data.crop_size, aligned)
    return multi_scale.DeepLab(fit=fit, scales=DEEPLAB_SCALES, mirrored=True, stride=stride)


def _encoding(recipe: Recipe, *, several: bool) -> multi_scale.Encoding:
    crop_size = _side(recipe)
    base_size, scales = ENCODING_SMALL[1:] if crop_size == ENCODING_SMALL[0] else (None, ENCODING_SCALES)
    return multi_scale.Encoding(
        base_size=base_size, crop_size=crop_size, scales=scales if several else (1.0,), mirrored=several
    )


def _whole(recipe: Recipe) -> Whole:
    return Whole()


CLASSES: tuple[TaskName, ...] = ("classify",)
MASKS: tuple[TaskName, ...] = ("segment",)
BOXES: tuple[TaskName, ...] = ("detect_segment",)

PROTOCOLS: dict[ProtocolName, Protocol] = {
    "whole": Protocol(words="whole images, single scale", tasks=(*CLASSES, *MASKS, *BOXES), show=_whole),
    "mirrored": Protocol(
        words="whole images, single scale, averaged with the mirror image",
        tasks=(*CLASSES, *MASKS),
        show=lambda recipe: Whole(mirrored=True),
    ),
    "windows": Protocol(
        words="windows of {crop} that overlap by a quarter, logits blended",
        tasks=MASKS,
        show=lambda recipe: Windows(recipe.data.crop_size, recipe.data.batch_size),
    ),
    "resnest": Protocol(
        words="central {side}/{outer} of the shorter side as {crop}, bicubic (ResNeSt)",
        tasks=CLASSES,
        show=partial(_central, "bicubic"),
    ),
    "resnest-validation": Protocol(
        words="central {side}/{outer} of the shorter side as {crop}, bilinear (ResNeSt in training)",
        tasks=CLASSES,
        show=partial(_central, "bilinear"),
    ),
    "resnest-gluon": Protocol(words="central {crop} (ResNeSt's Gluon code)", tasks=CLASSES, show=_gluon),
    "timm": Protocol(words="shorter side resized, central {crop} (timm)", tasks=CLASSES, show=_timm),
    "resnest-mindspore": Protocol(
        words="stretched to 320 x 320, central 256 x 256 (MindSpore's ResNeSt)",
        tasks=CLASSES,
        show=lambda recipe: Square(StretchedCentre(320, 256), 256),
    ),
    "resnest-converted": Protocol(
        words="stretched, central {crop} (ResNeSt converted to MindSpore)", tasks=CLASSES, show=_converted
    ),
    "deeplab": Protocol(
        words="padded to at least {crop}, single scale (DeepLab)",
        tasks=MASKS,
        show=lambda recipe: single_scale.DeepLab(Padded(recipe.data.crop_size)),
    ),
    "deeplab-multiscale": Protocol(
        words="padded to at least {crop}, {scales} with mirror images (DeepLab)", tasks=MASKS, show=_deeplab_multi_scale
    ),
    "encoding": Protocol(
        words="windows of {crop}, single scale (PyTorch-Encoding)",
        tasks=MASKS,
        show=partial(_encoding, several=False),
    ),
    "encoding-multiscale": Protocol(
        words="windows of {crop}, {scales} with mirror images (PyTorch-Encoding)",
        tasks=MASKS,
        show=partial(_encoding, several=True),
    ),
    "refinenet": Protocol(
        words="longer side {side}, padded, with the padded mirror image (MindSpore's RefineNet)",
        tasks=MASKS,
        show=lambda recipe: multi_scale.RefineNet(side=_side(recipe)),
    ),
    "refinenet-multiscale": Protocol(
        words="longer side {side}, padded, {scales} with padded mirror images (MindSpore's RefineNet)",
        tasks=MASKS,
        show=lambda recipe: multi_scale.RefineNet(side=_side(recipe), scales=REFINENET_SCALES),
    ),
    "blitznet-voc12": Protocol(
        words="whole images, AP of VOC 2012 (BlitzNet)", tasks=BOXES, show=_whole, boxes="voc12"
    ),
    "blitznet-voc07": Protocol(
        words="whole images, AP of VOC 2007 at 11 points (BlitzNet)", tasks=BOXES, show=_whole, boxes="voc07"
    ),
    "voc12-kit": Protocol(
        words="whole images, AP as VOC's development kit of 2012 counts pixels",
        tasks=BOXES,
        show=_whole,
        boxes="voc12-kit",
    ),
    "voc07-kit": Protocol(
        words="whole images, AP at 11 points as VOC's development kit of 2007 counts pixels",
        tasks=BOXES,
        show=_whole,
        boxes="voc07-kit",
    ),
    "coco": Protocol(words="whole images, AP of COCO", tasks=BOXES, show=_whole, boxes="coco"),
}
