"""PyTorch files (`.pth`, `.pt`): tensors of nested dicts under dotted names; nothing that a file brings is run."""

import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from veduta.legacy.contents import Contents, checked_shape
from veduta.legacy.errors import CheckpointError
from veduta.legacy.torch_pickle import NUMPY_TYPES, check_old_pickles, check_pickle

OLD_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # first bytes of what torch.save wrote before version 1.6
ZIP_MAGIC = b"PK\x03\x04"

WRAPPERS = ("state_dict", "model_state_dict", "model")  # entries of a top-level dict that are the model itself

_MOST_MEMBERS = 200_000
_MOST_PARTS = 200_000  # dicts, lists and tensors; a pickle can hold one list in many places, and so on
_DEEPEST = 64
_COPIES = 4  # all tensors may together be so many times as large as the file, for weights that are shared


def read_torch_file(path: Path) -> Contents:
    """All tensors of a file of `torch.save`, zip or old format; bfloat16 becomes float32, what is no tensor is ignored.

    The entry `state_dict`, `model_state_dict` or `model` of a top-level dict loses this prefix, other nesting gives
    dotted names such as `optimizer.state.0.momentum_buffer`. Raises CheckpointError for damage, for files that hold
    code, and for archives that are compressed or otherwise not as `torch.save` writes them.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC  # as PyTorch itself tells the two formats apart
    if is_archive:
        check_pickle(_checked_archive(path), path)
    else:
        check_old_pickles(path)
    contents = Contents()
    room = _COPIES * path.stat().st_size
    for name, tensor in _tensors(_load(path), str(path)):
        where = f"{path}, '{name}'"
        kind = unreadable(tensor)
        if kind is not None:
            contents.skipped[name] = kind
            continue
        _check_extent(tensor, where)
        room -= tensor.numel() * tensor.element_size()
        if room < 0:
            raise CheckpointError(
                f"{where}: the tensors are far larger than the file itself. Damaged, or made to harm."
            )
        contents.add(name, to_numpy(tensor.detach().contiguous(), where), where)
    return contents


def _checked_archive(path: Path) -> bytes:
    """The pickle of an archive. Refuses those that `torch.save` has not written, before anything in them is opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            order = [m for m in members if m.filename.count("/") == 1 and m.filename.endswith("/byteorder")]
            if any(member.file_size < 16 and archive.read(member) == b"big" for member in order):
                raise CheckpointError(f"{path}: written on a big-endian machine; not read. Save it on another one.")
            damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(
                    f"{path}: the checksum of its part '{damaged}' does not fit. The file is damaged; copy it again."
                )
            return archive.read(next(member for member in members if member.filename.endswith("/data.pkl")))
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a damaged zip archive ({error}). Copy the file again.") from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(names) > _MOST_MEMBERS:
        raise CheckpointError(f"{path}: {len(names):,} parts in the archive, at most {_MOST_MEMBERS:,} are read.")
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript archive, which is a program. Save the weights: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )
    # PyTorch finds parts whatever the case of their names: one part could be found, and copied, under many names.
    distinct = {name.lower() for name in names}
    odd = any("/data/" in name and not re.fullmatch(r"[^/]+/data/[0-9]+", name) for name in distinct)
    odd = odd or any(member.filename != member.orig_filename for member in members)
    if [name[-9:] for name in distinct if "data.pkl" in name] != ["/data.pkl"] or len(distinct) < len(names) or odd:
        shown = ", ".join(names[:5])
        raise CheckpointError(f"{path}: a zip archive, but not one of torch.save (it holds {shown or 'nothing'}).")
    _check_directory(path)
    packed = next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise CheckpointError(
            f"{path}: its part '{packed.filename}' is compressed, which torch.save never does. It may be made to fill "
            "the memory; nothing was opened."
        )
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > size or any(member.file_size != member.compress_size for member in members):
        raise CheckpointError(f"{path}: its parts claim {total:,} bytes, the file has {size:,}. Nothing was opened.")


