"""The models by name. A new model is one file and one line here; the contract tests pick it up."""

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from veduta.models import blitznet, deeplab, mobilenet_v2, refinenet, resnest, resnet

# Each builder takes num_classes, then its options as keywords.
MODELS: dict[str, Callable[..., nn.Module]] = {
    # images -> class_logits
    "resnet18": resnet.resnet18_classifier,
    "resnet34": resnet.resnet34_classifier,
    "resnet50": resnet.resnet50_classifier,
    "resnet101": resnet.resnet101_classifier,
    "resnet152": resnet.resnet152_classifier,
    "resnest14": resnest.resnest14_classifier,
    "resnest26": resnest.resnest26_classifier,
    "resnest50": resnest.resnest50_classifier,
    "resnest101": resnest.resnest101_classifier,
    "resnest200": resnest.resnest200_classifier,
    "resnest269": resnest.resnest269_classifier,
    "resnest50_fast_1s1x64d": resnest.resnest50_fast_1s1x64d_classifier,
    "resnest50_fast_2s1x64d": resnest.resnest50_fast_2s1x64d_classifier,
    "resnest50_fast_4s1x64d": resnest.resnest50_fast_4s1x64d_classifier,
    "resnest50_fast_1s2x40d": resnest.resnest50_fast_1s2x40d_classifier,
    "resnest50_fast_2s2x40d": resnest.resnest50_fast_2s2x40d_classifier,
    "resnest50_fast_4s2x40d": resnest.resnest50_fast_4s2x40d_classifier,
    "resnest50_fast_1s4x24d": resnest.resnest50_fast_1s4x24d_classifier,
    "mobilenet_v2": mobilenet_v2.MobileNetV2Classifier,
    # images -> mask_logits
    "deeplabv3_resnest50": deeplab.deeplabv3_resnest50,
    "deeplabv3_resnest101": deeplab.deeplabv3_resnest101,
    "deeplabv3_resnest200": deeplab.deeplabv3_resnest200,
    "deeplabv3_resnest269": deeplab.deeplabv3_resnest269,
    "deeplabv3_mobilenet_v2": deeplab.deeplabv3_mobilenet_v2,
    "deeplabv3plus_xception41": deeplab.deeplabv3plus_xception41,
    "deeplabv3plus_xception65": deeplab.deeplabv3plus_xception65,
    "deeplabv3plus_xception71": deeplab.deeplabv3plus_xception71,
    "deeplabv3plus_resnet50": deeplab.deeplabv3plus_resnet50,
    "deeplabv3plus_resnest50": deeplab.deeplabv3plus_resnest50,
    "deeplabv3plus_resnest101": deeplab.deeplabv3plus_resnest101,
    "deeplabv3plus_mobilenet_v2": deeplab.deeplabv3plus_mobilenet_v2,
    "deeplabv3plus_small": deeplab.deeplabv3plus_small,
    "deeplabv3plus_tiny": deeplab.deeplabv3plus_tiny,
    "refinenet_resnet50": refinenet.refinenet_resnet50,
    "refinenet_resnet101": refinenet.refinenet_resnet101,
    "refinenet_resnet152": refinenet.refinenet_resnet152,
    "refinenet_tiny": refinenet.refinenet_tiny,
    # images -> class_logits, box_deltas, priors, mask_logits
    "blitznet300": blitznet.blitznet300,
    "blitznet512": blitznet.blitznet512,
    "blitznet_tiny": blitznet.blitznet_tiny,
}


def build_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """A fresh model of MODELS, e.g. `build_model("deeplabv3plus_resnet50", 21, output_stride=8)`."""
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}. Nearest: {_nearest(name, MODELS)}.")
    known = options_of(name)
    for option in options:
        if option not in known:
            hint = f"Its options: {', '.join(known)}; nearest: {_nearest(option, known)}." if known else "It has none."
            raise ValueError(f"Model {name!r} has no option {option!r}. {hint}")
    return MODELS[name](num_classes, **options)


class _WithoutValues(TorchFunctionMode):
    """Skips functions that change a tensor in place, as initialisations do: there is nothing to change."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def build_skeleton(name: str, num_classes: int, **options: Any) -> nn.Module:
    """As `build_model`, without values: names and shapes only, on the device "meta", in a fraction of the time."""
    with torch.device("meta"), _WithoutValues():
        return build_model(name, num_classes, **options)


def options_of(name: str) -> list[str]:
    """The keywords that `build_model` takes for a model."""
    return [option for option in inspect.signature(MODELS[name]).parameters if option != "num_classes"]


def _nearest(word: str, known: Iterable[str]) -> str:
    return ", ".join(get_close_matches(word, known, n=3, cutoff=0.0))
