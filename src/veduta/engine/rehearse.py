"""Rehearse: the whole life of a run in a few minutes, before the real one starts.

The recipe runs as it is, at its true crop, batch, network and schedule. A first run is killed and goes on, a second
one is not interrupted; after the same number of steps both must hold the same weights. What was measured on the way
becomes a forecast. All of it is the command `veduta train`, in processes of its own.
"""

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from veduta.backends import open_model
from veduta.config import Keep, Recipe, recipe_to_json
from veduta.data import open_dataset
from veduta.data.sample import SampleDataset, Thinned
from veduta.device import select_device
from veduta.engine.checkpoints import read_checkpoint
from veduta.engine.evaluate import evaluate
from veduta.engine.forecast import Forecast
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine, duration
from veduta.engine.runlog import read_rows
from veduta.files import write_text
from veduta.model_info import BEST, MODEL, find_model, step_folders

STEPS, KILLED_AFTER = 20, 12  # where there is time for them
FEWEST_STEPS = 30  # of a recipe; a shorter one needs no rehearsal
SECONDS_TO_KILL, SECONDS_OF_STEPS = 40.0, 110.0  # time for the steps up to the kill, and for all that are made
SECONDS_OF_SCORING = 15.0  # images of the validation split are scored for so long
SECONDS_OF_VALIDATION = 60.0  # a validation that takes longer is not made by the rehearsed run
POLL = 0.02  # seconds


