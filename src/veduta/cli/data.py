"""`veduta data`: commands about data sets on disk."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from veduta.cli.errors import FAILED, INTERRUPTED, errors_for_people, stop

app = typer.Typer(help="Data sets: find out what is wrong with one before training on it.", no_args_is_help=True)

PathArgument = Annotated[Path, typer.Argument(help="The folder of the data set.")]
LayoutOption = Annotated[
    str | None, typer.Option("--layout", help="A name of `veduta list data`, where the folder fits several.")
]


@app.command()
def check(
    path: PathArgument,
    layout: LayoutOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write check.html, check.json and labels.json into this folder; new, or of a former check."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write splits and faults, with all files, into this file.")] = None,
) -> None:
    """Examine every image, mask and box of all splits; exit 1 where training would go wrong.

    What was examined before and has not changed since is not read again: an interrupted check goes on where it was.
    """
    with errors_for_people():
        from veduta.data import DATASETS
        from veduta.data.check.run import check as run
        from veduta.engine.progress import ProgressLine
        from veduta.files import check_new_file, write_text
        from veduta.report.data_page import check_out_folder, write_data_report

        if json is not None:
            check_new_file(json)
        if out is not None:
            check_out_folder(out)
        name = find_layout(path, layout)
        line = ProgressLine()
        try:
            result = run(
                path,
                name,
                DATASETS[name],
                progress=lambda split, done, total: line.count(f"checking {split}", done, total),
            )
        except KeyboardInterrupt:
            stop("interrupted. What was examined is remembered; the same command goes on from there.", INTERRUPTED)
        if json is not None:
            write_text(json, result.to_json())
        if out is not None:
            write_data_report(result, out)
        print(result.text())
        if out is not None:
            print(f"open {out / 'check.html'}")
        if result.failed:
            sys.stdout.flush()
            raise typer.Exit(FAILED)


def find_layout(path: Path, layout: str | None, option: str = "--layout") -> str:
    """The layout of a folder: the one that is asked for, or the only one that it fits. option: by which one asks."""
    from veduta.config import nearest
    from veduta.data import DATASETS, recognise

    if layout is not None and layout not in DATASETS:
        raise ValueError(f"{option} {layout}: there is no such layout.{nearest(layout, DATASETS)}")
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is no folder. Give the folder of a data set.")
    fits = [layout] if layout is not None else list(recognise(path))
    if not fits:
        raise ValueError(
            f"{path} fits none of the layouts {', '.join(DATASETS)}. {option} NAME says what is missing "
            "for one; docs/data.md shows how each lies."
        )
    if len(fits) > 1:
        raise ValueError(f"{path} fits {' and '.join(fits)}: add {option} {f' or {option} '.join(fits)}.")
    return fits[0]


@app.command(name="list")
def list_(
    path: PathArgument,
    layout: LayoutOption = None,
    split: Annotated[str | None, typer.Option(help="Its samples, one line each: image, and mask or class.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the lines into this file.")] = None,
) -> None:
    """The splits of a data set with their sizes, or the list file of one split."""
    with errors_for_people():
        from veduta.data import DATASETS, open_layout
        from veduta.data.listing import list_lines
        from veduta.files import check_new_file, write_text

        name = find_layout(path, layout)
        if split is not None:
            if out is not None:
                check_new_file(out)
            text = "\n".join(list_lines(open_layout(name, path, split), path)) + "\n"
            if out is None:
                print(text, end="")
            else:
                write_text(out, text)
            return
        if out is not None:
            raise ValueError(f"--out {out} is for the list of one split: add --split NAME.")
        print(f"{path}: {name}, {DATASETS[name].about}")
        for found in DATASETS[name].splits(path):
            try:
                print(f"  {found:20} {len(open_layout(name, path, found)):>9,} samples")
            except (ValueError, OSError) as error:
                print(f"  {found:20} cannot be opened: {error}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A name from `veduta list`, or the path of a recipe.json.")],
    out: Annotated[Path, typer.Option(help="The picture to write: NAME.png.")],
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split; the recipe's training split if left out.")] = None,
    count: Annotated[int, typer.Option(help="How many samples.", min=1, max=60)] = 12,
    set_: Annotated[list[str], typer.Option("--set", help="Change a recipe field: data.dataset=voc. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Draw training samples as the network will see them, augmented, with their labels."""
    with errors_for_people():
        import dataclasses

        from veduta.config import set_fields
        from veduta.engine.pictures import show as run
        from veduta.files import check_new_file
        from veduta.recipes import find_recipe

        check_new_file(out)
        if out.suffix.lower() != ".png":
            raise ValueError(f"--out {out}: the picture is a PNG. Give it a name that ends in .png.")
        chosen = set_fields(find_recipe(recipe), set_)
        if data is not None:
            chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, root=str(data)))
        drawn = run(chosen, split or chosen.data.train_split, out, count=count)
        print(f"{drawn} samples in {out}: each photo above the same with its labels")


@app.command()
def pack(
    path: PathArgument,
    out: Annotated[Path, typer.Option(help="The folder of shards; may hold other splits of the same data set.")],
    layout: LayoutOption = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Which split; repeatable. All that are found if left out.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that read samples.", min=1)] = 2,
) -> None:
    """Write a data set of any layout into tar shards with an index: for large sets, slow disks and clusters."""
    with errors_for_people():
        from veduta.data import DATASETS, open_layout
        from veduta.data.pack import pack as run
        from veduta.engine.progress import ProgressLine

        name, line = find_layout(path, layout), ProgressLine()
        found = split or DATASETS[name].splits(path)
        if not found:
            raise ValueError(f"{path} holds no split of layout {name}.")
        opened = {wanted: open_layout(name, path, wanted) for wanted in found}  # all names are right before the work
        for wanted, dataset in opened.items():
            index = run(
                dataset,
                out,
                split=wanted.translate(str.maketrans("/:+", "--_")),  # a + would join splits of the shards
                workers=workers,
                progress=partial(line.count, f"packing {wanted}"),
            )
            print(f"{wanted}: {index.num_samples:,} samples in {len(index.shards):,} shards in {out}")


@app.command()
def unpack(
    path: Annotated[Path, typer.Argument(help="The folder of shards.")],
    out: Annotated[Path, typer.Option(help="The folder to write images, masks and notes into.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Which split; repeatable. All that are found if left out.")
    ] = None,
) -> None:
    """Write shards as files again: layout `folder`, or `imagenet` for classified images."""
    with errors_for_people():
        from veduta.data import DATASETS
        from veduta.data.unpack import unpack as run
        from veduta.engine.progress import ProgressLine

        line = ProgressLine()
        found = sorted(split or DATASETS["shards"].splits(path), key=lambda name: name != "train")  # it orders classes
        if not found:
            raise ValueError(f"{path} holds no shards: no SPLIT.index.json, which `veduta data pack` writes last.")
        for wanted in found:
            count = run(
                path,
                wanted,
                out,
                progress=partial(line.count, f"unpacking {wanted}"),
            )
            print(f"{wanted}: {count:,} samples in {out}")


@app.command()
def index(
    path: Annotated[Path, typer.Argument(help="The folder of tar files SPLIT-NUMBER.tar.")],
    split: Annotated[str, typer.Option(help="Which split.")],
) -> None:
    """Make the index of shards that another program wrote, so that they open as layout `shards`."""
    with errors_for_people():
        from veduta.data.layouts.shards import index_shards
        from veduta.engine.progress import ProgressLine

        line = ProgressLine()
        found = index_shards(path, split, partial(line.count, "indexing"))
        print(f"{split}: {found.num_samples:,} samples in {len(found.shards):,} shards")
