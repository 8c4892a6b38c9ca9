"""`veduta predict`, from photos to what is written, against the loop that one writes by hand around a PyTorch network.

    PYTHONPATH=src .bench/bin/python -m benchmarks.predict PHOTOS [--network NAME] [--file int8=MODEL.onnx]

ResNeSt-50 at 224 x 224 and DeepLabV3+ Xception-65 at 513 x 513, untrained, the same weights on all sides, fp32. The
peer opens a photo with Pillow, cuts and resizes or pads it, scales it with NumPy, runs the network in eager PyTorch
(batch 1, usual layout, `inference_mode`), takes soft-max or arg-max, and writes with Pillow what Veduta writes: the
index mask as palette PNG and the overlay as JPEG, or the scores as .npy; and one JSON. Veduta is the function behind
`veduta predict` on the model file (PyTorch) and on its export (ONNX Runtime, OpenVINO). Files that are exported
otherwise come by --file. Each rival has a process of its own, and they take turns; seconds are those of the clock, on
an idle machine. Which share of the classes is the same is told. The exported files are made without their proof.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from veduta.backends import open_model
from veduta.backends.runtime import num_threads
from veduta.checkpoint import load_model, save_model
from veduta.data.label_maps import VOC, numbered
from veduta.engine.predict import find_images, predict
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.export.onnx import save_onnx, to_onnx
from veduta.export.trace import trace
from veduta.model_info import ModelInfo
from veduta.models import build_model
from veduta.recipes import find_recipe

RECIPES = {"resnest50": "resnest50-imagenet", "deeplabv3plus_xception65": "deeplabv3plus-xception65-voc"}
CROP, PADDED = 224, 513

Rival = Callable[[Path], None]  # writes into a new folder


def scaled(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy((np.asarray(image, np.float32) / 255).transpose(2, 0, 1)[None].copy())


@torch.inference_mode()
def classify(model: nn.Module, photos: Sequence[Path], out: Path) -> None:
    out.mkdir()
    rows, scores = [], []
    for path in photos:
        image = Image.open(path).convert("RGB")
        side = round(min(image.size) * CROP / (CROP + 32))
        left, top = (round((length - side) / 2) for length in image.size)
        image = image.crop((left, top, left + side, top + side)).resize((CROP, CROP), Image.Resampling.BICUBIC)
        probabilities = model(scaled(image))["class_logits"].softmax(1)[0]
        best = probabilities.topk(5)
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows.append({"file": str(path), "scores": [{"class": index, "score": score} for index, score in found]})
        scores.append(probabilities.numpy())
    np.save(out / "class_scores.npy", np.stack(scores))
    (out / "predictions.json").write_text(json.dumps(rows, indent=1))


@torch.inference_mode()
def segment(model: nn.Module, photos: Sequence[Path], out: Path) -> None:
    for folder in ("masks", "overlays"):
        (out / folder).mkdir(parents=True)
    palette, rows = VOC.palette, []
    for path in photos:
        image = Image.open(path).convert("RGB")
        width, height = image.size
        padded = Image.new("RGB", (max(PADDED, width), max(PADDED, height)), (128, 128, 128))
        padded.paste(image)
        mask = model(scaled(padded))["mask_logits"].argmax(1)[0, :height, :width].to(torch.uint8).numpy()
        drawn = Image.fromarray(mask)
        drawn.putpalette(palette.tobytes())
        drawn.save(out / "masks" / f"{path.stem}.png")
        Image.blend(image, drawn.convert("RGB"), 0.6).save(out / "overlays" / f"{path.stem}.jpg", quality=92)
        classes, counts = np.unique(mask, return_counts=True)
        shares = dict(zip(classes.tolist(), (counts / mask.size).tolist(), strict=True))
        rows.append({"file": str(path), "shares": shares})
    (out / "predictions.json").write_text(json.dumps(rows, indent=1))


def write_models(network: str, folder: Path) -> tuple[Path, Path]:
    """The weights and their export, without a proof; where they are there already, those."""
    weights, exported = folder / f"{network}.safetensors", folder / f"{network}.onnx"
    if not exported.exists():
        recipe = find_recipe(RECIPES[network])
        labels = numbered(1000, images=True) if recipe.task == "classify" else VOC
        torch.manual_seed(0)
        model = build_model(network, labels.num_classes, **recipe.model_options).eval()
        info = ModelInfo(recipe=dataclasses.replace(recipe, precision="fp32"), labels=labels, step=0)
        save_model(weights, model.state_dict(), info)
        save_onnx(to_onnx(trace(model, (None, 3, None, None)), info), info, exported)
    return weights, exported


def by_hand(weights: Path, photos: dict[str, Path]) -> Rival:
    tensors, info = load_model(weights)
    model = build_model(info.recipe.model, info.labels.num_classes, **info.recipe.model_options).eval()
    model.load_state_dict(tensors)
    return partial(classify if info.recipe.task == "classify" else segment, model, list(photos.values()))


def vedutas(backend: str, file: Path, photos: dict[str, Path]) -> Rival:
    predictor = Predictor(open_model(file, device="cpu", backend=backend))

    def run(out: Path) -> None:
        assert not predict(predictor, photos, out, ProgressLine(silent=True))

    return run


def work(opener: Callable[[dict[str, Path]], Rival], photos: dict[str, Path], threads: int, pipe: Connection) -> None:
    """In a process of its own: a new folder in, the seconds out."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    run = opener(photos)
    while (out := pipe.recv()) is not None:
        started = time.perf_counter()
        run(out)
        pipe.send(time.perf_counter() - started)


