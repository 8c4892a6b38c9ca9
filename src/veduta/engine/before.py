"""Before a run starts: everything that can be known to be wrong with it, the cheapest first, data last."""

import dataclasses
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from veduta.config import Loss, Recipe
from veduta.data import open_dataset
from veduta.data.check.quick import SplitSummary, check_samples
from veduta.data.layout import FileDataset
from veduta.data.sample import InMemory, SampleDataset
from veduta.device import check_precision
from veduta.engine.memory import check_memory
from veduta.engine.progress import ProgressLine
from veduta.engine.protocols import open_protocol
from veduta.engine.run_folder import check_run_folder
from veduta.models import build_skeleton
from veduta.tasks import TASKS

Splits = tuple[SampleDataset, SampleDataset]  # for training, for validation


def check_request(recipe: Recipe, out: Path, device: torch.device, *, resume: bool) -> None:
    """All that shows without data. Raises ValueError or OSError."""
    check_run_folder(out, recipe, resume=resume)
    check_precision(device, recipe.precision)
    check_network(recipe)


def check_network(recipe: Recipe) -> None:
    """Raises ValueError where the model, the protocol or the loss is not one for the task."""
    open_protocol(recipe)
    task = TASKS[recipe.task]
    given = _outputs(recipe, training=False)
    if task.reads not in given:
        raise ValueError(
            f"model '{recipe.model}' gives {', '.join(given)}; task '{recipe.task}' reads {task.reads}. Choose another "
            "of the models that `veduta list` shows."
        )
    for field in dataclasses.fields(recipe.loss):
        if field.name not in task.reads_of_loss and getattr(recipe.loss, field.name) != getattr(Loss(), field.name):
            raise ValueError(
                f"task '{recipe.task}' does not read loss.{field.name}; it reads {', '.join(task.reads_of_loss)}. Set "
                f"it to {getattr(Loss(), field.name)}."
            )
    if recipe.loss.auxiliary and "aux_mask_logits" not in _outputs(recipe, training=True):
        raise ValueError(f"model '{recipe.model}' has no auxiliary head. Set loss.auxiliary to 0.")


@torch.inference_mode()
def _outputs(recipe: Recipe, *, training: bool) -> dict[str, Tensor]:
    model: nn.Module = build_skeleton(recipe.model, 2, **recipe.model_options).to("meta").train(training)
    return model(torch.zeros(2, 3, 65, 65, device="meta"))


def open_splits(recipe: Recipe) -> Splits:
    """Both splits of a recipe. Raises ValueError or OSError where they are not there, or not what it needs."""
    data = recipe.data
    train_set, val_set = open_dataset(data, data.train_split), open_dataset(data, data.val_split)
    if val_set.labels.names != train_set.labels.names:
        raise ValueError(
            f"split '{data.train_split}' has the classes {', '.join(train_set.labels.names)}, split "
            f"'{data.val_split}' {', '.join(val_set.labels.names)}. They must be the same, in the same order."
        )
    if recipe.task == "classify" and train_set.labels.num_classes < 2:
        raise ValueError(
            f"{data.root} has one class, {train_set.labels.names[0]}; there is nothing to tell apart. Is it the folder "
            "above that is meant?"
        )
    _check_labels(train_set, data.train_split, recipe)
    _check_labels(val_set, data.val_split, recipe)
    return train_set, val_set


def check_next_stage(recipe: Recipe, device: torch.device) -> None:
    """A later stage, before the first one runs for a day. Raises ValueError or OSError."""
    check_precision(device, recipe.precision)
    check_network(recipe)
    train_set, _ = open_splits(recipe)
    check_memory(recipe, train_set.labels.num_classes, device)


def _check_labels(dataset: SampleDataset, split: str, recipe: Recipe) -> None:
    """Raises ValueError where a split lacks what the task or the pipeline needs, as its first sample shows."""
    files = dataset.dataset if isinstance(dataset, InMemory) else dataset
    first = files.record(0) if isinstance(files, FileDataset) else files[0]
    found = {"masks": first.mask, "boxes": first.boxes, "classes of whole images": first.scene_class}
    needs = {"segment": "masks", "detect_segment": "boxes", "classify": "classes of whole images"}[recipe.task]
    if found[needs] is None:
        raise ValueError(f"split '{split}' has no {needs}, which task '{recipe.task}' needs. Choose another split.")
    if recipe.data.augment.pipeline == "blitznet" and first.boxes is None:
        raise ValueError(f"pipeline blitznet crops around boxes; split '{split}' has none. Choose another pipeline.")


def check_data(recipe: Recipe, splits: Splits, line: ProgressLine) -> dict[str, SplitSummary]:
    """The quick check; raises ValueError where training or validation would fail later, and says what is doubtful."""
    data = recipe.data
    summary = {
        name: check_samples(
            dataset, name=name, unreadable=data.unreadable, progress=partial(line.count, f"checking {name}")
        )
        for name, dataset in zip((data.train_split, data.val_split), splits, strict=True)
    }
    for fault in [fault for split in summary.values() for fault in split.doubts]:
        line.say(f"{fault.severity}: {fault}")
    for name, split in summary.items():
        if recipe.task == "segment" and not split.pixels.any():
            raise ValueError(f"split '{name}' has no pixel of any class. Choose a split with masks.")
    return summary