def _check_directory(path: Path) -> None:
    """The directory of an archive must lie right at its end, where PyTorch and `zipfile` both find the same one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 98, 0))
        tail = file.read().rjust(98, b"\0")
    if tail[56:60] == b"PK\6\7":  # the form for large archives, which torch.save always writes
        length, offset, behind = *struct.unpack("<QQ", tail[40:56]), size - 98
        found = tail[:4] == b"PK\6\6" and int.from_bytes(tail[64:72], "little") == behind
    else:
        length, offset, behind, found = *struct.unpack("<II", tail[88:96]), size - 22, True
    if not found or tail[76:80] != b"PK\5\6" or tail[96:] != b"\0\0" or offset + length != behind:
        raise CheckpointError(f"{path}: a damaged zip archive (its directory is not at its end). Copy the file again.")


def _numpy_globals() -> list[Any]:
    """What PyTorch has to let through so that numbers of numpy beside the weights do not make a file unreadable."""
    scalar = np.float64(0).__reduce__()[0]
    types = {type(np.dtype(code)) for code in NUMPY_TYPES}
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *types]


def _load(path: Path) -> Any:
    try:
        # As an open file: by a path, PyTorch would choose another reader for some endings.
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_globals()):
            warnings.simplefilter("ignore")  # about types of storages that only PyTorch itself can rename
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of any type: unpickling damaged data fails in many ways
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Weights only load")]
        reason = lines[0].strip()[:300] if lines else type(error).__name__
        raise CheckpointError(
            f"{path}: PyTorch cannot read it ({reason}). The file is damaged or no file of torch.save; copy it again."
        ) from error


def _tensors(loaded: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    """Dotted names and tensors, in order."""
    if isinstance(loaded, Tensor):
        raise CheckpointError(f"{where}: one tensor without a name. Save a dict: torch.save({{'name': tensor}}, ...).")
    if not isinstance(loaded, Mapping | list | tuple):
        raise CheckpointError(f"{where}: holds a {type(loaded).__name__}, expected a dict of tensors.")
    wrapper = None
    if isinstance(loaded, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
    waiting: list[tuple[str, Any, int]] = [("", loaded, 0)]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        name, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
            continue
        if depth > _DEEPEST:
            raise CheckpointError(f"{where}: nested more than {_DEEPEST} deep at '{name[:80]}'. Damaged file?")
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        nested = [
            (_dotted(name, key, wrapper if depth == 0 else None, where), part, depth + 1)
            for key, part in parts
            if isinstance(part, Tensor | Mapping | list | tuple)
        ]
        waiting += reversed(nested)
    raise CheckpointError(f"{where}: more than {_MOST_PARTS:,} dicts, lists and tensors. Damaged, or made to harm.")


def _dotted(prefix: str, key: object, wrapper: str | None, where: str) -> str:
    if not isinstance(key, str | int):
        raise CheckpointError(f"{where}: under '{prefix}' a key is a {type(key).__name__}, expected texts or numbers.")
    if wrapper is not None and key == wrapper:
        return ""
    return f"{prefix}.{key}" if prefix else str(key)


def unreadable(tensor: Tensor) -> str | None:
    """What kind of tensor this is, where numpy has none like it."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return f"a tensor on {tensor.device.type}, {tensor.layout}, {tensor.dtype}"
    if tensor.dtype == torch.bfloat16:
        return None
    try:
        torch.empty(0, dtype=tensor.dtype).numpy()
    except (TypeError, RuntimeError):
        return f"a tensor of {tensor.dtype}"
    return None


def to_numpy(tensor: Tensor, where: str) -> NDArray[Any]:
    """A readable tensor -> array of the same type, bfloat16 -> float32. Raises CheckpointError for bad shapes."""
    checked_shape(tensor.shape, where)
    tensor = tensor.resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _check_extent(tensor: Tensor, where: str) -> None:
    """A tensor of stride 0 can claim any size; a copy of it would take that much memory."""
    if math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{where}: the shape {list(tensor.shape)} is larger than its stored values; expanded tensors are not read. "
            "Save it with .contiguous()."
        )
