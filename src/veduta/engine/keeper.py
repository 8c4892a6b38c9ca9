"""The keeper of a run: saves checkpoints, validates, and remembers the best."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch

from veduta.backends import Backend, open_model
from veduta.backends.torch import TorchBackend
from veduta.checkpoint import hash_weights, load_model, save_model
from veduta.data.sample import SampleDataset
from veduta.engine.checkpoints import save_checkpoint
from veduta.engine.evaluate import evaluate, with_examples
from veduta.engine.interrupt import Caught
from veduta.engine.predictor import Predictor
from veduta.engine.runlog import RunLog
from veduta.engine.step import Step
from veduta.errors import RunStopped, Unreadable
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo
from veduta.ranks import from_first, on_first, rank, take_from_first
from veduta.tasks.evaluation import Evaluation


class Keeper:
    """What stays of a run: `checkpoints/step-...` to go on from, and best.safetensors to use."""

    def __init__(self, step: Step, labels: LabelMap, dataset: SampleDataset, folder: Path, log: RunLog) -> None:
        self.step, self.labels, self.dataset, self.folder, self.log = step, labels, dataset, folder, log
        self.best: Evaluation | None = None  # of this process's time
        self.best_score = from_first(self._read_best() if rank() == 0 else None)

    def _read_best(self) -> float | None:
        """The score in best.safetensors; of a run that goes on it is from before."""
        path = self.folder / "best.safetensors"
        if not path.is_file():
            return None
        try:
            return load_model(path)[1].scores.get(f"val_{self._chosen_by}")
        except ValueError as error:
            self.log.line.say(f"warning: {error}")
            return None

    @property
    def _chosen_by(self) -> str:
        return self.step.task.scores[0]

    def save(self, number: int, values: dict[str, Any]) -> None:
        """A checkpoint after step `number`. Raises FloatingPointError where a weight is no number, OSError."""
        take_from_first(self.step.scored.buffers())  # BatchNorm's statistics are each process's own
        weights = {name: tensor.cpu() for name, tensor in self.step.scored.state_dict().items()}
        broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise FloatingPointError(
                f"after step {number} {broken[0]} is no number any more. The checkpoints before it are intact. Start a "
                "new run with --init and a lower optim.lr."
            )
        if rank() == 0:
            tensors, own = self.step.state()
            save_checkpoint(
                self.folder,
                model=weights,
                info=ModelInfo(recipe=self.step.recipe, labels=self.labels, step=number),
                tensors=tensors,
                values={**values, "step": own},
                keep=self.step.recipe.keep,
            )

    def validate(self, number: int, caught: Caught) -> None:
        """Score the model after step `number` on the validation split; it becomes best.safetensors if it is."""
        recipe = self.step.recipe
        take_from_first(self.step.scored.buffers())  # where a run went on, they may differ
        weights = {name: tensor.cpu() for name, tensor in self.step.scored.state_dict().items()}
        info = ModelInfo(recipe=recipe, labels=self.labels, step=number, weights_sha256=hash_weights(weights))

        evaluation = self._evaluate(TorchBackend(self.step.scored, info, self.step.device), number, caught)
        scores = evaluation.scores.overall
        score = scores[self._chosen_by]
        if self.best_score is None or math.isnan(self.best_score) or score > self.best_score:
            self.best, self.best_score = evaluation, score
            if rank() == 0:
                info = dataclasses.replace(info, scores={f"val_{name}": value for name, value in scores.items()})
                save_model(self.folder / "best.safetensors", weights, info)
        self.log.validation(number, dict(scores))
        self.log.draw_curves()

    def best_evaluation(self, caught: Caught) -> Evaluation:
        """The evaluation of best.safetensors, on rank 0 with pictures; made anew where it came before a run went on."""
        if self.best is None:
            self.best = self._evaluate(self._open_best(), self.step.recipe.steps, caught)
        best, shown = self.best, list[Evaluation]()

        def draw() -> None:
            source, progress = Predictor(self._open_best()), partial(self.log.line.count, "predicting pictures")
            shown.append(with_examples(best, source, self.dataset, progress=progress))

        on_first(draw)  # where the model was written just now, the other ranks may not have it yet
        return shown[0] if shown else best

    def _open_best(self) -> Backend:
        return open_model(self.folder / "best.safetensors", device=str(self.step.device))

    def _evaluate(self, backend: Backend, number: int, caught: Caught) -> Evaluation:
        def progress(done: int, total: int) -> None:
            self.log.line.count("validating", done, total)
            if caught.signal:
                raise RunStopped(
                    f"stopped in the validation after step {number:,} of {self.step.recipe.steps:,}, which is saved. "
                    "The same command with --resume goes on from there.",
                    exit_code=caught.exit_code,
                )

        data = self.step.recipe.data
        evaluation = evaluate(
            Predictor(backend),
            self.dataset,
            name=data.dataset,
            split=data.val_split,
            batch_size=data.batch_size,
            progress=progress,
            full=False,
        )
        if evaluation.failed and data.unreadable == "stop":
            raise Unreadable(
                f"{len(evaluation.failed)} of {evaluation.images_total} validation images cannot be read; for one, "
                f"{evaluation.failed[0][1]}\n--resume with --set data.unreadable=replace scores the others and says so."
            )
        return evaluation