@dataclass(frozen=True)
class Act:
    """Something that happens in a run's life, and how it went."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Rehearsal:
    """What was tried, and what the real run will take: a forecast for each stage that was rehearsed to its end."""

    acts: tuple[Act, ...]
    forecasts: tuple[Forecast, ...]

    @property
    def passed(self) -> bool:
        return all(act.passed for act in self.acts)

    def text(self) -> str:
        width = max(len(act.name) for act in self.acts)
        lines = []
        for act in self.acts:
            found = act.found.replace("\n", "\n" + " " * (width + 10))
            lines.append(f"{'passed' if act.passed else 'FAILED'}  {act.name:{width}}  {found}")
        for forecast in self.forecasts:
            lines += ["", forecast.text()]
        if len(self.forecasts) > 1:
            lines += ["", f"all stages: {duration(sum(forecast.whole for forecast in self.forecasts))}"]
        failed = sum(not act.passed for act in self.acts)
        verdict = (
            f"{failed} of {len(self.acts)} acts FAILED: do not start the run yet."
            if failed
            else "All passed: the run can start."
        )
        return "\n".join([*lines, "", verdict])


class Failure(Exception):  # noqa: N818  # of what is rehearsed, not of the rehearsal
    """An act failed, and what comes after it cannot be tried."""


class Scoring(NamedTuple):
    """images: how many of `total` were scored, in `seconds`. scores: 0..1 by name. unreadable: why, of the first."""

    images: int
    total: int
    seconds: float
    scores: dict[str, float]
    unreadable: str | None


def rehearse(recipe: Recipe, folder: Path, line: ProgressLine, *, init: Path | None, devices: int) -> Rehearsal:
    """Rehearse every stage of `recipe` in `folder`, new or empty; a stage starts from the weights that the former made.

    Raises ValueError where the device is missing or a stage is too short for it.
    """
    device = select_device(recipe.device)
    for stage in recipe.stages:
        if stage.steps < FEWEST_STEPS:
            raise ValueError(f"{stage.name} has {stage.steps} steps: that is no longer than a rehearsal. Just run it.")
    acts: list[Act] = []
    forecasts: list[Forecast] = []
    stages = recipe.stages
    for number, stage in enumerate(stages, start=1):
        title = f"stage {number}: " if len(stages) > 1 else ""
        place = folder / f"stage-{number}" if len(stages) > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        life = _Life(stage, place, line.update, acts, title, device, init=init, devices=devices)
        try:
            forecasts.append(life.live())
        except Failure as failure:
            acts.append(Act(f"{title}{life.act}", False, str(failure)))
            break
        init = find_model(life.whole)
    return Rehearsal(tuple(acts), tuple(forecasts))


class _Life:
    """One stage: its two runs, `killed` and `whole`, and what is measured on them."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        show: Callable[[str], None],
        acts: list[Act],
        title: str,
        device: torch.device,
        *,
        init: Path | None,
        devices: int,
    ) -> None:
        self.recipe, self.folder, self.show, self.acts, self.title = recipe, folder, show, acts, title
        self.device, self.init, self.devices = device, init, devices
        self.killed, self.whole = folder / "killed", folder / "whole"
        self.act = "start"  # the one that is on
        self.batch_size = recipe.data.batch_size * recipe.accumulate * devices  # of a step

    def live(self) -> Forecast:
        self._start_and_kill()
        self._resume()
        scoring = self._score()
        self._run_through(scoring)
        self._compare()
        return self._forecast()

    def _passed(self, found: str) -> None:
        self.acts.append(Act(f"{self.title}{self.act}", True, found))

    def _start_and_kill(self) -> None:
        """Checkpoints at every step, until it is known how many steps there is time for, and to the kill."""
        started = time.time()
        with self._train(self.killed, Keep(every=1), 0) as process:
            process.wait(lambda: self._newest(self.killed) >= 1, math.inf)
            first_step = time.time()
            self.start = (self.killed / "first_batch.png").stat().st_mtime - started
            self._passed(f"first step after {duration(self.start)}, data checked; {self._warnings(process)}")
            self.act = "kill -9"
            process.wait(lambda: self._newest(self.killed) >= 2, 120 + 10 * (first_step - started))
            step = time.time() - first_step  # and its checkpoint
            kill_after = max(2, min(KILLED_AFTER, int(SECONDS_TO_KILL / step)))
            process.wait(lambda: self._newest(self.killed) >= kill_after, 120 + 10 * kill_after * step)
            time.sleep(step / 2)
            process.kill()
        self.step_seconds, self.save_seconds = self._measure_step()
        self.step_killed = self._newest(self.killed)
        affordable = (int(SECONDS_OF_STEPS / self.step_seconds) + self.step_killed) // 2
        steps = max(self.step_killed + 2, min(STEPS, affordable))
        self.steps = steps + steps % 2
        fewer = f"; {STEPS} would take too long here, so it is {self.steps}" if self.steps < STEPS else ""
        self._passed(f"during step {self.step_killed + 1} of {self.steps}{fewer}")

    def _resume(self) -> None:
        self.act = "resume"
        picture = (self.killed / "first_batch.png").stat().st_mtime_ns
        started = time.time()
        with self._train(self.killed, Keep(every=self.steps, multiples=self.steps), 0, resume=True) as process:
            process.wait(lambda: self._newest(self.killed) >= self.steps, self._patience(self.steps))
            if (self.killed / "first_batch.png").stat().st_mtime_ns != picture:
                raise Failure("the run started over; it did not go on from its checkpoint")
            self._passed(f"from step {self.step_killed} to {self.steps} in {duration(time.time() - started)}")
            self.act = "SIGTERM"
            code = process.terminate(self._patience(5))
        if code != 128 + signal.SIGTERM:
            raise Failure(f"exit code {code}, expected {128 + signal.SIGTERM}. {process.last_words()}")
        self._passed(f"exit code {code}; saved after step {self._newest(self.killed)}")

    def _score(self) -> Scoring:
        """Open the checkpoint as users do, in a process that gives the device's memory back."""
        self.act = "open and predict"
        model = self._checkpoint(self.killed) / MODEL
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                self._passed(pool.submit(_predict_one, model, self.recipe).result())
                self.act = "validation"
                self.show(f"{self.title}scoring images of {self.recipe.data.val_split}")
                scoring = pool.submit(_score_some, model, self.recipe).result()
            except (ValueError, OSError, RuntimeError) as error:
                raise Failure(str(error)) from error
        if not scoring.images or (scoring.unreadable and self.recipe.data.unreadable == "stop"):
            raise Failure(f"images cannot be read; for one, {scoring.unreadable}")
        scores = ", ".join(f"{name.replace('_', ' ')} {100 * value:.1f}" for name, value in scoring.scores.items())
        self._passed(f"{scoring.images:,} of {scoring.total:,} images of {self.recipe.data.val_split}: {scores}")
        return scoring

    def _run_through(self, scoring: Scoring) -> None:
        """The run without a kill. It validates if that is quick enough."""
        self.validation = scoring.seconds * scoring.total / scoring.images / self.devices
        self.scored = scoring.images, scoring.total
        inside = self.validation <= SECONDS_OF_VALIDATION
        self.act = "uninterrupted run"
        keep = Keep(every=self.steps // 2, multiples=self.steps)
        with self._train(self.whole, keep, self.steps if inside else 0) as process:
            process.wait(lambda: self._newest(self.whole) >= self.steps, self._patience(self.steps))
            self._passed(f"{self.steps} steps, {self._checkpoint_bytes() / 1e6:,.1f} MB a checkpoint")
            if inside:
                self.act = "validation in the run"
                best = self.whole / "checkpoints" / BEST
                process.wait(best.exists, 120 + 10 * self.validation)
                self.validation = best.stat().st_mtime - self._checkpoint(self.whole).stat().st_mtime
                self.scored = scoring.total, scoring.total
                self._passed(f"all of {self.recipe.data.val_split} in {duration(self.validation)}; best model written")
            process.terminate(self._patience(5))

    def _compare(self) -> None:
        """Model, optimizer and all that training keeps, after the same step."""
        self.act = "same weights"
        one, other = (read_checkpoint(self._checkpoint(run)) for run in (self.killed, self.whole))
        pairs = [
            (a[name], b[name]) for a, b in ((one.model, other.model), (one.tensors, other.tensors)) for name in a | b
        ]
        unequal = [(a, b) for a, b in pairs if not torch.equal(a, b)]
        where = f"killed and uninterrupted run after step {self.steps}"
        if not unequal:
            self._passed(f"{where}: all {len(pairs)} tensors of model and optimizer equal bit by bit")
            return
        far = max(((a.double() - b.double()).abs().max() / b.double().abs().max()).item() for a, b in unequal)
        found = f"{where}: {len(unequal)} of {len(pairs)} tensors differ, by up to {far:.1e} of their largest value"
        if self.device.type == "cpu" and self.recipe.precision == "fp32":
            raise Failure(found)
        self._passed(f"{found}; {self.device.type} in {self.recipe.precision} does not promise equal bits")

    def _forecast(self) -> Forecast:
        rows = [row for row in read_rows(self.whole) if "lr" in row]
        before = [0, *(row["step"] for row in rows)]
        late = [(row["step"] - b, row) for b, row in zip(before, rows, strict=False) if row["step"] > self.steps // 2]
        count = sum(steps for steps, _ in late)
        seconds = [steps * self.batch_size / row["images_per_second"] for steps, row in late]
        return Forecast(
            recipe=self.recipe,
            device=str(self.device),
            devices=self.devices,
            start=self.start,
            step=sum(seconds) / count,
            waited=sum(s * row["data_wait"] for s, (_, row) in zip(seconds, late, strict=True)) / sum(seconds),
            memory_mb=max(row["memory_mb"] for row in rows),
            validation=self.validation,
            scored=self.scored,
            save=self.save_seconds,
            checkpoint_bytes=self._checkpoint_bytes(),
            model_bytes=(self._checkpoint(self.whole) / MODEL).stat().st_size,
            free_bytes=shutil.disk_usage(self.folder).free,
        )

    @contextmanager
    def _train(self, out: Path, keep: Keep, validate_every: int, *, resume: bool = False) -> "Iterator[_Process]":
        name = f"{out.name}-resumed" if resume else out.name
        file = self.folder / f"{name}.json"
        write_text(file, recipe_to_json(dataclasses.replace(self.recipe, keep=keep, validate_every=validate_every)))
        options = [*(["--resume"] if resume else []), *(["--init", str(self.init)] if self.init else [])]
        options += ["--devices", str(self.devices)] if self.devices > 1 else []
        command = [sys.executable, "-m", "veduta.cli", "train", str(file), "--out", str(out), *options]
        process = _Process(
            command, self.folder / f"{name}.log", lambda: self.show(f"{self.title}{self.act}: step {self._newest(out)}")
        )
        try:
            yield process
        finally:
            process.kill()

    def _newest(self, run: Path) -> int:
        """The last step with a whole checkpoint, 0 where there is none."""
        found = step_folders(run / "checkpoints")
        return found[0][0] if found else 0

    def _checkpoint(self, run: Path) -> Path:
        return run / "checkpoints" / f"step-{self.steps:08}"

    def _checkpoint_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._checkpoint(self.whole).iterdir())

    def _measure_step(self) -> tuple[float, float]:
        """(of a step, of writing a checkpoint) in seconds, from the last two of a run that saves every step."""
        (_, last), (_, before) = step_folders(self.killed / "checkpoints")[:2]
        row = [row for row in read_rows(self.killed) if "lr" in row][-1]
        step = self.batch_size / row["images_per_second"]
        apart = (last / MODEL).stat().st_mtime - (before / MODEL).stat().st_mtime
        return step, max(0.0, apart - step)

    def _patience(self, steps: int) -> float:
        """Seconds after which a run that should make `steps` steps stands still."""
        return 120 + 3 * self.start + 10 * steps * (self.step_seconds + self.save_seconds)

    def _warnings(self, process: "_Process") -> str:
        found = [text for text in process.lines() if text.startswith("warning")]
        return f"warnings: {len(found)}, the first: {found[0]}" if found else "no warnings"


class _Process:
    """A run, in a process group of its own, so that it dies with all its workers."""

    def __init__(self, command: list[str], log: Path, show: Callable[[], None]) -> None:
        self.log, self.show = log, show
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def wait(self, condition: Callable[[], bool], patience: float) -> None:
        """Until the condition holds. Raises Failure where the process ends before, or makes no progress."""
        until = time.monotonic() + patience
        while not condition():
            code = self.process.poll()
            if code is not None and not condition():
                raise Failure(f"exit code {code}: {self.last_words()}")
            if time.monotonic() > until:
                raise Failure(f"stands still: not done after {duration(patience)}. {self.last_words()}")
            self.show()
            time.sleep(POLL)

    def terminate(self, patience: float) -> int:
        self.process.terminate()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"still there {duration(patience)} after SIGTERM") from error

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def lines(self) -> list[str]:
        return [text for text in self.log.read_text(errors="replace").splitlines() if text.strip()]

    def last_words(self) -> str:
        """The run's error message, or the last line that it wrote."""
        lines = self.lines()
        errors = [number for number, text in enumerate(lines) if text.startswith("error: ")]
        return "\n".join(lines[errors[0] :] if errors else lines[-1:]) or "it wrote nothing"


