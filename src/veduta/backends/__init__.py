"""Backends: any model file opens the same way, with the ModelInfo that travelled inside it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from veduta.config import nearest
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
    path = find_model(path)
    if path.suffix not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f"{path}: no backend opens '{path.suffix}' files. Known: {known}. {IMPORT_HINT}")
    openers = BACKENDS[path.suffix]
    if backend == "auto":
        from veduta.backends.choose import choose

        each = {name: partial(opener, path, device=device, changes=changes) for name, opener in openers.items()}
        return choose(path, each)
    if backend not in openers:
        raise ValueError(f"{path}: backend '{backend}' does not open '{path.suffix}' files.{nearest(backend, openers)}")
    return openers[backend](path, device=device, changes=changes)


__all__ = ["BACKENDS", "Backend", "open_model"]
