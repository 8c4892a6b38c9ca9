"""`veduta offline`: what another runtime needs to run a network on the images of a split."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from veduta.cli.chosen_data import open_data
from veduta.cli.errors import ends_clean, errors_for_people
from veduta.cli.options import DataOption, DatasetOption, SetOption, read_size

app = typer.Typer(help="Inference in another runtime: its inputs; `veduta score` reads its outputs.")


@app.callback()
def offline() -> None:
    """Inference in another runtime: its inputs; `veduta score` reads its outputs."""


@app.command()
def prepare(
    model: Annotated[Path, typer.Argument(help="The exported file that will run, or the run folder or model file.")],
    out: Annotated[Path, typer.Option(help="The folder to make; must not exist.")],
    data: DataOption = None,
    dataset: DatasetOption = None,
    split: Annotated[str | None, typer.Option(help="Which split; the recipe's validation split.")] = None,
    dtype: Annotated[
        Literal["float32", "uint8"], typer.Option(help="float32 from 0 to 1, or uint8 from 0 to 255.")
    ] = "float32",
    layout: Annotated[
        Literal["nchw", "nhwc"], typer.Option(help="Channels before height and width, or last.")
    ] = "nchw",
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH of every image, where the network takes but one; BlitzNet's are stretched."),
    ] = None,
    set_: SetOption = [],  # noqa: B006
) -> None:
    """Write the images of a split as raw .bin files, as the recipe's protocol shows them to the network."""
    with errors_for_people(), ends_clean():
        from veduta.backends import read_info
        from veduta.engine.evaluate import check_classes
        from veduta.engine.offline import Form, form_for
        from veduta.engine.offline import prepare as run
        from veduta.engine.progress import ProgressLine
        from veduta.files import check_new_folder

        check_new_folder(out)
        info = read_info(model, changes=set_)
        if info.exported is not None and info.exported.full:
            raise ValueError(
                f"{model} was exported with --full and gives predictions; `veduta score` reads what a network gives "
                "before that. Export the model without --full."
            )
        form = form_for(info, Form(dtype=dtype, layout=layout, size=read_size(size)))
        settings, split, samples = open_data(info.recipe.data, data, split, dataset=dataset, changes=set_)
        check_classes(info.labels, samples)
        done = run(info, samples, out, form=form, data=settings.dataset, split=split, line=ProgressLine())
        shape = "sizes of their own" if form.size is None else f"{form.size[0]} x {form.size[1]} (height x width)"
        mirrored = " and their mirror images" if done.mirrored else ""
        print(
            f"{done.images:,} images{mirrored} in {out}: {form.dtype} {form.layout}, {shape}, {done.bytes[0]:,} bytes"
            f"{' at most' if form.size is None else ' each'}, {done.bytes[1]:,} in all"
        )
        arguments = ["--model", str(model), *(["--data", str(data)] if data else [])]
        arguments += ["--dataset", settings.dataset, "--split", split]
        arguments += [part for change in set_ for part in ("--set", change)]
        print(f"their outputs: veduta score OUTPUTS {shlex.join(arguments)}")
