"""The losses of the first 50 steps of each task are those that were recorded: nothing between data and update changed.

After a change that is meant to change them: `cd tests && OMP_NUM_THREADS=1 python -m test_golden_curves` records them
anew, into golden/curves; look at how much they moved.
"""

import json
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_runs import TASKS, Watched, losses, signals, small_recipe

from veduta.config import Augment, Data, Loss, Optim, Recipe
from veduta.engine.train import train
from veduta.errors import RunStopped

CURVES = Path(__file__).parent / "golden" / "curves"
STEPS = 50
SAME_BUILD, OTHER_BUILD = 1e-6, 1e-3  # largest relative difference: sums run in another order elsewhere


def recipe_of(task: str) -> Recipe:
    """Generated scenes, which no decoder of pictures has a part in."""
    side = 96 if task == "detect_segment" else 64
    data = Data(
        dataset="scenes",
        crop_size=(side, side),
        batch_size=4,
        augment=Augment(scale=(0.3, 0.8), brightness=0.2, contrast=0.2),
    )
    loss = {"segment": Loss(class_weights="log"), "classify": Loss(smoothing=0.1, mixup=0.2), "detect_segment": Loss()}
    optim = Optim(name="sgd", lr=0.01, warmup_steps=5, clip_norm=10.0)
    recipe = small_recipe(task, Path(), loss=loss[task], optim=optim, steps=STEPS, validate_every=0)
    return replace(recipe, data=data)


def curve(task: str, folder: Path) -> list[float]:
    """The losses of a run that ends when its validation begins."""
    with one_thread(), pytest.raises(RunStopped):
        train(recipe_of(task), folder, Watched("validating", signals([SIGTERM])))
    return losses(folder)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build() -> dict[str, Any]:
    """What the last digits of a loss depend on."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


@pytest.mark.parametrize("task", TASKS)
def test_the_losses_of_50_steps_are_those_recorded(task: str, tmp_path: Path) -> None:
    recorded = json.loads((CURVES / f"{task}.json").read_text())
    found = curve(task, tmp_path / "run")
    assert len(found) == STEPS
    tolerance = SAME_BUILD if recorded["build"] == build() else OTHER_BUILD
    assert found == pytest.approx(recorded["losses"], rel=tolerance)


def record() -> None:
    for task in TASKS:
        with tempfile.TemporaryDirectory() as folder:
            content = {"build": build(), "losses": curve(task, Path(folder) / "run")}
        (CURVES / f"{task}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    record()
