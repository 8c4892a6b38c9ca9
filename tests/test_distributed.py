"""Several processes train as one with their whole batch does; they stop together, and one that is lost stops all.

The network's dropout is off here: every rank draws its own. Two of the networks run in float64: BatchNorm over the few
values of their coarsest maps makes 1e-4 of a loss out of float32's last digit, so equal sums would prove nothing.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import PICTURES
from small_runs import TASKS, Watched, losses, small_recipe, state, write_data
from torch import nn
from writers.voc import annotation

from veduta.config import Augment, Keep, Loss, Optim, Recipe, recipe_to_json
from veduta.data.batch import to_unit_range
from veduta.data.loader import DrawBatches
from veduta.engine.checkpoints import read_checkpoint
from veduta.engine.launch import launch
from veduta.engine.train import train
from veduta.models import build_model
from veduta.ranks import world_size as joined_size

HERE = Path(__file__).parent
STEPS = 20
SIDES = {"segment": 32, "classify": 64, "detect_segment": 128}
RATES = {"segment": 1e-2, "classify": 1e-3, "detect_segment": 1e-3}  # at which a last digit that differs does not grow
IN_FLOAT64 = ("classify", "detect_segment")

Job = tuple[Recipe, Path]


def one_rank(task: str, data: Path) -> Recipe:
    """What one process does with whole batches of all four pictures; sizes at which BatchNorm has values enough."""
    recipe = small_recipe(
        task, data, steps=STEPS, sync_batch_norm=True, validate_every=0, keep=Keep(every=1, multiples=1)
    )
    recipe = replace(recipe, optim=Optim(name="sgd", lr=RATES[task]))
    recipe = replace(recipe, data=replace(recipe.data, batch_size=4, crop_size=(SIDES[task], SIDES[task])))
    return replace(recipe, accumulate=2) if task == "classify" else replace(recipe, loss=Loss(dice=0.5))


def of_two_ranks(recipe: Recipe) -> Recipe:
    return replace(recipe, data=replace(recipe.data, batch_size=recipe.data.batch_size // 2))


def train_all(jobs: Sequence[Job]) -> None:
    """One run after the other without dropout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(jobs[0][1].parent / "cache"))
        patch.setattr(nn.Dropout, "forward", lambda self, x: x)
        for recipe, out in jobs:
            with patch.context() as more:
                if recipe.sync_batch_norm and recipe.task in IN_FLOAT64:
                    use_float64(more)
                train(recipe, out, Watched())