def _predict_one(model: Path, recipe: Recipe) -> str:
    """Runs in a process of its own."""
    predictor, dataset = _open(model, recipe)
    sample = dataset[0]
    predictor([sample.image])
    return f"the checkpoint's model file on {sample.name} of {recipe.data.val_split}, {sample.image.shape[:2]} pixels"


def _open(model: Path, recipe: Recipe) -> tuple[Predictor, SampleDataset]:
    data = dataclasses.replace(recipe.data, in_memory=False)  # of a few images, not all
    return Predictor(open_model(model, device=recipe.device)), open_dataset(data, data.val_split)


def _score_some(model: Path, recipe: Recipe) -> Scoring:
    """Score images from all over the split, as many as there is time for. Runs in a process of its own."""
    predictor, dataset = _open(model, recipe)
    total, data = len(dataset), recipe.data
    score = partial(
        evaluate, predictor, name=data.dataset, split=data.val_split, batch_size=data.batch_size, full=False
    )
    trial = score(dataset=Thinned(dataset, math.ceil(total / data.batch_size)))
    wanted = max(1, int(SECONDS_OF_SCORING / trial.seconds * trial.images_total))
    evaluation = score(dataset=Thinned(dataset, math.ceil(total / wanted)))
    return Scoring(
        images=evaluation.images_counted,
        total=total,
        seconds=evaluation.seconds,
        scores=dict(evaluation.scores.overall),
        unreadable=evaluation.failed[0][1] if evaluation.failed else None,
    )
