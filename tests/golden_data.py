"""Reads the recordings in tests/golden and compares a model with them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rule
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """One recording: its weights and input by rule, its outputs and features to compare with."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)
        self.meta: dict[str, Any] = json.loads(str(self.arrays.pop("meta")))

    def weights(self) -> dict[str, Tensor]:
        """The state dict under the reference's names."""
        return {name: torch.from_numpy(rule.fill(name, shape)) for name, shape in self.meta["parameters"]}

    def images(self) -> Tensor:
        """(N, 3, H, W), already normalised."""
        source = self.meta["inputs"][0]
        return torch.from_numpy(rule.image(source["seed"], source["shape"]))

    def check(self, kind: str, name: str, found: Tensor) -> None:
        """Compare `found`, whole, with the recorded part; `kind` is "outputs" or "features"."""
        key = {"outputs": "out", "features": "feat"}[kind]
        cut = _cut(found.numpy(), self.meta[kind][name]["slice"])
        largest = self.arrays[f"stat:{name}"][2]
        np.testing.assert_allclose(cut, self.arrays[f"{key}:{name}"], rtol=1e-4, atol=1e-4 * largest, err_msg=name)


def _cut(x: np.ndarray, how: str) -> np.ndarray:
    if how == ":":
        return x
    if how.startswith("flat ::"):
        return x.reshape(-1)[:: int(how.removeprefix("flat ::"))]
    return x[tuple(slice(None, None, int(part[2:]) if part != ":" else None) for part in how.split(","))]


@contextmanager
def recorded(model: nn.Module, golden: Golden, rename: Callable[[str], str]) -> Iterator[dict[str, Tensor]]:
    """What the modules of `model` return meanwhile, for every feature of `golden` that is a module here too.

    Keys are the reference's names; `rename` turns one into ours.
    """
    ours = dict(model.named_modules())
    found: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            found[name] = output.clone()  # a later in-place ReLU must not reach it

        return ours[rename(name)].register_forward_hook(keep)

    handles = [record(name) for name in golden.meta["features"] if rename(name) in ours]
    yield found
    for handle in handles:
        handle.remove()
