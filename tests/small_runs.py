"""Training runs of a second or two on small files, one for each task, and what they leave behind."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from writers import imagenet, voc

from veduta.checkpoint import load_model
from veduta.config import Augment, Data, Keep, Optim, Recipe
from veduta.engine.checkpoints import newest_checkpoint
from veduta.engine.progress import ProgressLine
from veduta.engine.runlog import read_rows

TASKS = ("segment", "classify", "detect_segment")
STEPS = 6  # of three images: the four of an epoch do not fill whole batches, and step 4 ends the third epoch

_MODELS = {"segment": "deeplabv3plus_tiny", "classify": "resnest_tiny", "detect_segment": "blitznet_tiny"}
_OPTIMIZERS = {
    "segment": Optim(name="adamw", lr=0.01, ema_decay=0.9),
    "classify": Optim(name="sgd", lr=0.01, warmup_steps=3),
    "detect_segment": Optim(name="adam", lr=1e-3, ema_decay=0.9),
}


def write_data(root: Path) -> Path:
    """Four pictures to train on, one of them without any box, and two for validation; as VOC and as ImageNet."""
    voc.write(root / "voc")
    imagenet.write(root / "imagenet")
    return root


def small_recipe(task: str, data: Path, **changes: Any) -> Recipe:
    """A checkpoint every second step, a validation every fourth; zooms below 1 leave void pixels around."""
    layout = "imagenet" if task == "classify" else "voc"
    side = 64 if task == "detect_segment" else 32
    recipe = Recipe(
        name="small",
        model=_MODELS[task],
        task=task,  # type: ignore[arg-type]  # one of TASKS
        data=Data(
            dataset=layout,
            root=str(data / layout),
            crop_size=(side, side),
            batch_size=3,
            augment=Augment(scale=(0.5, 1.5), brightness=0.2),
        ),
        optim=_OPTIMIZERS[task],
        steps=STEPS,
        device="cpu",
        validate_every=4,
        keep=Keep(every=2),
    )
    return replace(recipe, **changes)


def with_workers(recipe: Recipe, workers: int) -> Recipe:
    return replace(recipe, data=replace(recipe.data, workers=workers))


class Watched(ProgressLine):
    """Keeps what a run says, and does something while a step's row, or a validation, is on the line."""

    def __init__(self, moment: str = "", act: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.moment, self.act = moment, act
        self.said: list[str] = []

    def update(self, text: str) -> None:
        if self.moment and text.startswith(self.moment):
            self.moment = ""
            self.act()

    def say(self, text: str) -> None:
        self.said.append(text)


def signals(numbers: Sequence[signal.Signals]) -> Callable[[], None]:
    """Sends them to this very process."""

    def send() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return send


def state(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights, moving average and optimizer of the newest checkpoint, by name; and what it holds besides tensors."""
    found = newest_checkpoint(run / "checkpoints", lambda line: None)
    assert found is not None
    model = {f"model/{name}": tensor for name, tensor in found.model.items()}
    return model | found.tensors, {"done": found.step, **found.values}


def expect_same_run(one: Path, other: Path) -> None:
    """The same bits in the newest checkpoints and in the best, and the same rows but for times and memory."""
    (tensors, values), (others, other_values) = state(one), state(other)
    assert values == other_values
    assert tensors.keys() == others.keys()
    differing = [name for name in tensors if not torch.equal(tensors[name], others[name])]
    assert not differing, f"{len(differing)} of {len(tensors)} differ: {differing[:3]}"
    assert rows(one) == rows(other)
    (best, info), (other_best, other_info) = (
        load_model(run / "checkpoints" / "best.safetensors") for run in (one, other)
    )
    assert (info.step, info.scores) == (other_info.step, other_info.scores)
    assert info.weights_sha256 == other_info.weights_sha256 and best.keys() == other_best.keys()


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the machine's mood."""
    moody = ("images_per_second", "data_wait", "memory_mb")
    return [{name: value for name, value in row.items() if name not in moody} for row in read_rows(run)]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if "loss" in row]
