"""Runs the command line as its users do: a process of its own, watched for sockets and for writes elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

# Refuses every socket and every file opened for writing outside of the folder that the first argument names.
GUARD = """
import os, sys
allowed = os.path.realpath(sys.argv.pop(1))
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        raise SystemExit(f"GUARD: {event} {arguments}")
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and isinstance(path, str) and not os.path.realpath(path).startswith((allowed, "/dev/")):
            raise SystemExit(f"GUARD: opens {path} for writing")
sys.addaudithook(watch)
from veduta.cli import app
app()
"""


def veduta(*arguments: str | Path, guard: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line; with `guard`, any socket or any write outside of that folder ends it."""
    start = [sys.executable, "-m", "veduta.cli"] if guard is None else [sys.executable, "-c", GUARD, str(guard)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if guard is not None:
        environment["TMPDIR"] = str(guard)  # importing torch's optimizers tries the system's temporary folder out
    command = [*start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def expect_mistake(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2, one error on stderr that holds all `words`, no traceback."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    for word in words:
        assert word in result.stderr
