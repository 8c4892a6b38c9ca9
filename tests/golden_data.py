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

    def weights(self) -> dict[str, np.ndarray]:
        """The parameters under the reference's names, in its layouts."""
        gain = self.meta.get("gain", 1.0)
        return {name: rule.fill(name, shape, gain=gain) for name, shape in self.meta["parameters"]}

    def images(self) -> Tensor:
        """(N, 3, H, W): RGB in [0, 1] of a TensorFlow recording, already normalised of any other."""
        source = self.meta["inputs"][0]
        if source["layout"] == "NHWC":
            return to_unit(rule.image_u8(source["seed"], (*self.meta_size(), 3)))
        return torch.from_numpy(rule.image(source["seed"], source["shape"]))

    def meta_size(self) -> tuple[int, int]:
        """Height and width of a TensorFlow recording's picture."""
        model = self.meta["model"]
        height, width = model["crop"] if "crop" in model else [model["image_size"]] * 2
        return height, width

    def check(self, kind: str, name: str, found: Tensor) -> None:
        """Compare `found`, (N, C, H, W) and whole, with the recorded part; `kind` is "outputs" or "features"."""
        key = {"outputs": "out", "features": "feat"}[kind]
        values = found.permute(0, 2, 3, 1) if self.meta.get("layout") == "NHWC" and found.ndim == 4 else found
        part = cut(values.numpy(), self.meta[kind][name]["slice"])
        largest = self.arrays[f"stat:{name}"][2]
        np.testing.assert_allclose(part, self.arrays[f"{key}:{name}"], rtol=1e-4, atol=1e-4 * largest, err_msg=name)


def to_unit(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def cut(x: np.ndarray, how: str) -> np.ndarray:
    """The part of an array that a recording keeps."""
    if how == ":":
        return x
    if how.startswith("flat ::"):
        return x.reshape(-1)[:: int(how.removeprefix("flat ::"))]
    return x[tuple(slice(None, None, int(part[2:]) if part != ":" else None) for part in how.strip("[]").split(","))]


def whole(name: str, output: Tensor) -> Tensor:
    return output


@contextmanager
def recorded(
    model: nn.Module, golden: Golden, rename: Callable[[str], str], part: Callable[[str, Any], Tensor] = whole
) -> Iterator[dict[str, Tensor]]:
    """What the modules of `model` return meanwhile, for every feature of `golden` that is a module here too.

    Keys are the reference's names; `rename` turns one into ours. part: which tensor of a module's output is meant.
    """
    ours = dict(model.named_modules())
    found: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            found[name] = part(name, output).clone()  # a later in-place ReLU must not reach it

        return ours[rename(name)].register_forward_hook(keep)

    handles = [record(name) for name in golden.meta["features"] if rename(name) in ours]
    yield found
    for handle in handles:
        handle.remove()
