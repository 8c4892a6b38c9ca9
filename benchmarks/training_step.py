"""Training steps: Veduta's against timm's training script and torchvision's reference scripts, on the same networks.

    PYTHONPATH=src .bench/bin/python -m benchmarks.training_step                    # CPU, fp32, two threads
    PYTHONPATH=src .bench/bin/python -m benchmarks.training_step --threads 1
    PYTHONPATH=src .bench/bin/python -m benchmarks.training_step --device cuda

ResNeSt-50 at 224 x 224 and DeepLabV3+ (Xception-65, output stride 16) at 513 x 513. The peers' loops do what the
scripts do in every step, with the library's own pieces and the script's defaults: the usual memory layout, the loss
read after each step; on a GPU with --amp, which is fp16 with a scaled loss. torchvision has neither network and timm no
DeepLab: the names in the tables say whose network runs. On a GPU Veduta trains in bf16, compiled.

Every rival starts with the same weights (but for timm's trunk, which has its own) and one batch, and must show the same
loss first. Each has a process of its own, since allocator, layouts and cuDNN are set for a whole process; in a round
all train in turns, in random order. The clock is the wall's, but for one CPU thread, where it is its CPU time.

Then `veduta.engine.train.train` itself, on generated photos in files with worker processes, and the share of its time
that is neither forward pass and loss, nor backward pass, nor optimizer: waiting for data, uint8 to float, the learning
rate, the log. Takes some minutes; docs/benchmarks.md says how to make .bench.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.data.loader import PrefetchLoader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, NativeScaler
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from benchmarks.forward import classifier, loaded
from benchmarks.pipelines import write_photos
from veduta.config import Augment, Data, Loss, Optim, Recipe
from veduta.data.batch import Batch
from veduta.data.label_maps import numbered
from veduta.device import keep_freed_memory
from veduta.engine import step as step_module
from veduta.engine.progress import ProgressLine
from veduta.engine.step import Step
from veduta.engine.train import train
from veduta.models import build_model
from veduta.models.layers import IMAGENET_MEAN, IMAGENET_STD
from veduta.tasks import TASKS

LR = 0.01
NUM_CLASSES = {"classify": 1000, "segment": 21}
ROUNDS = {"classify": 6, "segment": 4}
BATCH_SIZES = {"cpu": {"classify": 8, "segment": 2}, "cuda": {"classify": 64, "segment": 8}}
STEPS_PER_ROUND = {"cpu": 1, "cuda": 20}
STEPS_TRAINED = {"cpu": {"classify": (2, 10), "segment": (2, 6)}, "cuda": {"classify": (50, 200), "segment": (50, 100)}}

Steps = Iterator[Tensor]  # endless: each `next` trains one step and gives its loss, which may still be on its way
Rival = Callable[[torch.device], Steps]


def recipe_for(task: str, device: torch.device) -> Recipe:
    accelerated = device.type == "cuda"
    side = 224 if task == "classify" else 513
    return Recipe(
        name=task,
        model="resnest50" if task == "classify" else "deeplabv3plus_xception65",
        task=task,  # type: ignore[arg-type]
        data=Data(dataset="folder", crop_size=(side, side), batch_size=BATCH_SIZES[device.type][task]),
        optim=Optim(lr=LR, weight_decay=2e-5),
        loss=Loss(smoothing=0.1 if task == "classify" else 0.0),
        steps=1_000_000,
        device=device.type,
        precision="bf16" if accelerated else "fp32",
        compile=accelerated,
    )


def draw_batch(task: str, device: torch.device) -> Batch:
    """One batch as Veduta's loader hands it over: uint8, channels_last."""
    data = recipe_for(task, device).data
    shape = (data.batch_size, *data.crop_size)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    masks = torch.from_numpy(rng.integers(0, NUM_CLASSES["segment"], shape, dtype=np.uint8))
    classes = torch.from_numpy(rng.integers(0, NUM_CLASSES["classify"], data.batch_size))
    batch = Batch(images=images, masks=masks, names=("",) * data.batch_size, scene_classes=classes)
    return batch._with_each(Tensor.pin_memory) if device.type == "cuda" else batch


