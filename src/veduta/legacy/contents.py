"""What every reader of checkpoints gives, and how raw bytes of a file become arrays: checked first, then viewed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.legacy.errors import CheckpointError

MOST_DIMENSIONS = 32
MOST_ELEMENTS = 1 << 40  # beyond it a shape is damage, and sizes derived from it would overflow


@dataclass
class Contents:
    """arrays: by their names in the file, in its order. skipped: name of an entry that is no array -> what it is."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, array: NDArray[Any], where: str) -> None:
        """Keep one array. Raises CheckpointError for a name that is there already."""
        if name in self.arrays:
            raise CheckpointError(f"{where}: the name '{name}' occurs twice. The file is damaged; copy it again.")
        self.arrays[name] = array


def checked_shape(dims: Sequence[int], where: str) -> tuple[int, ...]:
    """Sizes as a tuple. Raises CheckpointError for negative ones, too many of them, or more than 2^40 elements."""
    if len(dims) > MOST_DIMENSIONS:
        raise CheckpointError(f"{where}: {len(dims)} dimensions, at most {MOST_DIMENSIONS} are possible. Damaged file?")
    if any(size < 0 for size in dims) or math.prod(max(size, 1) for size in dims) > MOST_ELEMENTS:
        raise CheckpointError(f"{where}: the shape {list(dims)} cannot be. The file is damaged; copy it again.")
    return tuple(dims)


def item_size(type_name: str) -> int:
    """Bytes of one element of a numpy type or of "bfloat16"."""
    return 2 if type_name == "bfloat16" else np.dtype(type_name).itemsize


def array_of(octets: NDArray[np.uint8], type_name: str, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """Little-endian bytes in C order, (n,) uint8 -> array of a numpy type; "bfloat16" becomes float32, exactly.

    A view of `octets` where the types allow it. Raises CheckpointError where the bytes do not fill the shape.
    """
    expected = math.prod(shape) * item_size(type_name)
    if octets.size != expected:
        raise CheckpointError(
            f"{where}: {octets.size:,} bytes, but {type_name} of shape {list(shape)} takes {expected:,}. The file is "
            "damaged or was cut off; copy it again."
        )
    if type_name == "bfloat16":
        return (octets.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if type_name == "bool":
        return (octets != 0).reshape(shape)  # any other byte would be a bool that is neither true nor false
    stored = np.dtype(type_name).newbyteorder("<")
    return octets.view(stored).astype(np.dtype(type_name), copy=False).reshape(shape)
