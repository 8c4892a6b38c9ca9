"""`veduta score` and `veduta audit`: scores of what other programs predicted or printed."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from veduta.cli.data import find_layout
from veduta.cli.errors import FAILED, errors_for_people, stop

if TYPE_CHECKING:
    from veduta.config import Data

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
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the data set.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A name of `veduta list data`, where the folder fits several.")
    ] = None,
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
        from veduta.engine.evaluate import evaluate, with_examples
        from veduta.engine.predictions.names import listed
        from veduta.engine.progress import ProgressLine
        from veduta.engine.runlog import environment
        from veduta.engine.score import open_predictions
        from veduta.files import check_new_file, write_text
        from veduta.tasks.evaluation import find_column

        for target in (json, report):
            if target is not None:
                check_new_file(target)
        if json is not None and report is not None and json.absolute() == report.absolute():
            raise ValueError(f"--json {json}: the same file as --report. Choose another.")
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
        print(evaluation.table(column))
        if evaluation.scores.details:
            print(evaluation.details())
        print(evaluation.headline())
        if json is not None:
            write_text(json, evaluation.to_json(environment()))
        if report is not None:
            from veduta.report.page import write_report

            shown = with_examples(evaluation, source, samples)
            write_report(shown, report, run=None, environment=environment())


def find_data(data: Path | None, dataset: str | None, split: str | None) -> "tuple[Data, str]":
    """The data set in a folder, or a generated one, and the split."""
    from veduta.config import Data
    from veduta.data import DATASETS, GENERATED

    if dataset in GENERATED:
        return Data(dataset=dataset, root=str(data or "")), split or "val"
    if data is None:
        raise ValueError("predictions in files do not say what is true of their images. Add --data PATH.")
    layout = find_layout(data, dataset, "--dataset")
    known = DATASETS[layout].splits(data)
    if split is None:
        if "val" not in known and len(known) != 1:
            raise ValueError(f"{data} has the splits {', '.join(known)}. Which one is predicted? Add --split NAME.")
        split = "val" if "val" in known else known[0]
    return Data(dataset=layout, root=str(data)), split


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
