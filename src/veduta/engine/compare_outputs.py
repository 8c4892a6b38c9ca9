"""Compare outputs: two backends on the same images, module by module: which is the first whose numbers part?

The two may be two devices, two precisions, two builds, or two runtimes. Modules are compared where both backends are
PyTorch and hold the same network; else the outputs alone, by their names.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from veduta.backends import Backend
from veduta.backends.torch import TorchBackend
from veduta.data.fit import Pixels, stack
from veduta.engine.departure import VALUES, Difference, OutputComparison
from veduta.ops.arrays import float32, numpy

SIDE = 1024  # pixels; of larger images the middle is shown
TOLERANCES = {"fp32": 1e-5, "fp16": 3e-3, "bf16": 2e-2}  # of the coarser precision; some units of its last place
SOME = 8  # images of a data set that are compared


@dataclass(frozen=True)
class Kept:
    """Of a tensor: its shape, and its values in float32 on the CPU, (n,), a copy: all, or VALUES of them."""

    shape: tuple[int, ...]
    values: Tensor
    whole: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "Kept":
        flat = tensor.detach().flatten()
        step = max(1, -(-flat.numel() // VALUES))
        while math.gcd(step, flat.numel()) > 1 < step:  # else it could always meet the same columns, or one channel
            step += 1
        return cls(tuple(tensor.shape), flat[::step].to("cpu", torch.float32, copy=True), step == 1)


@dataclass
class Running:
    """What a Difference is made of, image by image."""

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    largest: float = 0.0
    scale: float = 0.0
    squares: float = 0.0
    energy: float = 0.0
    agreeing: int = 0
    places: int = 0
    whole: bool = True

    def update(self, a: Kept, b: Kept) -> None:
        self.shapes = self.shapes or (a.shape, b.shape)
        if a.shape != b.shape:
            self.largest = self.squares = math.inf
            return
        self.whole &= a.whole
        if not len(a.values):
            return
        difference = (a.values - b.values).abs()
        difference[a.values == b.values] = 0  # infinities
        difference[a.values.isnan() & b.values.isnan()] = 0
        difference = difference.nan_to_num(nan=math.inf, posinf=math.inf)
        size = a.values.abs().nan_to_num(nan=0.0, posinf=0.0)
        self.largest = max(self.largest, difference.max().item())
        self.scale = max(self.scale, size.max().item())
        self.squares += difference.double().square().sum().item()
        self.energy += size.double().square().sum().item()

    def agree(self, a: Tensor, b: Tensor) -> None:
        """Count where the classes of logits (N, C), (N, C, H, W) or (N, P, C) are the same."""
        classes = 2 if a.ndim == 3 else 1
        same = a.argmax(classes) == b.argmax(classes)
        self.agreeing += int(same.sum())
        self.places += same.numel()

    def result(self) -> Difference:
        assert self.shapes is not None
        return Difference(
            name=self.name,
            kind=self.kind,
            shapes=self.shapes,
            largest=_ratio(self.largest, self.scale),
            rms=_ratio(math.sqrt(self.squares), math.sqrt(self.energy)),
            agreement=self.agreeing / self.places if self.places else None,
        )


def _ratio(difference: float, scale: float) -> float:
    if difference == 0:
        return 0.0
    return difference / scale if scale else math.inf


@contextmanager
def watched(model: nn.Module, seen: Callable[[str, str, Tensor], None]) -> Iterator[None]:
    """While it runs, `seen(name, class, tensor)` gets what every named module returns, as soon as it does.

    A module of modules that returns the very tensor of its last one is left out.
    """
    calls: Counter[str] = Counter()
    last: Tensor | None = None

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def after(module: nn.Module, _: Any, output: Any) -> None:
            nonlocal last
            calls[name] += 1
            call = f"#{calls[name]}" if calls[name] > 1 else ""
            for key, tensor in _tensors(output, ""):
                if tensor is not last or next(module.children(), None) is None:
                    seen(name + key + call, type(module).__name__, tensor)
                last = tensor

        return after

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any, key: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield key, output
    elif isinstance(output, dict):
        for name, value in output.items():
            yield from _tensors(value, f"{key}[{name}]")
    elif isinstance(output, tuple | list):
        for number, value in enumerate(output):
            yield from _tensors(value, f"{key}[{number}]")


@dataclass
class _Differences:
    """All that is running, by name, in the order in which A came to it."""

    modules: dict[str, Running] = field(default_factory=dict)
    outputs: dict[str, Running] = field(default_factory=dict)

    def update(self, a: Backend, b: Backend, image: Pixels, *, by_module: bool) -> None:
        """One image (1, 3, H, W) through both. Of A's modules the values are kept, those of B are met as they come."""
        kept: dict[str, Kept] = {}

        def keep(name: str, kind: str, tensor: Tensor) -> None:
            kept[name] = Kept.of(tensor)
            self.modules.setdefault(name, Running(name, kind))

        def meet(name: str, kind: str, tensor: Tensor) -> None:
            if name in kept:
                self.modules[name].update(kept.pop(name), Kept.of(tensor))

        if by_module:
            assert isinstance(a, TorchBackend) and isinstance(b, TorchBackend)
            with watched(a.model, keep):
                of_a = a(image)
            with watched(b.model, meet):
                of_b = b(image)
        else:
            of_a, of_b = a(image), b(image)
        for name in of_a.keys() & of_b.keys():
            one, other = (torch.from_numpy(numpy(float32(outputs[name]))) for outputs in (of_a, of_b))
            running = self.outputs.setdefault(name, Running(name, "output"))
            running.update(*(Kept(tuple(x.shape), x.flatten(), True) for x in (one, other)))
            if name.endswith("logits") and one.shape == other.shape:
                running.agree(one, other)
        if not self.outputs:
            raise ValueError(
                f"A gives the outputs {', '.join(sorted(of_a))}, B {', '.join(sorted(of_b))}: none of one name."
            )


