"""The command line: each verb imports late and calls one function. Exit 0: done, 1: failed, 2: misused."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from veduta.cli import bench, compare, data, evaluate, export, offline, runs, score, submit
from veduta.cli.errors import FAILED, errors_for_people, stop
from veduta.cli.options import BackendOption, DeviceOption, SetOption

app = typer.Typer(
    help="Veduta reads scenes: train, evaluate, export and use published networks, with scores you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(data.app, name="data")
app.add_typer(offline.app, name="offline")
app.add_typer(runs.app)
for verb in (evaluate, export, score, compare, bench, submit):
    app.add_typer(verb.app)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name from `veduta list`, a recipe.json, or a run folder.")],
    out: Annotated[Path, typer.Option(help="The run folder to make; must not exist, but with --resume.")],
    data: Annotated[
        list[Path], typer.Option("--data", help="Folder of the data set; once for each stage where they differ.")
    ] = [],  # noqa: B006
    set_: SetOption = [],  # noqa: B006
    init: Annotated[
        Path | None, typer.Option(help="Start from the weights of a run or model file; heads by class name.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run in --out was stopped; start it where there is none.")
    ] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each device.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write its event files, too.")] = False,
) -> None:
    """Train a recipe into a run folder."""
    with errors_for_people():
        from veduta.config import set_fields, with_roots
        from veduta.recipes import find_recipe

        chosen = with_roots(set_fields(find_recipe(recipe), set_), data)
        if devices > 1 and os.environ.get("WORLD_SIZE", "1") == "1":
            from veduta.engine.launch import launch

            raise typer.Exit(launch([sys.executable, "-m", "veduta.cli", *sys.argv[1:]], devices))

        from veduta.engine.progress import ProgressLine
        from veduta.engine.stages import train_stages
        from veduta.report.page import write_report

        line = ProgressLine()
        for folder, evaluation in train_stages(chosen, out, line, init=init, resume=resume, tensorboard=tensorboard):
            if os.environ.get("RANK", "0") == "0":
                write_report(evaluation, folder / "report.html", run=folder)
                print(evaluation.headline())
                print(f"open {folder / 'report.html'}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run folder (its best checkpoint) or a model file.")],
    images: Annotated[list[str], typer.Argument(help="Files, folders or globs.")],
    out: Annotated[Path, typer.Option(help="The folder to make; must not exist.")],
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Write how sure the masks are, too, for `veduta score`; large.")
    ] = False,
    set_: SetOption = [],  # noqa: B006
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Write index masks, overlays and one JSON for images; of classifiers the scores of all classes."""
    with errors_for_people():
        from veduta.engine.predict import find_images

        found = find_images(images)

        from veduta.backends import open_model
        from veduta.engine.predict import predict as run
        from veduta.engine.predictor import Predictor
        from veduta.engine.progress import ProgressLine

        predictor = Predictor(open_model(model, device=device, backend=backend, changes=set_))
        failed = run(predictor, found, out, ProgressLine(), confidence=confidence)
        written = ", ".join(sorted(f"{path.name}/" if path.is_dir() else path.name for path in out.iterdir()))
        print(f"{len(found) - len(failed)} of {len(found)} images in {out}: {written}")
        if failed:
            listed = "\n  ".join(why for _, why in failed[:5])
            stop(f"{len(failed)} of {len(found)} images could not be read:\n  {listed}", FAILED)


@app.command(name="import")
def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A TensorFlow bundle (its prefix, .index or folder) or .pb, a MindSpore .ckpt, a .pth."),
    ],
    out: Annotated[Path, typer.Option(help="The model file to write: NAME.safetensors.")],
    model: Annotated[str | None, typer.Option(help="Which network it is, where it is not what fits best.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="ema or raw: which to take where it holds moving averages of the weights.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="labels.json or classes.csv, where the classes are not the published ones.")
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="An option of the network: output_stride=8. Repeatable.")
    ] = [],  # noqa: B006
    json: Annotated[Path | None, typer.Option(help="Write the table into this file as JSON.")] = None,
) -> None:
    """Bring an old checkpoint back: a model file of its weights, and a table of what became of every tensor."""
    with errors_for_people():
        from veduta.config import read_options
        from veduta.files import check_new_file, write_text
        from veduta.legacy.importer import import_checkpoint

        if json is not None:
            check_new_file(json)
            if json.absolute() == out.absolute():
                raise ValueError(f"--json {json}: the same file as --out. Choose another.")
        if weights not in (None, "raw", "ema"):
            raise ValueError(f"--weights {weights}: choose ema or raw.")
        report = import_checkpoint(
            checkpoint,
            out,
            model=model,
            weights=weights,  # type: ignore[arg-type]  # narrowed above
            labels=labels,
            options=read_options(set_),
            say=lambda text: print(text, file=sys.stderr),
        )
        if json is not None:
            write_text(json, report.to_json())
        print(report.table())
        print(report.headline())
        print(f"wrote {out}; try: veduta predict {shlex.quote(str(out))} IMAGES --out FOLDER")


