"""Any backbone of timm that gives a pyramid of feature maps, under our heads. timm is the optional extra `timm`.

https://github.com/huggingface/pytorch-image-models. Nothing is downloaded. For timm's own weights, load the state
dict of `timm.create_model(name, features_only=True, pretrained=True)` into `TimmBackbone.features`.
"""

from difflib import get_close_matches
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from veduta.models.layers import Backbone


class TimmBackbone(Backbone):
    """`name` is timm's, such as "convnext_tiny" or, with the tag of its weights, "resnet50.a1_in1k".

    `mean` and `std` are those that these weights were trained with.
    Images of every size work where timm takes them: Swin's are padded to whole patches, right and bottom; a model built
    for images of one size, such as coatnet_0_rw_224, takes no others and fails with timm's own words.
    Shape: normalised (N, 3, H, W) -> four maps, finest first, strides 4, 8, 16, 32, none coarser than `output_stride`;
    their sides are rounded up or down as timm does.
    """

    def __init__(self, name: str, *, output_stride: int = 32) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; choose 8, 16 or 32.")
        features, any_size = _create(name, output_stride)
        strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
        found = features.feature_info.reduction()
        if found[-4:] != strides:
            raise ValueError(
                f"timm model {name!r} gives feature maps of strides {_words(found)}; {_words(strides)} are needed: "
                "choose one that narrows in stages, such as resnet50, convnext_tiny or swin_tiny_patch4_window7_224."
            )
        self.name, self.features = name, features
        self.out_channels = tuple(features.feature_info.channels()[-4:])
        self.mean, self.std = features.pretrained_cfg["mean"], features.pretrained_cfg["std"]
        self.channels_last = getattr(features, "output_fmt", "NCHW") == "NHWC"
        self.pad_to = strides[0] if any_size else 1

    def forward(self, x: Tensor) -> list[Tensor]:
        height, width = x.shape[-2:]
        if self.pad_to > 1:
            x = F.pad(x, (0, -width % self.pad_to, 0, -height % self.pad_to))
        maps: list[Tensor] = self.features(x)[-4:]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last else maps

    def map_sizes(self, image_size: int) -> list[int]:
        """Sides of the four maps of a square image, found by trying."""
        image = torch.zeros(1, 3, image_size, image_size, device=next(self.parameters()).device)
        training = self.training
        try:
            with torch.no_grad():
                maps = self.eval()(image)
        except (AssertionError, RuntimeError) as error:  # what timm raises is as different as its models
            raise ValueError(
                f"timm model {self.name!r} does not take images of {image_size} x {image_size} pixels: {_first(error)}"
            ) from error
        finally:
            self.train(training)
        return [m.shape[-1] for m in maps]


def _create(name: str, output_stride: int) -> tuple[Any, bool]:
    """timm's feature extractor without trained weights, and whether it had to be told to take images of any size."""
    timm = _import_timm()
    known = [*timm.list_models(), *timm.list_pretrained()]
    if name not in known:  # before timm sees it, who takes names for addresses too
        nearest = ", ".join(get_close_matches(name, known, cutoff=0.0))
        raise ValueError(f"timm has no model {name!r}. Nearest: {nearest}.")
    options = {} if output_stride == 32 else {"output_stride": output_stride}
    failure: Exception
    for any_size in ({"strict_img_size": False}, {}):  # Swin and its kin know it; the others raise TypeError at once
        try:
            return timm.create_model(name, pretrained=False, features_only=True, **options, **any_size), bool(any_size)
        except (TypeError, AssertionError, AttributeError, RuntimeError) as error:
            failure = error
    if options and not isinstance(failure, (AttributeError, RuntimeError)):
        raise ValueError(
            f"timm model {name!r} does not take output_stride={output_stride}; choose 32. timm: {_first(failure)}"
        ) from failure
    raise ValueError(f"timm model {name!r} gives no feature maps. timm: {_first(failure)}") from failure


def _import_timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: of torchvision, built for another torch
        raise ValueError(
            f"timm cannot be imported: {_first(error)}. Backbones of timm need it: pip install 'veduta[timm]'. "
            f"It imports torchvision, which must be the one built for torch {torch.__version__}, the torch in use."
        ) from error
    return timm


def _first(error: Exception) -> str:
    """The first line of what it says, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _words(strides: list[int]) -> str:
    return ", ".join(map(str, strides))
