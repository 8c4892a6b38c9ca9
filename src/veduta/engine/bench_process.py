"""The process that times one file in one runtime, and tells its parent what it finds through a pipe."""

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from veduta.backends import Backend, open_model
from veduta.backends.runtime import installed
from veduta.model_info import ModelInfo
from veduta.ops.arrays import numpy

SECONDS = 5.0  # of calls for each batch size, the warm-up not counted
WARM_UP = 1.0  # seconds, and two calls at least: some runtimes prepare themselves for each shape
FEWEST, MOST = 3, 300  # calls

Size = tuple[int, int]


class Opened(NamedTuple):
    info: ModelInfo
    size: Size
    seconds: float


class Timed(NamedTuple):
    """seconds: of each call with a whole batch. peak: bytes that the process held at most until then."""

    batch_size: int
    seconds: list[float]
    peak: int


class Counted(NamedTuple):
    """Of the network, per image; None without PyTorch."""

    parameters: int | None
    macs: int | None


Told = Opened | Timed | Counted | str | Exception  # a str says what is going on; an exception is a user's mistake


def measure(
    pipe: Connection, path: Path, runtime: str, device: str, size: Size | None, batch_sizes: Sequence[int]
) -> None:
    """Tell Opened, one Timed for each batch size, Counted; or the ValueError or OSError that ended it."""
    try:
        pipe.send("opening")
        started = time.perf_counter()
        backend = open_model(path, device=device, backend=runtime)
        seconds = time.perf_counter() - started
        size, batch_sizes = _shapes(backend.info, size, batch_sizes, path)
        pipe.send(Opened(backend.info, size, seconds))
        for batch_size in batch_sizes:
            pipe.send(f"batches of {batch_size}")
            pipe.send(Timed(batch_size, _calls(backend, batch_size, size), peak_memory()))
        pipe.send(_count(backend.info, size))
    except (ValueError, OSError) as error:
        pipe.send(error)
    except KeyboardInterrupt:
        pass  # the parent got it, too


def peak_memory() -> int:
    """Bytes that this process held at most."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()  # Linux; getrusage would tell the parent's as well
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _shapes(info: ModelInfo, size: Size | None, batch_sizes: Sequence[int], path: Path) -> tuple[Size, Sequence[int]]:
    """What to show a file; of batch sizes those that it takes. Raises ValueError where it takes none of them."""
    open_axes = (None, 3, None, None)
    batch, _, *fixed = info.exported.images if info.exported else open_axes
    size = size or (fixed[0] or info.recipe.data.crop_size[0], fixed[1] or info.recipe.data.crop_size[1])
    fitting = [each for each in batch_sizes if batch in (None, each)]
    if not fitting:
        raise ValueError(f"{path}: takes batches of {batch}. Give --batch {batch}.")
    return size, fitting


def _calls(backend: Backend, batch_size: int, size: Size) -> list[float]:
    """Seconds from images as the Predictor shows them until the outputs are in the memory of the CPU."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, *size, 3), np.uint8).transpose(0, 3, 1, 2)

    def call() -> float:
        started = time.perf_counter()
        for output in backend(images).values():
            numpy(output)
        return time.perf_counter() - started

    warm = call() + call()
    while warm < WARM_UP:
        warm += call()
    taken: list[float] = []
    while len(taken) < FEWEST or (sum(taken) < SECONDS and len(taken) < MOST):
        taken.append(call())
    return taken


def _count(info: ModelInfo, size: Size) -> Counted:
    if not installed("torch"):
        return Counted(None, None)
    from veduta.models import build_skeleton
    from veduta.models.count import count_macs

    recipe = info.recipe
    model = build_skeleton(recipe.model, info.labels.num_classes, **recipe.model_options).eval().to("meta")
    return Counted(sum(parameter.numel() for parameter in model.parameters()), count_macs(model, size))
