"""Software and machine that a run or a score came from, for environment.json and reports. It needs no PyTorch."""

import importlib.metadata
import platform
from typing import Any

from veduta import __version__

RUNTIMES = ("onnxruntime", "openvino")  # the packages that run exported files


def environment() -> dict[str, Any]:
    """What changes results, or the time that they take; of what is not installed nothing."""
    packages = {name: version for name in ("torch", *RUNTIMES) if (version := installed_version(name))}
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


def installed_version(package: str) -> str | None:
    """Of a package as pip names it; None where it is not installed. Nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
