"""SBD's layout, in MATLAB files of level 5 as its authors wrote them: compressed, with a cell and a sparse matrix."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import PICTURES, Picture

INT8, UINT8, INT32, UINT32, DOUBLE, MATRIX, COMPRESSED = 1, 2, 5, 6, 9, 14, 15
CELL, STRUCT, SPARSE = 1, 2, 5
NUMBERS = {"u1": (9, UINT8), "f8": (6, DOUBLE)}  # numpy's name -> class of the matrix, type of its numbers


def write(root: Path) -> Path:
    dataset = root / "benchmark_RELEASE" / "dataset"
    for part in ("img", "cls", "inst"):
        (dataset / part).mkdir(parents=True)
    for split, pictures in PICTURES.items():
        (dataset / f"{split}.txt").write_text("\n".join(picture.name for picture in pictures))
        for picture in pictures:
            (dataset / f"img/{picture.name}.jpg").write_bytes(picture.jpeg)
            (dataset / f"cls/{picture.name}.mat").write_bytes(class_file(picture))
            (dataset / f"inst/{picture.name}.mat").write_bytes(instance_file(picture))
    return root


def class_file(picture: Picture, *, order: str = "<", compressed: bool = True) -> bytes:
    boundaries = _matrix(CELL, (1, 1), _sparse(order), order=order)
    present = numbers(np.unique(picture.mask[picture.mask > 0]).astype("f8")[:, None], order)
    fields = {"Boundaries": boundaries, "Segmentation": numbers(picture.mask, order), "CategoriesPresent": present}
    return mat_file("GTcls", fields, order=order, compressed=compressed)


def instance_file(picture: Picture) -> bytes:
    instances = np.zeros(picture.size, np.uint8)
    for number, thing in enumerate(picture.things, start=1):
        instances[thing.top : thing.bottom, thing.left : thing.right] = number
    categories = np.array([[thing.train_id] for thing in picture.things], "f8").reshape(-1, 1)
    return mat_file("GTinst", {"Segmentation": numbers(instances), "Categories": numbers(categories)})


def mat_file(name: str, fields: dict[str, bytes], *, order: str = "<", compressed: bool = True) -> bytes:
    """A file that holds one struct of these matrices."""
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    content = _element(INT32, struct.pack(f"{order}i", 32), order) + _element(INT8, names, order)
    variable = _matrix(STRUCT, (1, 1), content + b"".join(fields.values()), name=name, order=order)
    if compressed:
        packed = zlib.compress(variable)
        variable = struct.pack(f"{order}II", COMPRESSED, len(packed)) + packed
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100)
    return header + (b"IM" if order == "<" else b"MI") + variable


def numbers(values: NDArray[np.uint8] | NDArray[np.float64], order: str = "<") -> bytes:
    kind, number = NUMBERS[values.dtype.str[1:]]
    data = values.astype(f"{order}{values.dtype.str[1:]}").tobytes(order="F")
    return _matrix(kind, values.shape, _element(number, data, order), order=order)


def _sparse(order: str) -> bytes:
    one = _element(INT32, struct.pack(f"{order}i", 0), order)
    return _matrix(SPARSE, (9, 9), one + one + _element(DOUBLE, struct.pack(f"{order}d", 1), order), order=order)


def _matrix(kind: int, shape: tuple[int, ...], content: bytes, *, name: str = "", order: str) -> bytes:
    head = _element(UINT32, struct.pack(f"{order}II", kind, 0), order)
    head += _element(INT32, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return _element(MATRIX, head + _element(INT8, name.encode(), order) + content, order)


def _element(kind: int, data: bytes, order: str) -> bytes:
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")
