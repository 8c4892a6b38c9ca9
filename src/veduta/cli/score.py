"""`veduta score` and `veduta audit`: scores of what other programs predicted or printed."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from veduta.cli.chosen_data import find_data
from veduta.cli.errors import FAILED, errors_for_people, stop
from veduta.cli.options import DataOption, DatasetOption
from veduta.cli.publish import publish

app = typer.Typer()


@app.command()
def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="What `veduta predict` wrote, a folder of index PNGs or of raw outputs (.npy, .bin, .txt), "
            "COCO results (.json), or a table of classes (.csv)."
        ),
    ],
    data: DataOption = None,
    dataset: DatasetOption = None,
    split: Annotated[str | None, typer.Option(help="Which split; val, or the only one there is.")] = None,
    ids: Annotated[
        Literal["file", "train", "colors"] | None,
        typer.Option(help="Index PNGs: their values are those of the data's masks, train ids, or colours count."),
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="A table of classes: its scores are those before the soft-max.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Raw outputs: the run folder or model file that they are outputs of.")
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", help="Raw outputs: change a field of the recipe: protocol=refinenet. Repeatable."),
    ] = [],  # noqa: B006
    outputs: Annotated[
        str | None, typer.Option(help="Raw outputs: their names in order, as in class_logits,box_deltas,mask_logits.")
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Raw outputs: those of pixels are height x width x classes.")
    ] = False,
    boxes: Annotated[
        Literal["voc12", "voc07", "voc12-kit", "voc07-kit", "coco"] | None,
        typer.Option(help="What average precision means; of COCO results coco, else what the model's protocol says."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with pictures into this file.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="Order the table by a column, such as iou, or by class; else as labelled.")
    ] = None,
) -> None:
    """Score predictions that lie in files, by the metric and the code of `veduta evaluate`; none may be missing."""
    with errors_for_people():
        from veduta.data import open_dataset
        from veduta.engine.environment import environment
        from veduta.engine.evaluate import evaluate
        from veduta.engine.predictions.names import listed
        from veduta.engine.progress import ProgressLine
        from veduta.engine.score import open_predictions
        from veduta.files import check_new_files
        from veduta.tasks.evaluation import find_column

        check_new_files({"--json": json, "--report": report})
        settings, split = find_data(data, dataset, split)
        line = ProgressLine()
        samples = open_dataset(settings, split)
        source = open_predictions(
            predictions,
            dataset=samples,
            ids=ids,
            logits=logits,
            model=model,
            changes=set_,
            outputs=tuple(outputs.split(",")) if outputs else (),
            channels_last=channels_last,
            boxes=boxes,
            progress=line.count,
        )
        columns = source.task.metric(replace(source.rules, full=True)).compute().per_class
        column = find_column(sort, columns) if sort else None
        if source.left_over:
            line.say(
                f"note: {len(source.left_over):,} predictions are of no image of split '{split}' and are not scored: "
                f"{listed(source.left_over)}"
            )
        evaluation = evaluate(
            source, samples, name=settings.dataset, split=split, batch_size=1, progress=partial(line.count, "scoring")
        )
        if evaluation.failed:
            why = "\n  ".join(why for _, why in evaluation.failed[:5])
            stop(f"{len(evaluation.failed)} images of the data cannot be read, so there is no score:\n  {why}", FAILED)
        publish(evaluation, source, samples, sort=column, json=json, report=report, environment=environment())


@app.command()
def audit(
    files: Annotated[
        list[Path],
        typer.Argument(help="Texts, Markdown or CSV with lists of values and their means; JSON of `veduta evaluate`."),
    ],
) -> None:
    """Recompute published means from the values beside them; exit 1 where one does not follow."""
    with errors_for_people():
        from veduta.engine.audit import audit as run

        findings = [finding for path in files for finding in run(path)]
        print("\n".join(map(str, findings)))
        wrong = sum(not finding.agrees for finding in findings)
        if wrong:
            stop(f"{wrong} of {len(findings)} do not agree.", FAILED)
