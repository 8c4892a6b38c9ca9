"""Commands about training runs: rehearse one before it starts, compare two that have been."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from veduta.cli.errors import FAILED, errors_for_people

app = typer.Typer()


@app.command(name="compare-curves")
def compare_curves(
    one: Annotated[Path, typer.Argument(help="A run folder: A.")],
    other: Annotated[Path, typer.Argument(help="Another run folder: B.")],
    out: Annotated[Path, typer.Option(help="The picture to write: NAME.png.")] = Path("compare-curves.png"),
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
) -> None:
    """Draw two loss curves over each other, with their difference: the check that a port to another device needs."""
    with errors_for_people():
        from veduta.engine.compare_curves import compare_curves as run
        from veduta.files import check_new_file, write_text

        for target in (out, json):
            if target is not None:
                check_new_file(target)
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out {out}: the picture is a PNG. Give it a name that ends in .png.")
        comparison = run(one, other)
        comparison.draw(out)
        if json is not None:
            write_text(json, comparison.to_json())
        for warning in comparison.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(comparison.table())
        print(f"open {out}")


@app.command()
def rehearse(
    recipe: Annotated[str, typer.Argument(help="A name from `veduta list`, or the path of a recipe.json.")],
    data: Annotated[
        list[Path], typer.Option("--data", help="Folder of the data set; once for each stage where they differ.")
    ] = [],  # noqa: B006
    set_: Annotated[list[str], typer.Option("--set", help="Change a recipe field: optim.lr=0.02. Repeatable.")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Keep the rehearsed runs and their logs in this new folder.")] = None,
    init: Annotated[Path | None, typer.Option(help="As the real run: weights to start from.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="As the real run: processes, one for each device.")] = 1,
) -> None:
    """Rehearse a run in about two minutes: start, kill, resume, validate; and forecast its time, memory and disk.

    Exit 1 where something failed. The recipe runs as it is, stopped after twenty steps, or fewer where they are slow.
    """
    with errors_for_people():
        import tempfile

        from veduta.config import set_fields, with_roots
        from veduta.files import check_new_folder
        from veduta.recipes import find_recipe

        chosen = with_roots(set_fields(find_recipe(recipe), set_), data)
        if out is not None:
            check_new_folder(out)

        from veduta.engine.progress import ProgressLine
        from veduta.engine.rehearse import rehearse as run

        with tempfile.TemporaryDirectory(prefix="veduta-rehearse-") as temporary:
            found = run(chosen, out or Path(temporary), ProgressLine(), init=init, devices=devices)
        print(found.text())
        if not found.passed:
            raise typer.Exit(FAILED)