def agreement(one: Path, other: Path) -> float:
    """Share of the pixels, or of the images, that have the same class."""
    if (one / "class_scores.npy").is_file():
        best, others = (np.load(folder / "class_scores.npy").argmax(1) for folder in (one, other))
        return float((best == others).mean())
    same = [
        np.asarray(Image.open(path)) == np.asarray(Image.open(other / "masks" / path.name))
        for path in (one / "masks").iterdir()
    ]
    return float(np.mean([each.mean() for each in same]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("--network", choices=RECIPES, default="resnest50")
    parser.add_argument("--file", action="append", default=[], help="NAME=MODEL.onnx")
    parser.add_argument("--models", type=Path, help="keep the model files in this folder, or take them from there")
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=num_threads())
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of all runtimes
    photos = dict(list(find_images([str(arguments.photos)]).items())[: arguments.limit])
    context, pipes = multiprocessing.get_context("spawn"), {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights, exported = write_models(arguments.network, arguments.models or folder)
        openers = {
            "by hand, eager PyTorch": partial(by_hand, weights),
            "Veduta, PyTorch": partial(vedutas, "torch", weights),
            "Veduta, ONNX Runtime": partial(vedutas, "onnx", exported),
            "Veduta, OpenVINO": partial(vedutas, "openvino", exported),
        }
        for name, file in (given.split("=", 1) for given in arguments.file):
            openers[f"Veduta, {name}, ONNX Runtime"] = partial(vedutas, "onnx", Path(file))
            openers[f"Veduta, {name}, OpenVINO"] = partial(vedutas, "openvino", Path(file))
        for name, opener in openers.items():
            pipes[name], theirs = context.Pipe()
            context.Process(target=work, args=(opener, photos, arguments.threads, theirs), daemon=True).start()
        rng, rows = np.random.default_rng(0), []
        for number in range(arguments.rounds + 1):  # the first one warms up
            row = {}
            for name in rng.permutation(list(pipes)).tolist():
                pipes[name].send(folder / f"{number} {name}")
                row[name] = 1000 * pipes[name].recv() / len(photos)
            rows.append([row[name] for name in pipes])
            print("  ".join(f"{name} {row[name]:.1f} ms" for name in pipes), flush=True)
        for pipe in pipes.values():
            pipe.send(None)
        first = folder / f"0 {next(iter(pipes))}"
        same = {name: agreement(first, folder / f"0 {name}") for name in pipes}
    times = np.array(rows[1:])
    packages = ("torch", "onnxruntime", "openvino", "opencv-python-headless", "pillow", "numpy")
    print(f"{arguments.network}, {len(photos)} photos, {arguments.threads} threads, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print("\n| | ms an image | times as fast, each round | same classes |\n|---|---:|---|---:|")
    for place, name in enumerate(pipes):
        ratios = ", ".join(f"{ratio:.2f}" for ratio in times[:, 0] / times[:, place])
        print(f"| {name} | {np.median(times[:, place]):.1f} | {ratios} | {100 * same[name]:.2f} % |")


if __name__ == "__main__":
    main()
