"""An install without PyTorch: a folder of what `pip install veduta[runtime]` brings, and a process that sees that."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import veduta

SOURCE = Path(veduta.__file__).parents[1]


def link_packages(folder: Path, extra: str) -> Path:
    """A new folder of links to the packages that pyproject.toml asks for, with an extra, and to all that they need."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    folder.mkdir()
    for package in _all_of([*project["dependencies"], *project["optional-dependencies"][extra]]):
        for top in {Path(file.parts[0]) for file in package.files or ()} - {Path(".."), Path("__pycache__")}:
            (folder / top).symlink_to(str(package.locate_file(top)))
    return folder


def _all_of(wanted: Iterable[str]) -> Iterator[metadata.Distribution]:
    left, seen = list(wanted), set[str]()
    while left:
        requirement = Requirement(left.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        package = metadata.distribution(name)
        left += package.requires or ()
        yield package


def veduta_without_torch(packages: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line where nothing can be imported but Python's own modules, these packages and Veduta."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{SOURCE}{os.pathsep}{packages}"}
    command = [sys.executable, "-S", "-m", "veduta.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
