"""Model files: safetensors weights that carry their ModelInfo; written atomically, hashed, checked when opened."""

import dataclasses
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from veduta.files import replacing
from veduta.model_info import IMPORT_HINT, METADATA_KEY, ModelInfo, info_from_json, info_to_json


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
    info = dataclasses.replace(info, weights_sha256=hash_weights(weights))
    _write(path, weights, {METADATA_KEY: info_to_json(info)})
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
    return weights, info_from_json(metadata[METADATA_KEY], source=path)
