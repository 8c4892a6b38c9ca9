"""class_scores.npy: the scores of all classes of many images, a row for each, written one by one."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from veduta.errors import BadPrediction
from veduta.files import replacing

CLASS_SCORES = "class_scores.npy"
TYPE = np.dtype("<f4")


class ScoreRows:
    """Writes rows (num_classes,) float32 into a .npy that begins with the first and is there when all are written."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.file: BinaryIO | None = None
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def add(self, row: NDArray[np.float32]) -> None:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.stack.enter_context(replacing(self.path))
            self.file = self.stack.enter_context(temporary.open("wb"))
            _write_header(self.file, (0, len(row)))
            self.num_classes = len(row)
        self.file.write(row.astype(TYPE).tobytes())
        self.count += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.file is not None and error is None:
            self.file.seek(0)
            _write_header(self.file, (self.count, self.num_classes))  # as long as the first: numpy leaves room for it
        self.stack.__exit__(kind, error, trace)


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": TYPE.str, "fortran_order": False, "shape": shape})


def read_rows(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Rows of a .npy beside predictions.json, read when they are looked at. Raises BadPrediction for another shape."""
    try:
        rows: NDArray[np.float32] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise BadPrediction(f"{path} not found. It was written beside predictions.json; copy it again.") from None
    except (ValueError, OSError, EOFError) as error:
        raise BadPrediction(f"{path}: not a readable .npy file ({error}). Copy it again.") from error
    if rows.shape != shape or rows.dtype != TYPE:
        raise BadPrediction(
            f"{path}: {rows.dtype} of shape {rows.shape}; predictions.json beside it wants float32 of {shape}. Copy "
            "both again."
        )
    return rows
