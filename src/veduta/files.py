"""Writing files: all of one or nothing, and never over another."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to be filled; at the end it is synced to disk and renamed, after an error gone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # some writers make files that nobody else can read
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # such as a full disk
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to be filled; at the end it gets its name, after an error it is gone."""
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = path.absolute().with_name(f".{path.absolute().name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Returns when the names in a folder are on disk: files made in it, renamed or removed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_new_folder(path: Path) -> None:
    """Raises FileExistsError, NotADirectoryError or PermissionError where the folder `path` could not be made new."""
    if path.exists():
        raise FileExistsError(f"--out {path} exists; nothing is overwritten. Choose another, or move this one away.")
    _check_parent(path, next(parent for parent in path.absolute().parents if parent.exists()))


def check_new_file(path: Path) -> None:
    """Raises an OSError that says why, where the file `path` could not be made new."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file is to be written there. Give a file name.")
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists; nothing is overwritten. Choose another name, or move it away.")
    _check_parent(path, path.absolute().parent)


def check_new_files(targets: Mapping[str, Path | None]) -> None:
    """The same of files by the options that name them, where they do; ValueError where two are the same file."""
    given = {option: path for option, path in targets.items() if path is not None}
    for option, path in given.items():
        check_new_file(path)
        same = [other for other, that in given.items() if other < option and that.absolute() == path.absolute()]
        if same:
            raise ValueError(f"{same[0]} {path}: the same file as {option}. Choose another.")


def _check_parent(path: Path, parent: Path) -> None:
    if not parent.is_dir():
        raise NotADirectoryError(
            f"{path} cannot be written: {parent} is no folder. Make it first, or choose another place."
        )
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission to write into {parent}.")
