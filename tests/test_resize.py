"""The resizes and pools of TensorFlow 1 and MindSpore leave for ONNX as they are, sizes open or fixed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from veduta.ops.resize import (
    max_pool_same,
    mean_of_tiles,
    resize_aligned_nearest,
    resize_legacy,
    resize_legacy_nearest,
)

Resize = Callable[[Tensor, torch.Size], Tensor]


class Like(nn.Module):
    """Resizes the first input to the size of the second."""

    def __init__(self, resize: Resize) -> None:
        super().__init__()
        self.resize = resize

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.resize(x, like.shape[-2:])


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return max_pool_same(x, 3, 2)


class Tiles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return mean_of_tiles(x, 7)


def run(model: nn.Module, path: Path, example: tuple[Tensor, ...], *others: tuple[Tensor, ...]) -> None:
    """Export with all heights and widths open, and compare on the example and on inputs of other sizes."""
    dynamic = tuple({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} for _ in example)
    program = torch.onnx.export(model.eval(), example, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    for inputs in (example, *others):
        (found,) = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)})
        np.testing.assert_allclose(found, model(*inputs).numpy(), rtol=1e-5, atol=1e-6)


def drawn(height: int, width: int) -> Tensor:
    return torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("resize", [resize_legacy, resize_legacy_nearest, resize_aligned_nearest])
def test_a_resize_exports_with_open_sizes_and_computes_the_same(resize: Resize, tmp_path: Path) -> None:
    sizes = ((10, 12), (33, 47)), ((38, 19), (75, 38)), ((9, 7), (9, 7)), ((20, 31), (7, 5))
    pairs = [(drawn(*before), drawn(*after)) for before, after in sizes]
    run(Like(resize), tmp_path / "resize.onnx", *pairs)


def test_same_pooling_exports_and_computes_the_same(tmp_path: Path) -> None:
    run(Pool(), tmp_path / "pool.onnx", (drawn(150, 75),), (drawn(33, 64),))


def test_means_of_tiles_export_and_compute_the_same_though_a_map_is_smaller_than_a_tile(tmp_path: Path) -> None:
    run(
        Tiles(),
        tmp_path / "tiles.onnx",
        (drawn(31, 47),),
        (drawn(7, 14),),
        (drawn(3, 20),),
        (drawn(16, 5),),
        (drawn(1, 1),),
    )


def test_means_of_tiles_are_those_of_whole_tiles() -> None:
    x = drawn(16, 22)
    assert torch.equal(mean_of_tiles(x, 7), torch.nn.functional.avg_pool2d(x, 7))
    assert torch.equal(mean_of_tiles(x[..., :3, :], 7), torch.nn.functional.avg_pool2d(x[..., :3, :], (3, 7)))


def test_a_resize_to_the_same_size_is_the_identity() -> None:
    x = drawn(9, 11)
    for resize in (resize_legacy, resize_legacy_nearest, resize_aligned_nearest):
        assert torch.equal(resize(x, x.shape[-2:]), x)
