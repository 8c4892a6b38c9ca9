"""Checkpoints of a training run: everything to go on from a step, whole or not there at all.

checkpoints/step-00000150/
    model.safetensors     a model file, which opens by itself
    training.safetensors  optimizer, moving average, random state: what else training has in tensors
    manifest.json         sizes and hashes of these two, and small values; its first line holds the hash of its others

A checkpoint is written into a hidden folder, its manifest last, synced, and renamed. So a run that is killed at any
moment leaves the former checkpoint or the new one, and a damaged one is seen when it is read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from veduta.checkpoint import load_weights, read_model, save_model, save_tensors
from veduta.config import Keep
from veduta.files import sync_folder, write_text
from veduta.model_info import MODEL, ModelInfo, step_folders

TRAINING, MANIFEST = "training.safetensors", "manifest.json"
FORMAT = 1  # of the manifest and of the files that it names
MOST_BYTES = 16 << 20  # of a manifest, which is read whole
NEWEST = 2  # so many stay: if the last is damaged, there is one more


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read and found whole. Tensors are on the CPU; `values` are what JSON can hold."""

    path: Path
    step: int  # steps done
    model: dict[str, Tensor]
    info: ModelInfo
    tensors: dict[str, Tensor]
    values: dict[str, Any]


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _File:
    bytes: NonNegativeInt
    sha256: str


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class _Manifest:
    sha256: str
    format: int
    step: NonNegativeInt
    model: _File
    training: _File
    values: dict[str, Any]


T = TypeVar("T")
_ADAPTER: TypeAdapter[_Manifest] = TypeAdapter(_Manifest)