@app.command(name="list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="recipes, data or models; all of them where nothing is given.")
    ] = None,
) -> None:
    """What there is: recipes, data sets, models with their size, their published score and who can be imported."""
    with errors_for_people():
        from veduta.config import nearest

        lists = {"recipes": _list_recipes, "data": _list_data, "models": _list_models}
        if what is not None and what not in lists:
            raise ValueError(f"veduta list {what}: there is no such list.{nearest(what, lists)}")
        for name in lists if what is None else [what]:
            print("\n".join([name, *(f"  {line}".rstrip() for line in lists[name]())]))


def _list_recipes() -> list[str]:
    from veduta.recipes import RECIPES

    width = max(map(len, RECIPES))
    return [f"{name:{width}} {(recipe.__doc__ or '').splitlines()[0]}" for name, recipe in RECIPES.items()]


def _list_data() -> list[str]:
    from veduta.data import DATASETS

    lines = [f"{name:12} {layout.about}" for name, layout in DATASETS.items()]
    return [*lines, f"{'scenes':12} generated street scenes: masks, boxes and a scene class"]


def _list_models() -> list[str]:
    from veduta.legacy import importable_from
    from veduta.models import MODELS
    from veduta.models.published import PUBLISHED

    lines = [
        f"{'':26} {'classes':>7} {'size':>5} {'parameters':>11} {'GMACs':>8}  imports from; published score (source)"
    ]
    for name in MODELS:
        if name not in PUBLISHED:
            lines.append(f"{name:26} {'its size is that of the backbone':>35}")
            continue
        num_classes, size, parameters, gmacs, score, source = PUBLISHED[name]
        notes = [", ".join(importable_from(name)), f"{score} ({source})" if score else ""]
        words = "; ".join(note for note in notes if note)
        lines.append(f"{name:26} {num_classes:>7,} {size:>5} {parameters:>11,} {gmacs:>8.2f}  {words}")
    return lines


@app.command()
def doctor(json: Annotated[Path | None, typer.Option(help="Write it into this file, too, as JSON.")] = None) -> None:
    """What this machine has, and of what is missing why: for a bug report, and before one."""
    with errors_for_people():
        from veduta.engine.doctor import examine, in_words, to_json
        from veduta.files import check_new_file, write_text

        if json is not None:
            check_new_file(json)
        examination = examine()
        if json is not None:
            write_text(json, to_json(examination))
        print(in_words(examination))


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="The run folder to make; default runs/demo, runs/demo-2, ...")
    ] = None,
) -> None:
    """Train a small network for boxes and masks on generated street scenes, score, export, show it; no data needed."""
    with errors_for_people():
        from itertools import count

        from veduta.backends import open_model
        from veduta.data import open_dataset
        from veduta.engine.evaluate import evaluate as score
        from veduta.engine.evaluate import with_examples
        from veduta.engine.predictor import Predictor
        from veduta.engine.progress import ProgressLine
        from veduta.engine.train import train as run
        from veduta.export.export import export as prove_export
        from veduta.export.export import open_reference
        from veduta.export.request import Request
        from veduta.recipes import find_recipe
        from veduta.report.page import write_report

        recipe, line = find_recipe("demo"), ProgressLine()
        names = (Path("runs") / ("demo" if number == 1 else f"demo-{number}") for number in count(1))
        out = out or next(folder for folder in names if not folder.exists())
        run(recipe, out, line)
        predictor, dataset = Predictor(open_model(out)), open_dataset(recipe.data, "test")
        evaluation = score(
            predictor, dataset, name=recipe.data.dataset, split="test", batch_size=recipe.data.batch_size
        )
        write_report(with_examples(evaluation, predictor, dataset), out / "report.html", run=out)
        exported = prove_export(open_reference(out, []), Request(target="onnx", out=out / "model.onnx"), line)
        print(evaluation.table())
        print(evaluation.headline())
        print(f"{exported.request.out}: {exported.headline()}")
        print(f"Now open {out / 'report.html'}")
