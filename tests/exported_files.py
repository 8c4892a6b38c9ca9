"""ONNX files of small networks that nobody has trained, written without a proof; each network is traced once."""

from pathlib import Path

import numpy as np
import onnx
from model_files import random_backend

from veduta.backends.probes import probes_path
from veduta.config import Recipe
from veduta.export.onnx import save_onnx, to_onnx
from veduta.export.trace import Shape, trace
from veduta.labels import LabelMap

OPEN: Shape = (None, 3, None, None)

_TRACED: dict[str, onnx.ModelProto] = {}


def traced(recipe: Recipe, labels: LabelMap, shape: Shape, seed: int) -> onnx.ModelProto:
    """A copy, without metadata."""
    key = repr((recipe.model, sorted(recipe.model_options.items()), labels.num_classes, shape, seed))
    if key not in _TRACED:
        backend = random_backend(recipe, labels, seed)
        _TRACED[key] = to_onnx(trace(backend.model, shape), backend.info)
    copy = onnx.ModelProto()
    copy.CopyFrom(_TRACED[key])
    return copy


def write_onnx(path: Path, recipe: Recipe, labels: LabelMap, seed: int, shape: Shape = OPEN) -> Path:
    """With an empty file of probes beside it."""
    info = random_backend(recipe, labels, seed).info
    save_onnx(traced(recipe, labels, shape, seed), info, path)
    np.savez(probes_path(path))
    return path
