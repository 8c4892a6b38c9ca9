"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the data set.")]
SetOption = Annotated[list[str], typer.Option("--set", help="Change a recipe field: optim.lr=0.02. Repeatable.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, npu or mps.")]
BackendOption = Annotated[
    str, typer.Option(help="torch, onnx or openvino; auto takes the fastest one that agrees with the file's probes.")
]
