"""The progress line on stderr: overwritten on a terminal, one line now and then in a log file."""

import sys
import time

LINE_EVERY = 10.0  # seconds between lines where stderr is no terminal


class ProgressLine:
    """Shows how far a long job is. A silent one, of a process beside the first, shows nothing."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.terminal = sys.stderr.isatty()
        self.shown = time.perf_counter()

    def update(self, text: str) -> None:
        """Show `text` until the next call."""
        now = time.perf_counter()
        if self.silent:
            return
        if self.terminal and now - self.shown > 0.1:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif not self.terminal and now - self.shown > LINE_EVERY:
            print(text, file=sys.stderr, flush=True)
        else:
            return
        self.shown = now

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.silent:
            return
        print(f"\r\033[K{text}" if self.terminal else text, file=sys.stderr, flush=True)

    def count(self, what: str, done: int, total: int) -> None:
        """'what done/total', with the line cleared at the end."""
        self.update(f"{what} {done:,}/{total:,}")
        if done == total and self.terminal and not self.silent:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """75 -> '1:15', 3700 -> '1:01:40', 300,000 -> '3 d 11 h'."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 48 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
