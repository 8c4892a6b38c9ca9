"""Recipe: one frozen value that says everything about a training run; its parts, `--set`, and its JSON.

A recipe travels into the run folder, into every checkpoint and exported file, and comes back equal.
Units: steps are optimizer steps, sizes are pixels (height, width), probabilities are 0..1.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # JSON has neither, so a recipe must not

MOST_CROP = 1 << 14  # pixels

Option = bool | int | float | str

FREE = ("model_options", "optim.lr_multipliers")  # fields whose parts have names of their own


Pipeline = Literal["window", "deeplab", "refinenet", "encoding", "blitznet", "imagenet"]

TaskName = Literal["segment", "classify", "detect_segment"]

# How images are shown and scored, by name; engine/protocols.py says what each means, and for which tasks it is.
ProtocolName = Literal[
    "whole",
    "mirrored",
    "windows",
    "resnest",
    "resnest-validation",
    "resnest-gluon",
    "timm",
    "resnest-mindspore",
    "resnest-converted",
    "deeplab",
    "deeplab-multiscale",
    "encoding",
    "encoding-multiscale",
    "refinenet",
    "refinenet-multiscale",
    "blitznet-voc12",
    "blitznet-voc07",
    "voc12-kit",
    "voc07-kit",
    "coco",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Augment:
    """Random changes of a training sample, drawn from their ranges; 0 is off. A pipeline takes the fields it names.

    window: zoom (log-uniform), crop, flip and colour in one fast resampling; Veduta's own, for masks and boxes.
    deeplab, refinenet, encoding: the crops of DeepLab, of MindSpore's RefineNet and of PyTorch-Encoding, to the pixel.
    blitznet: the whole joint augmentation of BlitzNet; it has no choices. imagenet: crops of whole images by area.
    """

    pipeline: Pipeline = "window"
    scale: tuple[float, float] = (1.0, 1.0)  # zoom of image, mask and boxes before the crop
    focus: float = Field(default=0.0, ge=0, le=1)  # probability of a crop around a class of the image, each as likely
    flip: float = Field(default=0.5, ge=0, le=1)  # probability of a horizontal mirror
    brightness: float = Field(default=0.0, ge=0, lt=1)  # factor in 1 +- this
    contrast: float = Field(default=0.0, ge=0, lt=1)  # factor in 1 +- this, around mid-grey; imagenet: the image's mean
    saturation: float = Field(default=0.0, ge=0, le=1)  # factor in 1 +- this
    tint: float = Field(default=0.0, ge=0, lt=1)  # factor per colour channel in 1 +- this
    gamma: float = Field(default=0.0, ge=0, lt=1)  # exponent in exp(+- this)
    area: tuple[float, float] = (0.08, 1.0)  # share of the image that a crop covers
    crop_by: Literal["area", "height"] = "area"  # what is drawn uniformly (height: the authors' PyTorch ResNeSt)
    policy: Literal["none", "randaugment", "randaugment-no-holes", "autoaugment"] = "none"
    policy_first: bool = False  # the policy sees the whole image (authors' PyTorch ResNeSt), not the crop
    lighting: float = Field(default=0.0, ge=0)  # standard deviation of AlexNet's PCA lighting

    @model_validator(mode="after")
    def _meaningful(self) -> "Augment":
        for name, (low, high) in {"scale": self.scale, "area": self.area}.items():
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {(low, high)}")
        if self.area[1] > 1:
            raise ValueError(f"area is a share of the image, at most 1, got {self.area}")
        for field in dataclasses.fields(Augment):
            given, default = getattr(self, field.name), getattr(field.default, "default", field.default)
            if given != default and self.pipeline not in _READ_BY.get(field.name, get_args(Pipeline)):
                readers = " and ".join(_READ_BY[field.name])
                raise ValueError(
                    f"pipeline {self.pipeline} does not read {field.name}; {readers} would. Set all of data.augment, "
                    f'such as {{"pipeline": "{self.pipeline}"}}, to drop what was set for another pipeline'
                )
        return self


_CROPS = ("window", "deeplab", "refinenet", "encoding")
_READ_BY: dict[str, tuple[str, ...]] = {  # fields that not every pipeline reads
    "scale": _CROPS,
    "focus": ("window",),
    "flip": (*_CROPS, "imagenet"),
    **dict.fromkeys(("brightness", "contrast", "saturation"), ("window", "imagenet")),
    **dict.fromkeys(("tint", "gamma"), ("window",)),
    **dict.fromkeys(("area", "crop_by", "policy", "policy_first", "lighting"), ("imagenet",)),
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """Which samples, and how they become batches. `root` is the folder given by `--data`; empty for generated data."""

    dataset: str
    root: str = ""
    train_split: str = "train"  # several joined: 2007/trainval+2012/trainval
    val_split: str = "val"
    crop_size: tuple[int, int] = (513, 513)  # of a training sample; protocols may show it, too
    batch_size: int = Field(default=8, ge=1)  # per process
    in_memory: bool = False  # decode every sample once and keep it, whole: right for small data sets
    workers: int = Field(default=0, ge=0)  # loader processes; the result does not depend on their number
    unreadable: Literal["stop", "replace"] = "stop"  # an image that cannot be read in training: end, or take the next
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _possible(self) -> "Data":
        if not 32 <= min(self.crop_size) <= max(self.crop_size) <= MOST_CROP:
            raise ValueError(f"crop_size must be from 32 to {MOST_CROP:,} on each side, got {self.crop_size}")
        if self.augment.pipeline == "blitznet" and self.crop_size[0] != self.crop_size[1]:
            raise ValueError(f"pipeline blitznet makes squares, got crop_size {self.crop_size}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optim:
    """The optimizer, which parameters it treats otherwise, and its learning-rate curve: warm-up, then `schedule`.

    poly: (1 - progress) ** 0.9 (DeepLab). cosine: half a cosine down to zero. epoch-cosine: the same without regard to
    the warm-up, renewed once in `hold_steps` (MindSpore ResNeSt). damped-cosine: a cosine times a line (MindSpore
    RefineNet's cos_warmup). staircase: times `decay_factor` every `hold_steps` (DeepLab's step, RefineNet's exp).
    milestones: times `decay_factor` after each of `milestones` (BlitzNet).
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"  # adam: with TensorFlow's epsilon (BlitzNet)
    lr: float = Field(gt=0)
    schedule: Literal["poly", "epoch-cosine", "damped-cosine", "staircase", "milestones", "cosine"] = "poly"
    hold_steps: int = Field(default=2000, ge=1)  # steps at one rate: of a stair (DeepLab: 2000) or of an epoch
    milestones: tuple[NonNegativeInt, ...] = ()  # each the last step at the rate before it
    decay_factor: float = Field(default=0.1, gt=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    # linear: lr * (step + 1) / warmup_steps. linear-from-0: lr * step / warmup_steps (authors' ResNeSt). constant:
    # warmup_lr (DeepLab's slow start; BlitzNet's first step)
    warmup: Literal["linear", "linear-from-0", "constant"] = "linear"
    warmup_lr: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)  # SGD: of the gradients; Adam and AdamW: beta1
    nesterov: bool = False  # SGD: momentum looks one step ahead (Gluon's ResNeSt)
    weight_decay: float = Field(default=1e-4, ge=0)  # AdamW: decoupled; SGD and Adam: L2
    # kernels: rank > 1 (Gluon's and MindSpore's ResNeSt, BlitzNet). full-kernels: these, but no depthwise ones
    # (DeepLab). names: with neither "bn" nor "bias" (authors' ResNeSt; they miss the BatchNorm of stem and shortcuts,
    # whose weights so decay). all: MindSpore's RefineNet, PyTorch-Encoding's DeepLabV3
    weight_decay_on: Literal["all", "names", "full-kernels", "kernels"] = "kernels"
    # Name of a part of the model, or of a parameter -> factor of its rate; where several fit, their product; 0 freezes.
    # PyTorch-Encoding: heads x10; DeepLab: the classifier's bias x2; RefineNet: backbone x0.1, in MindSpore eight
    # convolutions x0
    lr_multipliers: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)  # moving average of the weights, which is then scored; 0: none
    clip_norm: float = Field(default=0.0, ge=0)  # largest norm of all gradients together; 0: any

    @model_validator(mode="after")
    def _meaningful(self) -> "Optim":
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError(f"nesterov needs sgd with momentum, got {self.name} with momentum {self.momentum}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {self.milestones}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss:
    """Cross-entropy over the pixels that are not void, or over the classes of whole images."""

    # Pixels. "log": weight 1 / log(1.1 + share of the class), ENet (Paszke 2016, sec. 5.2) with a steeper constant
    class_weights: Literal["none", "log"] = "none"
    # A weighted loss is divided by the sum of its weights (torch), or by the number of pixels not void (DeepLab)
    divided_by: Literal["pixels", "weights"] = "weights"
    hardest: float = Field(default=1.0, gt=0, le=1)  # share of all pixels that count (DeepLab: top_k_percent_pixels)
    auxiliary: float = Field(default=0.0, ge=0)  # weight of the auxiliary head's loss, where the model has one
    dice: float = Field(default=0.0, ge=0)  # weight of a soft Dice loss beside the cross-entropy of the mask
    # Images. Part of the target that goes to all classes alike (PyTorch and Gluon ResNeSt), or to all the others
    # (MindSpore); Szegedy 2016, https://arxiv.org/abs/1512.00567, sec. 7
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    smoothing_over: Literal["others", "all"] = "all"
    # alpha: pairs of images blended (mixup) or patched (cutmix) with a share drawn from Beta(alpha, alpha); with both,
    # one of the two per batch
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Keep:
    """Which checkpoints are written and stay. A validation writes one, too; the newest two and the best always stay."""

    every: int = Field(default=0, ge=0)  # steps from one checkpoint to the next; 0: only with validations
    multiples: int = Field(default=0, ge=0)  # those at multiples of so many steps stay, for a sweep; 0: none


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """A whole run. `model_options` are keyword arguments of the model's builder, such as output_stride."""

    name: str
    model: str
    task: TaskName = "segment"
    data: Data
    optim: Optim
    loss: Loss = Loss()
    steps: int = Field(ge=1)
    model_options: dict[str, Option] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    device: str = "auto"  # auto, cpu, cuda, cuda:1, npu, mps
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    # BatchNorm uses its running statistics and leaves them alone; scale and shift train (DeepLab's
    # fine_tune_batch_norm=False, RefineNet)
    frozen_statistics: bool = False
    sync_batch_norm: bool = False  # BatchNorm takes its statistics over the batches of all processes
    accumulate: int = Field(default=1, ge=1)  # batches per step and process, each with a loss of its own
    loss_scale: float = Field(default=0.0, ge=0)  # fp16: fixed; 0: found while training
    compile: bool = False  # torch.compile: some minutes at the start, faster steps on accelerators
    not_finite: Literal["stop", "skip"] = "stop"  # a loss or gradient that is no number: end, or leave the step out
    protocol: ProtocolName = "whole"  # of every score and prediction, the validation in training included
    validate_every: int = Field(default=0, ge=0)  # steps; 0: only at the end
    keep: Keep = Keep()
    then: "Recipe | None" = None  # the next stage, which starts from the best weights of this one

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        if self.data.augment.pipeline == "imagenet" and self.task != "classify":
            raise ValueError(f"pipeline imagenet keeps neither masks nor boxes; it is not for task '{self.task}'")
        if self.loss_scale and self.precision != "fp16":
            raise ValueError(f"loss_scale is for precision fp16; the precision is {self.precision}")
        return self

    @property
    def stages(self) -> "tuple[Recipe, ...]":
        """This recipe and those after it, each without the next."""
        return (dataclasses.replace(self, then=None), *(self.then.stages if self.then else ()))


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean a, b?' for the known names nearest to `name`, or the known names where none is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(known)}."


def recipe_to_json(recipe: Recipe) -> str:
    return _ADAPTER.dump_json(recipe, indent=2).decode() + "\n"


def recipe_from_json(text: str, *, source: str) -> Recipe:
    """Raises ValueError naming `source` and the field at fault."""
    try:
        return _validate(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{source}: not valid JSON: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def read_recipe(path: Path) -> Recipe:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a recipe as JSON, such as a run folder's recipe.json.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}). Expected a recipe as JSON.") from error
    return recipe_from_json(text, source=str(path))


def set_fields(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Apply `--set` assignments such as `optim.lr=0.02` or `data.crop_size=[256,320]`, checked against the fields.

    A value is read as JSON, and as plain text where it is none. Raises ValueError with the nearest field names for an
    unknown field, and with the expected type for a wrong value.
    """
    values: dict[str, Any] = _ADAPTER.dump_python(recipe)
    at_fault: str | None = None  # fields may only go together, so what is wrong half-way may be right at the end
    for assignment in assignments:
        path, value = _read_assignment(assignment, example="optim.lr=0.02")
        *parents, leaf = path.split(".")
        part: Any = values
        for parent in parents:
            _require(parent, part, path, assignment)
            part = part[parent]
        if ".".join(parents) not in FREE or not isinstance(part, dict):
            _require(leaf, part, path, assignment)
        part[leaf] = value
        try:
            recipe = _validate(values)
            values, at_fault = _ADAPTER.dump_python(recipe), None
        except ValueError:
            at_fault = at_fault or assignment
    if at_fault:
        try:
            _validate(values)
        except ValueError as error:
            raise ValueError(f"--set {at_fault}: {error}") from error
    return recipe


def read_options(assignments: Iterable[str]) -> dict[str, Any]:
    """`--set` assignments of plain names, such as `output_stride=8`, to their values, read as `set_fields` does."""
    options = {}
    for assignment in assignments:
        name, value = _read_assignment(assignment, example="output_stride=8")
        options[name] = value
    return options


def _read_assignment(assignment: str, *, example: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ValueError(f"--set {assignment}: expected field=value, such as {example}.")
    try:
        return name.strip(), json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return name.strip(), text


def _require(name: str, part: Any, path: str, assignment: str) -> None:
    if not isinstance(part, dict) or name not in part:
        hint = nearest(name, part) if isinstance(part, dict) else " A field without parts stands before it."
        elsewhere = [p for p in field_paths() if p.endswith(f".{name}") and "." not in path]
        raise ValueError(
            f"--set {assignment}: a recipe has no field '{path}'.{hint}"
            + (f" There is {' and '.join(elsewhere)}." if elsewhere else "")
        )


def field_paths(part: type = Recipe, prefix: str = "") -> list[str]:
    """All fields of a recipe as dotted paths, in order."""
    paths = []
    for field in dataclasses.fields(part):
        if dataclasses.is_dataclass(field.type):
            paths += field_paths(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            paths.append(prefix + field.name)
    return paths


def differing_fields(one: Recipe, other: Recipe) -> list[str]:
    """Dotted paths of the fields in which two recipes differ."""
    return _differing(_ADAPTER.dump_python(one), _ADAPTER.dump_python(other), "")


def with_roots(recipe: Recipe, roots: Sequence[Path]) -> Recipe:
    """The recipe on data in these folders: one for each stage, or one for all. Raises ValueError otherwise."""
    count = len(recipe.stages)
    if len(roots) not in (0, 1, count):
        stages = f"one for each of the {count} stages of {recipe.name}, or one for all" if count > 1 else "once"
        raise ValueError(f"--data is given {len(roots)} times. Give it {stages}.")
    return _rooted(recipe, [*roots] * (count if len(roots) == 1 else 1))


def _rooted(recipe: Recipe, roots: Sequence[Path]) -> Recipe:
    if not roots:
        return recipe
    data = dataclasses.replace(recipe.data, root=str(roots[0].resolve()))
    return dataclasses.replace(recipe, data=data, then=recipe.then and _rooted(recipe.then, roots[1:]))


def _differing(one: Any, other: Any, path: str) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = dict.fromkeys([*one, *other])
        return [p for n in names for p in _differing(one.get(n), other.get(n), f"{path}.{n}" if path else n)]
    return [] if one == other else [path]


def _validate(values: Any) -> Recipe:
    try:
        return _ADAPTER.validate_python(values, strict=None)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        if first["type"] == "unexpected_keyword_argument":
            *parents, leaf = where.split(".")
            paths = [path.split(".") for path in field_paths()]
            known = dict.fromkeys(path[len(parents)] for path in paths if path[: len(parents)] == parents)
            raise ValueError(f"unknown field '{where}'.{nearest(leaf, known)}") from error
        found = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}{found}.") from error
