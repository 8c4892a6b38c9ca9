"""The run folder's log: metrics.csv, metrics.jsonl, curves.png, and the progress line of a training run."""

import csv
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from veduta import __version__
from veduta.device import describe, peak_memory
from veduta.engine.progress import ProgressLine, duration
from veduta.files import replacing, write_text

COLUMNS = (  # of metrics.csv; validation rows fill the last two
    "step",
    "epoch",
    "lr",
    "loss",
    "images_per_second",
    "data_wait",
    "memory_mb",
    "val_mean_iou",
    "val_pixel_accuracy",
)
ROWS_WANTED = 400  # of the metrics files, over a whole run

Row = dict[str, float]


class RunLog:
    """Writes what happens, as it happens. A row holds means since the row before it."""

    def __init__(self, folder: Path, line: ProgressLine, *, steps: int, batch_size: int, samples: int) -> None:
        self.folder, self.line, self.steps, self.batch_size, self.samples = folder, line, steps, batch_size, samples
        self.every = max(1, steps // ROWS_WANTED)
        self.rows: list[Row] = []
        self.said: set[str] = set()  # why samples could not be read
        self.trained = 0.0  # seconds of training steps since the start, validation left out
        write_text(folder / "metrics.csv", ",".join(COLUMNS) + "\n")
        write_text(folder / "metrics.jsonl", "")

    def due(self, step: int) -> bool:
        """Whether a row is wanted after step number `step` (from 1)."""
        return step % self.every == 0 or step == self.steps

    def training(
        self, step: int, losses: list[float], *, lr: float, seconds: float, waited: float, device: torch.device
    ) -> None:
        """A row over the last len(losses) steps, which took `seconds`, `waited` of them for data."""
        self.trained += seconds
        speed, memory = len(losses) * self.batch_size / seconds, peak_memory(device) // 2**20
        row: Row = {
            "step": step,
            "epoch": round(step * self.batch_size / self.samples, 3),
            "lr": lr,
            "loss": sum(losses) / len(losses),
            "images_per_second": round(speed, 2),
            "data_wait": round(waited / seconds, 4),
            "memory_mb": memory,
        }
        self._write(row)
        left = (self.steps - step) * self.trained / step
        self.line.update(
            f"step {step:,}/{self.steps:,}  loss {row['loss']:.3f}  {speed:.1f} images/s  data wait "
            f"{100 * waited / seconds:.0f} %  memory {memory / 1024:.1f} GB  {duration(left)} left"
        )

    def unreadable(self, step: int, reasons: dict[str, int]) -> None:
        """Say each file that cannot be read once, and write the number of samples replaced so far."""
        for reason in reasons.keys() - self.said:
            self.line.say(f"step {step:,}/{self.steps:,}  replaced by the next sample: {reason}")
        if reasons:
            content = {"replaced": sum(reasons.values()), "reasons": reasons}
            write_text(self.folder / "unreadable.json", json.dumps(content, indent=1) + "\n")
        self.said |= reasons.keys()

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """Scores (0..1) by column name, such as val_mean_iou."""
        self._write({"step": step, **{name: round(value, 6) for name, value in scores.items()}})
        self.line.say(f"step {step:,}/{self.steps:,}  " + "  ".join(f"{n} {100 * v:.2f}" for n, v in scores.items()))

    def _write(self, row: Row) -> None:
        self.rows.append(row)
        with (self.folder / "metrics.csv").open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def draw_curves(self) -> None:
        """curves.png: loss and learning rate over steps, validation scores below."""
        # Late: it is slow to import, and it keeps a cache of fonts, which must not land in the user's home.
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            os.environ["MPLCONFIGDIR"] = cache
            from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        trained = [row for row in self.rows if "loss" in row]
        validated = [row for row in self.rows if "val_mean_iou" in row]
        steps = [row["step"] for row in trained]
        top.plot(steps, [row["loss"] for row in trained], color="#1f4e79")
        top.set_ylabel("training loss")
        rate = top.twinx()
        rate.plot(steps, [row["lr"] for row in trained], color="#c77700", linestyle="--")
        rate.set_ylabel("learning rate (dashed)")
        for key, style in (("val_mean_iou", "o-"), ("val_pixel_accuracy", "s--")):
            values = [100 * row.get(key, np.nan) for row in validated]
            bottom.plot(
                [row["step"] for row in validated], values, style, label=key.removeprefix("val_").replace("_", " ")
            )
        bottom.set(xlabel="step", ylabel="validation, %", ylim=(0, 100))
        bottom.legend(loc="lower right")
        for axes in (top, bottom):
            axes.grid(alpha=0.3)
        with replacing(self.folder / "curves.png") as temporary:
            figure.savefig(temporary, format="png", dpi=100)


def environment() -> dict[str, Any]:
    """Software and machine, for environment.json and `veduta doctor`."""
    return {
        "veduta": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "devices": describe(),
    }
