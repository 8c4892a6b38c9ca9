"""Verifying: every runtime of this machine that opens an exported file is asked what the probes beside it expect."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veduta.backends import BACKENDS, open_model
from veduta.backends.probes import departures, read_probes
from veduta.backends.runtime import RUNTIMES, exported_of, in_words, installed
from veduta.config import nearest
from veduta.engine.progress import ProgressLine
from veduta.export.table import first_broken, headline, table, to_rows
from veduta.model_info import WEIGHTS, Bounds, Departure


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What one runtime said to the probes of a file."""

    runtime: str
    departures: tuple[Departure, ...]
    bounds: Bounds

    @property
    def broken(self) -> str:
        """Which bound is broken, in words; empty where none is."""
        return first_broken(self.departures, self.bounds)

    def table(self) -> str:
        return table(self.departures)

    def headline(self) -> str:
        return headline(self.departures, self.bounds)


def runtimes_of(path: Path, named: str | None) -> list[str]:
    """The runtime that is named, or all that are installed and open such files. Raises ValueError where none is."""
    if path.is_dir():
        inside = next((file for file in sorted(path.rglob("model.onnx"))), None)
        hint = f" In it lies {inside}." if inside else ""
        raise IsADirectoryError(f"{path} is a folder. Give a file of `veduta export`.{hint}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a file of `veduta export`.")
    if path.suffix == WEIGHTS or path.suffix not in BACKENDS:
        endings = ", ".join(ending for ending in BACKENDS if ending != WEIGHTS)
        raise ValueError(f"{path}: no exported file ({endings}), so there are no probes that it could be asked.")
    runtimes = BACKENDS[path.suffix]
    if named is not None:
        if named not in runtimes:
            raise ValueError(f"--backend {named}: does not open {path.suffix} files.{nearest(named, runtimes)}")
        return [named]
    there = [name for name in runtimes if installed(name)]
    if not there:
        packages = " or ".join(RUNTIMES[name][0] for name in runtimes)
        raise ValueError(f"{path}: no runtime is installed that opens it. Install {packages}.")
    return there


def verify(path: Path, runtime: str, line: ProgressLine) -> Verified:
    """Open an exported file with a runtime, and ask it.

    Raises FileNotFoundError or ValueError where the file or its probes are missing or damaged, or do not belong
    together.
    """
    line.update(f"opening {path.name} in {in_words(runtime)}")
    backend = open_model(path, device="cpu", backend=runtime)
    exported = exported_of(backend.info)
    found: list[Departure] = []
    for departure in departures(backend, read_probes(path, exported)):
        found.append(departure)
        line.update(f"comparing {departure.case}")
    return Verified(runtime=in_words(runtime), departures=tuple(found), bounds=exported.bounds)


def to_json(path: Path, verified: Sequence[Verified]) -> str:
    content = {
        "file": str(path),
        "runtimes": [
            {"runtime": each.runtime, "broken": each.broken, "departures": to_rows(each.departures)}
            for each in verified
        ],
    }
    return json.dumps(content, indent=1) + "\n"
