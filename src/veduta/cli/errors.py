"""How commands end: exit codes, and a user's mistake as one message."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import typer

from veduta.errors import BadPrediction, RunStopped, Unreadable

FAILED, MISUSED, INTERRUPTED, TOLD_TO_END = 1, 2, 130, 143

EXTRAS = {  # packages that an install may be without, by the names that are imported -> for people, the extra it is in
    "torch": ("PyTorch", "train"),
    "safetensors": ("safetensors", "train"),
    "matplotlib": ("Matplotlib", "train"),
    "onnx": ("ONNX", "train"),
    "onnxscript": ("ONNX Script", "train"),
    "onnxruntime": ("ONNX Runtime", "runtime"),
    "openvino": ("OpenVINO", "openvino"),
}


class _ToldToEnd(KeyboardInterrupt):
    """SIGTERM, which would else leave temporary files."""


@contextlib.contextmanager
def ends_clean() -> Iterator[None]:
    """Inside, SIGTERM ends the work as Ctrl-C does: what was begun is taken away."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _ToldToEnd

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        words, extra = EXTRAS[package]
        stop(f"this needs {words}, which is not installed: pip install 'veduta[{extra}]'.", MISUSED)
    except RuntimeError as error:
        if "backend extension" in str(error):  # torch raises it when it is imported
            stop(f"PyTorch does not start: {error} `veduta doctor` says what is missing.", FAILED)
        if "DataLoader worker" not in str(error):
            raise
        stop(f"{error} Is the memory full? Fewer data.workers take less of it.", FAILED)  # torch raises it anywhere
    except _ToldToEnd:
        stop("told to end. Nothing is left of what was begun.", TOLD_TO_END)
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
