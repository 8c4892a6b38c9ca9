"""The memory of the check: what was found in a file, for as long as the file does not change."""

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import cv2
import PIL

from veduta import __version__

VERSION = f"2 {__version__} {PIL.__version__} {cv2.__version__}"  # another reader may find other faults
KEPT_DAYS = 90
SETTLED = 2.0  # seconds after which a clock surely shows another time for another write
WRITE_EVERY = 2.0  # seconds of work that a killed check has to do again
MOST_WAITING = 1 << 17  # facts, where the database cannot be written


def cache_file() -> Path | None:
    """In the user's cache folder, never inside of a data set. None for a user who has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "veduta" / "check.sqlite"
    except RuntimeError:
        return None


def stamp(path: Path) -> str | None:
    """What changes when a file does: its size, when it was written, and when the system last touched it.

    None where there is no file, or none can have that name, and for a file so young that it could change once more
    without a trace.
    """
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    young = time.time() - max(state.st_mtime, state.st_ctime) < SETTLED
    return None if young else f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {VERSION}"


class Cache:
    """Texts by key, each valid for one stamp; threads may share it. A cache that cannot be opened remembers nothing.

    What is put is written now and then, all at once: several checks share one file, and none may hold it for long.
    """

    def __init__(self, path: Path | None) -> None:
        self.lock, self.written = threading.Lock(), time.monotonic()
        self.waiting: list[tuple[bytes, str, int, str]] = []
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.database = self._open(path or ":memory:")
        except (sqlite3.Error, OSError):
            self.database = self._open(":memory:")

    def _open(self, path: Path | str) -> sqlite3.Connection:
        database = sqlite3.connect(path, check_same_thread=False, timeout=1)
        database.execute("CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, stamp TEXT, day INTEGER, value TEXT)")
        database.execute("DELETE FROM facts WHERE day < ?", (time.time() // 86400 - KEPT_DAYS,))
        database.commit()
        return database

    def get(self, key: str, stamp: str) -> str | None:
        with self.lock, contextlib.suppress(sqlite3.Error):
            query = "SELECT value FROM facts WHERE key = ? AND stamp = ?"
            row = self.database.execute(query, (_bytes(key), stamp)).fetchone()
            return row[0] if row else None
        return None

    def put(self, key: str, stamp: str, value: str) -> None:
        with self.lock:
            self.waiting.append((_bytes(key), stamp, int(time.time() // 86400), value))
            if time.monotonic() - self.written > WRITE_EVERY:
                self._write()

    def _write(self) -> None:
        """What cannot be written now, since another check writes, waits for the next time."""
        with contextlib.suppress(sqlite3.Error):
            with self.database:
                self.database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", self.waiting)
            self.waiting.clear()
        del self.waiting[:-MOST_WAITING]
        self.written = time.monotonic()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self.database.close()


def _bytes(key: str) -> bytes:
    """File names may hold bytes that are not UTF-8."""
    return key.encode(errors="surrogateescape")
