"""Bench: how fast model files run on this machine, in every runtime that opens them; one fresh process for each."""

import csv
import io
import json
import multiprocessing
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from veduta import __version__
from veduta.backends import BACKENDS
from veduta.backends.choose import cpu_name
from veduta.backends.openvino_file import weights_path
from veduta.backends.runtime import RUNTIMES, in_words, installed, num_threads
from veduta.engine.bench_process import Counted, Opened, Timed, Told, measure
from veduta.engine.progress import ProgressLine
from veduta.model_info import IMPORT_HINT, find_model

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file in one runtime at one batch size.

    p50_ms, p95_ms: of a call with a whole batch, from uint8 images to outputs in the CPU's memory. peak_mib: the most
    that the process held so far, runtime and weights included. load_seconds: from the command to open the file until it
    is open, with the import of the runtime. parameters, gmacs (of one image): None without PyTorch, which counts them.
    """

    file: str
    runtime: str
    precision: str
    height: int
    width: int
    batch_size: int
    calls: int
    p50_ms: float
    p95_ms: float
    images_per_second: float
    peak_mib: float
    load_seconds: float
    file_mib: float
    parameters: int | None
    gmacs: float | None


@dataclass(frozen=True)
class Bench:
    """failed: what could not be measured, and why."""

    points: list[Point]
    failed: list[str]
    machine: dict[str, str]

    def table(self) -> str:
        """Markdown: a row for each file and runtime, throughput by batch size."""
        batches = sorted({point.batch_size for point in self.points})
        sizes = " ".join(f"images/s at {batch} |" for batch in batches)
        lines = [
            "; ".join(f"{key}: {value}" for key, value in self.machine.items()),
            "",
            f"| file | runtime | size | p50 ms | p95 ms | {sizes} peak MiB | load s | file MiB | parameters | GMACs |",
            "|---|---|---|" + "---:|" * (7 + len(batches)),
        ]
        for group in self.groups():
            first = group[0]
            speeds = {point.batch_size: f"{point.images_per_second:.1f}" for point in group}
            cells = [
                first.file,
                f"{first.runtime}, {first.precision}",
                f"{first.height} x {first.width}",
                f"{first.p50_ms:.1f}",
                f"{first.p95_ms:.1f}",
                *(speeds.get(batch, "") for batch in batches),
                f"{group[-1].peak_mib:,.0f}",
                f"{first.load_seconds:.1f}",
                f"{first.file_mib:.1f}",
                f"{first.parameters:,}" if first.parameters is not None else "",
                f"{first.gmacs:.2f}" if first.gmacs is not None else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def groups(self) -> list[list[Point]]:
        """The points of each file and runtime, by batch size."""
        found: dict[tuple[str, str, str], list[Point]] = {}
        for point in self.points:
            found.setdefault((point.file, point.runtime, point.precision), []).append(point)
        return [sorted(group, key=lambda point: point.batch_size) for group in found.values()]

    def to_json(self) -> str:
        content = {"machine": self.machine, "points": [asdict(point) for point in self.points], "failed": self.failed}
        return json.dumps(content, indent=1) + "\n"

    def to_csv(self) -> str:
        """A line for each point, with the machine in its last columns, so that files of several can be joined."""
        text = io.StringIO()
        names = [field.name for field in fields(Point)]
        writer = csv.DictWriter(text, [*names, *self.machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(point), **self.machine} for point in self.points)
        return text.getvalue()


def bench(
    models: Sequence[Path],
    line: ProgressLine,
    *,
    backend: str,
    device: str,
    size: tuple[int, int] | None,
    batch_sizes: Sequence[int],
) -> Bench:
    """Measure run folders or model files. size: height and width; by default what the file takes, else its recipe's.

    backend: "auto" for every installed runtime that opens a file. Raises ValueError or FileNotFoundError before
    anything is measured, where a file is missing or no runtime opens it.
    """
    jobs = [(name, path, runtime) for name, path in _named(models) for runtime in _runtimes(path, backend)]
    points: list[Point] = []
    failed: list[str] = []
    for name, path, runtime in jobs:
        what = f"{name} in {RUNTIMES[runtime][1]}"
        told = _listen((path, runtime, device, size, tuple(batch_sizes)), what, line)
        if isinstance(told, str):
            failed.append(f"{what}: {told}")
        else:
            points += _points(name, path, runtime, *told)
    return Bench(points, failed, _machine([runtime for _, _, runtime in jobs]))


def _named(models: Sequence[Path]) -> list[tuple[str, Path]]:
    """Model files, each with the shortest name that tells it apart."""
    names = [path.name or str(path) for path in models]
    found = zip(names, models, strict=True)
    return [(name if names.count(name) == 1 else str(path), find_model(path)) for name, path in found]


def _runtimes(path: Path, backend: str) -> list[str]:
    openers = BACKENDS.get(path.suffix, {})
    fitting = [name for name in openers if backend in ("auto", name)]
    if not fitting:
        if openers:
            raise ValueError(f"{path}: backend '{backend}' does not open it. Choose {' or '.join(openers)}.")
        raise ValueError(f"{path}: no backend opens '{path.suffix}' files. Known: {', '.join(BACKENDS)}. {IMPORT_HINT}")
    found = [name for name in fitting if installed(name)]
    if not found:
        needed = " or ".join(RUNTIMES[name][1] for name in fitting)
        raise ValueError(f"{path}: needs {needed}, which is not installed. `veduta doctor` says how to get it.")
    return found


def _listen(arguments: tuple[Any, ...], what: str, line: ProgressLine) -> tuple[Opened, list[Timed], Counted] | str:
    """What a fresh process finds, or why it found nothing."""
    context = multiprocessing.get_context("spawn")  # a forked one would begin with this one's memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(sender, *arguments), daemon=True)
    process.start()
    sender.close()
    opened: Opened | None = None
    timed: list[Timed] = []
    try:
        while True:
            told: Told = receiver.recv()
            if isinstance(told, Opened):
                opened = told
            elif isinstance(told, Timed):
                timed.append(told)
            elif isinstance(told, Counted):
                assert opened is not None
                return opened, timed, told
            elif isinstance(told, str):
                line.update(f"measuring {what}, {told}")
            else:
                return str(told)
    except EOFError:
        process.join()
        return f"its process ended with code {process.exitcode}. Is the memory full? Smaller batches take less of it."
    finally:
        process.terminate()
        process.join()


def _points(name: str, path: Path, runtime: str, opened: Opened, timed: list[Timed], counted: Counted) -> list[Point]:
    info = opened.info
    found = []
    for each in timed:
        p50, p95 = np.percentile(each.seconds, (50, 95)).tolist()
        found.append(
            Point(
                file=name,
                runtime=in_words(runtime),
                precision=info.exported.precision if info.exported else info.recipe.precision,
                height=opened.size[0],
                width=opened.size[1],
                batch_size=each.batch_size,
                calls=len(each.seconds),
                p50_ms=round(1000 * p50, 3),
                p95_ms=round(1000 * p95, 3),
                images_per_second=round(each.batch_size * len(each.seconds) / sum(each.seconds), 3),
                peak_mib=round(each.peak / MIB, 1),
                load_seconds=round(opened.seconds, 3),
                file_mib=round(_bytes_of(path) / MIB, 2),
                parameters=counted.parameters,
                gmacs=None if counted.macs is None else round(counted.macs / 1e9, 3),
            )
        )
    return found


def _bytes_of(path: Path) -> int:
    """OpenVINO keeps weights in a file of their own."""
    weights = weights_path(path)
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.is_file() else 0)


def _machine(runtimes: Sequence[str]) -> dict[str, str]:
    return {
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "threads": str(num_threads()),
        "platform": platform.platform(),
        "software": ", ".join(
            (f"Veduta {__version__}", f"Python {platform.python_version()}", *map(in_words, dict.fromkeys(runtimes)))
        ),
    }
