"""Signals: the first one lets a run save and end; a second Ctrl-C ends it at once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGINT, SIGTERM, Signals, signal
from types import FrameType

from veduta.errors import RunStopped
from veduta.ranks import LostRank

EXIT_CODES = {SIGINT: 130, SIGTERM: 143}  # 128 + the signal's number, as shells have it


@dataclass
class Caught:
    """The first signal that came, if one did."""

    signal: Signals | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.signal or SIGTERM]  # none came here where another process got it


@contextmanager
def caught_signals() -> Iterator[Caught]:
    """Inside, SIGINT and SIGTERM are only noted; a second SIGINT ends the process there and then."""
    caught = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return

    def note(number: int, _: FrameType | None) -> None:
        if caught.signal is not None and number == SIGINT:
            os._exit(EXIT_CODES[SIGINT])
        caught.signal = caught.signal or Signals(number)

    before = {number: signal(number, note) for number in EXIT_CODES}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal(number, handler)


@contextmanager
def told_to_stop(caught: Caught) -> Iterator[None]:
    """A process that was told to stop and loses another one, which was told as well, has stopped as it should."""
    try:
        yield
    except LostRank as error:
        if caught.signal is None:
            raise
        raise RunStopped("", exit_code=caught.exit_code) from error
