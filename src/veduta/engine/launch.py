"""Several processes on this machine that work together, each told who it is as torchrun tells it.

One that fails takes the others with it; with `--resume` the work goes on from what was saved. The processes stand in
process groups of their own, so that a Ctrl-C, which a terminal sends to the whole group in the foreground, reaches this
one alone and from here each of them once.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of a process that saved and ended when told to
MISUSED = 2  # exit code of one that has said which mistake its user made
GRACE = 30.0  # seconds that the others have to end by themselves when one has failed
SAVING = 600.0  # the same when one was told to stop and did: rank 0 may still be writing a checkpoint
POLL = 0.05  # seconds

_PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when the one that started it dies


def launch(command: Sequence[str], processes: int) -> int:
    """Run `command` in so many processes, each with RANK, WORLD_SIZE and so on in its environment; their exit code.

    That is 0 where all ended well, 130 or 143 where SIGINT or SIGTERM, which are passed on, stopped them, else that of
    the first that failed, and 1 where it was killed. A second SIGINT kills them all at once. On Linux they die with
    this process however it ends; elsewhere they outlive it if it is killed with SIGKILL.

    Raises OSError where the command cannot be started.
    """
    started: list[subprocess.Popen[bytes]] = []
    with _free_port() as port, _noted_signals() as told:
        try:
            for rank in range(processes):
                started.append(_start(command, _environment(rank, processes, port)))
            return _wait(started, told)
        finally:
            _kill(started)


def _wait(started: Sequence[subprocess.Popen[bytes]], told: Sequence[int]) -> int:
    """Until all have ended, or have had their time to."""
    codes: dict[int, int] = {}  # by rank, in the order in which they ended
    failed: int | None = None
    passed_on, deadline = False, float("inf")
    while len(codes) < len(started) and time.monotonic() < deadline:
        if signal.SIGINT in told[1:]:
            return 128 + signal.SIGINT
        if told and not passed_on:
            _tell(started, told[0])
            passed_on = True
        for rank, process in enumerate(started):
            code = process.poll()
            if code is None or rank in codes:
                continue
            _kill_group(process)  # its own workers, where it could not end them
            codes[rank] = 128 - code if -code in told else code  # told before it could listen
            if code != 0:  # rank 0 has more to write in the end than the others, and all the time for it
                deadline = min(deadline, time.monotonic() + (SAVING if code in STOPPED else GRACE))
            if failed is None and codes[rank] not in (0, *STOPPED):
                failed = code if code > 0 else 1
                if code != MISUSED:
                    _say(f"rank {rank} {_end(code)}")
                _tell(started, signal.SIGTERM)
        time.sleep(POLL)
    late = [str(rank) for rank in range(len(started)) if rank not in codes]
    if late:
        _say(f"rank {', '.join(late)} did not end when told to, and is killed.")
        return failed or 1
    return failed or max(codes.values())


def _end(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}, and the other processes are stopped. What it said is above."
    name = signal.Signals(-code).name
    why = ", as systems do when their memory is full" if code == -signal.SIGKILL else ""
    return (
        f"was killed by signal {-code} ({name}){why}, and the other processes are stopped. What was saved before is "
        "intact, and --resume goes on from there."
    )


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return {
        "OMP_NUM_THREADS": str(max(cores // processes, 1)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """In a process group of its own, without the terminal's input, which only a group in the foreground may read."""
    launcher = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def die_with_the_launcher() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() != launcher:  # it died before the kernel was asked
                os._exit(1)

    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=die_with_the_launcher,  # safe: no threads run here
    )


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    """A port that the system gives to nobody else meanwhile: bound, but not listened on, so rank 0 can listen there."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """The SIGINTs and SIGTERMs that come, in their order."""
    told: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(started: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in started:
        process.send_signal(number)  # nothing, where it has ended


def _kill(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.poll() is None:
            _kill_group(process)
            process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