def normalised(batch: Batch, device: torch.device) -> Tensor:
    """The images as torchvision's transforms hand them over: float32, the usual layout."""
    images = batch.images.contiguous().float() / 255
    images = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return images.pin_memory() if device.type == "cuda" else images


def our_network(task: str) -> nn.Module:
    torch.manual_seed(0)
    return classifier("resnest50") if task == "classify" else build_model("deeplabv3plus_xception65", 21)


def timm_resnest() -> nn.Module:
    return loaded(timm.create_model("resnest50d"), our_network("classify"))


def timm_trunk() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("deeplabv3plus_timm", NUM_CLASSES["segment"], backbone="xception65", output_stride=16)
    model.normalize = nn.Identity()
    return model


def bare_deeplab() -> nn.Module:
    """Ours without its first layer: torchvision's transforms normalise."""
    model = our_network("segment")
    model.normalize = nn.Identity()
    return model


def veduta(device: torch.device, *, task: str) -> Steps:
    keep_freed_memory()  # as `train` does
    recipe, batch = recipe_for(task, device), draw_batch(task, device)
    labels = numbered(NUM_CLASSES[task], images=task == "classify")
    step = Step(our_network(task), TASKS[task](labels, recipe.loss), recipe, device)
    for number in itertools.count(1):
        losses = step([batch], number)
        assert losses is not None
        yield torch.stack(list(losses.values())).sum()


def timm_script(device: torch.device, *, channels_last: bool) -> Steps:
    """The loop of timm's train.py with its defaults: SGD, label smoothing, batches normalised where they are used."""
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True
    batch = draw_batch("classify", device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = timm_resnest().to(device, memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(model, opt="sgd", lr=LR, momentum=0.9, weight_decay=2e-5)
    scaler = NativeScaler(device=device.type) if device.type == "cuda" else None
    loss_of, losses = LabelSmoothingCrossEntropy(smoothing=0.1).to(device), AverageMeter()
    model.train()
    for images, classes in PrefetchLoader(
        itertools.repeat((batch.images.contiguous(), batch.scene_classes)), IMAGENET_MEAN, IMAGENET_STD, device=device
    ):
        with mixed(device):
            loss = loss_of(model(images.contiguous(memory_format=memory_format)), classes)
        if scaler:
            scaler(loss, optimizer)
        else:
            loss.backward()
            optimizer.step()
        losses.update(loss.item(), len(images))
        optimizer.zero_grad()
        yield loss.detach()


def torchvision_classification(device: torch.device) -> Steps:
    """The loop of references/classification/train.py on timm's network, with top-1 and top-5 of every batch."""
    torch.backends.cudnn.benchmark = True
    batch = draw_batch("classify", device)
    given, wanted = normalised(batch, device), batch.scene_classes
    assert wanted is not None
    model = timm_resnest().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type) if device.type == "cuda" else None
    meters: deque[tuple[float, ...]] = deque(maxlen=20)
    model.train()
    while True:
        images, classes = given.to(device), wanted.to(device)
        with mixed(device):
            logits = model(images)
            loss = F.cross_entropy(logits, classes, label_smoothing=0.1)
        optimizer.zero_grad()
        descend(loss, optimizer, scaler)
        with torch.no_grad():
            hits = logits.topk(5).indices == classes[:, None]
            top1, top5 = hits[:, :1].any(1).float().mean(), hits.any(1).float().mean()
        meters.append((loss.item(), top1.item(), top5.item()))
        yield loss.detach()


def torchvision_segmentation(device: torch.device, *, network: Callable[[], nn.Module]) -> Steps:
    """The loop of references/segmentation/train.py, with its two groups of parameters and its rate for every step."""
    torch.backends.cudnn.benchmark = True
    batch = draw_batch("segment", device)
    assert batch.masks is not None
    given, wanted = normalised(batch, device), batch.masks.long()
    if device.type == "cuda":
        wanted = wanted.pin_memory()
    model = network().to(device)
    backbone = list(model.get_submodule("backbone").parameters())
    known = set(map(id, backbone))
    groups = [{"params": backbone}, {"params": [p for p in model.parameters() if id(p) not in known]}]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: (1 - done / 1_000_000) ** 0.9)
    scaler = torch.amp.GradScaler(device.type) if device.type == "cuda" else None
    meters: deque[tuple[float, float]] = deque(maxlen=20)
    model.train()
    while True:
        images, masks = given.to(device), wanted.to(device)
        with mixed(device):
            loss = F.cross_entropy(model(images)["mask_logits"], masks, ignore_index=255)
        optimizer.zero_grad()
        descend(loss, optimizer, scaler)
        schedule.step()
        meters.append((loss.item(), optimizer.param_groups[0]["lr"]))
        yield loss.detach()


