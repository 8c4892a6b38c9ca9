"""Model files of small networks that nobody has trained: each seed gives others, and so other predictions."""

from pathlib import Path

import torch

from veduta.backends.torch import TorchBackend
from veduta.checkpoint import save_model
from veduta.config import Recipe
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo
from veduta.models import build_model


def random_backend(recipe: Recipe, labels: LabelMap, seed: int) -> TorchBackend:
    """As `open_model` would give it; the hash of its weights stands for the seed."""
    torch.manual_seed(seed)
    model = build_model(recipe.model, labels.num_classes, **recipe.model_options)
    info = ModelInfo(recipe=recipe, labels=labels, step=seed, weights_sha256=f"{seed:064x}")
    return TorchBackend(model, info, torch.device("cpu"))


def write_model(path: Path, recipe: Recipe, labels: LabelMap, seed: int) -> Path:
    backend = random_backend(recipe, labels, seed)
    save_model(path, backend.model.state_dict(), backend.info)
    return path
