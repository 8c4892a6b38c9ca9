"""How commands end: exit codes, and a user's mistake as one message."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from veduta.errors import BadPrediction, RunStopped, Unreadable

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """A user's mistake is one message on stderr and an exit code, never a traceback."""
    try:
        yield
    except RunStopped as error:
        stop(str(error), error.exit_code)
    except FloatingPointError as error:
        stop(str(error) if os.environ.get("RANK", "0") == "0" else "", FAILED)  # all ranks know it, one says it
    except (BadPrediction, Unreadable) as error:
        stop(str(error), FAILED)
    except (ValueError, OSError) as error:
        stop(str(error), MISUSED)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        stop(f"{error} Is the memory full? Fewer data.workers take less of it.", FAILED)  # torch raises it anywhere
    except KeyboardInterrupt:
        stop(
            "interrupted. Files that were finished before stay as they are; the rest of the work is lost.", INTERRUPTED
        )


def refuse_ranks(verb: str) -> None:
    """Raises ValueError where several processes were started for a verb that runs in one."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(f"`veduta {verb}` runs in one process, and several were started. Start it without torchrun.")


def stop(message: str, code: int) -> NoReturn:
    if message:
        print(f"\nerror: {message}" if sys.stderr.isatty() else f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)
