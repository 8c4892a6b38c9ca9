"""`veduta export`: a model as a file for other runtimes, proven before it gets its name. `veduta verify`: once more."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from veduta.cli.chosen_data import open_data
from veduta.cli.errors import FAILED, ends_clean, errors_for_people, refuse_ranks, stop
from veduta.cli.options import DataOption, SetOption, read_size

app = typer.Typer()

MOST_BATCH = 1 << 10


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A run folder (its best checkpoint) or a model file.")],
    to: Annotated[str, typer.Option(help="onnx, openvino, torch, triton or ascend.")],
    out: Annotated[Path, typer.Option(help="The file (or folder) to make: NAME.onnx, NAME.xml, NAME.pt2.")],
    size: Annotated[
        str | None, typer.Option(help="For images of this size alone: HEIGHTxWIDTH, or N of a square.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=MOST_BATCH, help="For so many images at once alone.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Give masks, boxes, classes in place of logits.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Whole numbers of 8 bits; needs --data.")] = False,
    data: DataOption = None,
    split: Annotated[str | None, typer.Option(help="Of --data: the recipe's validation split.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A name of `veduta list data`, where it is not that of the model.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, help="With --int8: points by which a score may be lower; 1.0.")
    ] = None,
    set_: SetOption = [],  # noqa: B006
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
) -> None:
    """Write a model for another runtime, open it again and compare; one that differs does not get its name.

    With --data also on images of a split, and by the score of both on all of it.
    """
    with errors_for_people(), ends_clean():
        from veduta.config import nearest
        from veduta.export import TARGETS
        from veduta.files import check_new_file, write_text

        refuse_ranks("export")
        if to not in TARGETS:
            raise ValueError(f"--to {to}: there is no such target.{nearest(to, TARGETS)}")
        if json is not None:
            check_new_file(json)
        if data is None and (split is not None or dataset is not None or int8):
            option = "--int8" if int8 else "--split" if split is not None else "--dataset"
            raise ValueError(f"{option} needs images. Add --data PATH.")
        if max_drop is not None and not int8:
            raise ValueError("--max-drop goes with --int8: in float no score may change. Leave it out.")
        if data is not None and batch not in (None, 1):
            raise ValueError(
                f"--batch {batch} with --data: images of a split are also shown one by one, and the file would take "
                f"{batch} at once alone. Leave out one of the two."
            )
        shape = (batch, 3, *(read_size(size) or (None, None)))

        from veduta.export.request import MAX_DROP, Request, check_request

        request = Request(
            target=to,
            out=out,
            full=full,
            int8=int8,
            shape=shape,
            changes=tuple(set_),
            max_drop=MAX_DROP if max_drop is None else max_drop,
        )
        check_request(request)

        from veduta.engine.environment import environment
        from veduta.engine.progress import ProgressLine
        from veduta.export.export import export as run
        from veduta.export.export import open_reference
        from veduta.export.request import Labelled

        reference = open_reference(model, set_)
        labelled = None
        if data is not None:
            recipe = reference.info.recipe
            settings, split, samples = open_data(recipe.data, data, split, dataset=dataset, changes=set_)
            calibration = None
            if int8:
                train = settings.train_split
                calibration = open_data(recipe.data, data, train, dataset=dataset, changes=set_)[2]
            labelled = Labelled(
                name=settings.dataset,
                split=split,
                samples=samples,
                batch_size=batch or settings.batch_size,
                calibration=calibration,
            )
        report = run(reference, request, ProgressLine(), data=labelled)
        print(report.table())
        print(report.headline())
        if json is not None:
            write_text(json, report.to_json(environment()))
        print(f"wrote {out} ({report.size / 1e6:,.1f} MB); {_try(to, out)}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A file of `veduta export`, with its probes beside it.")],
    backend: Annotated[
        str | None, typer.Option(help="onnx, openvino or torch: this runtime alone, not all that open it.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
) -> None:
    """Ask an exported file, on this machine, whether it still says what the network says that it was made of.

    Exit 1: a runtime says something else. Exit 2: the probes are missing, or are not those of the file.
    """
    with errors_for_people():
        from veduta.engine.progress import ProgressLine
        from veduta.export.verify import runtimes_of, to_json
        from veduta.export.verify import verify as run
        from veduta.files import check_new_file, write_text

        if json is not None:
            check_new_file(json)
        line = ProgressLine()
        verified = [run(file, runtime, line) for runtime in runtimes_of(file, backend)]
        for each in verified:
            print(f"{each.runtime}\n{each.table()}\n{each.headline()}\n")
        if json is not None:
            write_text(json, to_json(file, verified))
        broken = [f"{each.runtime}: {each.broken}" for each in verified if each.broken]
        if broken:
            stop(f"{file}: " + "\n".join(broken), FAILED)
        print(f"{file} says what its network says: {', '.join(each.runtime for each in verified)}")


def _try(target: str, out: Path) -> str:
    """What to do next."""
    name = shlex.quote(str(out))
    if target in ("onnx", "openvino", "torch"):
        return f"try: veduta predict {name} IMAGES --out FOLDER; on another machine: veduta verify {name}"
    return f"see {name}/README.md"
