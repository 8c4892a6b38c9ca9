"""The run folder's log: metrics.csv, metrics.jsonl, curves.png, TensorBoard, and the progress line of a run."""

import contextlib
import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from veduta.device import peak_memory
from veduta.engine.curves import draw_run
from veduta.engine.progress import ProgressLine, duration
from veduta.files import write_text

ROWS_WANTED = 400  # of the metrics files, over a whole run

Row = dict[str, Any]  # numbers by column name; a row of a step left out: step, and the names of its samples as skipped


class RunLog:
    """Writes what happens, as it happens. A row holds means since the row before it.

    batch_size: samples of one step, over all processes and accumulated batches together. scores: the task's, by name.
    The files of a folder that holds a log already stay as they are until `resume`. Without a folder, as on processes
    beside the first, nothing is written.
    """

    def __init__(
        self,
        folder: Path | None,
        line: ProgressLine,
        *,
        steps: int,
        batch_size: int,
        scores: tuple[str, ...],
        tensorboard: bool = False,
    ) -> None:
        self.folder, self.line, self.steps, self.batch_size = folder, line, steps, batch_size
        self.scores = scores
        self.losses: tuple[str, ...] = ()  # parts of the loss, where it has several; known by the first row
        self.every = max(1, steps // ROWS_WANTED)
        self.rows: list[Row] = []
        self.said: set[str] = set()  # why samples could not be read
        self.first_row: tuple[int, float] | None = None  # of this process: its step, and when it was written
        self.board = _Board(folder / "tensorboard") if tensorboard and folder else None
        if folder and not (folder / "metrics.jsonl").exists():
            self._write_rows()

    @property
    def columns(self) -> tuple[str, ...]:
        """Of metrics.csv."""
        parts, scores = (f"loss_{name}" for name in self.losses), (f"val_{name}" for name in self.scores)
        return ("step", "epoch", "lr", "loss", *parts, "images_per_second", "data_wait", "memory_mb", *scores)

    def resume(self, step: int) -> None:
        """Go on after `step`: rows up to it come back from metrics.jsonl, those after it leave the files; 0: all do."""
        if self.folder:
            self.rows = [row for row in read_rows(self.folder) if row["step"] <= step]
            parts = [name for row in self.rows for name in row if name.startswith("loss_")]
            self.losses = tuple(name.removeprefix("loss_") for name in dict.fromkeys(parts))
            self._write_rows()
        self.first_row = None
        if self.board:
            self.board.resume(step)

    def due(self, step: int) -> bool:
        """Whether a row is wanted after step number `step` (from 1)."""
        return step % self.every == 0 or step == self.steps

    def training(
        self,
        step: int,
        losses: list[dict[str, float]],
        *,
        epoch: float,
        lr: float,
        seconds: float,
        waited: float,
        device: torch.device,
    ) -> None:
        """A row over the last len(losses) steps, which took `seconds`, `waited` of them for data.

        losses: the parts of each step's loss by name, together the loss; empty for a step left out. These, and steps
        whose loss is no number, do not count in the means.
        """
        speed, memory = len(losses) * self.batch_size / seconds, peak_memory(device) // 2**20
        row: Row = {"step": step, "epoch": round(epoch, 3), "lr": lr}
        counted = [parts for parts in losses if parts and all(map(math.isfinite, parts.values()))]
        if counted:
            if len(counted[0]) > 1 and not self.losses:
                self.losses = tuple(counted[0])
                self._write_rows()
            row["loss"] = sum(sum(parts.values()) for parts in counted) / len(counted)
            for name in self.losses:
                row[f"loss_{name}"] = sum(parts[name] for parts in counted) / len(counted)
        row["images_per_second"] = float(f"{speed:.5g}")
        row["data_wait"] = round(waited / seconds, 4)
        row["memory_mb"] = memory
        self._append(row)
        left = self._seconds_left(step, seconds / len(losses))
        self.line.update(
            f"step {step:,}/{self.steps:,}  loss {row.get('loss', math.nan):.3f}  {speed:.4g} images/s  data wait "
            f"{100 * waited / seconds:.0f} %  memory {memory / 1024:.1f} GB  {duration(left)} left"
        )

    def _seconds_left(self, step: int, seconds_per_step: float) -> float:
        """As fast as since this process's first row, which has the slow start in it; validations count as they come."""
        now = time.perf_counter()
        if self.first_row is None:
            self.first_row = step, now
        else:
            first, then = self.first_row
            seconds_per_step = (now - then) / (step - first)
        return (self.steps - step) * seconds_per_step

    def unreadable(self, step: int, reasons: dict[str, int]) -> None:
        """Say each file that cannot be read once, and write the number of samples replaced so far."""
        for reason in reasons.keys() - self.said:
            self.line.say(f"step {step:,}/{self.steps:,}  replaced by the next sample: {reason}")
        if reasons and self.folder:
            content = {"replaced": sum(reasons.values()), "reasons": reasons}
            write_text(self.folder / "unreadable.json", json.dumps(content, indent=1) + "\n")
        self.said |= reasons.keys()

    def skipped(self, step: int, names: tuple[str, ...]) -> None:
        """Step `step` changed nothing, because its loss or a gradient was no number; `names` are its samples'."""
        self._append({"step": step, "skipped": list(names)})
        self.line.say(f"step {step:,}/{self.steps:,}  left out, its loss or gradient is no number: {', '.join(names)}")

    def validated(self, step: int) -> bool:
        """Whether the scores of `step` are in the log: of a run that was stopped after them and went on."""
        return any(row["step"] == step and "lr" not in row and "skipped" not in row for row in self.rows)

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """Scores (0..1) by name, such as mean_iou; one that is undefined (nan) stays empty."""
        known = {name: scores[name] for name in self.scores if math.isfinite(scores[name])}
        self._append({"step": step, **{f"val_{name}": round(value, 6) for name, value in known.items()}})
        words = "  ".join(f"{name.replace('_', ' ')} {100 * scores[name]:.2f}" for name in self.scores)
        self.line.say(f"step {step:,}/{self.steps:,}  validation  {words}")

    def draw_curves(self) -> None:
        """curves.png: losses, learning rate and validation scores over the steps."""
        if self.folder:
            draw_run(self.rows, self.folder / "curves.png", losses=self.losses, scores=self.scores)

    def _append(self, row: Row) -> None:
        if self.folder is None:
            return
        self.rows.append(row)
        try:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            with (self.folder / "metrics.csv").open("a", encoding="utf-8") as file:
                file.write(self._csv([row]))
        except OSError as error:
            raise OSError(
                f"the log in {self.folder} could not be written: {error.strerror}. Checkpoints written before stay; "
                "make room, or the folder writable, and go on with --resume."
            ) from error
        if self.board:
            self.board.add(row)

    def _write_rows(self) -> None:
        if self.folder is None:
            return
        write_text(self.folder / "metrics.csv", ",".join(self.columns) + "\n" + self._csv(self.rows))
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))

    def _csv(self, rows: list[Row]) -> str:
        """Lines of metrics.csv. Steps left out are only in metrics.jsonl."""
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(row for row in rows if "skipped" not in row)
        return text.getvalue()


def read_rows(folder: Path) -> list[Row]:
    """The rows of a run folder's metrics.jsonl, in order; none where there is no such file.

    A line that is no row is left out: a killed run leaves half a line, a lost machine perhaps zeros.
    """
    path = folder / "metrics.jsonl"
    rows: list[Row] = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def check_tensorboard() -> None:
    """Raises ValueError where TensorBoard's package is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs the package tensorboard, which is not installed (pip install 'veduta[tensorboard]'). "
            "Without it metrics.csv and curves.png hold the same figures."
        ) from error


class _Board:
    """The rows as TensorBoard's scalars: loss, validation/mean_iou and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None  # a SummaryWriter, opened by the first row: it makes a file at once
        self.purge_step: int | None = None

    def resume(self, step: int) -> None:
        """What was written for later steps is not shown any more."""
        self.purge_step = step + 1

    def add(self, row: Row) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=self.purge_step)
        for name, value in row.items():
            if name not in ("step", "skipped"):
                tag = name.replace("val_", "validation/", 1) if name.startswith("val_") else f"training/{name}"
                self.writer.add_scalar(tag, value, row["step"])
        self.writer.flush()  # its own two minutes are more than a killed run should lose
