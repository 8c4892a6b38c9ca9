"""Train: a recipe and data in, a run folder out."""

import dataclasses
import json
import time
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from veduta.backends import TorchBackend
from veduta.checkpoint import (
    ModelInfo,
    find_model,
    hash_weights,
    load_weights,
    save_model,
)
from veduta.config import Recipe, recipe_to_json
from veduta.data import open_dataset
from veduta.data.check.quick import SplitSummary, check_samples
from veduta.data.layout import FileDataset
from veduta.data.loader import TrainLoader
from veduta.data.sample import InMemory, SampleDataset, to_unit_range
from veduta.device import (
    autocast,
    check_precision,
    grad_scaler,
    has_fused_optimizers,
    keep_freed_memory,
    seed_everything,
    select_device,
)
from veduta.engine.evaluate import check_scored, evaluate
from veduta.engine.optim import MovingAverage, build_optimizer
from veduta.engine.pictures import draw_batch
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.engine.runlog import RunLog, environment
from veduta.engine.schedules import learning_rate
from veduta.files import check_new_folder, write_text
from veduta.labels import LabelMap
from veduta.models import build_model
from veduta.tasks import TASKS
from veduta.tasks.classify import mix_batch
from veduta.tasks.evaluation import Evaluation


def train(recipe: Recipe, out: Path, line: ProgressLine, *, init: Path | None = None) -> Evaluation:
    """Train `recipe` into the new folder `out`; returns the best checkpoint's evaluation on the validation split.

    User mistakes raise ValueError or OSError before the first step where they can be known. FloatingPointError: the
    loss is no number any more.
    """
    check_new_folder(out)
    device = select_device(recipe.device)
    check_precision(device, recipe.precision)
    seed_everything(recipe.seed)
    keep_freed_memory()
    data = recipe.data
    train_set, val_set = open_dataset(data, data.train_split), open_dataset(data, data.val_split)
    labels = train_set.labels
    if val_set.labels.names != labels.names:
        raise ValueError(
            f"split '{data.train_split}' has the classes {', '.join(labels.names)}, split '{data.val_split}' "
            f"{', '.join(val_set.labels.names)}. They must be the same, in the same order."
        )
    task = TASKS[recipe.task](labels, recipe.loss)
    model = build_model(recipe.model, labels.num_classes, **recipe.model_options)
    check_scored(task, recipe.task)
    _check_outputs(model, task.reads, recipe)
    _check_labels(train_set, data.train_split, recipe)
    _check_labels(val_set, data.val_split, recipe)
    start = load_init(model, init) if init else "from scratch"
    line.say(f"{recipe.model}, {labels.num_classes} classes, on {device}, {start}")
    summary = _check_data({data.train_split: train_set, data.val_split: val_set}, data.unreadable, line)
    for name, split in summary.items():
        if recipe.task == "segment" and not split.pixels.any():
            raise ValueError(f"split '{name}' has no pixel of any class. Choose a split with masks.")
    task.fit_classes(summary[data.train_split].pixels)

    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, recipe.optim, fused=has_fused_optimizers(device))
    _make_run_folder(out, recipe, labels, summary)
    log = RunLog(out, line, steps=recipe.steps, batch_size=data.batch_size, samples=len(train_set))
    keeper = _Keeper(recipe, labels, val_set, out / "checkpoints", log)
    scaler = grad_scaler(device, recipe.precision)
    average = MovingAverage(model, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    recent: list[tuple[Tensor, tuple[str, ...]]] = []  # losses, on the device until a row of the log is due, and names
    waited, row_started = 0.0, time.perf_counter()
    loader = TrainLoader(train_set, data, steps=recipe.steps, seed=recipe.seed, pin_memory=device.type != "cpu")
    batches = iter(loader)
    for step in range(1, recipe.steps + 1):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        if step == 1:
            draw_batch(batch, labels, out / "first_batch.png")
        rate = learning_rate(recipe.optim, step - 1, recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
        set_training_mode(model, frozen_statistics=recipe.frozen_statistics)
        batch = batch.to(device)
        images = to_unit_range(batch.images, device)
        if recipe.loss.mixup or recipe.loss.cutmix:
            rng = np.random.default_rng((recipe.seed, step))
            mixing = {"mixup": recipe.loss.mixup, "cutmix": recipe.loss.cutmix}
            images, batch = mix_batch(images, batch, labels.num_classes, **mixing, rng=rng)
        with autocast(device, recipe.precision):
            outputs = model(images)
            loss = torch.stack(list(task.losses(outputs, batch).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if average:
            average.update(model)
        recent.append((loss.detach(), batch.names))
        validating = step == recipe.steps or bool(recipe.validate_every and step % recipe.validate_every == 0)
        if log.due(step) or validating:  # a checkpoint is written only after losses that are numbers
            losses = _read_losses(recent, step)
            now = time.perf_counter()
            log.training(step, losses, lr=rate, seconds=now - row_started, waited=waited, device=device)
            log.unreadable(step, loader.unreadable)
            recent, waited, row_started = [], 0.0, now
        if validating:
            keeper.keep(average.model if average else model, step, device)
            row_started = time.perf_counter()
    assert keeper.best is not None
    return keeper.best


def set_training_mode(model: nn.Module, *, frozen_statistics: bool) -> None:
    """`model.train()`; frozen BatchNorm normalises with its running statistics and does not update them."""
    model.train()
    if frozen_statistics:
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                module.eval()  # its scale and shift still get gradients


class _Keeper:
    """Validates now and then, and keeps the last and the best checkpoint."""

    def __init__(self, recipe: Recipe, labels: LabelMap, dataset: SampleDataset, folder: Path, log: RunLog) -> None:
        self.recipe, self.labels, self.dataset, self.folder, self.log = recipe, labels, dataset, folder, log
        self.best: Evaluation | None = None

    def keep(self, model: nn.Module, step: int, device: torch.device) -> None:
        """Score `model` on the validation split, write it as last.safetensors, and as best.safetensors if it is."""
        weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise FloatingPointError(
                f"after step {step} {broken[0]} is no number any more. The checkpoints before it are intact. Lower "
                "optim.lr."
            )
        info = ModelInfo(recipe=self.recipe, labels=self.labels, step=step, weights_sha256=hash_weights(weights))
        data = self.recipe.data
        evaluation = evaluate(
            Predictor(TorchBackend(model, info, device)),
            self.dataset,
            name=data.dataset,
            split=data.val_split,
            batch_size=data.batch_size,
            progress=partial(self.log.line.count, "validating"),
        )
        if evaluation.failed and data.unreadable == "stop":
            raise ValueError(
                f"{len(evaluation.failed)} validation images cannot be read; for one, {evaluation.failed[0][1]}\n"
                "--set data.unreadable=replace scores the others, and says so."
            )
        scores = {
            "val_mean_iou": evaluation.scores.mean_iou,
            "val_pixel_accuracy": evaluation.scores.pixel_accuracy,
        }
        info = dataclasses.replace(info, scores=scores)
        save_model(self.folder / "last.safetensors", weights, info)
        if self.best is None or evaluation.scores.mean_iou > self.best.scores.mean_iou:
            self.best = evaluation
            save_model(self.folder / "best.safetensors", weights, info)
        self.log.validation(step, scores)
        self.log.draw_curves()


@torch.inference_mode()
def _check_outputs(model: nn.Module, reads: str, recipe: Recipe) -> None:
    """Raises ValueError where the model or the loss is not one for the task."""
    given = model.eval()(torch.zeros(1, 3, 65, 65))
    if reads not in given:
        raise ValueError(
            f"model '{recipe.model}' gives {', '.join(given)}; task '{recipe.task}' reads {reads}. Choose another of "
            "the models that `veduta list` shows."
        )
    if (recipe.loss.mixup or recipe.loss.cutmix) and reads != "class_logits":
        raise ValueError(
            f"loss.mixup and loss.cutmix blend classes of whole images; task '{recipe.task}' has none. Set both to 0."
        )


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


def _check_data(
    splits: dict[str, SampleDataset], unreadable: Literal["stop", "replace"], line: ProgressLine
) -> dict[str, SplitSummary]:
    """The quick check; raises ValueError where training or validation would fail later, and says what is doubtful."""
    summary = {
        name: check_samples(
            dataset,
            name=name,
            unreadable=unreadable,
            progress=partial(line.count, f"checking {name}"),
        )
        for name, dataset in splits.items()
    }
    for fault in [fault for split in summary.values() for fault in split.doubts]:
        line.say(f"{fault.severity}: {fault}")
    return summary


def _make_run_folder(out: Path, recipe: Recipe, labels: LabelMap, summary: dict[str, SplitSummary]) -> None:
    (out / "checkpoints").mkdir(parents=True)
    write_text(out / "recipe.json", recipe_to_json(recipe))
    write_text(out / "environment.json", json.dumps(environment(), indent=1) + "\n")
    content = {
        name: {
            "samples": split.num_samples,
            "void_pixels": split.void,
            "pixels": dict(zip(labels.names, split.pixels.tolist(), strict=True)),
        }
        for name, split in summary.items()
    }
    write_text(out / "data.json", json.dumps(content, indent=1) + "\n")


def load_init(model: nn.Module, init: Path) -> str:
    """Start from the weights of a run or a safetensors file; returns a sentence on what was taken.

    Tensors are matched by name and shape. Raises ValueError where fewer than half of the model's tensors are found:
    that is another network.
    """
    path = find_model(init)
    weights, _ = load_weights(path)
    own = model.state_dict()
    taken = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    fresh = [name for name in own if name not in taken]
    if len(taken) < len(own) / 2:
        raise ValueError(
            f"--init {path}: only {len(taken)} of the model's {len(own)} tensors are in it by name and shape; "
            f"it belongs to another network. The model wants, for one, {fresh[0]} {tuple(own[fresh[0]].shape)}."
        )
    model.load_state_dict({**own, **taken})
    start = f"{len(taken)} of {len(own)} tensors from {path}"
    return f"{start}; from scratch: {', '.join(fresh)}" if fresh else start


def _read_losses(recent: list[tuple[Tensor, tuple[str, ...]]], step: int) -> list[float]:
    losses: list[float] = torch.stack([loss for loss, _ in recent]).tolist()
    for offset, (loss, (_, names)) in enumerate(zip(losses, recent, strict=True)):
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {step - len(losses) + offset + 1} is {loss}; its batch: {', '.join(names)}. The "
                "checkpoints before it are intact. Lower optim.lr, or look at these files."
            )
    return losses
