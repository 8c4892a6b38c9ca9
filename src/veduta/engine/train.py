"""Train: a recipe and data in, a run folder out; on one device or on many, and on again where it was stopped."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from veduta.config import Recipe
from veduta.data import open_dataset
from veduta.data.check.quick import SplitSummary, check_samples
from veduta.data.layout import FileDataset
from veduta.data.loader import TrainLoader
from veduta.data.sample import InMemory, SampleDataset
from veduta.device import check_precision, keep_freed_memory, seed_everything
from veduta.engine.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint
from veduta.engine.init import load_init
from veduta.engine.interrupt import Caught, caught_signals
from veduta.engine.keeper import Keeper
from veduta.engine.memory import check_memory
from veduta.engine.pictures import draw_batch
from veduta.engine.progress import ProgressLine
from veduta.engine.run_folder import check_run_folder, make_run_folder
from veduta.engine.runlog import RunLog, check_tensorboard
from veduta.engine.schedules import learning_rate
from veduta.engine.step import Losses, Step
from veduta.errors import RunStopped
from veduta.models import build_model, build_skeleton
from veduta.ranks import (
    Agreement,
    LostRank,
    from_first,
    gathered,
    joined,
    lost_rank_named,
    on_first,
    rank,
    sum_over_ranks,
    world_size,
)
from veduta.tasks import TASKS
from veduta.tasks.evaluation import Evaluation

MOST_SKIPPED = 10  # steps left out one after the other before a run with not_finite="skip" stops all the same


def train(
    recipe: Recipe,
    out: Path,
    line: ProgressLine,
    *,
    init: Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
) -> Evaluation:
    """Train `recipe` into the folder `out`; returns the best checkpoint's evaluation on the validation split.

    resume: go on from the newest valid checkpoint in `out`, to the bit where machine and number of processes are the
    same; where there is none, start. User mistakes raise ValueError or OSError before the first step where they can be
    known. FloatingPointError: the loss is no number any more. RunStopped: a signal came, or the disk is full.
    """
    with joined(recipe.device) as device:
        if rank():
            line = ProgressLine(silent=True)
        if tensorboard:
            check_tensorboard()
        on_first(partial(_check_request, recipe, out, device, resume))
        seed_everything(recipe.seed)
        keep_freed_memory()
        train_set, val_set = (open_dataset(recipe.data, s) for s in (recipe.data.train_split, recipe.data.val_split))
        labels = train_set.labels
        on_first(partial(_check_splits, recipe, train_set, val_set, device))
        task = TASKS[recipe.task](labels, recipe.loss)
        model = build_model(recipe.model, labels.num_classes, **recipe.model_options)
        found = _find_newest(out / "checkpoints", line) if resume else None
        start = "goes on" if found else load_init(model, recipe, labels, init) if init else "from scratch"
        processes = f" in {world_size()} processes" if world_size() > 1 else ""
        line.say(f"{recipe.model}, {labels.num_classes} classes, on {device}{processes}, {start}")
        summary = on_first(partial(_check_data, recipe, train_set, val_set, line))
        task.fit_classes(summary[recipe.data.train_split].pixels)

        step = Step(model, task, recipe, device)
        if not found:
            on_first(partial(make_run_folder, out, recipe, labels, summary))
        log = RunLog(
            out if rank() == 0 else None,
            line,
            steps=recipe.steps,
            batch_size=_images_per_step(recipe),
            samples=len(train_set),
            scores=task.scores,
            tensorboard=tensorboard,
        )
        keeper = Keeper(step, labels, val_set, out / "checkpoints", log)
        run = _Run(step, train_set, keeper, log, out)
        if found:
            run.go_on(found, line)
        elif resume:
            log.resume(0)  # the rows of a run that ended before its first checkpoint
        try:
            with caught_signals() as caught, _told_to_stop(caught), lost_rank_named():
                run.train(caught)
        except torch.OutOfMemoryError as error:
            raise RunStopped(
                f"the memory of {device} is full: {error}\nLower data.batch_size and raise accumulate by as much."
            ) from error
        except OSError as error:
            advice = "\nThe checkpoints before it are intact; --resume goes on from there."
            raise RunStopped(f"{error}{'' if '--resume' in str(error) else advice}") from error
        return keeper.best_evaluation()


@contextmanager
def _told_to_stop(caught: Caught) -> Iterator[None]:
    """A process that was told to stop and loses another one, which was told as well, has stopped as it should."""
    try:
        yield
    except LostRank as error:
        if caught.signal is None:
            raise
        raise RunStopped("", exit_code=caught.exit_code) from error


def _find_newest(folder: Path, line: ProgressLine) -> Checkpoint | None:
    """The newest checkpoint: rank 0 looks for it, all read it."""
    newest: list[Checkpoint] = []

    def find() -> Path | None:
        if found := newest_checkpoint(folder, line.say):
            newest.append(found)
        return found.path if found else None

    path = on_first(find)
    return newest[0] if newest else read_checkpoint(path) if path else None


def _images_per_step(recipe: Recipe) -> int:
    return recipe.data.batch_size * recipe.accumulate * world_size()


class _Read(NamedTuple):
    """What is known of a step when its losses have been read. losses: empty where it was left out."""

    losses: dict[str, float]
    names: tuple[str, ...]


class _Run:
    """The loop over the steps, with what it has to know between them."""

    def __init__(self, step: Step, dataset: SampleDataset, keeper: Keeper, log: RunLog, out: Path) -> None:
        self.step, self.dataset, self.keeper, self.log, self.out = step, dataset, keeper, log, out
        self.recipe, self.device = step.recipe, step.device
        self.done = 0  # steps
        self.drawn = 0  # samples, by all processes
        self.skipped = 0  # steps one after the other that were left out
        self.unreadable: dict[str, int] = {}
        self.recent: list[tuple[Losses | None, tuple[str, ...]]] = []  # on the device until a row of the log is due
        self.waited, self.row_started = 0.0, time.perf_counter()

    def go_on(self, found: Checkpoint, line: ProgressLine) -> None:
        """Take over the state of a checkpoint. Raises ValueError where the data is not what it was."""
        values = found.values
        if values["samples"] != len(self.dataset):
            raise ValueError(
                f"{found.path} was made with {values['samples']:,} training samples, now there are "
                f"{len(self.dataset):,}. Bring the data back, or start a new run with --init {self.out}."
            )
        self.step.restore(found.model, found.tensors, values["step"])
        self.done, self.drawn, self.unreadable = found.step, values["drawn"], values["unreadable"]
        self.log.resume(found.step)
        line.say(f"goes on after step {found.step:,}/{self.recipe.steps:,}")
        now = _exact_where(self.device)
        differing = [f"{name} {was} -> {now[name]}" for name, was in values["exact_where"].items() if was != now[name]]
        if differing:
            line.say(f"not exact: {', '.join(differing)}; the losses will differ in their last digits at least")

    def train(self, caught: Caught) -> None:
        """All the steps that are left, with their validations and checkpoints."""
        recipe, data = self.recipe, self.recipe.data
        loader = TrainLoader(
            self.dataset,
            data,
            steps=(recipe.steps - self.done) * recipe.accumulate,
            seed=recipe.seed,
            pin_memory=self.device.type != "cpu",
            first=self.drawn,
            rank=rank(),
            world_size=world_size(),
        )
        before = dict(self.unreadable)
        batches, agreement = iter(loader), Agreement()
        if self.done and self._validates(self.done) and not from_first(self.log.validated(self.done)):
            self.keeper.validate(self.done, caught)
        self.row_started = time.perf_counter()
        for number in range(self.done + 1, recipe.steps + 1):
            asked = time.perf_counter()
            drawn = [next(batches) for _ in range(recipe.accumulate)]
            self.waited += time.perf_counter() - asked
            if number == 1 and rank() == 0:
                draw_batch(drawn[0], self.step.task.labels, self.out / "first_batch.png")
            losses = self.step(drawn, number)
            names = tuple(name for batch in drawn for name in batch.names)
            self.recent.append((losses, names))
            self._count_skipped(losses, number, names)
            self.done, self.drawn = number, self.drawn + _images_per_step(recipe)
            self.unreadable = {
                reason: before.get(reason, 0) + loader.unreadable.get(reason, 0)
                for reason in before.keys() | loader.unreadable.keys()
            }
            stops = agreement.any(caught.signal is not None)
            validates = self._validates(number)
            saves = stops or validates or bool(recipe.keep.every and number % recipe.keep.every == 0)
            if saves or self.log.due(number):  # a checkpoint is written only after losses that are numbers
                self._write_row()
            if saves:
                self.keeper.save(number, self._values())
            if stops:
                raise RunStopped(
                    f"stopped after step {number:,} of {recipe.steps:,}, which is saved. The same command with "
                    "--resume goes on from there.",
                    exit_code=caught.exit_code,
                )
            if validates:
                self.keeper.validate(number, caught)
            if saves:
                self.row_started = time.perf_counter()

    def _validates(self, number: int) -> bool:
        every = self.recipe.validate_every
        return number == self.recipe.steps or bool(every and number % every == 0)

    def _values(self) -> dict[str, Any]:
        return {
            "samples": len(self.dataset),
            "drawn": self.drawn,
            "unreadable": self.unreadable,
            "exact_where": _exact_where(self.device),
        }

    def _count_skipped(self, losses: Losses | None, number: int, names: tuple[str, ...]) -> None:
        if losses is not None:
            self.skipped = 0
            return
        self.skipped += 1
        names = tuple(name for part in gathered(names) for name in part)
        self.log.skipped(number, names)
        if self.skipped == MOST_SKIPPED:
            raise FloatingPointError(
                f"{MOST_SKIPPED} steps in a row, up to step {number}, had gradients that are no numbers; the batch of "
                f"the last: {', '.join(names)}. The checkpoints before them are intact. Lower optim.lr, or look at "
                "these files."
            )

    def _write_row(self) -> None:
        """Read the losses that lie on the device, check them, and log them with the time that they took."""
        read = _read_losses(self.recent, self.done)
        now = time.perf_counter()
        self.log.training(
            self.done,
            [step.losses for step in read],
            lr=learning_rate(self.recipe.optim, self.done - 1, self.recipe.steps),
            seconds=now - self.row_started,
            waited=self.waited,
            device=self.device,
        )
        self.log.unreadable(self.done, self.unreadable)
        self.recent, self.waited, self.row_started = [], 0.0, now


def _exact_where(device: torch.device) -> dict[str, Any]:
    """What has to be the same for a run to go on to the bit."""
    return {
        "processes": world_size(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _read_losses(recent: list[tuple[Losses | None, tuple[str, ...]]], last: int) -> list[_Read]:
    """Losses of the steps up to `last`, averaged over the processes. Raises FloatingPointError naming the batch."""
    kept = [losses for losses, _ in recent if losses is not None]
    means: list[list[float]] = []
    if kept:
        stacked = torch.stack([torch.stack(list(losses.values())) for losses in kept])
        means = (sum_over_ranks(stacked) / world_size()).tolist()
    read, rows = [], iter(means)
    for offset, (losses, names) in enumerate(recent):
        values = dict(zip(losses, next(rows), strict=True)) if losses is not None else {}
        total = sum(values.values())
        if not math.isfinite(total):
            names = tuple(name for part in gathered(names) for name in part)
            raise FloatingPointError(
                f"the loss of step {last - len(recent) + offset + 1} is {total}; its batch: {', '.join(names)}. The "
                "checkpoints before it are intact. Lower optim.lr, or look at these files."
            )
        read.append(_Read(values, names))
    return read


def _check_request(recipe: Recipe, out: Path, device: torch.device, resume: bool) -> None:
    """All that can be wrong before any data is opened."""
    check_run_folder(out, recipe, resume=resume)
    check_precision(device, recipe.precision)
    _check_outputs(build_skeleton(recipe.model, 2, **recipe.model_options), TASKS[recipe.task].reads, recipe)


@torch.inference_mode()
def _check_outputs(model: nn.Module, reads: str, recipe: Recipe) -> None:
    """Raises ValueError where the model or the loss is not one for the task."""
    given: dict[str, Tensor] = model.to("meta").eval()(torch.zeros(1, 3, 65, 65, device="meta"))
    if reads not in given:
        raise ValueError(
            f"model '{recipe.model}' gives {', '.join(given)}; task '{recipe.task}' reads {reads}. Choose another of "
            "the models that `veduta list` shows."
        )
    if (recipe.loss.mixup or recipe.loss.cutmix) and recipe.task != "classify":
        raise ValueError(
            f"loss.mixup and loss.cutmix blend classes of whole images; task '{recipe.task}' has none. Set both to 0."
        )


def _check_splits(recipe: Recipe, train_set: SampleDataset, val_set: SampleDataset, device: torch.device) -> None:
    data = recipe.data
    if val_set.labels.names != train_set.labels.names:
        raise ValueError(
            f"split '{data.train_split}' has the classes {', '.join(train_set.labels.names)}, split "
            f"'{data.val_split}' {', '.join(val_set.labels.names)}. They must be the same, in the same order."
        )
    _check_labels(train_set, data.train_split, recipe)
    _check_labels(val_set, data.val_split, recipe)
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


def _check_data(
    recipe: Recipe, train_set: SampleDataset, val_set: SampleDataset, line: ProgressLine
) -> dict[str, SplitSummary]:
    """The quick check; raises ValueError where training or validation would fail later, and says what is doubtful."""
    data = recipe.data
    summary = {
        name: check_samples(
            dataset, name=name, unreadable=data.unreadable, progress=partial(line.count, f"checking {name}")
        )
        for name, dataset in ((data.train_split, train_set), (data.val_split, val_set))
    }
    for fault in [fault for split in summary.values() for fault in split.doubts]:
        line.say(f"{fault.severity}: {fault}")
    for name, split in summary.items():
        if recipe.task == "segment" and not split.pixels.any():
            raise ValueError(f"split '{name}' has no pixel of any class. Choose a split with masks.")
    return summary
