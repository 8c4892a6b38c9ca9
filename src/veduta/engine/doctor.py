"""What `veduta doctor` says: what this machine has for Veduta, and of what is missing why, and how to get it.

None of it needs PyTorch, for exported files run without. Nothing is installed, and nothing is asked of a network.
"""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veduta import __version__
from veduta.backends.runtime import installed_version

# Packages by what they are for, each with the optional part of Veduta that brings it.
PACKAGES = {
    "training": {"safetensors": "train", "matplotlib": "train", "timm": "timm", "tensorboard": "tensorboard"},
    "export": {"onnx": "train", "onnxscript": "train"},
}

# Instructions that make networks faster, and what /proc/cpuinfo calls them.
INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX": {"amx_tile"},
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "NEON": {"asimd"},
    "dot product": {"asimddp"},
    "int8 matrices": {"i8mm"},
    "SVE": {"sve"},
}
CPUINFO = Path("/proc/cpuinfo")

CANN = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")  # where Ascend's toolkit is, as its set_env.sh says
COLLECTIVES = "libhccl.so"  # of CANN: without it no package for Ascend NPUs can be imported
ASCEND_TOOLS = {
    "npu-smi": "it comes with the driver, and lists the NPUs",
    "atc": "it comes with CANN, and compiles an exported bundle for the chip",
    "msame": "it is built from Ascend's tools, and runs a compiled bundle",
}

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"  # whether PyTorch imports packages of devices by itself


@dataclass(frozen=True)
class Finding:
    """One thing: whether it is there, and in words what was found, or why nothing was and what to do."""

    name: str
    found: bool
    text: str


Examination = dict[str, list[Finding]]  # by group


def examine() -> Examination:
    """Everything that Veduta can use on this machine."""
    torch = _torch()
    return {
        "software": [
            Finding("veduta", True, __version__),
            Finding("python", True, f"{platform.python_version()}, {platform.platform()}"),
            torch,
        ],
        "machine": [Finding("processor", True, _processor()), Finding("memory", True, _memory(has_torch=torch.found))],
        "devices of PyTorch": _devices() if torch.found else [],
        "Ascend": [_cann(), _collectives(), *(_tool(name, use) for name, use in ASCEND_TOOLS.items())],
        "runtimes": [
            _runtime("onnxruntime", "runtime", _providers),
            _runtime("openvino", "openvino", lambda openvino: openvino.Core().available_devices),
        ],
        **{group: [_package(name, part) for name, part in packages.items()] for group, packages in PACKAGES.items()},
    }


def in_words(examination: Examination) -> str:
    """A line for each finding, below the name of its group."""
    width = max(len(finding.name) for findings in examination.values() for finding in findings)
    blocks = []
    for group, findings in examination.items():
        lines = [f"  {f.name:{width}}  {'' if f.found else 'missing: '}{f.text}" for f in findings]
        if lines:
            blocks.append("\n".join([group, *lines]))
    return "\n\n".join(blocks)


def to_json(examination: Examination) -> str:
    content = {
        group: {finding.name: {"found": finding.found, "text": finding.text} for finding in findings}
        for group, findings in examination.items()
    }
    return json.dumps(content, indent=1) + "\n"


def _torch() -> Finding:
    version = installed_version("torch")
    if version is None:
        return _missing("torch", "train", "; it trains and exports, exported files run without it")
    try:
        with _without_packages_of_devices():
            import torch  # noqa: F401
    except Exception as error:  # whatever its libraries throw: the reason is what is asked for here
        return _broken("torch", version, error)
    return Finding("torch", True, version)


@contextlib.contextmanager
def _without_packages_of_devices() -> Iterator[None]:
    """PyTorch imports them by itself, and does not start where one of them is broken: just what is looked for here."""
    before = os.environ.get(AUTOLOAD)
    os.environ[AUTOLOAD] = "0"
    try:
        yield
    finally:
        del os.environ[AUTOLOAD]
        if before is not None:
            os.environ[AUTOLOAD] = before


def _devices() -> list[Finding]:
    from veduta.device import KINDS, describe, why_not

    described = describe()
    reasons = {kind: why_not(kind) for kind in KINDS}
    found = [Finding(kind, reason is None, reason or described[kind]) for kind, reason in reasons.items()]
    return [Finding("cpu", True, described["cpu"]), *found]


def _package(name: str, part: str) -> Finding:
    version = installed_version(name)
    return _missing(name, part) if version is None else Finding(name, True, version)


def _runtime(name: str, part: str, places: Callable[[Any], list[str]]) -> Finding:
    """places: what it can run on, said by the imported package. Builds for GPUs are packages of other names."""
    if importlib.util.find_spec(name) is None:
        return _missing(name, part)
    try:
        package = importlib.import_module(name)
        return Finding(name, True, f"{package.__version__}: {', '.join(places(package))}")
    except Exception as error:
        return _broken(name, installed_version(name) or "it", error)


def _providers(onnxruntime: Any) -> list[str]:
    return [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]


def _missing(package: str, part: str, why: str = "") -> Finding:
    return Finding(package, False, f"not installed; pip install 'veduta[{part}]'{why}")


def _broken(package: str, version: str, error: Exception) -> Finding:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return Finding(package, False, f"{version} is installed, but does not start: {reason}")


def _cann() -> Finding:
    for name in CANN:
        if place := os.environ.get(name):
            there = Path(place).is_dir()
            return Finding("CANN", there, f"{name}={place}" + ("" if there else ", where there is no folder"))
    return Finding("CANN", False, f"neither {' nor '.join(CANN)} is set; `source` its set_env.sh in this shell")


def _collectives() -> Finding:
    places = [place for place in os.environ.get("LD_LIBRARY_PATH", "").split(":") if place]
    places += [f"{os.environ[name]}/lib64" for name in CANN if name in os.environ]
    for place in places:
        if (Path(place) / COLLECTIVES).is_file():
            return Finding(COLLECTIVES, True, f"{place}/{COLLECTIVES}")
    return Finding(COLLECTIVES, False, "neither on LD_LIBRARY_PATH nor in CANN, whose set_env.sh puts it there")


def _tool(name: str, use: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, path or f"not on the PATH; {use}")


def _processor() -> str:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    cores = f"{total} cores" if usable == total else f"{usable} of {total} cores"
    return ", ".join([cores, platform.machine(), *_instructions()])


def _instructions() -> list[str]:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # there is such a file on Linux only
        return []
    has = set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
    return [name for name, words in INSTRUCTIONS.items() if words & has]


def _memory(*, has_torch: bool) -> str:
    total = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    if not has_torch:
        return total
    import torch

    from veduta.device import free_memory

    return f"{total}, {free_memory(torch.device('cpu')) / 2**30:.1f} GiB of it free for this process"
