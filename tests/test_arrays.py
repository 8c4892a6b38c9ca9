"""Promises of the operations on arrays: what NumPy's arrays give is what PyTorch's tensors give."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from veduta.ops import arrays
from veduta.ops.arrays import Array, Grid

Floats = NDArray[np.float32]


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(scale=3, size=shape).astype(np.float32)


def tensors(x: Floats) -> list[torch.Tensor]:
    """In both layouts."""
    plain = torch.from_numpy(x.copy())
    return [plain, plain.contiguous(memory_format=torch.channels_last)]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 9, 7), (1, 21, 300, 450), (1, 4, 3, 70_000)])
@pytest.mark.parametrize("case", ["plain", "ties", "no numbers", "infinite", "half"])
def test_masks_are_equal(shape: tuple[int, ...], case: str) -> None:
    logits = drawn(*shape)
    rng = np.random.default_rng(1)
    if case == "ties":
        logits = logits.round()
    if case == "no numbers":
        logits[rng.random(shape) < 0.2] = np.nan
    if case == "infinite":
        logits[rng.random(shape) < 0.3] = np.inf
        logits[rng.random(shape) < 0.3] = -np.inf
    if case == "half":
        logits = logits.astype(np.float16)
    found = arrays.most_likely(logits)
    assert found.dtype == np.uint8
    for x in tensors(logits):
        np.testing.assert_array_equal(found, arrays.most_likely(x))


def test_of_equal_logits_the_first_is_most_likely() -> None:
    assert arrays.most_likely(np.zeros((1, 200, 2, 2), np.float32)).tolist() == [[[0, 0], [0, 0]]]
    logits = np.arange(254, dtype=np.float32).reshape(1, 254, 1, 1)
    assert arrays.most_likely(logits).tolist() == [[[253]]]
    assert arrays.most_likely(-logits).tolist() == [[[0]]]


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "softmax": arrays.softmax,
    "largest share": arrays.largest_share,
    "float32": arrays.float32,
    "mirrored": arrays.mirrored,
    "exp": lambda x: arrays.exp_(arrays.copied(x)),
    "log": lambda x: arrays.log_(abs(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("zeros", [False, True])
def test_numbers_are_the_same(name: str, zeros: bool) -> None:
    logits = drawn(2, 6, 13, 11)
    if zeros:
        logits[0] = 0
    found = FUNCTIONS[name](logits)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    for x in tensors(logits):
        expected = arrays.numpy(FUNCTIONS[name](x))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_share_of_what_is_no_number_is_0() -> None:
    logits = drawn(1, 3, 2, 2)
    logits[0, 1, 0, 0], logits[0, 2, 1, 1] = np.nan, np.inf
    found = arrays.largest_share(logits)
    assert found[0, 0, 0] == found[0, 1, 1] == 0
    np.testing.assert_allclose(found, arrays.largest_share(torch.from_numpy(logits)), rtol=1e-6)


@pytest.mark.parametrize("grid", ["aligned", "centred", "legacy"])
@pytest.mark.parametrize(
    ("before", "after"),
    [((9, 13), (33, 65)), ((33, 65), (9, 13)), ((7, 5), (7, 5)), ((1, 1), (4, 3)), ((5, 8), (1, 1)), ((1, 9), (3, 4))],
)
def test_interpolation_is_that_of_tensors(grid: Grid, before: tuple[int, int], after: tuple[int, int]) -> None:
    x = drawn(2, 3, *before)
    found = arrays.interpolate(x, after, grid)
    assert found.dtype == np.float32 and found.shape == (2, 3, *after)
    for of in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        expected = arrays.interpolate(torch.from_numpy(of).double(), after, grid)  # float32 rounds places of its own
        np.testing.assert_allclose(arrays.interpolate(of, after, grid), expected, atol=1e-4)
    if grid == "aligned":  # the only one by which images are shown
        np.testing.assert_allclose(found, arrays.interpolate(torch.from_numpy(x), after, grid), atol=3e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda x: tensors(x)[1]])
def test_what_is_made_is_of_the_same_kind(kind: Callable[[Floats], Any]) -> None:
    x = kind(drawn(2, 3, 4, 5))
    zeros = arrays.zeros_like(x, 6, 7)
    assert type(zeros) is type(x) and tuple(zeros.shape) == (1, 3, 6, 7) and not zeros.any()
    weights = arrays.like(np.full((4, 5), 0.5, np.float32), x)
    assert type(weights) is type(x)
    part = zeros[..., :4, :5]
    arrays.add_weighted_(part, x[:1], weights)
    np.testing.assert_array_equal(arrays.numpy(zeros)[..., :4, :5], arrays.numpy(x)[:1] / 2)
    copy = arrays.copied(part)
    zeros[...] = 0
    assert copy.any() and not part.any()
