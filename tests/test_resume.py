"""A stopped run, by whatever it was stopped, goes on to the bits that it would have had; no stop costs a checkpoint."""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest
import torch
from small_runs import (
    STEPS,
    TASKS,
    Watched,
    expect_same_run,
    losses,
    rows,
    signals,
    small_recipe,
    state,
    with_workers,
    write_data,
)

from veduta.checkpoint import load_model
from veduta.config import Keep, Recipe, recipe_to_json
from veduta.data.batch import to_unit_range
from veduta.data.loader import DrawBatches
from veduta.engine.progress import ProgressLine
from veduta.engine.stages import train_stages
from veduta.engine.train import MOST_SKIPPED, train
from veduta.errors import RunStopped
from veduta.model_info import BEST, ModelInfo

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[dict[str, Path]]:
    """The run folders of the tasks' uninterrupted runs."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for task in TASKS:
            train(small_recipe(task, data), folder / task, Watched())
    yield {task: folder / task for task in TASKS}


def stop(recipe: Recipe, out: Path, moment: str, *numbers: int) -> RunStopped:
    """Train until the signals that come at the moment stop it."""
    with pytest.raises(RunStopped) as caught:
        train(recipe, out, Watched(moment, signals(numbers)))  # type: ignore[arg-type]
    return caught.value


def steps_kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))


def command(*arguments: str | Path, recipe: Recipe, out: Path, start: list[str] | None = None) -> list[str]:
    """`veduta train` for a process of its own."""
    path = out.parent / f"{out.name}.json"
    path.write_text(recipe_to_json(recipe))
    start = start or [sys.executable, "-m", "veduta.cli"]
    return [*start, "train", str(path), "--out", str(out), *map(str, arguments)]


def run_command(moment: str, names: str, recipe: Recipe, out: Path) -> subprocess.CompletedProcess[str]:
    """Train in a process, and a group, of its own, which sends itself signals."""
    start = [sys.executable, str(HERE / "stopping_command.py"), moment, names]
    return subprocess.run(
        command(recipe=recipe, out=out, start=start),
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("task", "number", "exit_code", "workers"),
    [("segment", SIGTERM, 143, (0, 2)), ("classify", SIGINT, 130, (2, 0)), ("detect_segment", SIGTERM, 143, (0, 0))],
)
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits_with_any_number_of_workers(
    task: str,
    number: int,
    exit_code: int,
    workers: tuple[int, int],
    data: Path,
    whole: dict[str, Path],
    tmp_path: Path,
) -> None:
    recipe = small_recipe(task, data, keep=Keep(every=0))
    stopped = stop(with_workers(recipe, workers[0]), tmp_path / "run", "step 2/", number)
    assert stopped.exit_code == exit_code
    assert "stopped after step 3 of 6, which is saved" in str(stopped) and "--resume" in str(stopped)
    assert steps_kept(tmp_path / "run") == ["step-00000003"]
    line = Watched()
    train(with_workers(recipe, workers[1]), tmp_path / "run", line, resume=True)
    assert not [words for words in line.said if "not exact" in words]
    expect_same_run(tmp_path / "run", whole[task])


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_process_goes_on_to_the_same_bits(
    task: str, data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    result = run_command("step 5/", "rank 0,SIGKILL", small_recipe(task, data), tmp_path / "run")
    assert result.returncode == -SIGKILL, result.stderr
    assert steps_kept(tmp_path / "run")[-1] == "step-00000004"
    train(small_recipe(task, data), tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole[task])


def test_the_command_ends_with_143_when_told_to_with_its_workers_and_all(
    data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe("segment", data)
    result = run_command("step 2/", "group,SIGTERM", with_workers(recipe, 2), tmp_path / "run")
    assert result.returncode == 143, result.stderr
    assert result.stderr.count("error: ") == 1 and "Traceback" not in result.stderr
    assert "stopped after step 3 of 6, which is saved" in result.stderr
    train(recipe, tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole["segment"])


def test_a_second_interrupt_ends_the_process_at_once_and_the_older_checkpoint_stays(
    data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    result = run_command("step 3/", "rank 0,SIGINT,SIGINT", small_recipe("segment", data), tmp_path / "run")
    assert result.returncode == 130 and "saved" not in result.stderr
    assert steps_kept(tmp_path / "run") == ["step-00000002"]
    train(small_recipe("segment", data), tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole["segment"])


@pytest.mark.parametrize("moment", ["step 4/", "step 6/", "validating 1/"])
def test_a_stop_around_a_validation_neither_loses_nor_repeats_it(
    moment: str, data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    stopped = stop(small_recipe("segment", data), tmp_path / "run", moment, SIGTERM)
    assert stopped.exit_code == 143 and "which is saved" in str(stopped)
    train(small_recipe("segment", data), tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole["segment"])


def test_a_run_that_dies_before_its_first_checkpoint_starts_over(
    data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    class Dead(BaseException):
        pass

    def die() -> None:
        raise Dead

    with pytest.raises(Dead):
        train(small_recipe("segment", data), tmp_path / "run", Watched("step 1/", die))
    assert not steps_kept(tmp_path / "run")
    train(small_recipe("segment", data), tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole["segment"])


def test_resume_starts_a_run_that_is_not_there(data: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    train(small_recipe("segment", data), tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole["segment"])


@pytest.mark.parametrize("world_size", [1, 2])
def test_from_any_step_on_the_batches_are_those_of_the_whole_run(world_size: int) -> None:
    for rank in range(world_size):
        whole = list(DrawBatches(4, 3, 8, seed=5, rank=rank, world_size=world_size))
        for done in range(9):  # among them the ends of epochs
            first = done * 3 * world_size
            rest = DrawBatches(4, 3, 8 - done, seed=5, first=first, rank=rank, world_size=world_size)
            assert list(rest) == whole[done:]


def test_to_resume_a_finished_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe("segment", data, steps=2)
    first = train(recipe, tmp_path / "run", Watched())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    again = train(recipe, tmp_path / "run", Watched(), resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert again.scores.overall == first.scores.overall and again.sha256 == first.sha256


def test_another_recipe_is_refused_and_a_mere_other_pace_is_not(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe("segment", data, steps=2)
    train(recipe, tmp_path / "run", Watched())
    other = replace(recipe, steps=9, optim=replace(recipe.optim, lr=0.5))
    with pytest.raises(ValueError, match=r"recipe with another optim\.lr, steps.*recipe\.json"):
        train(other, tmp_path / "run", Watched(), resume=True)
    faster = replace(with_workers(recipe, 1), keep=Keep(every=1))
    train(faster, tmp_path / "run", Watched(), resume=True)


def test_other_data_is_refused(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe("segment", data)
    stop(recipe, tmp_path / "run", "step 1/", SIGTERM)
    fewer = write_data(tmp_path / "fewer")
    listed = fewer / "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ValueError, match="was made with 4 training samples, now there are 3"):
        other = replace(recipe, data=replace(recipe.data, root=str(fewer / "voc")))
        train(other, tmp_path / "run", Watched(), resume=True)


def test_data_of_other_classes_is_refused_though_it_has_as_many_samples(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe("classify", data)
    stop(recipe, tmp_path / "run", "step 1/", SIGTERM)
    other = write_data(tmp_path / "other") / "imagenet"
    for folder in list(other.glob("*/tall")):
        folder.rename(folder.with_name("upright"))
    with pytest.raises(ValueError, match=r"has the classes .*; the data has .*"):
        train(replace(recipe, data=replace(recipe.data, root=str(other))), tmp_path / "run", Watched(), resume=True)


@pytest.mark.parametrize("loss", ["deleted", "copied from a checkpoint", "damaged"])
def test_a_finished_run_makes_a_lost_best_model_anew(data: Path, tmp_path: Path, loss: str) -> None:
    recipe = small_recipe("classify", data, steps=2)
    train(recipe, tmp_path / "run", Watched())
    best = tmp_path / "run" / "checkpoints" / BEST
    former = best.read_bytes()
    best.unlink()
    if loss == "copied from a checkpoint":
        shutil.copy(best.parent / "step-00000002" / "model.safetensors", best)
    elif loss == "damaged":
        best.write_bytes(former[:-1] + bytes([former[-1] ^ 1]))
    train(recipe, tmp_path / "run", Watched(), resume=True)
    assert load_model(best)[1].scores == load_model_of(former, tmp_path).scores


def load_model_of(content: bytes, folder: Path) -> ModelInfo:
    (folder / "former.safetensors").write_bytes(content)
    return load_model(folder / "former.safetensors")[1]


def test_a_folder_that_is_no_run_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"is no run folder; it has no recipe\.json"):
        train(small_recipe("segment", data), tmp_path / "run", Watched(), resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(
    data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe("segment", data)
    stop(recipe, tmp_path / "run", "step 4/", SIGTERM)
    path = tmp_path / "run" / "checkpoints" / "step-00000004" / "training.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = Watched()
    train(recipe, tmp_path / "run", line, resume=True)
    assert [words for words in line.said if words.startswith(f"skipped: {path}: ")]
    assert "goes on after step 2/6" in line.said
    expect_same_run(tmp_path / "run", whole["segment"])


def test_multiples_stay_beside_the_newest_two(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe("segment", data, keep=Keep(every=1, multiples=2), validate_every=0)
    train(recipe, tmp_path / "run", Watched())
    assert steps_kept(tmp_path / "run") == [f"step-0000000{step}" for step in (2, 4, 5, 6)]


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the images of these steps no numbers, as a broken decoder or an overflow would."""
    calls = iter(range(1, 1000))

    def spoilt(images: torch.Tensor, device: torch.device) -> torch.Tensor:
        return to_unit_range(images, device) * (float("nan") if next(calls) in steps else 1)

    monkeypatch.setattr("veduta.engine.step.to_unit_range", spoilt)


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_that_is_no_number_stops_the_run_with_its_files_named_and_checkpoints_whole(
    task: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 4)
    with pytest.raises(
        FloatingPointError, match=r"the loss of step 4 is nan; its batch: .*2008_00000\d, .*2008_00000\d"
    ) as caught:
        train(small_recipe(task, data), tmp_path / "run", Watched())
    assert "The checkpoints before it are intact" in str(caught.value)
    tensors, values = state(tmp_path / "run")
    assert values["done"] == 2 and all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert len(losses(tmp_path / "run")) == 3


