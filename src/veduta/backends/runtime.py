"""What all runtimes of exported files have in common: threads, images that fit, and honest files."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from veduta.config import set_fields
from veduta.model_info import Exported, ModelInfo, OpenShape

IMAGES = "images"  # the one input of an exported network

_STILL_OPEN = ("protocol", "data")  # of a recipe: how images are shown, and not what the network is


def num_threads() -> int:
    """OMP_NUM_THREADS, as PyTorch takes it, or the cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exported_of(info: ModelInfo) -> Exported:
    assert info.exported is not None, "a file that is opened as an exported one"
    return info.exported


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
