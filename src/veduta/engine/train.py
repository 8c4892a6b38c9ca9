"""Train: a recipe and data in, a run folder out; on one device or on many, and on again where it was stopped."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from veduta.config import Recipe
from veduta.data.loader import TrainLoader
from veduta.data.sample import SampleDataset
from veduta.device import keep_freed_memory, pins_memory, seed_everything
from veduta.engine.before import Splits, check_data, check_request, open_splits
from veduta.engine.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint
from veduta.engine.init import load_init
from veduta.engine.interrupt import Caught, caught_signals, told_to_stop
from veduta.engine.keeper import Keeper
from veduta.engine.memory import check_memory
from veduta.engine.pictures import draw_batch
from veduta.engine.progress import ProgressLine
from veduta.engine.run_folder import make_run_folder
from veduta.engine.runlog import RunLog, check_tensorboard
from veduta.engine.schedules import learning_rate
from veduta.engine.step import Losses, Step
from veduta.errors import RunStopped, is_out_of_memory
from veduta.models import build_model
from veduta.ranks import (
    Agreement,
    from_first,
    gathered,
    joined,
    lost_rank_named,
    mean_over_ranks,
    on_first,
    rank,
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
        first = rank() == 0
        if not first:
            line = ProgressLine(silent=True)
        splits: list[Splits] = []
        on_first(lambda: splits.append(_check(recipe, out, device, resume=resume, tensorboard=tensorboard)))
        train_set, val_set = splits[0] if first else open_splits(recipe)
        seed_everything(recipe.seed)
        keep_freed_memory()
        labels = train_set.labels
        task = TASKS[recipe.task](labels, recipe.loss)
        model = build_model(recipe.model, labels.num_classes, **recipe.model_options)
        found = _find_newest(out / "checkpoints", line) if resume else None
        start = "goes on" if found else "from scratch"
        if init and not found:  # the others get the first one's weights
            start = on_first(lambda: load_init(model, recipe, labels, init))
        processes = f" in {world_size()} processes" if world_size() > 1 else ""
        line.say(f"{recipe.model}, {labels.num_classes} classes, on {device}{processes}, {start}")
        summary = on_first(lambda: check_data(recipe, (train_set, val_set), line))
        pixels = summary[recipe.data.train_split].pixels
        task.fit_classes(pixels)
        if not found:
            on_first(lambda: make_run_folder(out, recipe, labels, summary))
        with _stops_for_people(device), caught_signals() as caught, told_to_stop(caught), lost_rank_named():
            step = Step(model, task, recipe, device)
            log = RunLog(
                out if first else None,
                line,
                steps=recipe.steps,
                batch_size=_images_per_step(recipe),
                scores=task.scores,
                tensorboard=tensorboard,
            )
            keeper = Keeper(step, labels, val_set, out / "checkpoints", log)
            run = _Run(step, train_set, keeper, log, out, pixels.tolist())
            if found:
                run.go_on(found, line)
                found = None  # its tensors are copied
            elif resume:
                log.resume(0)  # the rows of a run that ended before its first checkpoint
            run.train(caught)
            return keeper.best_evaluation(caught)


def _check(recipe: Recipe, out: Path, device: torch.device, *, resume: bool, tensorboard: bool) -> Splits:
    """All that can be wrong before a weight is made or a file of the data is read."""
    if tensorboard:
        check_tensorboard()
    check_request(recipe, out, device, resume=resume)
    splits = open_splits(recipe)
    check_memory(recipe, splits[0].labels.num_classes, device)
    return splits


@contextmanager
def _stops_for_people(device: torch.device) -> Iterator[None]:
    """A full memory or disk ends a run with words."""
    try:
        yield
    except OSError as error:
        advice = "\nThe checkpoints before it are intact; --resume goes on from there."
        raise RunStopped(f"{error}{'' if '--resume' in str(error) else advice}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RunStopped(
            f"the memory of {device} is full: {str(error).splitlines()[0]}\nLower data.batch_size and raise accumulate "
            "by as much; with --resume the run goes on from its newest checkpoint."
        ) from error


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


class _Run:
    """The loop over the steps, with what it has to know between them."""

    def __init__(
        self, step: Step, dataset: SampleDataset, keeper: Keeper, log: RunLog, out: Path, pixels: list[int]
    ) -> None:
        self.step, self.dataset, self.keeper, self.log, self.out = step, dataset, keeper, log, out
        self.pixels = pixels  # of each class in the training split: its weights come from them
        self.recipe, self.device = step.recipe, step.device
        self.done = 0  # steps
        self.drawn = 0  # samples, by all processes
        self.skipped = 0  # steps one after the other that were left out
        self.unreadable: dict[str, int] = {}  # how many samples were replaced, by reason, on all processes
        self.replaced_before: dict[str, int] = {}  # the same, until the run went on
        self.recent: list[tuple[Losses | None, tuple[str, ...]]] = []  # on the device until a row of the log is due
        self.waited, self.row_started = 0.0, time.perf_counter()

    def go_on(self, found: Checkpoint, line: ProgressLine) -> None:
        """Take over the state of a checkpoint. Raises ValueError where the data is not what it was."""
        values, names = found.values, self.step.task.labels.names
        if found.info.labels.names != names:
            raise ValueError(
                f"{found.path} has the classes {', '.join(found.info.labels.names)}; the data has {', '.join(names)}. "
                "Bring the data back, or start a new run with --init."
            )
        if values["samples"] != len(self.dataset):
            raise ValueError(
                f"{found.path} was made with {values['samples']:,} training samples, now there are "
                f"{len(self.dataset):,}. Bring the data back, or start a new run with --init {self.out}."
            )
        self.step.restore(found.model, found.tensors, values["step"])
        self.done, self.drawn = found.step, values["drawn"]
        self.unreadable = self.replaced_before = values["unreadable"]
        self.log.resume(found.step)
        line.say(f"goes on after step {found.step:,}/{self.recipe.steps:,}")
        now = self._exact_where()
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
            pin_memory=pins_memory(self.device),
            first=self.drawn,
            rank=rank(),
            world_size=world_size(),
        )
        batches, agreement = iter(loader), Agreement()
        if self.done and self._validates(self.done):  # it may have been stopped there; or its best was lost since
            validated = from_first(self.log.validated(self.done))
            if not validated or (self.done == recipe.steps and self.keeper.best_score is None):
                self.keeper.validate(self.done, caught)
        self.row_started = time.perf_counter()
        for number in range(self.done + 1, recipe.steps + 1):
            asked = time.perf_counter()
            try:
                drawn = [next(batches) for _ in range(recipe.accumulate)]
            except RuntimeError as error:  # a SIGTERM to the whole group ends the loader's workers, too
                if caught.signal is None or world_size() > 1:
                    raise
                if self.recent:
                    self._write_row(loader)
                    self.keeper.save(self.done, self._values())
                raise RunStopped(f"stopped after step {self.done:,}; --resume goes on.", exit_code=143) from error
            self.waited += time.perf_counter() - asked
            if number == 1 and rank() == 0:
                draw_batch(drawn[0], self.step.task.labels, self.out / "first_batch.png")
            losses = self.step(drawn, number)
            names = tuple(name for batch in drawn for name in batch.names)
            self.recent.append((losses, names))
            self._count_skipped(losses, number, names)
            self.done, self.drawn = number, self.drawn + _images_per_step(recipe)
            stops = agreement.any(caught.signal is not None)
            validates = self._validates(number)
            saves = stops or validates or bool(recipe.keep.every and number % recipe.keep.every == 0)
            if saves or self.log.due(number):  # a checkpoint is written only after losses that are numbers
                self._write_row(loader)
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
            "exact_where": self._exact_where(),
        }

    def _exact_where(self) -> dict[str, Any]:
        """What has to be the same for a run to go on to the bit."""
        return {
            "processes": world_size(),
            "data.batch_size": self.recipe.data.batch_size,
            "accumulate": self.recipe.accumulate,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "training pixels": self.pixels,
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
                f"the last: {', '.join(names)}. The checkpoints before them are intact. Look at these files, or start "
                "a new run with --init and a lower optim.lr."
            )

    def _write_row(self, loader: TrainLoader) -> None:
        """Read the losses that lie on the device, check them, and log them with the time that they took."""
        losses = _read_losses(self.recent, self.done)
        replaced = Counter(self.replaced_before)
        for reasons in gathered(loader.unreadable):
            replaced.update(reasons)
        self.unreadable = dict(replaced)
        now = time.perf_counter()
        self.log.training(
            self.done,
            losses,
            epoch=self.drawn / len(self.dataset),
            lr=learning_rate(self.recipe.optim, self.done - 1, self.recipe.steps),
            seconds=now - self.row_started,
            waited=self.waited,
            device=self.device,
        )
        self.log.unreadable(self.done, self.unreadable)
        self.recent, self.waited, self.row_started = [], 0.0, now


def _read_losses(recent: list[tuple[Losses | None, tuple[str, ...]]], last: int) -> list[dict[str, float]]:
    """Losses of the steps up to `last`, averaged over the processes; empty for one that was left out.

    Raises FloatingPointError naming the batch.
    """
    kept = [losses for losses, _ in recent if losses is not None]
    means: list[list[float]] = []
    if kept:
        stacked = torch.stack([torch.stack(list(losses.values())) for losses in kept])
        means = mean_over_ranks(stacked).tolist()
    read, rows = [], iter(means)
    for offset, (losses, names) in enumerate(recent):
        values = dict(zip(losses, next(rows), strict=True)) if losses is not None else {}
        total = sum(values.values())
        if not math.isfinite(total):
            names = tuple(name for part in gathered(names) for name in part)
            raise FloatingPointError(
                f"the loss of step {last - len(recent) + offset + 1} is {total}; its batch: {', '.join(names)}. The "
                "checkpoints before it are intact. Look at these files, or start a new run with --init and a lower "
                "optim.lr."
            )
        read.append(values)
    return read
