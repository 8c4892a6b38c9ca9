"""Archives that test servers take: written the same bytes every time, and read back within bounds.

Nothing is extracted by its name: who reads an archive says where each entry goes.
"""

import contextlib
import gzip
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Literal, cast

from veduta.data.layouts import tar

Ending = Literal[".tgz", ".zip"]
Entry = tuple[str, IO[bytes], int]  # its name, a file that stands at its first byte, and its size

MOST_BYTES = 8 << 30  # of all entries together, unpacked: far beyond any split of a published data set

PIECE = 1 << 20  # bytes that are unpacked at a time

# What the readers of the standard library raise for damaged files, and for encrypted ones a RuntimeError.
_DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


@contextlib.contextmanager
def writing(path: Path, ending: Ending) -> Iterator[Callable[[str, bytes], object]]:
    """A function that adds an entry (name, bytes); neither time nor owner nor file name go into the archive."""
    if ending == ".tgz":
        with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            writer = tar.Writer(cast(BinaryIO, packed))
            yield writer.add
            writer.close()
    else:
        with zipfile.ZipFile(path, "w") as archive:  # stored: PNG is compressed already

            def add(name: str, data: bytes) -> None:
                entry = zipfile.ZipInfo(name)  # of 1980, the first year that a zip can tell
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data)

            yield add


def entry_names(path: Path) -> list[str]:
    """The names of the files in a .tgz, .tar or .zip, in order. Raises ValueError where it cannot be read."""
    return [name for name, _, _ in _entries(path)]


def unpack(path: Path, place: Callable[[str], Path | None]) -> None:
    """Write each entry to the path that `place` gives for its name. Raises ValueError where it cannot be read."""
    for name, file, size in _entries(path):
        if target := place(name):
            with target.open("xb") as out:
                for start in range(0, size, PIECE):
                    out.write(file.read(min(PIECE, size - start)))


def _entries(path: Path) -> Iterator[Entry]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a package: a .tgz or a .zip.")
    try:
        yield from _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a readable .tgz or .zip ({error}). Pack or copy it again.") from error


def _zipped(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _refuse_flood(path, sum(entry.file_size for entry in entries))
        for entry in entries:
            with archive.open(entry) as file:
                yield entry.filename, file, entry.file_size


def _tarred(path: Path) -> Iterator[Entry]:
    with tempfile.TemporaryDirectory() as folder:
        plain = _unpacked(path, Path(folder) / "plain.tar")
        with plain.open("rb") as file:
            for member in tar.members(plain, name=path):
                file.seek(member.offset)
                yield member.name.removeprefix("./"), file, member.size


def _unpacked(path: Path, target: Path) -> Path:
    """Where the tar lies without compression: the file itself, or `target`."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    with gzip.open(path) as packed, target.open("wb") as out:
        while part := packed.read(PIECE):
            _refuse_flood(path, out.tell() + len(part))
            out.write(part)
    return target


def _refuse_flood(path: Path, total: int) -> None:
    if total > MOST_BYTES:
        raise ValueError(f"{path}: holds more than {MOST_BYTES >> 30} GiB. Is it the right file?")
