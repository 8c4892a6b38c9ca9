"""ModelInfo: what travels inside every model file, whatever its format; and where a run keeps its model files."""

import re
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from veduta import __version__
from veduta.config import Recipe
from veduta.labels import LabelMap

IMPORT_HINT = "Checkpoints of other programs become model files by `veduta import`."
WEIGHTS = ".safetensors"  # ending of a model file of PyTorch's network
METADATA_KEY = "veduta"  # of a model file's metadata; its value is the ModelInfo as JSON
BEST, MODEL = "best.safetensors", "model.safetensors"  # of a run: beside its checkpoints, and in each of them
STEP_FOLDER = re.compile(r"step-([0-9]{8,18})(\.replaced)?")

STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

OF_TRAINING = ("aux_mask_logits",)  # outputs that nothing but a loss reads; no exported file has them

OpenShape = tuple[int | None, ...]  # of a tensor; None: whatever length comes


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Origin:
    """Where imported weights come from. sha256: of the checkpoint's files, one after the other."""

    source: str  # whose names its tensors had: a key of legacy's IMPORTS, or several where their names are the same
    format: str
    files: tuple[str, ...]
    sha256: str
    preprocessing: str  # what the network does first with RGB in [0, 1]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bounds:
    """How far outputs may depart from those of the network that was exported.

    largest: difference, as a share of the output's own range. agreement: share of the places whose largest logit is of
    the same class. box_shift: pixels between corners of boxes that were found by both.
    """

    largest: float = 1e-3
    agreement: float = 0.9999
    box_shift: float = 0.1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Departure:
    """One row of a proof: how far one output departed on one input; what cannot be told of it is None."""

    case: str  # which input, such as "2:1, 128 x 256, batch 3"
    output: str
    largest: float
    agreement: float | None = None
    box_shift: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Exported:
    """What an exported file says of itself. images, outputs: their shapes, in the file's order; None is open.

    kept: of int8, the nodes that stay in float. full: the outputs are decoded, see export/decode.py. contents_sha256:
    of the network as the file holds it; probes_sha256: of the file of probes beside it.
    """

    format: Literal["onnx", "openvino", "torch"]
    precision: Literal["fp32", "int8"] = "fp32"
    kept: tuple[str, ...] = ()
    full: bool = False
    images: OpenShape
    outputs: dict[str, OpenShape]
    bounds: Bounds = Bounds()
    proof: tuple[Departure, ...] = ()
    contents_sha256: str = ""
    probes_sha256: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelInfo:
    """What travels inside every model file. `scores` are 0..1, by name, such as val_mean_iou; nan where undefined.

    origin: of an imported file; its recipe never ran; it says which network it is, and how images are shown to it.
    exported: of an exported file; weights_sha256 is then that of the model file which was exported.
    """

    recipe: Recipe
    labels: LabelMap
    step: int
    scores: dict[str, float] = Field(default_factory=dict)
    weights_sha256: str = ""  # of names, shapes, types and bytes of all tensors; set when the file is written
    veduta: str = __version__
    origin: Origin | None = None
    exported: Exported | None = None


_ADAPTER: TypeAdapter[ModelInfo] = TypeAdapter(ModelInfo)


def info_to_json(info: ModelInfo) -> str:
    return _ADAPTER.dump_json(info).decode()


def info_from_json(text: str, *, source: Path) -> ModelInfo:
    """Raises ValueError naming the file."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "model info"
        raise ValueError(
            f"{source}: what it says of itself cannot be read by Veduta {__version__}: {where}: {first['msg']}."
        ) from error


def find_model(path: Path) -> Path:
    """A model file, or the best (else the newest) checkpoint of a run folder; with stages, of the last that has one."""
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path} not found. Expected a run folder of `veduta train` or a model file.")
    stages = [stage for stage in path.glob("stage-*") if stage.name.removeprefix("stage-").isdecimal()]
    stages.sort(key=lambda stage: int(stage.name.removeprefix("stage-")), reverse=True)
    for run in (*stages, path):
        folder = run / "checkpoints"
        for model in (folder / BEST, *(step / MODEL for _, step in step_folders(folder))):
            if model.is_file():
                return model
    raise FileNotFoundError(
        f"{path} holds no checkpoints/{BEST} and no checkpoints/step-*/{MODEL}: no run that has saved. {IMPORT_HINT}"
    )


def step_folders(folder: Path) -> list[tuple[int, Path]]:
    """Steps and folders of a run's checkpoints, as their names say, newest first; none where there is no `folder`.

    A folder that was being replaced when its run was killed is called *.replaced and comes after the new one.
    """
    named = [(STEP_FOLDER.fullmatch(path.name), path) for path in folder.glob("step-*")]
    found = [(int(match[1]), path) for match, path in named if match]
    return sorted(found, key=lambda entry: (-entry[0], entry[1].name))
