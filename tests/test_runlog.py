"""The log of a run: rows that survive a kill and a resume, the time that is left, curves that can be read."""

import csv
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from veduta.engine import runlog
from veduta.engine.progress import ProgressLine, duration
from veduta.engine.runlog import RunLog, check_tensorboard, read_rows

CPU = torch.device("cpu")
SCORES = ("ap50", "mean_iou")


class Lines(ProgressLine):
    """A progress line that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.shows: list[str] = []

    def update(self, text: str) -> None:
        self.shows.append(text)

    def say(self, text: str) -> None:
        self.shows.append(text)


def make_log(folder: Path | None, *, steps: int = 20, **options: Any) -> RunLog:
    return RunLog(folder, Lines(), steps=steps, batch_size=4, scores=SCORES, **options)


def add_step(log: RunLog, step: int, *parts: dict[str, float], seconds: float = 0.5) -> None:
    losses = list(parts) or [{"boxes": 2.0 / step, "mask": 1.0 / step}]
    log.training(step, losses, epoch=step * 4 / 10, lr=0.1, seconds=seconds, waited=0.1, device=CPU)


def last_shown(log: RunLog) -> str:
    assert isinstance(log.line, Lines)
    return log.line.shows[-1]


def csv_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_come_from_the_task_and_the_parts_of_its_loss(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    add_step(log, 2, {"boxes": 1.0, "mask": 0.5}, {"boxes": 3.0, "mask": 0.5})
    log.validation(2, {"mean_iou": 0.25, "ap50": 0.123456789, "another": 1.0})
    header = "step,epoch,lr,loss,loss_boxes,loss_mask,images_per_second,data_wait,memory_mb,val_ap50,val_mean_iou"
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == header
    training, validation = csv_rows(tmp_path)
    assert [training[name] for name in ("step", "epoch", "loss", "loss_boxes", "loss_mask")] == [
        *("2", "0.8", "2.5", "2.0", "0.5")
    ]
    assert (training["images_per_second"], training["data_wait"], training["val_ap50"]) == ("16.0", "0.2", "")
    assert int(training["memory_mb"]) > 10
    assert (validation["step"], validation["loss"], validation["val_ap50"]) == ("2", "", "0.123457")
    assert read_rows(tmp_path)[1] == {"step": 2, "val_ap50": 0.123457, "val_mean_iou": 0.25}


def test_a_loss_of_one_part_has_no_column_for_it(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    add_step(log, 1, {"classes": 1.5})
    assert "loss_classes" not in log.columns and read_rows(tmp_path)[0]["loss"] == 1.5


def test_a_process_beside_the_first_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = make_log(None, tensorboard=True)
    log.resume(0)
    add_all(log, 3)
    log.unreadable(3, {"a.png: cut off": 1})
    log.draw_curves()
    assert not list(tmp_path.iterdir())


def test_scores_that_are_undefined_and_losses_that_are_no_number_leave_valid_json(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    add_step(log, 2, {"boxes": math.nan, "mask": 1.0}, {"boxes": 1.0, "mask": 1.0})
    add_step(log, 3, {"boxes": math.inf, "mask": 1.0}, {})
    log.validation(3, {"ap50": math.nan, "mean_iou": 0.5})
    text = (tmp_path / "metrics.jsonl").read_text()
    first, second, third = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert first["loss"] == 2.0 and first["images_per_second"] == 16.0  # the mean of one, the speed of both
    assert "loss" not in second and "loss_boxes" not in second
    assert third == {"step": 3, "val_mean_iou": 0.5}


def test_a_step_left_out_is_said_and_kept_with_the_names_of_its_samples(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.skipped(7, ("street_1", "street_2"))
    assert "step 7/20" in last_shown(log) and "street_1, street_2" in last_shown(log)
    assert read_rows(tmp_path) == [{"step": 7, "skipped": ["street_1", "street_2"]}]
    assert not csv_rows(tmp_path)


def run_of(folder: Path, steps: int) -> RunLog:
    log = make_log(folder)
    for step in range(1, steps + 1):
        add_step(log, step)
        if step % 5 == 0:
            log.validation(step, {"ap50": step / 100, "mean_iou": step / 50})
    return log


def test_resume_drops_what_came_after_and_goes_on_as_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "peak_memory", lambda device: 2**30)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run_of(tmp_path / "whole", 12)
    run_of(tmp_path / "killed", 8).skipped(8, ("a",))
    again = make_log(tmp_path / "killed")
    again.resume(5)
    assert [row["step"] for row in again.rows] == [1, 2, 3, 4, 5, 5]
    assert [step for step in range(1, 9) if again.validated(step)] == [5]
    for step in range(6, 13):
        add_step(again, step)
        if step % 5 == 0:
            again.validation(step, {"ap50": step / 100, "mean_iou": step / 50})
    for name in ("metrics.csv", "metrics.jsonl"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_new_log_over_an_old_one_loses_nothing_before_resume_says_so(tmp_path: Path) -> None:
    run_of(tmp_path, 4)
    before = (tmp_path / "metrics.jsonl").read_text()
    log = make_log(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before
    log.resume(0)
    assert (tmp_path / "metrics.jsonl").read_text() == "" and not csv_rows(tmp_path)


@pytest.mark.parametrize(
    "half",
    [b'{"step": 5, "lo', b'{"step": 5, "loss": 1.0', b"\0\0\0\0", b'{"step": 5}\n{"st\xc3', b"5\n", b'{"a": 1}\n'],
)
def test_half_a_last_line_of_a_killed_run_does_not_stop_the_resume(tmp_path: Path, half: bytes) -> None:
    run_of(tmp_path, 4)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(half)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5,2.0,0.1")
    log = make_log(tmp_path)
    log.resume(4)
    assert [row["step"] for row in log.rows] == [1, 2, 3, 4]
    assert "loss_mask" in log.columns
    add_step(log, 5)
    assert [row["step"] for row in csv_rows(tmp_path)] == ["1", "2", "3", "4", "5"]
    assert len(read_rows(tmp_path)) == 5


def test_a_resume_without_a_log_begins_one(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    log.resume(3)
    add_step(log, 4)
    assert [row["step"] for row in read_rows(tmp_path)] == [4]


@pytest.mark.parametrize("resumed_at", [0, 600])
def test_the_time_left_is_that_of_this_process_and_counts_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed_at: int
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    log = make_log(tmp_path, steps=1000)
    log.resume(resumed_at)
    step = resumed_at
    for seconds in (60.0, 2.0, 2.0):  # the first two steps start slowly; a step is one second
        step, clock = step + 2, clock + seconds
        add_step(log, step, *[{"boxes": 1.0, "mask": 1.0}] * 2, seconds=seconds)
    assert last_shown(log).endswith(f"  {duration(1000 - step)} left")
    step, clock = step + 2, clock + 2 + 12  # a validation of twelve seconds in between
    add_step(log, step, *[{"boxes": 1.0, "mask": 1.0}] * 2, seconds=2.0)
    assert last_shown(log).endswith(f"  {duration((1000 - step) * 3)} left")  # 18 seconds for six steps


@pytest.mark.parametrize(
    ("seconds", "words"), [(75, "1:15"), (3700, "1:01:40"), (172_799, "47:59:59"), (300_000, "3 d 11 h")]
)
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    add_step(log, 1)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device\. Checkpoints written before stay; .*--resume"):
        add_step(log, 2)


def test_files_that_cannot_be_read_are_said_once(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    for step in (1, 2):
        log.unreadable(step, {"a.png: cut off": step})
    assert isinstance(log.line, Lines)
    assert log.line.shows == ["step 1/20  replaced by the next sample: a.png: cut off"]
    assert json.loads((tmp_path / "unreadable.json").read_text())["replaced"] == 2


def add_all(log: RunLog, steps: int, *, wide: bool = False) -> None:
    for step in range(1, steps + 1):
        add_step(log, step, {"boxes": (100.0 if wide else 2.0) / step, "mask": 0.5})
    log.skipped(2, ("a",))
    log.validation(steps, {"ap50": 0.9, "mean_iou": math.nan})


@pytest.mark.parametrize("steps", [1, 7, 120])
def test_curves_are_drawn_for_runs_of_any_length(tmp_path: Path, steps: int) -> None:
    log = make_log(tmp_path, steps=120)
    log.draw_curves()
    empty = (tmp_path / "curves.png").read_bytes()
    add_all(log, steps, wide=steps == 120)
    log.draw_curves()
    assert (tmp_path / "curves.png").read_bytes() != empty
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (990, 935)


def test_tensorboard_that_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"not installed \(pip install 'veduta\[tensorboard\]'\)"):
        check_tensorboard()


def test_tensorboard_shows_rows_and_forgets_those_after_a_resume(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for folder, first, last in ((tmp_path, 1, 6), (tmp_path, 5, 8)):
        log = make_log(folder, tensorboard=True)
        log.resume(first - 1)
        for step in range(first, last + 1):
            add_step(log, step)
        log.skipped(last, ("a",))
        log.validation(last, {"ap50": 0.5, "mean_iou": 0.25})
    accumulator = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("training/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [(event.step, event.value) for event in accumulator.Scalars("validation/ap50")] == [(8, 0.5)]
    assert {"training/loss_mask", "training/lr", "validation/mean_iou"} <= set(accumulator.Tags()["scalars"])
