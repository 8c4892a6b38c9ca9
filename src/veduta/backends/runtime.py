"""What all runtimes of exported files have in common: threads, images that fit, and honest files."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from veduta.config import set_fields
from veduta.model_info import Exported, ModelInfo, OpenShape

RUNTIMES = {  # name -> package, and how people call it
    "torch": ("torch", "PyTorch"),
    "onnx": ("onnxruntime", "ONNX Runtime"),
    "openvino": ("openvino", "OpenVINO"),
}
IMAGES = "images"  # the one input of an exported network

_STILL_OPEN = ("protocol", "data")  # of a recipe: how images are shown, and not what the network is


def installed(name: str) -> bool:
    """Whether a runtime can be imported; it is not tried."""
    return find_spec(RUNTIMES[name][0]) is not None


def installed_version(package: str) -> str | None:
    """Of a package as pip names it; None where it is not installed. Nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def in_words(name: str) -> str:
    """A runtime with its version, such as 'ONNX Runtime 1.31.0'."""
    package, words = RUNTIMES[name]
    return " ".join(filter(None, (words, installed_version(package))))


def num_threads() -> int:
    """OMP_NUM_THREADS, as PyTorch takes it, or the cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exported_of(info: ModelInfo) -> Exported:
    assert info.exported is not None, "a file that is opened as an exported one"
    return info.exported


def check_cpu(path: Path, device: str, runtime: str) -> None:
    """Raises ValueError where a runtime that runs on the CPU is asked for another device."""
    if device not in ("auto", "cpu"):
        raise ValueError(f"{path}: {runtime} runs it on the CPU, and device '{device}' was asked for. Use auto or cpu.")


def check_format(info: ModelInfo, expected: str, path: Path) -> Exported:
    """Raises ValueError where the info is that of another kind of file."""
    if info.exported is None or info.exported.format != expected:
        raise ValueError(f"{path}: its model info is not that of a {path.suffix} file. Export the model again.")
    return info.exported


def check_contents(exported: Exported, found: str, path: Path) -> None:
    """Raises ValueError where the network hashes to something else than the file says."""
    said = exported.contents_sha256
    if found != said:
        raise ValueError(
            f"{path}: the network hashes to {found[:12]}, the file says {said[:12]}. It is damaged or was changed; "
            "copy it again, or export the model again."
        )


def with_changes(info: ModelInfo, changes: Sequence[str], *, source: Path) -> ModelInfo:
    """The info with assignments to fields of its recipe. Raises ValueError for those that an export has settled."""
    for change in changes:
        if re.split("[.=]", change)[0].strip() not in _STILL_OPEN:
            raise ValueError(
                f"--set {change}: {source} is exported, and its network does not change any more; only protocol and "
                "data.* can be set. Open the model file that it was exported from, or export that with the change."
            )
    return replace(info, recipe=set_fields(info.recipe, changes))


def check_images(info: ModelInfo, shape: tuple[int, ...]) -> None:
    """Raises ValueError where the file was exported for images of other sizes."""
    expected = exported_of(info).images
    if not _fits(shape, expected):
        raise ValueError(
            f"The exported file takes images of {shape_words(expected)}, got {shape_words(shape)}. Choose a protocol "
            "that shows such images, or export the model with open sizes."
        )


def check_ports(
    info: ModelInfo, path: Path, *, inputs: Mapping[str, OpenShape], outputs: Mapping[str, OpenShape]
) -> None:
    """Raises ValueError where names, order or shapes of what a runtime opened are not those that the file tells."""
    exported = exported_of(info)
    told = {IMAGES: exported.images}
    for what, found, expected in (("inputs", inputs, told), ("outputs", outputs, exported.outputs)):
        if list(found.items()) != list(expected.items()):
            raise ValueError(
                f"{path}: says that its {what} are {_port_words(expected)}, and holds {_port_words(found)}. It was "
                "changed; export the model again."
            )


def shape_words(shape: OpenShape) -> str:
    """(None, 3, 300, 300) -> 'any x 3 x 300 x 300'."""
    return " x ".join("any" if length is None else str(length) for length in shape)


def _port_words(ports: Mapping[str, OpenShape]) -> str:
    return ", ".join(f"'{name}' ({shape_words(shape)})" for name, shape in ports.items()) or "none"


def _fits(shape: tuple[int, ...], expected: OpenShape) -> bool:
    return len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))
