"""Kept counts: what an evaluation has counted so far, in a folder, so that a stopped one goes on from there.

FOLDER/
    evaluation.json  what is evaluated, how, and by how many processes: all that must be the same to go on
    share-0.npz      what process 0 has counted: the state of its metric, and the scores of its images

Each file is written beside its place and renamed, so whatever kills the evaluation, they are whole.
"""

import contextlib
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.engine.counting import Share
from veduta.errors import RunStopped
from veduta.files import replacing, write_text
from veduta.tasks.evaluation import ImageScore

EVERY = 30.0  # seconds from one writing to the next
IDENTITY, SHARES = "evaluation.json", "share-*.npz"
LEFT = ".share-*.tmp"  # by one that was killed while it wrote
METRIC, REST = "metric.", "rest"  # arrays of a share: those of its metric, and JSON of all else

Identity = Mapping[str, Any]  # values are what JSON can hold


def open_folder(folder: Path, identity: Identity) -> None:
    """Make the folder, or check that it holds counts of the same evaluation. Raises ValueError or OSError."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--resume {folder} is a file; a folder is to be kept there. Choose another name.")
    file, wanted = folder / IDENTITY, json.loads(json.dumps(identity))
    if file.is_file():
        kept = _read_identity(file)
        differing = [name for name in {**kept, **wanted} if kept.get(name) != wanted.get(name)]
        if differing:
            changes = "; ".join(f"{name}: {_brief(kept.get(name))} -> {_brief(wanted.get(name))}" for name in differing)
            raise ValueError(
                f"--resume {folder} holds the counts of another evaluation ({changes}). Give the command that it was "
                "made with, or choose another folder."
            )
        _remove(folder.glob(LEFT))
        return
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(
            f"--resume {folder}: no folder of counts, it has files and no {IDENTITY}. Choose a new or an empty one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(wanted, indent=1) + "\n")


def remove_folder(folder: Path) -> None:
    """When everything is counted and written. Files that are not ours stay, and so does a folder that has some."""
    for part in sorted(folder.glob(f"*/{IDENTITY}")):
        remove_folder(part.parent)
    _remove([*folder.glob(SHARES), *folder.glob(LEFT), folder / IDENTITY])
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def kept_in(folder: Path, rank: int, share: Share) -> Iterator[Callable[[], None]]:
    """What was kept of a share that has counted nothing is brought into it; it is written when the block ends or stops.

    Gives what to call now and then inside: every EVERY seconds it writes, too. Raises ValueError where the file is
    damaged, RunStopped where it cannot be written.
    """
    path, written = folder / f"share-{rank}.npz", time.monotonic()
    if path.is_file():
        _restore(path, share)

    def keep() -> None:
        nonlocal written
        if time.monotonic() - written >= EVERY:
            _write(path, share)
            written = time.monotonic()

    try:
        yield keep
    except RunStopped:
        _write(path, share)
        raise
    _write(path, share)


def _restore(path: Path, share: Share) -> None:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
        rest = json.loads(arrays.pop(REST).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: damaged ({error}). Remove {path.parent}; the evaluation then starts anew."
        ) from error
    share.metric.restore({name.removeprefix(METRIC): array for name, array in arrays.items()})
    share.images = [ImageScore(name=name, scores=scores) for name, scores in rest["images"]]
    share.failed = [(index, why) for index, why in rest["failed"]]
    share.order, share.position, share.seconds = rest["order"], rest["position"], rest["seconds"]


def _write(path: Path, share: Share) -> None:
    """What was counted up to the share's position."""
    rest = {
        "images": [(image.name, dict(image.scores)) for image in share.images],
        "order": share.order,
        "failed": [(index, why) for index, why in share.failed if index < share.position],  # the others were read
        "position": share.position,  # ahead, and will be again
        "seconds": share.seconds,
    }
    arrays = {f"{METRIC}{name}": array for name, array in share.metric.state().items()}
    arrays[REST] = np.frombuffer(json.dumps(rest).encode(), np.uint8)
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no name is that of an option
    except OSError as error:
        raise RunStopped(
            f"what was counted could not be kept in {path.parent}: {error.strerror or error}. Make room there, or make "
            "it writable; the same command goes on from what was kept before."
        ) from error


def _read_identity(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}). Remove its folder; the evaluation then starts anew.") from error
    return kept if isinstance(kept, dict) else {}


def _brief(value: Any) -> str:
    """A value in words; a hash by its first digits."""
    text = "nothing" if value is None else str(value)
    return text[:12] if len(text) == 64 and " " not in text else text
