"""Choose: of the runtimes that open a file, the fastest installed one that says what the file's probes expect."""

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from veduta.backends.departures import broken
from veduta.backends.probes import Probe, departures, probes_path, read_probes
from veduta.backends.runtime import RUNTIMES, in_words, installed, num_threads
from veduta.data.check.cache import Cache, cache_file, stamp

if TYPE_CHECKING:
    from veduta.backends import Backend

    Open = Callable[[], Backend]

SECONDS = 0.5  # that each runtime is timed, at least one call
MOST_CALLS = 9


def choose(path: Path, openers: Mapping[str, "Open"]) -> "Backend":
    """Open a file in one of several runtimes, the preferred first, and say on stderr which and why.

    What was measured is remembered for this file, these versions and this machine. Without probes beside the file the
    first installed one is taken. Raises ValueError where none says what the probes expect, and what openers raise.
    """
    names = [name for name in openers if installed(name)]
    if len(names) < 2:
        return openers[names[0] if names else next(iter(openers))]()
    if not probes_path(path).is_file():
        _say(f"{path.name} runs in {in_words(names[0])}; {probes_path(path).name}, which would prove it, is missing.")
        return openers[names[0]]()
    with Cache(cache_file()) as cache:
        key, valid = f"runtime {path.resolve()}", _circumstances(path, names)
        remembered = cache.get(key, valid) if valid else None
        if remembered in names:
            return openers[remembered]()
        name, backend = _fastest(path, {name: openers[name] for name in names})
        if valid:
            cache.put(key, valid, name)
    return backend


def _fastest(path: Path, openers: Mapping[str, "Open"]) -> tuple[str, "Backend"]:
    seconds: dict[str, float] = {}
    wrong: dict[str, str] = {}
    opened = {}
    failed: list[ValueError] = []
    for name, opener in openers.items():
        try:
            backend = opened[name] = opener()
            exported = backend.info.exported
            assert exported is not None  # of a file that several runtimes open
            probes = read_probes(path, exported)
            found = [(each, broken(each, exported.bounds)) for each in departures(backend, probes)]
        except ValueError as error:  # the other one may be whole
            wrong[name] = str(error)
            failed.append(error)
            continue
        why = [f"'{each.output}' ({each.case}) {words}" for each, words in found if words]
        if why:
            wrong[name] = why[0]
        else:
            seconds[name] = _median_seconds(backend, probes[0])
    if len(failed) == len(openers):  # it is the file
        raise failed[0]
    if not seconds:
        raise ValueError(
            f"{path}: no installed runtime says what its probes expect: "
            + "; ".join(f"in {in_words(name)} {why}" for name, why in wrong.items())
            + ". Export the model again, or choose one with --backend."
        )
    name = min(seconds, key=lambda each: seconds[each])
    times = ", ".join(f"{in_words(each)} {1000 * taken:.1f} ms" for each, taken in seconds.items())
    refused = "".join(f"; not in {in_words(each)}, where {why}" for each, why in wrong.items())
    _say(f"{path.name} runs in {RUNTIMES[name][1]} ({times} for an image of its probes{refused}).")
    return name, opened[name]


def _median_seconds(backend: "Backend", probe: Probe) -> float:
    """Of one image. The network has seen some before, so it is warm; but not of this shape, so it sees one more."""
    image = probe.images[:1]
    backend(image)
    taken: list[float] = []
    while len(taken) < MOST_CALLS and sum(taken) < SECONDS:
        started = time.perf_counter()
        backend(image)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _circumstances(path: Path, names: Sequence[str]) -> str | None:
    """What a choice depends on; None for a file so young that it could still change unnoticed."""
    file, probes = stamp(path), stamp(probes_path(path))
    if not file or not probes:
        return None
    return f"{file} {probes} {' '.join(map(in_words, names))} {cpu_name()} {num_threads()}"


def cpu_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
