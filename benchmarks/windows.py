"""Sliding windows over one image of 2048 x 1024: Veduta's Predictor against MONAI's `sliding_window_inference`.

    PYTHONPATH=src .bench/bin/python -m benchmarks.windows

From a uint8 image to its mask: 15 windows of 512 x 512 in batches of 4, with the same weights for blending and the same
network. "Network": a small DeepLabV3+ (deeplabv3plus_small, 19 classes). "Windows": one 1x1 convolution to 19 classes,
so that what counts is cutting, blending and arg-max. All must find the same mask, and do. Each rival has a process of
its own, whose CPU time is counted; they take turns. MONAI's network is in PyTorch's own memory format, or channels
last, as Veduta's always is. Takes about three minutes; docs/benchmarks.md says how to make .bench.
"""

import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from veduta.backends.torch import TorchBackend
from veduta.config import Data, Optim, Recipe
from veduta.data.label_maps import CITYSCAPES
from veduta.engine.predictor import Predictor
from veduta.engine.windows import places
from veduta.model_info import ModelInfo
from veduta.models import build_model

SIZE, WINDOW, BATCH_SIZE = (1024, 2048), 512, 4
ROUNDS, WARMUP = {"network": 10, "windows": 20}, 2

Call = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # image -> mask


class PerPixel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CITYSCAPES.num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"mask_logits": self.conv(images)}


def network(case: str, memory_format: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    model = PerPixel() if case == "windows" else build_model("deeplabv3plus_small", CITYSCAPES.num_classes)
    return model.eval().to(memory_format=memory_format)  # type: ignore[call-overload]


def vedutas(case: str) -> Call:
    recipe = Recipe(
        name="windows",
        model="deeplabv3plus_small",
        data=Data(dataset="folder", crop_size=(WINDOW, WINDOW), batch_size=BATCH_SIZE),
        optim=Optim(lr=0.1),
        steps=1,
        protocol="windows",
    )
    info = ModelInfo(recipe=recipe, labels=CITYSCAPES, step=0)
    predictor = Predictor(TorchBackend(network(case, torch.channels_last), info, torch.device("cpu")))

    def call(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mask = predictor([image])[0].mask
        assert mask is not None
        return mask

    return call


def monais(memory_format: torch.memory_format, case: str) -> Call:
    from monai.inferers import sliding_window_inference

    model = network(case, memory_format)
    curve = torch.sin(torch.pi * (torch.arange(WINDOW) + 0.5) / WINDOW) ** 2
    overlap = tuple(1 - (places(length, WINDOW)[1] / WINDOW) for length in SIZE)

    def logits(images: Tensor) -> Tensor:
        outputs: dict[str, Tensor] = model(images)
        return outputs["mask_logits"]

    @torch.inference_mode()
    def call(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        images = (
            torch.from_numpy(image[None]).permute(0, 3, 1, 2).contiguous(memory_format=memory_format).float().div_(255)
        )
        found = sliding_window_inference(
            images,
            roi_size=(WINDOW, WINDOW),
            sw_batch_size=BATCH_SIZE,
            predictor=logits,
            overlap=overlap,
            roi_weight_map=curve[:, None] * curve,
        )
        assert isinstance(found, Tensor)
        mask: NDArray[np.uint8] = found.argmax(dim=1)[0].to(torch.uint8).numpy()
        return mask

    return call


RIVALS: dict[str, Callable[[str], Call]] = {
    "Veduta": vedutas,
    "MONAI": partial(monais, torch.contiguous_format),
    "MONAI, channels last": partial(monais, torch.channels_last),
}


def work(rival: str, case: str, pipe: Connection) -> None:
    """In a process of its own: an image in, its mask and the seconds of CPU time out."""
    torch.set_num_threads(1)
    call = RIVALS[rival](case)
    while (image := pipe.recv()) is not None:
        start = time.process_time()
        mask = call(image)
        pipe.send((mask, time.process_time() - start))


def run(case: str) -> None:
    context, pipes = multiprocessing.get_context("spawn"), {}
    for rival in RIVALS:
        pipes[rival], theirs = context.Pipe()
        context.Process(target=work, args=(rival, case, theirs), daemon=True).start()
    rng, rows = np.random.default_rng(0), []
    for _ in range(WARMUP + ROUNDS[case]):
        image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        masks, row = {}, {}
        for rival in rng.permutation(list(RIVALS)).tolist():
            pipes[rival].send(image)
            masks[rival], row[rival] = pipes[rival].recv()
        assert all((masks["Veduta"] == mask).mean() > 0.9999 for mask in masks.values())  # sums in another order
        rows.append([1000 * row[rival] for rival in RIVALS])
    for pipe in pipes.values():
        pipe.send(None)
    times = np.array(rows[WARMUP:])
    low, middle, high = np.percentile(times / times[:, :1], (25, 50, 75), axis=0)
    print(f"\n| {case} | median ms | median ratio | middle half of the ratios |\n|---|---:|---:|---:|")
    for i, rival in enumerate(RIVALS):
        print(f"| {rival} | {np.median(times[:, i]):.0f} | {middle[i]:.2f} | {low[i]:.2f} to {high[i]:.2f} |")


if __name__ == "__main__":
    print("one thread, " + ", ".join(f"{name} {version(name)}" for name in ("torch", "monai", "numpy")))
    for case in ROUNDS:
        run(case)
