"""Plain tar files: members found by their headers within bounds, and members written the same bytes every time.

Nothing is ever extracted by its name; names that would lead out of a folder are refused all the same, since others
unpack these files.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from veduta.data.stored import MAX_BYTES

BLOCK = 512  # bytes; headers are one block, data is filled up to whole ones
LONGEST_NAME = 100  # bytes, in the part of a header that every program reads

_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_MOST_PAX = 1 << 16  # bytes of an extended header
_HARMLESS = ("atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment")
_HARMLESS_PREFIXES = ("LIBARCHIVE.", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags", "SCHILY.xattr.")
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"L": f"a name of more than {LONGEST_NAME} bytes",
    b"K": f"a name of more than {LONGEST_NAME} bytes",
}


class Member(NamedTuple):
    """A file inside of a tar: its bytes lie at `offset`, and its header is the block before."""

    name: str
    offset: int
    size: int


def members(path: Path, *, name: Path | None = None) -> Iterator[Member]:
    """The files of a tar in their order; folders are left out. Only headers are read. name: of it in messages.

    Raises ValueError for what is no plain tar: compressed, cut off, links, devices, sparse files, long names, names
    that are absolute or hold `..`, sizes beyond the file or MAX_BYTES.
    """
    with path.open("rb", buffering=0) as file:
        end, position, extended = file.seek(0, 2), 0, False
        while position < end:
            where = f"{name or path}, byte {position:,}"
            file.seek(position)
            header = file.read(BLOCK)
            if not any(header) and not extended:
                return  # zeros mark the end
            member = read_header(header, position + BLOCK, where)
            where, kind = f"{where}, '{member.name}'", header[156:157]
            position = member.offset - (-member.size // BLOCK) * BLOCK
            if member.size > MAX_BYTES:
                raise ValueError(f"{where}: {member.size:,} bytes, the limit is {MAX_BYTES:,}.")
            if member.offset + member.size > end:
                raise ValueError(f"{where}: {member.size:,} bytes, but the file ends before. Cut off? Copy it again.")
            extended = kind in (b"x", b"g")
            if extended:
                _check_pax(file, member.size, where)
            elif kind in (b"0", b"\0"):
                _check_name(member.name, where)
                yield member
            elif kind != b"5":
                found = _REFUSED.get(kind, f"of type {kind!r}")
                raise ValueError(f"{where} is {found}; plain files are expected. Make it anew: tar --format=ustar")
        if extended:
            raise ValueError(f"{name or path}: ends behind an extended header. Cut off? Copy it again.")


def read_header(header: bytes, offset: int, where: str) -> Member:
    """A header block -> the member whose data begins at `offset`. Raises ValueError where the block is no header."""
    try:
        if len(header) < BLOCK or _number(header[148:156]) != _checksum(header):
            raise ValueError
        size = _number(header[124:136])
        name = header[:LONGEST_NAME].split(b"\0")[0].decode()
        prefix = header[345:500].split(b"\0")[0].decode() if header[257:263] == b"ustar\0" else ""
    except ValueError:
        raise ValueError(
            f"{where}: no header of a plain tar. Compressed (unpack .tar.gz to .tar first), cut off or damaged?"
        ) from None
    return Member(f"{prefix}/{name}" if prefix else name, offset, size)


def _number(field: bytes) -> int:
    """Octal digits between spaces and zeros; none are 0. Python's int also takes signs, "0o7" and "1_0"."""
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise ValueError
    return int(found[1] or b"0", 8)


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + 8 * ord(" ") + sum(header[156:BLOCK])


def _check_pax(file: BinaryIO, size: int, where: str) -> None:
    """Extended headers may say when and by whom a file was made; what changes names or sizes is refused."""
    if size > _MOST_PAX:
        raise ValueError(f"{where}: an extended header of {size:,} bytes, the limit is {_MOST_PAX:,}.")
    left = file.read(size)
    while left:
        length, _, _ = left.partition(b" ")
        if not length.isdigit() or not len(length) + 2 < int(length[:6]) <= len(left):
            raise ValueError(f"{where}: an extended header that cannot be read. Damaged file?")
        key = left[len(length) + 1 : int(length)].partition(b"=")[0].decode("latin-1")
        if key not in _HARMLESS and not key.startswith(_HARMLESS_PREFIXES):
            raise ValueError(
                f"{where}: an extended header with '{key[:40]}', as long or foreign names and sparse files have. Make "
                f"it anew with names of ASCII up to {LONGEST_NAME} bytes: tar --format=ustar"
            )
        left = left[int(length) :]


def _check_name(name: str, where: str) -> None:
    path = PurePosixPath(name)
    if not name.isprintable() or path.is_absolute() or ".." in path.parts or "\\" in name or not path.name:
        raise ValueError(f"{where}: a name that leads out of the folder it is unpacked in. Do not use this file.")


class Writer:
    """Writes members one after the other; nothing in the bytes depends on when, where or by whom.

    size: bytes so far. sha256: of all of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.sha256 = file, 0, hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Write a member; returns the offset of its data."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        return offset

    def close(self) -> None:
        self._write(bytes(2 * BLOCK))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.size += len(data)