def save_checkpoint(
    folder: Path,
    *,
    model: dict[str, Tensor],
    info: ModelInfo,
    tensors: dict[str, Tensor],
    values: dict[str, Any],
    keep: Keep,
) -> Path:
    """Write the checkpoint of step `info.step` into `folder`, remove old ones; returns its own folder.

    Tensors: of any type, shape and device. values: dicts with strings as keys, lists, strings, numbers (nan and
    infinities too), bools, None; they come back equal. Raises OSError where it cannot be written, which leaves the
    older checkpoints as they were.
    """
    path = folder / f"step-{info.step:08}"
    temporary = folder / f".{path.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in (".*.tmp", ".tmp*"):  # ours, and what safetensors calls a file that it is writing
            for leftover in folder.glob(pattern):
                _delete(leftover)
        temporary.mkdir()
        save_model(temporary / MODEL, model, info)
        save_tensors(temporary / TRAINING, tensors)
        write_text(temporary / MANIFEST, _manifest(temporary, info.step, values))
        sync_folder(temporary)
        if path.exists():
            former = folder / f"{path.name}.replaced"  # still found if the run is killed before the next rename
            _remove(former)
            path.rename(former)
        temporary.rename(path)
        sync_folder(folder)
    except OSError as error:
        raise OSError(
            f"the checkpoint of step {info.step} could not be written into {folder}: {error.strerror or error}. The "
            "older checkpoints are intact. Make room there, or make it writable, and go on with --resume."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(folder, info.step, keep)
    return path


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is whole; None where a run has written none.

    `say` gets a line for each thing that was passed over: damaged checkpoints with the file that is, unfinished ones,
    strange folders. Raises ValueError where there are checkpoints and none is whole: to start over is not for us to
    decide.
    """
    known = [path for _, path in step_folders(folder)]
    for path in sorted(folder.glob("*/")):
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            say(f"{path}: skipped, its run was killed while writing or removing it. The next save deletes it.")
        elif path not in known:
            say(f"{path}: skipped, not the folder of a checkpoint.")
    for path in known:
        try:
            return read_checkpoint(path)
        except ValueError as error:
            say(f"skipped: {error}")
    if known:
        raise ValueError(
            f"{folder}: none of its {len(known)} checkpoints is whole. Put a copy of one back, or start the run anew "
            "in another folder."
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one folder step-*. Raises ValueError that names the file which is damaged or missing."""
    manifest = _read_manifest(path / MANIFEST)
    if path.name.removesuffix(".replaced") != f"step-{manifest.step:08}":
        raise ValueError(f"{path / MANIFEST}: is of step {manifest.step}. Give its folder the right name again.")
    _check(path / MODEL, manifest.model)
    _check(path / TRAINING, manifest.training)
    weights, info = read_model(path / MODEL)
    tensors, _ = load_weights(path / TRAINING)
    return Checkpoint(
        path=path,
        step=manifest.step,
        model=_in_memory(weights),
        info=info,
        tensors=_in_memory(tensors),
        values=manifest.values,
    )


def _in_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies: what safetensors gives is the file itself, unaligned, which may change or go while training goes on."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _manifest(folder: Path, step: int, values: dict[str, Any]) -> str:
    entries = {
        "format": FORMAT,
        "step": step,
        "model": {"bytes": (folder / MODEL).stat().st_size, "sha256": _hash(folder / MODEL)},
        "training": {"bytes": (folder / TRAINING).stat().st_size, "sha256": _hash(folder / TRAINING)},
        "values": values,
    }
    signed = _sign(",\n".join(f'"{name}": {json.dumps(value)}' for name, value in entries.items()) + "\n}\n")
    assert len(signed) <= MOST_BYTES, "large values belong into tensors"
    return signed


def _sign(entries: str) -> str:
    """The entries of a JSON object, from the second on, with a first one that is their hash: no byte can change."""
    return f'{{"sha256": "{hashlib.sha256(entries.encode("latin-1")).hexdigest()}",\n{entries}'


def _read_manifest(path: Path) -> _Manifest:
    content = _reading(path, _read_start)
    if len(content) > MOST_BYTES:
        raise _damaged(path, f"larger than {MOST_BYTES} bytes")
    text = content.decode("latin-1")  # every byte is a character, which the hash sees
    if text != _sign(text.partition("\n")[2]):
        raise _damaged(path, "its lines do not have the hash that the first one says")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON ({error})") from error
    if entries.get("format") != FORMAT:
        found = str(entries.get("format"))[:20]
        raise ValueError(f"{path}: of format {found}; this Veduta reads {FORMAT}. Use the Veduta that wrote it.")
    try:
        return _ADAPTER.validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _check(path: Path, expected: _File) -> None:
    """Raises ValueError where the file is not byte for byte what was written."""
    size = _reading(path, lambda path: path.stat().st_size)
    if size != expected.bytes:
        raise _damaged(path, f"has {size} bytes, {expected.bytes} were written")
    found = _reading(path, _hash)
    if found != expected.sha256:
        raise _damaged(path, f"hashes to {found[:12]}, {expected.sha256[:12]} was written")


def _reading(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` gives; ValueError where there is no such file, or it cannot be read."""
    try:
        if not path.is_file():
            raise _damaged(path, "not there")
        return read(path)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _hash(path: Path) -> str:
    with path.open("rb") as file:  # in small pieces: files are larger than what memory is left
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, found: str) -> ValueError:
    return ValueError(f"{path}: {found}. This checkpoint is damaged; take another one of the run.")


def _remove_old(folder: Path, newest: int, keep: Keep) -> None:
    """Only the newest ones up to step `newest` stay, and multiples; later ones are of a run that had to go back."""
    kept: list[int] = []
    for step, path in step_folders(folder):
        if step > newest:
            continue
        stays = len(kept) < NEWEST or (keep.multiples > 0 and step % keep.multiples == 0)
        if stays and step not in kept:
            kept.append(step)
        else:
            _remove(path)


def _remove(path: Path) -> None:
    """Rename, then delete, so that no half of it looks like a checkpoint. What cannot be removed does no harm."""
    aside = path.with_name(f".{path.name}.removed.tmp")
    with suppress(OSError):
        path.rename(aside)
        _delete(aside)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
