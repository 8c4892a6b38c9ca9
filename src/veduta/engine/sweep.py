"""Sweep: all kept checkpoints of a run and the average of their weights, scored alike on one split."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from veduta.backends.torch import TorchBackend
from veduta.checkpoint import hash_weights, load_model, save_model
from veduta.config import Data, Recipe, set_fields
from veduta.device import place
from veduta.model_info import BEST, MODEL, ModelInfo, find_model, step_folders
from veduta.models import build_loaded
from veduta.ranks import first_then_others, on_first, said_once
from veduta.tasks.evaluation import WORDS, Evaluation, percent

AVERAGE = "average"

Score = Callable[[str, TorchBackend], Evaluation]  # of the checkpoint of that name


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One checkpoint, or the average of all, with its score. file: None for an average that is not written."""

    name: str
    file: Path | None
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The result of `veduta evaluate --sweep`: checkpoints by their steps, the earliest first.

    average: None where there is one checkpoint alone.
    """

    checkpoints: tuple[tuple[int, Swept], ...]
    average: Swept | None
    warnings: tuple[str, ...]

    @property
    def all(self) -> tuple[Swept, ...]:
        swept = tuple(entry for _, entry in self.checkpoints)
        return (*swept, self.average) if self.average is not None else swept

    @property
    def best(self) -> Swept:
        """Of the checkpoints the one with the highest first score; of equal ones the earliest."""
        first, *others = (entry for _, entry in self.checkpoints)
        for entry in others:
            if math.isnan(first_score(first)) or first_score(entry) > first_score(first):
                first = entry
        return first

    def table(self) -> str:
        """A line for each checkpoint, the best one marked."""
        columns = list(self.best.evaluation.scores.overall)
        width = max(len(entry.name) for entry in self.all)
        heads = [f"{WORDS[columns[0]]:>6} {'95 %':^14}", *(f"{WORDS[column]:>6}" for column in columns[1:])]
        lines = ["  ".join([f"{'checkpoint':{max(width, 10)}}", *heads])]
        for entry in self.all:
            first, *others = entry.evaluation.scores.overall.values()
            span = entry.evaluation.interval
            spread = "" if span is None else "[{}, {}]".format(*map(percent, span))
            cells = [f"{percent(first):>6} {spread:^14}"]
            cells += [f"{percent(v):>{max(6, len(WORDS[c]))}}" for c, v in zip(columns[1:], others, strict=True)]
            mark = "  best" if entry is self.best else ""
            lines.append("  ".join([f"{entry.name:{max(width, 10)}}", *cells]) + mark)
        return "\n".join(lines)

    def headline(self) -> str:
        """The best checkpoint, with its proof."""
        best = f"best: {self.best.name}, {self.best.file}"
        return f"{best}\n{self.best.evaluation.headline()}"

    def to_json(self, environment: Mapping[str, Any]) -> str:
        """Every checkpoint with what `veduta evaluate --json` writes of it."""
        content = {
            "best": self.best.name,
            "score": next(iter(self.best.evaluation.scores.overall)),
            "warnings": list(self.warnings),
            "checkpoints": [
                {
                    "name": entry.name,
                    "file": None if entry.file is None else str(entry.file),
                    **json.loads(entry.evaluation.to_json()),
                }
                for entry in self.all
            ],
            "environment": environment,
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def first_score(entry: Swept) -> float:
    """The one that chooses."""
    return next(iter(entry.evaluation.scores.overall.values()))


def find_checkpoints(run: Path) -> list[Path]:
    """The model files that a run has kept, the earliest first, its best one last; with stages, of the last one.

    Raises FileNotFoundError or NotADirectoryError where `run` is no run folder or has saved nothing.
    """
    if run.is_file():
        raise NotADirectoryError(f"--sweep: {run} is one model file. Give the run folder.")
    newest = find_model(run)
    folder = newest.parent if newest.name == BEST else newest.parent.parent
    by_step = {step: path / MODEL for step, path in reversed(step_folders(folder)) if (path / MODEL).is_file()}
    best = folder / BEST
    return [*by_step.values(), *([best] if best.is_file() else [])]


def sweep(
    files: list[Path], *, changes: list[str], device: torch.device, split: str, score: Score, out: Path | None = None
) -> Sweep:
    """Score checkpoints and their average, which goes into the model file `out` if there is to be one.

    Checkpoints of the same weights, as best.safetensors mostly is one, are scored once. Raises ValueError where a file
    is damaged, or one is of another network.
    """
    if out is not None and len(files) == 1:
        raise said_once(ValueError(f"--out {out}: the run has kept one checkpoint, there is nothing to average."))
    swept: dict[str, tuple[int, Swept]] = {}  # by the hash of the weights
    mean = Mean()
    for file in files:
        weights, info = first_then_others(partial(load_model, file))
        if info.weights_sha256 not in swept:
            mean.add(weights, info, file)
            name, backend = f"step {info.step:,}", first_then_others(partial(_open, weights, info, changes, device))
            swept[info.weights_sha256] = info.step, Swept(name=name, file=file, evaluation=score(name, backend))
    checkpoints = sorted(swept.values(), key=lambda entry: entry[0])
    average = None
    if len(checkpoints) > 1:
        weights, info = mean.compute()
        name = f"{AVERAGE} of {len(checkpoints)}"
        evaluation = score(name, _open(weights, info, changes, device))
        steps = ", ".join(f"{step:,}" for step, _ in checkpoints)
        proof = f"weights {info.weights_sha256[:12]}, the average of steps {steps}"
        average = Swept(name=name, file=out, evaluation=dataclasses.replace(evaluation, proof=proof))
        if out is not None:
            on_first(lambda: save_model(out, weights, info))
    elif out is not None:
        raise said_once(ValueError(f"--out {out}: the run has kept one checkpoint, there is nothing to average."))
    return Sweep(
        checkpoints=tuple(checkpoints), average=average, warnings=tuple(_warnings(mean.info.recipe.data, split))
    )


class Mean:
    """The average of weights: floats, and so BatchNorm's statistics, in float64; of whole numbers the latest ones."""

    info: ModelInfo  # of the latest

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}
        self.latest: dict[str, Tensor] = {}

    def add(self, weights: dict[str, Tensor], info: ModelInfo, file: Path) -> None:
        """Raises ValueError naming the file where these are weights of another network."""
        if self.count and _shapes(weights) != _shapes(self.latest):
            raise said_once(
                ValueError(f"{file} is of another network than the checkpoints before it. Sweep them apart.")
            )
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                self.sums[name] = self.sums[name] + tensor if self.count else tensor.double()
        if not self.count or info.step >= self.info.step:
            self.latest, self.info = weights, info
        self.count += 1

    def compute(self) -> tuple[dict[str, Tensor], ModelInfo]:
        floats = {name: (total / self.count).to(self.latest[name].dtype) for name, total in self.sums.items()}
        weights = {**self.latest, **floats}
        return weights, dataclasses.replace(self.info, scores={}, weights_sha256=hash_weights(weights))


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def _open(weights: dict[str, Tensor], info: ModelInfo, changes: list[str], device: torch.device) -> TorchBackend:
    recipe: Recipe = set_fields(info.recipe, changes)
    model = build_loaded(recipe.model, info.labels.num_classes, weights, **recipe.model_options)
    return TorchBackend(place(model, device), dataclasses.replace(info, recipe=recipe), device)


def _warnings(data: Data, split: str) -> Iterator[str]:
    """What a reader of the best score has to know: whoever chooses on a split has used it up."""
    parts = set(split.split("+"))
    if "test" in split.lower():
        yield (
            f"the best of several was chosen here on '{split}': what it scores there is no test score. Sweep a "
            "validation split, then evaluate the one chosen on the test split, once."
        )
    elif parts & set(data.val_split.split("+")):
        yield (
            f"'{split}' has chosen best.safetensors in training and chooses here again: the best score on it flatters. "
            "Report that of a split which has chosen nothing."
        )
    if parts & set(data.train_split.split("+")):
        yield f"'{split}' is what the run was trained on: its scores say little about other images."
