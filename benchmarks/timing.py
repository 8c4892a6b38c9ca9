"""Paired timing of rivals: all of them in every round, in random order, and compared within the round.

The clock is `time.thread_time`, the CPU time of this thread: every rival runs in one thread, and what other processes
take from the machine is not counted. A machine's speed still drifts, hence ratios within a round and their median.
"""

import time
from collections.abc import Callable, Iterable
from importlib.metadata import version

import cv2
import numpy as np
import torch

PACKAGES = ("torch", "torchvision", "timm", "torchmetrics", "opencv-python-headless", "pillow", "numpy")

Round = dict[str, Callable[[], object]]  # name of a rival -> one call of it


def compare(rounds: Iterable[Round], *, warmup: int) -> None:
    """Time every call of every round and print a table: each rival against the first one.

    All rounds have the same names. warmup: rounds at the start that do not count.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows: list[dict[str, float]] = []
    for calls in rounds:
        row = {}
        for name in rng.permutation(list(calls)).tolist():
            start = time.thread_time()
            calls[name]()
            row[name] = 1000 * (time.thread_time() - start)
        rows.append({name: row[name] for name in calls})
    names = list(rows[0])
    times = np.array([list(row.values()) for row in rows[warmup:]])
    low, middle, high = np.percentile(times / times[:, :1], (25, 50, 75), axis=0)
    print(f"{len(times)} rounds, one thread, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    print("\n| | median ms | median ratio | middle half of the ratios |\n|---|---:|---:|---:|")
    for i, name in enumerate(names):
        print(f"| {name} | {np.median(times[:, i]):.2f} | {middle[i]:.2f} | {low[i]:.2f} to {high[i]:.2f} |")