def why_not_by_module(a: Backend, b: Backend) -> str:
    """Why the modules of two backends cannot be paired; empty where they can."""
    if not (isinstance(a, TorchBackend) and isinstance(b, TorchBackend)):
        return "not both are PyTorch"
    one, other = ([(name, type(m)) for name, m in x.model.named_modules()] for x in (a, b))
    return "" if one == other else f"{a.info.recipe.model} and {b.info.recipe.model} have different modules"


def compare_outputs(
    a: Backend,
    b: Backend,
    images: Iterable[Pixels],
    *,
    names: tuple[str, str],
    tolerance: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> OutputComparison:
    """Run both on the same images (H, W, 3) uint8 RGB, at least one; memory does not grow with their number.

    tolerance: relative; by default that of the coarser of both precisions. Raises ValueError where A and B have no
    output of one name.
    """
    if tolerance is None:
        tolerance = max(TOLERANCES[backend.info.recipe.precision] for backend in (a, b))
    why_none, differences, count = why_not_by_module(a, b), _Differences(), 0
    for count, image in enumerate(images, start=1):
        differences.update(a, b, stack([_middle(image)]), by_module=not why_none)
        progress(count)
    met = [running for running in differences.modules.values() if running.shapes]
    return OutputComparison(
        names=names,
        images=count,
        tolerance=tolerance,
        modules=tuple(running.result() for running in met),
        outputs=tuple(differences.outputs[name].result() for name in sorted(differences.outputs)),
        sampled=sum(not running.whole for running in met),
        why_none=why_none,
    )


def spread(total: int) -> list[int]:
    """The indices of SOME images of a data set, spread evenly over it; of all where there are not so many."""
    count = min(SOME, total)
    return [number * total // count for number in range(count)]


def _middle(image: Pixels) -> Pixels:
    top, left = (max(0, length - SIDE) // 2 for length in image.shape[:2])
    return image[top : top + SIDE, left : left + SIDE]
