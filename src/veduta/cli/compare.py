"""`veduta compare`: two sources of predictions, image by image; or two builds of one network, module by module."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from veduta.cli.chosen_data import open_data
from veduta.cli.errors import FAILED, errors_for_people, refuse_ranks, stop
from veduta.cli.options import BackendOption, DataOption, DeviceOption

if TYPE_CHECKING:
    from veduta.backends import Backend

app = typer.Typer()


class Given(NamedTuple):
    """A or B: what is opened, and how."""

    path: Path
    changes: list[str]
    device: str
    backend: str

    def open(self) -> "Backend":
        from veduta.backends import open_model

        return open_model(self.path, device=self.device, backend=self.backend, changes=self.changes)


class Wanted(NamedTuple):
    """Which samples, as far as that was said."""

    data: Path | None
    dataset: str | None
    split: str | None


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A run folder, a model file, or predictions in files.")],
    b: Annotated[Path, typer.Argument(help="What is compared with it, of any kind.")],
    images: Annotated[
        list[str] | None, typer.Argument(help="With --outputs: files, folders or globs, in place of --data.")
    ] = None,
    data: DataOption = None,
    dataset: Annotated[
        str | None, typer.Option(help="A name of `veduta list data`, where it is not that of the models.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split; the validation split of the models.")] = None,
    set_a: Annotated[
        list[str], typer.Option("--set-a", help="Change a field of A's recipe: protocol=mirrored. Repeatable.")
    ] = [],  # noqa: B006
    set_b: Annotated[
        list[str], typer.Option("--set-b", help="Change a field of B's recipe: precision=bf16. Repeatable.")
    ] = [],  # noqa: B006
    device: DeviceOption = "auto",
    device_b: Annotated[str | None, typer.Option(help="The device of B, where it is another.")] = None,
    backend: BackendOption = "auto",
    backend_b: Annotated[str | None, typer.Option(help="The backend of B, where it is another.")] = None,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="Compare tensors, and name the first module that departs.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="With --outputs: relative difference below which nothing departs.", min=0)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with pictures into this file.")] = None,
) -> None:
    """Compare two models, runs or prediction folders on the same images; what differs more than by chance is told.

    With --outputs the tensors of both on the same images: of two devices, precisions, builds or backends.
    """
    with errors_for_people():
        from veduta.engine.changes import check_changes
        from veduta.files import check_new_files

        refuse_ranks("compare")
        check_new_files({"--json": json, "--report": report})
        check_changes([*set_a, *set_b])
        if not outputs and (images or tolerance is not None):
            what = "--tolerance" if tolerance is not None else f"{(images or [])[0]}: image files"
            raise ValueError(f"{what} goes with --outputs. Scores are compared on the labelled images of --data.")
        wanted = Wanted(data, dataset, split)
        given = (Given(a, set_a, device, backend), Given(b, set_b, device_b or device, backend_b or backend))
        if not outputs:
            _scores(*given, wanted, json, report)
        elif report is not None:
            raise ValueError("--report shows scores, and --outputs compares none. Leave one of them out.")
        elif images and data is not None:
            raise ValueError("--outputs takes images or --data, and both were given. Leave one of them out.")
        else:
            _outputs(*given, wanted, images or [], tolerance, json)


def _scores(a: Given, b: Given, wanted: Wanted, json: Path | None, report: Path | None) -> None:
    from veduta.engine.compare import compare as run
    from veduta.engine.compare import with_pictures
    from veduta.engine.environment import environment
    from veduta.engine.predictor import Predictor
    from veduta.engine.progress import ProgressLine
    from veduta.engine.sources import is_model, open_source
    from veduta.files import write_text
    from veduta.model_info import find_model

    models = [Predictor(given.open()) if is_model(given.path) else None for given in (a, b)]
    recipes = [model.backend.info.recipe for model in models if model is not None]
    settings, split, samples = open_data(
        recipes[0].data if recipes else None,
        wanted.data,
        wanted.split,
        dataset=wanted.dataset,
        changes=[*a.changes, *b.changes],
    )
    one, other = (
        model or open_source(given.path, dataset=samples, changes=given.changes)
        for model, given in zip(models, (a, b), strict=True)
    )
    sizes = [find_model(path).stat().st_size if is_model(path) else None for path in (a.path, b.path)]
    line = ProgressLine()
    comparison = run(
        one,
        other,
        samples,
        names=(str(a.path), str(b.path)),
        name=settings.dataset,
        split=split,
        batch_size=settings.batch_size,
        file_bytes=(sizes[0], sizes[1]),
        progress=line.count,
    )
    for warning in comparison.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(comparison.table())
    print(comparison.headline())
    if json is not None:
        write_text(json, comparison.to_json(environment()))
    if report is not None:
        from veduta.report.comparison_page import write_comparison

        shown = with_pictures(comparison, one, other, samples, progress=partial(line.count, "predicting pictures"))
        write_comparison(shown, report, environment=environment())
    failed = dict((*comparison.a.failed, *comparison.b.failed))
    if failed:
        listed = "\n  ".join(list(failed.values())[:5])
        stop(f"{len(failed)} images failed; the comparison leaves them out:\n  {listed}\nRepair them.", FAILED)


def _outputs(a: Given, b: Given, wanted: Wanted, images: list[str], tolerance: float | None, json: Path | None) -> None:
    from veduta.data.images import read_rgb
    from veduta.engine.compare_outputs import compare_outputs, spread
    from veduta.engine.predict import find_images
    from veduta.engine.progress import ProgressLine
    from veduta.files import write_text

    found = find_images(images)
    one, other = a.open(), b.open()
    if found:
        count, pixels = len(found), (read_rgb(path) for path in found.values())
    else:
        _, _, samples = open_data(
            one.info.recipe.data, wanted.data, wanted.split, dataset=wanted.dataset, changes=[*a.changes, *b.changes]
        )
        chosen = spread(len(samples))
        count, pixels = len(chosen), (samples[index].image for index in chosen)
    line = ProgressLine()
    comparison = compare_outputs(
        one,
        other,
        pixels,
        names=(_in_words(a.path, one), _in_words(b.path, other)),
        tolerance=tolerance,
        progress=lambda done: line.count("comparing outputs", done, count),
    )
    print(comparison.table())
    print(comparison.headline())
    if json is not None:
        write_text(json, comparison.to_json())


def _in_words(path: Path, backend: "Backend") -> str:
    info = backend.info
    return f"{path} on {backend.device}, {info.recipe.precision}, weights {info.weights_sha256[:12]}"
