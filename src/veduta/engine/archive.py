"""Archives that test servers take: written the same bytes every time, and read back within bounds.

Nothing is extracted by its name: who reads an archive says where each entry goes.
"""

import contextlib
import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Literal, cast

from veduta.data.layouts import tar

Ending = Literal[".tgz", ".zip"]
MOST_BYTES = 8 << 30  # of all entries together, unpacked: far beyond any split of a published data set

# What the readers of the standard library raise for damaged files, and for encrypted ones a RuntimeError.
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


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
    return [name for name, _ in _entries(path)]


def unpack(path: Path, place: Callable[[str], Path | None]) -> None:
    """Write each entry to the path that `place` gives for its name. Raises ValueError where it cannot be read."""
    for name, file in _entries(path):
        if target := place(name):
            with target.open("xb") as out:
                shutil.copyfileobj(file, out)


def _entries(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a package: a .tgz or a .zip.")
    try:
        yield from _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a readable .tgz or .zip ({error}). Pack or copy it again.") from error


def _zipped(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _refuse_flood(path, sum(entry.file_size for entry in entries))
        for entry in entries:
            with archive.open(entry) as file:
                yield entry.filename, file


def _tarred(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    total = 0
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r|gz" if compressed else "r|") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isfile() or member.issparse():
                raise ValueError(f"{path}: '{member.name}' is a link, a device or a sparse file. Pack plain files.")
            total += member.size
            _refuse_flood(path, total)
            content = archive.extractfile(member)
            assert content is not None  # of a plain file
            yield member.name.removeprefix("./"), content


def _refuse_flood(path: Path, total: int) -> None:
    if total > MOST_BYTES:
        raise ValueError(f"{path}: holds more than {MOST_BYTES >> 30} GiB. Is it the right file?")