def mixed(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """What --amp does in the peers' scripts, where there is a GPU."""
    return torch.autocast(device.type, dtype=torch.float16) if device.type == "cuda" else contextlib.nullcontext()


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    if scaler:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    else:
        loss.backward()
        optimizer.step()


RACES: dict[str, tuple[str, dict[str, Rival]]] = {
    "classify": (
        "ResNeSt-50, 224 x 224",
        {
            "Veduta": partial(veduta, task="classify"),
            "timm's script": partial(timm_script, channels_last=False),
            "timm's script, --channels-last": partial(timm_script, channels_last=True),
            "torchvision's script, timm's network": torchvision_classification,
        },
    ),
    "segment": (
        "DeepLabV3+ Xception-65, 513 x 513",
        {
            "Veduta": partial(veduta, task="segment"),
            "torchvision's script, Veduta's network": partial(torchvision_segmentation, network=bare_deeplab),
            "torchvision's script, timm's trunk": partial(torchvision_segmentation, network=timm_trunk),
        },
    ),
}


def prepare(device: torch.device, threads: int) -> None:
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(0)


def compete(rival: Rival, device: torch.device, threads: int, asked: Connection) -> None:
    """In a process of its own: the first loss, then for every number of steps that is asked for their seconds."""
    prepare(device, threads)
    clock = time.process_time if device.type == "cpu" and threads == 1 else time.perf_counter
    steps = rival(device)
    asked.send(float(next(steps)))
    while count := asked.recv():
        started = clock()
        for _ in range(count):
            next(steps)
        if device.type == "cuda":
            torch.cuda.synchronize()
        asked.send(clock() - started)


def race(task: str, device: torch.device, threads: int, rounds: int) -> None:
    """Print a table: the time of a step, and each rival's against Veduta's in the same round."""
    title, rivals = RACES[task]
    context = multiprocessing.get_context("spawn")
    count = STEPS_PER_ROUND[device.type]
    rng = np.random.default_rng(0)
    rows = []
    with contextlib.ExitStack() as stack:
        ends: dict[str, Any] = {}
        for name, rival in rivals.items():
            ends[name], theirs = context.Pipe()
            stack.enter_context(ends[name])
            context.Process(target=compete, args=(rival, device, threads, theirs)).start()
            theirs.close()  # so that a process that fails ends the race
        first = {name: end.recv() for name, end in ends.items()}
        # Dropout differs from rival to rival, and so do the precisions on a GPU.
        exact = task == "classify" and device.type == "cpu"
        assert np.allclose(list(first.values()), first["Veduta"], rtol=1e-3 if exact else 0.05), first
        for _ in range(rounds + 1):
            row = {}
            for name in rng.permutation(list(ends)).tolist():
                ends[name].send(count)
                row[name] = 1000 * ends[name].recv() / count
            rows.append([row[name] for name in rivals])
        for end in ends.values():
            end.send(0)
    times = np.array(rows[1:])
    low, middle, high = np.percentile(times / times[:, :1], (25, 50, 75), axis=0)
    batch_size = BATCH_SIZES[device.type][task]
    print(f"\n## {title}, batches of {batch_size}, {rounds} rounds\n")
    print("| | median ms | images/s | median ratio | middle half of the ratios |\n|---|---:|---:|---:|---:|")
    for i, name in enumerate(rivals):
        median = float(np.median(times[:, i]))
        rate = 1000 * batch_size / median
        print(f"| {name} | {median:.0f} | {rate:.1f} | {middle[i]:.2f} | {low[i]:.2f} to {high[i]:.2f} |", flush=True)


class Parts:
    """When forward pass, backward pass and optimizer of every step began and ended, noted without waiting for a GPU.

    The forward pass includes the loss. Patches what `Step` calls: for a process that does nothing else afterwards.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []  # five for every step
        self._mark_before(step_module, "autocast")
        self._mark_before(Tensor, "backward")
        self._mark_after(Tensor, "backward")
        register_optimizer_step_pre_hook(lambda *_: self._mark())
        register_optimizer_step_post_hook(lambda *_: self._mark())

    def shares(self, warmup: int) -> dict[str, float]:
        """Each part's share of the time from the end of step `warmup` to the end of the last."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            times = np.array([self.marks[0].elapsed_time(mark) for mark in self.marks])
        else:
            times = np.array(self.marks)
        spans = np.diff(times[5 * warmup - 1 :]).reshape(-1, 5).sum(axis=0)
        before, forward, backward, between, optimizer = spans / spans.sum()
        return {"forward": forward, "backward": backward, "optimizer": optimizer, "outside": before + between}

    def _mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def _mark_before(self, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def marking(*args: Any, **options: Any) -> Any:
            self._mark()
            return function(*args, **options)

        setattr(owner, name, marking)

    def _mark_after(self, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def marking(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            self._mark()
            return result

        setattr(owner, name, marking)


def write_data(root: Path) -> None:
    """Photos with masks in the layout `folder`, and the same photos by class in the layout `imagenet`."""
    for image, mask in write_photos(root / "segment")[:2]:  # two are enough to validate with
        for path in (image, mask):
            copy = path.parent.parent / "val" / path.name
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    for split in ("train", "val"):
        for number, image in enumerate(sorted((root / "segment/images" / split).iterdir())):
            copy = root / "classify" / split / f"class{number % 2}" / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, copy)


def train_in_parts(task: str, root: Path, device: torch.device, threads: int) -> None:
    prepare(device, threads)
    warmup, steps = STEPS_TRAINED[device.type][task]
    recipe = recipe_for(task, device)
    data = replace(
        recipe.data,
        dataset="imagenet" if task == "classify" else "folder",
        root=str(root / task),
        workers=max(1, (os.cpu_count() or 2) - 1),
        augment=Augment(pipeline="imagenet") if task == "classify" else Augment(scale=(0.5, 2.0)),
    )
    parts = Parts(device)
    train(replace(recipe, data=data, steps=warmup + steps), root / f"run-{task}", ProgressLine())
    shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in parts.shares(warmup).items())
    print(f"\n`train`, {RACES[task][0]}, {steps} steps: {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step against timm's and torchvision's.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--rounds", type=int, help="of the races; else enough for a steady median")
    options = parser.parse_args()
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} threads"
    print(f"{where}, torch {torch.__version__}, timm {timm.__version__}")
    for task in RACES:
        race(task, device, options.threads, options.rounds or ROUNDS[task])
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for task in RACES:
            process = multiprocessing.get_context("spawn").Process(
                target=train_in_parts, args=(task, Path(folder), device, options.threads)
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
