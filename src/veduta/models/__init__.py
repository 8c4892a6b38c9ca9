"""The models by name. A new model is one file and one line here; the contract tests pick it up."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from veduta.config import nearest
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
    "resnest_tiny": resnest.resnest_tiny_classifier,
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
    "deeplabv3plus_timm": deeplab.deeplabv3plus_timm,
    "deeplabv3plus_small": deeplab.deeplabv3plus_small,
    "deeplabv3plus_tiny": deeplab.deeplabv3plus_tiny,
    "refinenet_resnet50": refinenet.refinenet_resnet50,
    "refinenet_resnet101": refinenet.refinenet_resnet101,
    "refinenet_resnet152": refinenet.refinenet_resnet152,
    "refinenet_timm": refinenet.refinenet_timm,
    "refinenet_tiny": refinenet.refinenet_tiny,
    # images -> class_logits, box_deltas, priors, mask_logits
    "blitznet300": blitznet.blitznet300,
    "blitznet512": blitznet.blitznet512,
    "blitznet300_timm": blitznet.blitznet300_timm,
    "blitznet_small": blitznet.blitznet_small,
    "blitznet_tiny": blitznet.blitznet_tiny,
}


def build_model(name: str, num_classes: int, **options: Any) -> nn.Module:
    """A fresh model of MODELS, e.g. `build_model("deeplabv3plus_resnet50", 21, output_stride=8)`.

    Raises ValueError for an unknown model, and for options that it does not have, lacks, or that are of another type.
    """
    checked = checked_options(name, {"num_classes": num_classes, **options})
    return MODELS[name](**checked)


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, if `build_model` takes them; num_classes may be among them. Raises ValueError as it does."""
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}.{nearest(name, MODELS)}")
    parameters = inspect.signature(MODELS[name]).parameters
    known = [option for option in parameters if option != "num_classes"]
    checked = {}
    for option, value in options.items():
        if option == "num_classes":
            kind: Any = Annotated[int, Field(ge=1)]
        elif option in known:
            kind = parameters[option].annotation
        else:
            hint = f"Its options: {', '.join(known)}.{nearest(option, known)}" if known else "It has none."
            raise ValueError(f"Model {name!r} has no option {option!r}. {hint}")
        try:
            checked[option] = TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"Model {name!r}, option {option!r}: {first['msg']}, got {value!r}.") from error
    for option in known:
        if parameters[option].default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"Model {name!r} needs the option {option!r}: name it in the recipe's model_options.")
    return checked


class _WithoutValues(TorchFunctionMode):
    """Skips functions that change a tensor in place, as initialisations do: there is nothing to change."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def build_skeleton(name: str, num_classes: int, **options: Any) -> nn.Module:
    """As `build_model` in a fraction of the time: parameters have shapes only, on the device "meta".

    Constants that are no part of the state dict, such as the mean of Normalize, have their values: numpy makes them.
    """
    with torch.device("meta"), _WithoutValues():
        return build_model(name, num_classes, **options)


def build_loaded(name: str, num_classes: int, weights: Mapping[str, Tensor], **options: Any) -> nn.Module:
    """A model with these weights, which it takes as they are, without a copy and without initialisation.

    Raises RuntimeError, as torch does, where names or shapes differ.
    """
    model = build_skeleton(name, num_classes, **options)
    model.load_state_dict(weights, assign=True)
    if any(buffer.is_meta for buffer in model.buffers()):  # constants that torch made, as in some models of timm
        model = build_model(name, num_classes, **options)
        model.load_state_dict(weights)
    return model
