"""Options that several verbs share."""

import re
from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the data set.")]
DatasetOption = Annotated[str | None, typer.Option(help="A name of `veduta list data`, where the folder fits several.")]
SetOption = Annotated[list[str], typer.Option("--set", help="Change a recipe field: optim.lr=0.02. Repeatable.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, npu or mps.")]
BackendOption = Annotated[
    str, typer.Option(help="torch, onnx or openvino; auto takes the fastest one that agrees with the file's probes.")
]

_MOST_SIDE = 1 << 14  # pixels


def read_size(text: str | None) -> tuple[int, int] | None:
    """'512x1024' -> (512, 1024); '513' -> (513, 513), a square. Raises ValueError."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < max(height, width) <= _MOST_SIDE:
        raise ValueError(
            f"--size {text}: expected HEIGHTxWIDTH in pixels, such as 512x1024, or N of a square, and "
            f"{_MOST_SIDE:,} at most."
        )
    return height, width
