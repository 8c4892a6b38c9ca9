"""Stored: encoded bytes as they lie on disk, a whole file or a part of one."""

from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 1 << 30  # of one encoded image or annotation; beyond that a file is refused before it is read


@dataclass(frozen=True)
class Stored:
    """A file, or `size` bytes of one from `offset` on: a member of a tar, a feature of a record. `part` names it."""

    path: Path
    offset: int = 0
    size: int | None = None  # None: up to the end of the file
    part: str = ""

    def read(self) -> bytes:
        """The bytes. Raises FileNotFoundError, and ValueError for more than `MAX_BYTES` or a file that ends before."""
        try:
            with self.path.open("rb") as file:
                length = file.seek(0, 2) - self.offset if self.size is None else self.size
                if length > MAX_BYTES:
                    raise ValueError(f"{self}: {length:,} bytes, the limit is {MAX_BYTES:,}. Is it the right file?")
                file.seek(self.offset)
                data = file.read(length)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path} not found.") from None
        if len(data) < length:
            raise ValueError(f"{self}: the file ends {length - len(data):,} bytes early. Cut off? Copy it again.")
        return data

    def __str__(self) -> str:
        return f"{self.path}, {self.part}" if self.part else str(self.path)
