"""What a backend adds to its runtime: a call of Veduta's backend against the bare call of the runtime.

    PYTHONPATH=src .bench/bin/python -m benchmarks.raw_runtime MODEL.onnx [--size 224x224]

The same exported file in ONNX Runtime and in OpenVINO, one image. "bare" is `session.run` or the compiled model on a
float32 array in [0, 1] that is ready. Veduta's backend gets that array, or the uint8 image as it was decoded (its rows
of RGB), which it converts. Rivals take turns in random order; seconds are those of the clock, on an idle machine.
"""

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from veduta.backends.onnx import open_onnx
from veduta.backends.openvino import open_openvino
from veduta.backends.runtime import IMAGES, num_threads
from veduta.data.fit import unit_range

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", default="224x224")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8).transpose(0, 3, 1, 2)
    ready = unit_range(image)
    onnx = open_onnx(arguments.model, device="cpu", changes=())
    openvino = open_openvino(arguments.model, device="cpu", changes=())
    runtimes: dict[str, dict[str, Callable[[], object]]] = {
        f"ONNX Runtime {version('onnxruntime')}": {
            "bare, float32": lambda: onnx.session.run(None, {IMAGES: ready}),
            "Veduta, float32": lambda: onnx(ready),
            "Veduta, uint8": lambda: onnx(image),
        },
        f"OpenVINO {version('openvino')}": {
            "bare, float32": lambda: openvino.compiled({0: ready}, share_inputs=True),
            "Veduta, float32": lambda: openvino(ready),
            "Veduta, uint8": lambda: openvino(image),
        },
    }
    print(f"{arguments.model.name}, {height} x {width}, {num_threads()} threads, {arguments.rounds} rounds")
    print("\n| | median ms | median ratio | middle half of the ratios |\n|---|---:|---:|---:|")
    rng = np.random.default_rng(0)
    for runtime, calls in runtimes.items():
        rows = []
        for _ in range(WARM_UP + arguments.rounds):
            row = {}
            for name in rng.permutation(list(calls)).tolist():
                started = time.perf_counter()
                calls[name]()
                row[name] = 1000 * (time.perf_counter() - started)
            rows.append([row[name] for name in calls])
        times = np.array(rows[WARM_UP:])
        low, middle, high = np.percentile(times / times[:, :1], (25, 50, 75), axis=0)
        for i, name in enumerate(calls):
            words = f"{middle[i]:.3f} | {low[i]:.3f} to {high[i]:.3f}"
            print(f"| {runtime}: {name} | {np.median(times[:, i]):.2f} | {words} |")


if __name__ == "__main__":
    main()
