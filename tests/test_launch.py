"""Promises of the launcher: how its processes learn who they are, how a run ends, and that nothing outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from veduta.engine.launch import launch

# A rank writes down who it is and what it is told, and ends as it is told by the name of the test's case.
RANK = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

folder, case, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
told = []

def note(number, _):
    told.append(number)
    (folder / f"told-{rank}").write_text(" ".join(map(str, told)))

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, note)
child = subprocess.Popen(["sleep", "60"]).pid if case == "stubborn" else 0
(folder / f"{rank}.tmp").write_text(json.dumps(
    {"environment": dict(os.environ), "pid": os.getpid(), "group": os.getpgrp(), "child": child}
))
(folder / f"{rank}.tmp").rename(folder / f"{rank}.json")
if case == "well":
    time.sleep(0.5 * rank)
    sys.exit(0)
while len(list(folder.glob("*.json"))) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)
if rank == 1 and case in ("fails", "stubborn"):
    sys.exit(7)
if rank == 1 and case == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
while not told or case in ("stubborn", "waits"):
    time.sleep(0.01)
time.sleep(0.3)  # for what comes twice
sys.exit(128 + told[0] if case == "saves" else 1)
"""

LAUNCH = """
import sys
from veduta.engine import launch

launch.GRACE = 0.5
sys.exit(launch.launch(sys.argv[2:], int(sys.argv[1])))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a launcher, in a process group of its own as in a shell, whose ranks play a case."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    launchers = []

    def start(case: str, processes: int = 2, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", LAUNCH, str(processes), sys.executable, str(script), str(tmp_path), case]
        launchers.append(
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, process_group=0, env={**os.environ, **environment}
            )
        )
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.kill()
        launcher.wait()
        assert launcher.stderr is not None
        launcher.stderr.close()


def ranks_of(folder: Path, processes: int = 2) -> list[dict[str, Any]]:
    """What the ranks wrote down, once all of them have."""
    until(lambda: len(list(folder.glob("*.json"))) == processes)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "nothing came of it in a minute"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"  # a dead one that nobody has asked about yet


def end_of(launcher: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = launcher.communicate(timeout=60)
    return launcher.returncode, errors


def test_every_process_learns_who_it_is_and_those_that_end_well_end_the_launcher_well(
    start: Start, tmp_path: Path
) -> None:
    assert end_of(start("well", 3, OMP_NUM_THREADS="5")) == (0, "")
    found = [rank["environment"] for rank in ranks_of(tmp_path, 3)]
    for rank, environment in enumerate(found):
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (environment["WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]) == ("3", "3")
        assert environment["MASTER_ADDR"] == "127.0.0.1"
        assert environment["OMP_NUM_THREADS"] == "5"
    assert len({environment["MASTER_PORT"] for environment in found}) == 1
    assert not list(tmp_path.glob("told-*"))  # the first to end well stopped nobody


def test_the_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write = f"import os; open('{tmp_path}/' + os.environ['RANK'], 'w').write(os.environ['OMP_NUM_THREADS'])"
    assert launch([sys.executable, "-c", write], 2) == 0
    share = max((len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1) // 2, 1)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == [str(share)] * 2


def test_one_that_fails_stops_the_others_and_gives_its_code(start: Start, tmp_path: Path) -> None:
    code, errors = end_of(start("fails", 3))
    assert code == 7
    assert "rank 1 ended with exit code 7" in errors and errors.count("\n") == 1
    assert {path.name: path.read_text() for path in tmp_path.glob("told-*")} == {"told-0": "15", "told-2": "15"}


def test_one_that_is_killed_is_named_with_the_signal(start: Start) -> None:
    code, errors = end_of(start("killed"))
    assert code == 1
    assert "rank 1 was killed by signal 9 (SIGKILL)" in errors and "--resume" in errors


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_that_does_not_stop_is_killed_with_its_own_workers(start: Start, tmp_path: Path) -> None:
    code, errors = end_of(start("stubborn"))
    ranks = ranks_of(tmp_path)
    assert code == 7 and "rank 0 did not end when told to" in errors
    until(lambda: not any(lives(rank["pid"]) or lives(rank["child"]) for rank in ranks))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_every_process_once_and_they_end_in_peace(
    start: Start, tmp_path: Path, number: int, code: int
) -> None:
    """Sent to the launcher's whole group, as a terminal sends Ctrl-C."""
    launcher = start("saves")
    assert all(rank["group"] == rank["pid"] for rank in ranks_of(tmp_path))
    os.killpg(launcher.pid, number)
    assert end_of(launcher) == (code, "")
    assert [(tmp_path / f"told-{rank}").read_text() for rank in range(2)] == [str(int(number))] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_second_ctrl_c_kills_at_once(start: Start, tmp_path: Path) -> None:
    launcher = start("waits")
    ranks = ranks_of(tmp_path)
    launcher.send_signal(signal.SIGINT)
    until(lambda: len(list(tmp_path.glob("told-*"))) == 2)
    assert all(lives(rank["pid"]) for rank in ranks)
    launcher.send_signal(signal.SIGINT)
    assert end_of(launcher)[0] == 130
    assert not any(lives(rank["pid"]) for rank in ranks)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_launcher_that_is_killed_takes_its_processes_with_it(start: Start, tmp_path: Path) -> None:
    launcher = start("waits")
    ranks = ranks_of(tmp_path)
    launcher.kill()
    until(lambda: not any(lives(rank["pid"]) for rank in ranks))


def test_a_command_that_is_not_there_is_an_oserror() -> None:
    with pytest.raises(OSError, match="no-such-command"):
        launch(["no-such-command"], 2)


TRAINS = """
import os, signal, sys, torch
from veduta import ranks

signal.signal(signal.SIGTERM, lambda number, frame: None)  # a run notes it and would save at its next step
try:
    with ranks.joined("cpu"):
        for step in range(1000):
            total = ranks.sum_over_ranks(torch.ones(1))
            assert total == 2
            if step == 20 and ranks.rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
except ranks.LostRank as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


def test_a_rank_that_loses_another_says_so_and_the_launcher_names_the_cause() -> None:
    command = [sys.executable, "-c", LAUNCH.replace("0.5", "30"), "2", sys.executable, "-c", TRAINS]
    started = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "rank 1 was killed by signal 9" in result.stderr
    assert "rank 0 of 2 lost another process" in result.stderr
    assert "Traceback" not in result.stderr
    assert time.monotonic() - started < 100  # and not after torch's own half hour
