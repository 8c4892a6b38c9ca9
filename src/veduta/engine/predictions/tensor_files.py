"""Files of one tensor each: .npy, raw little-endian floats (.bin), or numbers as text (.txt)."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENDINGS = (".npy", ".bin", ".txt")

MOST_CHARACTERS = 32  # of a number as text, with what parts it from the next one

Shape = tuple[int, ...]


def read_tensor(path: Path, name: str, shapes: Sequence[Shape], *, channels_last: bool) -> NDArray[np.float32]:
    """float32 of the first of the shapes that the file may have. name: of the output, for what is said of it.

    A .npy may leave axes of length 1 out, or all of them; where it has its axes, it says by itself whether channels
    are last. Raises ValueError before anything large is read where the file cannot be of any of the shapes, and for
    numbers that are none.
    """
    values = {".npy": _read_npy, ".bin": _read_bin, ".txt": _read_txt}[path.suffix.lower()](path, shapes)
    expected = " or ".join(f"{prod(s):,} numbers, {' x '.join(map(str, s))}" for s in shapes)
    for shape in shapes:
        if values.size == prod(shape):
            break
    else:
        found = " x ".join(map(str, values.shape))
        raise ValueError(f"{path}: {values.size:,} numbers, {found}; expected of {name} {expected}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: {int((~np.isfinite(values)).sum()):,} of its numbers are not finite.")
    last = _last(shape)
    told = [tuple(n for n in axes if n != 1) for axes in (values.shape, shape, last)]
    if values.ndim > 1 and told[0] not in told[1:]:
        raise ValueError(f"{path}: its shape is {values.shape}; expected of {name} {expected}.")
    is_last = channels_last if values.ndim == 1 or told[1] == told[2] else told[0] == told[2]
    tensor: NDArray[np.float32] = np.array(values, np.float32)
    if is_last and len(shape) == 4:
        return np.ascontiguousarray(np.moveaxis(tensor.reshape(last), -1, 1))
    return tensor.reshape(shape)


def _last(shape: Shape) -> Shape:
    """The same with channels last, where a tensor (N, C, H, W) has them."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def _read_npy(path: Path, shapes: Sequence[Shape]) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error}). Copy it again.") from error
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise ValueError(f"{path}: numbers of type {values.dtype}, expected float32 or float16.")
    return values


def _read_bin(path: Path, shapes: Sequence[Shape]) -> NDArray[Any]:
    size = path.stat().st_size
    for kind in ("<f4", "<f2"):  # where both fit, numbers of the usual type are meant
        for shape in shapes:
            if size == np.dtype(kind).itemsize * prod(shape):
                return np.fromfile(path, kind)
    expected = " or ".join(f"{4 * prod(s):,} ({' x '.join(map(str, s))})" for s in shapes)
    raise ValueError(f"{path}: {size:,} bytes; expected {expected} of float32, or half as many of float16.")


def _read_txt(path: Path, shapes: Sequence[Shape]) -> NDArray[Any]:
    size, limit = path.stat().st_size, MOST_CHARACTERS * max(map(prod, shapes))
    if size > limit:
        raise ValueError(f"{path}: {size:,} bytes; {max(map(prod, shapes)):,} numbers fit into {limit:,}.")
    with path.open("rb") as file:
        text = file.read()
    try:
        return np.array(text.split(), np.float32)
    except ValueError as error:
        raise ValueError(f"{path}: not all of it are numbers with spaces between: {error}.") from error
