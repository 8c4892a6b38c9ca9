"""`veduta evaluate`: scores of a model that prove themselves."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from veduta.cli.errors import FAILED, errors_for_people, stop
from veduta.cli.options import DataOption, DeviceOption, SetOption

app = typer.Typer()


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run folder (its best checkpoint) or a model file.")],
    data: DataOption = None,
    split: Annotated[str | None, typer.Option(help="Which split to score; the recipe's validation split.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with pictures into this file.")] = None,
    set_: SetOption = [],  # noqa: B006
    device: DeviceOption = "auto",
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Exit 0 although images failed; the headline says how many.")
    ] = False,
) -> None:
    """Score a model on a split: a table by class, and one headline that proves itself."""
    with errors_for_people():
        from veduta.backends import open_model
        from veduta.data import open_dataset
        from veduta.engine.evaluate import evaluate as run
        from veduta.engine.predictor import Predictor
        from veduta.engine.progress import ProgressLine
        from veduta.files import check_new_file, write_text

        for target in (json, report):
            if target is not None:
                check_new_file(target)
        if json is not None and report is not None and json.absolute() == report.absolute():
            raise ValueError(f"--json {json}: the same file as --report. Choose another.")
        backend = open_model(model, device=device, changes=set_)
        predictor = Predictor(backend)
        settings = backend.info.recipe.data
        if data is not None:
            settings = dataclasses.replace(settings, root=str(data))
        line = ProgressLine()
        split = split or settings.val_split
        evaluation = run(
            predictor,
            open_dataset(settings, split),
            name=settings.dataset,
            split=split,
            batch_size=settings.batch_size,
            progress=partial(line.count, "evaluating"),
        )
        print(evaluation.table())
        print(evaluation.headline())
        if json is not None:
            write_text(json, evaluation.to_json())
        if report is not None:
            from veduta.report.page import write_report

            write_report(evaluation, report, run=model if model.is_dir() else None)
        if not evaluation.proved and not evaluation.failed:
            stop("samples of one name come more than once, so the score proves nothing. Take them out.", FAILED)
        if evaluation.failed and not allow_failed:
            listed = "\n  ".join(why for _, why in evaluation.failed[:5])
            stop(
                f"{len(evaluation.failed)} images failed; the score leaves them out:\n  {listed}\n"
                "Repair them, or accept the score with --allow-failed.",
                FAILED,
            )
