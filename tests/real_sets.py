"""The real pictures, which are no part of the repository; where they are absent, tests that need them are skipped."""

import zipfile
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "shared" / "data"


def needs(archive: str) -> pytest.MarkDecorator:
    """Marks a test that unpacks this archive."""
    return pytest.mark.skipif(not (_FOLDER / archive).is_file(), reason="the real sets are not here")


def unpack(archive: str, folder: Path, part: str = "") -> None:
    """All files of an archive, or those whose path holds `part`."""
    with zipfile.ZipFile(_FOLDER / archive) as file:
        file.extractall(folder, [name for name in file.namelist() if part in name])
