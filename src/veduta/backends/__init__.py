"""Backends: any model file opens the same way, with the ModelInfo that travelled inside it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from veduta.backends.runtime import with_changes
from veduta.config import nearest, set_fields
from veduta.model_info import IMPORT_HINT, ModelInfo, find_model


class Backend(Protocol):
    """Runs a model. `runtime` is what runs it, in words; `device` is where it runs, and where its outputs lie.

    Outputs are tensors of PyTorch's network, and arrays of every other runtime: ops/arrays.py takes both.
    """

    info: ModelInfo
    runtime: str
    device: Any

    def __call__(self, images: NDArray[Any]) -> dict[str, Any]:
        """images: (N, 3, H, W) RGB of any size, uint8 or float32 in [0, 1] -> the model's named outputs.

        Raises ValueError where an exported model was made for images of other sizes.
        """
        ...


# Runtimes are large, so each is imported when a file needs it.


def _torch(path: Path, *, device: str, changes: Sequence[str]) -> Backend:
    from veduta.backends.torch import open_torch

    return open_torch(path, device=device, changes=changes)


def _program(path: Path, *, device: str, changes: Sequence[str]) -> Backend:
    from veduta.backends.program import open_program

    return open_program(path, device=device, changes=changes)


def _onnx(path: Path, *, device: str, changes: Sequence[str]) -> Backend:
    from veduta.backends.onnx import open_onnx

    return open_onnx(path, device=device, changes=changes)


def _openvino(path: Path, *, device: str, changes: Sequence[str]) -> Backend:
    from veduta.backends.openvino import open_openvino

    return open_openvino(path, device=device, changes=changes)


# Ending of a file -> the runtimes that open it, by name.
BACKENDS: dict[str, dict[str, Callable[..., Backend]]] = {
    ".safetensors": {"torch": _torch},
    ".onnx": {"onnx": _onnx, "openvino": _openvino},
    ".xml": {"openvino": _openvino},
    ".pt2": {"torch": _program},
}


def open_model(path: Path, *, device: str = "auto", backend: str = "auto", changes: Sequence[str] = ()) -> Backend:
    """Open a run folder (its best checkpoint) or a model file. Raises ValueError or FileNotFoundError.

    backend: which runtime; "auto" is, of several, the fastest installed one that agrees with the file's probes.
    changes: assignments to fields of its recipe, such as "model_options.output_stride=8".
    """
    path = _known(find_model(path))
    openers = BACKENDS[path.suffix]
    if backend == "auto":
        from veduta.backends.choose import choose

        each = {name: partial(opener, path, device=device, changes=changes) for name, opener in openers.items()}
        return choose(path, each)
    if backend not in openers:
        raise ValueError(f"{path}: backend '{backend}' does not open '{path.suffix}' files.{nearest(backend, openers)}")
    return openers[backend](path, device=device, changes=changes)


def read_info(path: Path, *, changes: Sequence[str] = ()) -> ModelInfo:
    """What a run folder or a model file says of itself, as `open_model` would, without a runtime. Raises as it does."""
    path = _known(find_model(path))
    match path.suffix:
        case ".onnx":
            from veduta.backends.onnx_file import read_onnx

            info = read_onnx(path).info
        case ".xml":
            from veduta.backends.openvino_file import read_pair

            info = read_pair(path).info
        case ".pt2":
            from veduta.backends.program_file import read_program

            _, info = read_program(path)
        case _:
            from veduta.checkpoint import load_model

            _, info = load_model(path)
            return replace(info, recipe=set_fields(info.recipe, changes))
    return with_changes(info, changes, source=path)


def _known(path: Path) -> Path:
    if path.suffix not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f"{path}: no backend opens '{path.suffix}' files. Known: {known}. {IMPORT_HINT}")
    return path


__all__ = ["BACKENDS", "Backend", "open_model", "read_info"]