def use_float64(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("veduta.engine.train.build_model", lambda *names, **options: build_model(*names, **options).double())
    for part in ("engine.step", "backends.torch"):
        patch.setattr(f"veduta.{part}.to_unit_range", lambda *images: to_unit_range(*images).double())


def train_as_rank(jobs: Sequence[Job], rank: int, ports: Sequence[int]) -> int:
    """The same as one of two ranks."""
    torch.set_num_threads(1)
    for job, port in zip(jobs, ports, strict=True):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        train_all([job])
    return joined_size()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the four pictures two have no box: in a third of the batches all those of one rank."""
    root = write_data(tmp_path_factory.mktemp("data"))
    second = root / "voc/VOCdevkit/VOC2012/Annotations" / f"{PICTURES['train'][1].name}.xml"
    second.write_text(annotation(replace(PICTURES["train"][1], things=())))
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[tuple[Path, Path]]:
    """Runs of all tasks: of one process, and of two with half its batch each."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    train_all([(one_rank(task, data), one / task) for task in TASKS])
    jobs = [(of_two_ranks(one_rank(task, data)), two / task) for task in TASKS]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool, free_ports(len(jobs)) as ports:
        for result in [pool.submit(train_as_rank, jobs, rank, ports) for rank in range(2)]:
            assert result.result(timeout=400) == 1  # all groups were left
    yield one, two


class free_ports:  # noqa: N801  # used as a function is
    """Ports that the system gives to nobody else meanwhile."""

    def __init__(self, count: int) -> None:
        self.sockets = [socket.socket() for _ in range(count)]

    def __enter__(self) -> list[int]:
        for reserved in self.sockets:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
        return [reserved.getsockname()[1] for reserved in self.sockets]

    def __exit__(self, *_: object) -> None:
        for reserved in self.sockets:
            reserved.close()


@pytest.mark.parametrize("task", TASKS)
def test_two_ranks_have_the_losses_of_one_with_their_whole_batch(task: str, folders: tuple[Path, Path]) -> None:
    one, two = (losses(folder / task) for folder in folders)
    assert len(one) == len(two) == STEPS  # each step has one row, though two ranks train
    assert one == pytest.approx(two, rel=1e-5)
    assert one[0] != one[-1]


@pytest.mark.parametrize("task", TASKS)
def test_batch_norm_sees_the_images_of_all_ranks(task: str, folders: tuple[Path, Path]) -> None:
    one, two = (read_checkpoint(folder / task / "checkpoints" / "step-00000001").model for folder in folders)
    statistics = [name for name in one if "running_" in name]
    assert statistics
    for name in statistics:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_two_ranks_score_each_validation_image_once(task: str, folders: tuple[Path, Path]) -> None:
    texts = [(folder / task / "metrics.jsonl").read_text().splitlines()[-1] for folder in folders]
    assert all('"val_' in text for text in texts)
    assert len((folders[1] / task / "metrics.jsonl").read_text().splitlines()) == STEPS + 1


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_four_accumulated_batches_of_two_train_as_one_of_eight(task: str, data: Path, tmp_path: Path) -> None:
    """Without void and with frozen statistics: else each batch divides by its own pixels, and has its own mean."""
    recipe = small_recipe(task, data, optim=Optim(name="sgd", lr=0.01), steps=5, frozen_statistics=True)
    whole = replace(recipe, data=replace(recipe.data, batch_size=8, augment=Augment()))
    parts = replace(whole, accumulate=4, data=replace(whole.data, batch_size=2))
    train_all([(whole, tmp_path / "whole"), (parts, tmp_path / "parts")])
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)
    (one, _), (other, _) = state(tmp_path / "whole"), state(tmp_path / "parts")
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-5, atol=1e-6)


def start(recipe: Recipe, out: Path, moment: str, names: str) -> int:
    """`veduta train --devices 2`, in which one rank sends itself a signal."""
    path = out.parent / "recipe.json"
    path.write_text(recipe_to_json(recipe))
    command = [sys.executable, str(HERE / "stopping_command.py"), moment, names]
    return launch([*command, "train", str(path), "--out", str(out)], 2)


def test_a_signal_to_one_rank_stops_all_at_one_step_and_another_number_of_them_goes_on_inexactly(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe("segment", data)
    assert start(recipe, tmp_path / "run", "step 2/", "rank 1,SIGTERM") == 143
    said = capfd.readouterr().err
    assert "stopped after step" in said and "Traceback" not in said
    _, values = state(tmp_path / "run")
    assert values["drawn"] == 2 * 3 * values["done"] and values["done"] < recipe.steps
    line = Watched()
    train(recipe, tmp_path / "run", line, resume=True)
    assert [words for words in line.said if words.startswith("not exact: processes 2 -> 1")]
    _, after = state(tmp_path / "run")
    assert after["done"] == recipe.steps
    assert after["drawn"] == values["drawn"] + 3 * (recipe.steps - values["done"])
    assert len(losses(tmp_path / "run")) == recipe.steps


def test_with_another_number_of_ranks_every_sample_still_comes_once_in_an_epoch() -> None:
    both = (DrawBatches(10, 3, 4, seed=1, rank=rank, world_size=2) for rank in range(2))
    first = [draw for draws in both for batch in draws for draw in batch]
    rest = [draw for batch in DrawBatches(10, 3, 12, seed=1, first=len(first)) for draw in batch]
    assert sorted(first + rest) == [(epoch, index) for epoch in range(6) for index in range(10)]


def test_a_rank_that_is_killed_ends_the_others_with_1_and_the_older_checkpoint_stays(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start(small_recipe("segment", data), tmp_path / "run", "step 3/", "rank 1,SIGKILL") == 1
    said = capfd.readouterr().err
    assert "rank 1 was killed by signal 9 (SIGKILL)" in said and "--resume" in said and "Traceback" not in said
    tensors, values = state(tmp_path / "run")
    assert values["done"] == 2 and all(torch.isfinite(tensor).all() for tensor in tensors.values())