@pytest.mark.parametrize("task", TASKS)
def test_with_skip_a_step_that_is_no_number_is_left_out_and_named_and_leaves_no_trace(
    task: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3)
    line = Watched()
    train(small_recipe(task, data, not_finite="skip"), tmp_path / "run", line)
    left_out = [row for row in rows(tmp_path / "run") if "skipped" in row]
    assert [row["step"] for row in left_out] == [3] and len(left_out[0]["skipped"]) == 3
    assert [words for words in line.said if words.startswith("step 3/6  left out") and "2008_00000" in words]
    assert len(losses(tmp_path / "run")) == STEPS - 1
    tensors, values = state(tmp_path / "run")
    assert values["done"] == STEPS and all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_skip_does_not_go_on_for_ever(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, *range(3, 100))
    recipe = small_recipe("segment", data, steps=50, not_finite="skip")
    with pytest.raises(FloatingPointError, match=rf"{MOST_SKIPPED} steps in a row, up to step 12, .*2008_00000"):
        train(recipe, tmp_path / "run", Watched())


def test_a_file_that_cannot_grow_stops_the_run_and_the_older_checkpoint_goes_on(
    data: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    line = Watched("step 3/", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, limits[1])))
    try:
        with pytest.raises(RunStopped, match="checkpoint of step 4 could not be written into .*intact") as caught:
            train(small_recipe("segment", data), tmp_path / "run", line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 1
    assert steps_kept(tmp_path / "run") == ["step-00000002"]
    train(small_recipe("segment", data), tmp_path / "run", Watched(), resume=True)
    expect_same_run(tmp_path / "run", whole["segment"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_takes_no_more_stops_the_run_and_the_older_checkpoint_goes_on(
    fault: str, small_disk: Path, data: Path, whole: dict[str, Path]
) -> None:
    filler = small_disk / "filler"

    def fail() -> None:
        if fault == "full":
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(65 << 20))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(RunStopped, match="No space left|Read-only file system") as caught:
        train(small_recipe("segment", data), small_disk / "run", Watched("step 3/", fail))
    assert caught.value.exit_code == 1 and "--resume" in str(caught.value)
    assert steps_kept(small_disk / "run") == ["step-00000002"]
    if fault == "full":
        filler.unlink()
    else:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    train(small_recipe("segment", data), small_disk / "run", Watched(), resume=True)
    expect_same_run(small_disk / "run", whole["segment"])


@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_of_two_stages_goes_on_inside_of_either(stage: int, data: Path, tmp_path: Path) -> None:
    second = small_recipe("segment", data, steps=4, seed=1, name="second")
    recipe = small_recipe("segment", data, steps=4, then=second)

    def run(out: Path, line: ProgressLine, *, resume: bool) -> list[Path]:
        return [folder for folder, _ in train_stages(recipe, out, line, init=None, resume=resume, tensorboard=False)]

    expected = run(tmp_path / "whole", Watched(), resume=False)
    stops = iter([signals([SIGTERM])] if stage == 1 else [lambda: None, signals([SIGTERM])])

    class Stopping(ProgressLine):
        def update(self, text: str) -> None:
            if text.startswith("step 2/"):
                next(stops)()

    with pytest.raises(RunStopped):
        run(tmp_path / "run", Stopping(), resume=False)
    assert (tmp_path / "run" / "stage-2").exists() == (stage == 2)
    run(tmp_path / "run", Watched(), resume=True)
    for folder in expected:
        expect_same_run(tmp_path / "run" / folder.name, folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", TASKS)
def test_killed_at_20_random_moments_a_run_of_200_steps_ends_with_the_same_bits(
    task: str, workers: int, data: Path, tmp_path: Path
) -> None:
    """Kills fall anywhere after the start: into steps, saves, validations. Each process gets one more kill or ends."""
    steps, kills = 200, 20
    recipe = with_workers(small_recipe(task, data, steps=steps, keep=Keep(every=5), validate_every=50), workers)
    train(recipe, tmp_path / "whole", Watched())
    metrics, rng = tmp_path / "run" / "metrics.jsonl", random.Random(f"{task} {workers}")
    moments = sorted(rng.uniform(0, steps) for _ in range(kills))  # in steps, the fraction in a step's time
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for moment in moments:
        process = subprocess.Popen(
            command("--resume", recipe=recipe, out=tmp_path / "run"), env=environment, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and _last_step(metrics) < int(moment):
            time.sleep(0.002)
        time.sleep(0.05 * (moment % 1))
        process.kill()
        assert process.wait() == -SIGKILL
    subprocess.run(command("--resume", recipe=recipe, out=tmp_path / "run"), env=environment, check=True)
    expect_same_run(tmp_path / "run", tmp_path / "whole")


def _last_step(metrics: Path) -> int:
    """Of the rows written so far; a half-written one does not count."""
    lines = metrics.read_text().splitlines(keepends=True) if metrics.is_file() else []
    whole = [line for line in lines if line.endswith("}\n")]
    return int(whole[-1].split('"step": ')[1].split(",")[0].rstrip("}\n")) if whole else 0
