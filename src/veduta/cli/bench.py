"""How fast a model runs: `veduta bench`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from veduta.cli.errors import FAILED, errors_for_people, stop
from veduta.cli.options import DeviceOption, read_size

app = typer.Typer()


@app.command()
def bench(
    models: Annotated[
        list[Path], typer.Argument(help="Run folders or model files; each in every runtime it opens in.")
    ],
    backend: Annotated[str, typer.Option(help="torch, onnx or openvino; auto: all that are installed.")] = "auto",
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of the images, or N of squares; default that of the recipe.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4",
    csv: Annotated[Path | None, typer.Option(help="Write a line for each measurement into this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw images per second over the batch size: NAME.png.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure latency, throughput, memory and load time of models, each in a fresh process; some 5 s for each batch.

    Exit 1 where one of them could not be measured. The machine should have nothing else to do.
    """
    with errors_for_people():
        from veduta.files import check_new_files, write_text

        check_new_files({"--csv": csv, "--plot": plot, "--json": json})
        if plot is not None and plot.suffix.lower() != ".png":
            raise ValueError(f"--plot {plot}: the picture is a PNG. Give it a name that ends in .png.")
        height_width, batch_sizes = read_size(size), _batch_sizes(batch)

        from veduta.engine.bench import bench as run
        from veduta.engine.progress import ProgressLine

        found = run(models, ProgressLine(), backend=backend, device=device, size=height_width, batch_sizes=batch_sizes)
        if found.points:
            print(found.table())
        if csv is not None:
            write_text(csv, found.to_csv())
        if json is not None:
            write_text(json, found.to_json())
        if plot is not None and found.points:
            from veduta.engine.bench_curve import draw_bench

            draw_bench(found, plot)
            print(f"open {plot}")
        if found.failed:
            stop("\n  ".join(["not measured:", *found.failed]), FAILED)


def _batch_sizes(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise ValueError(f"--batch {text}: expected batch sizes from 1 on with commas between them, such as 1,2,4.")
    return sorted(set(map(int, text.split(","))))
