"""Model files: safetensors weights that carry their ModelInfo; written atomically, hashed, checked when opened."""

import hashlib
import re
from pathlib import Path

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from veduta import __version__
from veduta.config import Recipe
from veduta.files import replacing
from veduta.labels import LabelMap

IMPORT_HINT = "Checkpoints of other programs become model files by `veduta import`."
METADATA_KEY = "veduta"  # of the safetensors header; its value is the ModelInfo as JSON
BEST, MODEL = "best.safetensors", "model.safetensors"  # of a run: beside its checkpoints, and in each of them
STEP_FOLDER = re.compile(r"step-([0-9]{8,18})(\.replaced)?")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Origin:
    """Where imported weights come from. sha256: of the checkpoint's files, one after the other."""

    source: str  # whose names its tensors had: a key of legacy's IMPORTS, or several where their names are the same
    format: str
    files: tuple[str, ...]
    sha256: str
    preprocessing: str  # what the network does first with RGB in [0, 1]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", ser_json_inf_nan="constants"))
class ModelInfo:
    """What travels inside every model file. `scores` are 0..1, by name, such as val_mean_iou; nan where undefined.

    origin: of an imported file; its recipe never ran; it says which network it is, and how images are shown to it.
    """

    recipe: Recipe
    labels: LabelMap
    step: int
    scores: dict[str, float] = Field(default_factory=dict)
    weights_sha256: str = ""  # of names, shapes, types and bytes of all tensors; set when the file is written
    veduta: str = __version__
    origin: Origin | None = None


_ADAPTER: TypeAdapter[ModelInfo] = TypeAdapter(ModelInfo)


def hash_weights(weights: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of tensors on the CPU, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(path: Path, weights: dict[str, Tensor], info: ModelInfo) -> ModelInfo:
    """Write a model file; returns the info with the hash that went into it."""
    weights = _apart(weights)
    values = _ADAPTER.dump_python(info)
    values["weights_sha256"] = hash_weights(weights)
    info = _ADAPTER.validate_python(values)
    _write(path, weights, {METADATA_KEY: _ADAPTER.dump_json(info).decode()})
    return info


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors of any kind and device, such as an optimizer's. Raises OSError where it cannot be written."""
    _write(path, _apart(tensors), None)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, no two in the same memory: so a safetensors file wants them."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return apart


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> None:
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}. Is the disk full?") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and header metadata of any safetensors file. Raises ValueError if it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a model file (.safetensors).")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}). {IMPORT_HINT}") from error


def load_model(path: Path) -> tuple[dict[str, Tensor], ModelInfo]:
    """Weights and info of a model file. Raises ValueError where it is damaged or was not written by Veduta."""
    weights, info = read_model(path)
    found = hash_weights(weights)
    if found != info.weights_sha256:
        raise ValueError(
            f"{path}: the weights hash to {found[:12]}, the file says {info.weights_sha256[:12]}. It is damaged; take "
            "another checkpoint of the run or copy the file again."
        )
    return weights, info


def read_model(path: Path) -> tuple[dict[str, Tensor], ModelInfo]:
    """As `load_model`, of a file whose bytes were checked just now: the weights are not hashed again."""
    weights, metadata = load_weights(path)
    if METADATA_KEY not in metadata:
        raise ValueError(
            f"{path}: holds weights but no recipe and label map, so nobody can say what they predict. Use it as "
            "`veduta train RECIPE --init FILE`, or open a file that `veduta train` wrote."
        )
    try:
        info = _ADAPTER.validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        raise ValueError(f"{path}: its model info cannot be read: {error.errors()[0]['msg']}.") from error
    return weights, info


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
