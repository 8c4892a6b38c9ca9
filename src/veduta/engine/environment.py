"""Software and machine that a run or a score came from, for environment.json and reports. It needs no PyTorch."""

import platform
from typing import Any

from veduta import __version__
from veduta.backends.runtime import RUNTIMES, installed_version


def environment() -> dict[str, Any]:
    """What changes results, or the time that they take; of what is not installed nothing."""
    packages = {package: version for package, _ in RUNTIMES.values() if (version := installed_version(package))}
    return {
        "veduta": __version__,
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "devices": _devices() if "torch" in packages else {},
    }


def _devices() -> dict[str, str]:
    from veduta.device import describe

    return describe()
