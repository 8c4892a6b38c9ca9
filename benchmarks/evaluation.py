"""Evaluation, from files to the score: Veduta against the evaluation loop of torchvision's references.

    veduta export RUN --to onnx --out run.onnx
    PYTHONPATH=src .bench/bin/python -m benchmarks.evaluation CamVid RUN --exported run.onnx [--mirrored]

The test split of CamVid, 233 images of 480 x 360 with their masks, PNG. Both sides have the same network with the same
weights in fp32 (those of a model file, else random ones), see every image once, or twice with --mirrored, and have the
same number of threads. The peer is the loop of torchvision's references/segmentation/train.py: a DataLoader with
batches of one image, made with Pillow and torchvision's transforms in this process or in workers, `inference_mode`, an
arg-max, and torchmetrics' confusion matrix. Veduta is what `veduta evaluate` runs, with all that it counts beside the
mean IoU, the interval included: on the run in PyTorch, and on the file that was exported of it in ONNX Runtime and in
OpenVINO. All in turns; the ratios are those of one round. Files are read once before. What all sides count must agree.

Seconds are those of the clock, and mean something on an idle machine. CPU seconds are those of all threads and workers.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision.transforms.v2.functional as vision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassConfusionMatrix

from veduta.backends import Backend, open_model
from veduta.backends.torch import TorchBackend
from veduta.data.layout import FileDataset
from veduta.data.layouts.camvid import open_camvid
from veduta.data.stored import Stored
from veduta.engine.evaluate import evaluate
from veduta.engine.predictor import Predictor
from veduta.model_info import ModelInfo
from veduta.models import build_model
from veduta.recipes import find_recipe

VOID = 11  # in CamVid's files
BATCH_SIZE = 4


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Image and mask as torchvision's presets for evaluation make them, but for the resizing."""

    def __init__(self, dataset: FileDataset[Any]) -> None:
        records = [dataset.record(index) for index in range(len(dataset))]
        self.paths = [(record.image.path, record.mask.path) for record in records if isinstance(record.mask, Stored)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = (Image.open(path) for path in self.paths[index])
        pixels = vision.to_dtype(vision.pil_to_tensor(image.convert("RGB")), torch.float32, scale=True)
        return pixels, vision.pil_to_tensor(mask).squeeze(0).long()


@torch.inference_mode()
def peer(model: nn.Module, pairs: Pairs, *, mirrored: bool, workers: int, num_classes: int) -> NDArray[np.int64]:
    """Counts of [truth, prediction]."""
    counts = MulticlassConfusionMatrix(num_classes, ignore_index=VOID)
    for image, target in DataLoader(pairs, batch_size=1, num_workers=workers):
        output = model(image)["mask_logits"]
        if mirrored:
            output = output.softmax(dim=1) + model(image.flip(-1))["mask_logits"].flip(-1).softmax(dim=1)
        counts.update(output.argmax(1), target)
    return counts.compute().numpy()


def opened(path: Path | None, recipe_name: str, dataset: FileDataset[Any], *, mirrored: bool) -> TorchBackend:
    changes = [f"protocol={'mirrored' if mirrored else 'whole'}", "precision=fp32", f"data.batch_size={BATCH_SIZE}"]
    if path is not None:
        backend = open_model(path, device="cpu", changes=changes)
        assert isinstance(backend, TorchBackend)
        return backend
    recipe = dataclasses.replace(
        find_recipe(recipe_name), protocol="mirrored" if mirrored else "whole", precision="fp32"
    )
    torch.manual_seed(0)
    model = build_model(recipe.model, dataset.labels.num_classes, **recipe.model_options)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    info = ModelInfo(recipe=recipe, labels=dataset.labels, step=0)
    return TorchBackend(model, info, torch.device("cpu"))


def timed(work: Callable[[], NDArray[np.int64]]) -> tuple[tuple[float, float], NDArray[np.int64]]:
    """Seconds, CPU seconds of this process and of the workers that ended meanwhile, and what came out."""
    started, before = time.perf_counter(), sum(os.times()[:4])
    result = work()
    return (time.perf_counter() - started, sum(os.times()[:4]) - before), result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--exported", type=Path, help="the same network in fp32: an ONNX file of `veduta export`")
    parser.add_argument("--recipe", default="camvid-cpu", help="where no model is given: whose network, untrained")
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    dataset = open_camvid(arguments.data, "test")
    dataset.keys = list(dataset.keys)[: arguments.limit]
    num_classes, pairs = dataset.labels.num_classes, Pairs(dataset)
    backend = opened(arguments.model, arguments.recipe, dataset, mirrored=arguments.mirrored)
    plain = opened(arguments.model, arguments.recipe, dataset, mirrored=False).model
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain.load_state_dict(backend.model.state_dict())

    def evaluated(backend: Backend) -> NDArray[np.int64]:
        predictor = Predictor(backend)
        evaluation = evaluate(predictor, dataset, name="camvid", split="test", batch_size=BATCH_SIZE)
        assert evaluation.scores.confusion is not None
        return evaluation.scores.confusion[:, :num_classes]

    backends: dict[str, Backend] = {"Veduta": backend}
    if arguments.exported is not None:
        changes = [f"protocol={backend.info.recipe.protocol}"]
        for name, words in (("onnx", "ONNX Runtime"), ("openvino", "OpenVINO")):
            backends[f"Veduta in {words}"] = open_model(arguments.exported, backend=name, changes=changes)
    rivals: dict[str, Callable[[], NDArray[np.int64]]] = {
        **{name: partial(evaluated, backend) for name, backend in backends.items()},
        **{
            f"torchvision's loop, {workers} workers": partial(
                peer, plain, pairs, mirrored=arguments.mirrored, workers=workers, num_classes=num_classes
            )
            for workers in (0, 2)
        },
    }
    for index in range(len(dataset)):
        dataset[index]
    rng, rows = np.random.default_rng(0), []
    for _ in range(arguments.rounds):
        row, counts = {}, {}
        for name in rng.permutation(list(rivals)).tolist():
            row[name], counts[name] = timed(rivals[name])
        for name in rivals:
            differing = np.abs(counts[name] - counts["Veduta"]).sum() / counts["Veduta"].sum()
            assert differing < 1e-4, f"{name}: {differing:.2e} of the pixels"
        rows.append([row[name] for name in rivals])
        print("  ".join(f"{name} {row[name][0]:.2f} s" for name in rivals), flush=True)
    times = np.array(rows)  # (rounds, rivals, 2)
    packages = ("torch", "torchvision", "torchmetrics", "opencv-python-headless", "pillow", "numpy")
    print(f"{len(dataset)} images, {backend.info.recipe.model}, {torch.get_num_threads()} threads, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print("\n| | seconds | images/s | speed against the loop without workers, each round | CPU seconds | by these |")
    print("|---|---:|---:|---|---:|---|")
    peers = times[:, [len(backends)]]  # the loop without workers
    ratios = peers / times
    for place, name in enumerate(rivals):
        wall, cpu = np.median(times[:, place], axis=0).tolist()
        by_clock, by_cpu = (", ".join(f"{ratio:.2f}" for ratio in column) for column in ratios[:, place].T)
        print(f"| {name} | {wall:.2f} | {len(dataset) / wall:.1f} | {by_clock} | {cpu:.2f} | {by_cpu} |")


if __name__ == "__main__":
    main()
