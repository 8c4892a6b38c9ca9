"""`veduta submit`: the package that a test server takes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veduta.cli.errors import errors_for_people, refuse_ranks
from veduta.cli.options import DeviceOption, SetOption

if TYPE_CHECKING:
    from veduta.data.layout import FileDataset
    from veduta.engine.submit import Form
    from veduta.model_info import ModelInfo
    from veduta.tasks.evaluation import Evaluation

app = typer.Typer()
submit = typer.Typer(help="Build the package that a test server takes, or check one.", no_args_is_help=True)
app.add_typer(submit, name="submit")

SourceArgument = Annotated[Path, typer.Argument(help="A run folder, a model file, or predictions in files.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder of the data set.")]


@submit.command()
def voc(
    source: SourceArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The package to write: NAME.tgz.")],
    split: Annotated[str, typer.Option(help="A list of VOC: test, val; of boxes: main-test, main-val.")] = "test",
    comp: Annotated[
        int | None,
        typer.Option(
            help="The competition: 5 (boxes: 3) if only VOC's own data was learned from, 6 (boxes: 4) if more."
        ),
    ] = None,
    set_: SetOption = [],  # noqa: B006
    device: DeviceOption = "auto",
) -> None:
    """PASCAL VOC: masks of competition 5 or 6, or boxes of 3 or 4, as .tgz."""
    with errors_for_people():

        def form_of(dataset: "FileDataset[Any]", info: "ModelInfo | None") -> "Form":
            from veduta.engine.submit_voc import voc_form

            return voc_form(dataset, data, split, comp, info)

        _submit(source, "voc", data, split, out, set_, device, form_of)


@submit.command()
def cityscapes(
    source: SourceArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The package to write: NAME.zip.")],
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    set_: SetOption = [],  # noqa: B006
    device: DeviceOption = "auto",
) -> None:
    """Cityscapes: masks of label ids, as .zip."""
    with errors_for_people():

        def form_of(dataset: "FileDataset[Any]", info: "ModelInfo | None") -> "Form":
            from veduta.engine.submit_cityscapes import CityscapesMasks

            return CityscapesMasks(dataset, split)

        _submit(source, "cityscapes", data, split, out, set_, device, form_of)


@submit.command()
def check(
    package: Annotated[Path, typer.Argument(help="A package for VOC or Cityscapes, .tgz or .zip.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="Of Cityscapes; a package for VOC says it by its folders.")] = "test",
) -> None:
    """Check a package that was made elsewhere, and score it where the truth is at hand."""
    with errors_for_people():
        from veduta.data import DATASETS, open_layout
        from veduta.engine.progress import ProgressLine
        from veduta.engine.submit import check_package
        from veduta.engine.submit_cityscapes import CityscapesMasks
        from veduta.engine.submit_voc import forms_of

        if DATASETS["voc"].splits(data):
            forms = forms_of(package, data)
        elif DATASETS["cityscapes"].splits(data):
            forms = [CityscapesMasks(open_layout("cityscapes", data, split), split)]
        else:
            raise ValueError(f"--data {data}: neither VOC nor Cityscapes lies there.")
        evaluations = check_package(package, forms, ProgressLine())
        for form, evaluation in zip(forms, evaluations, strict=True):
            _tell(package, form, evaluation)


def _submit(
    path: Path,
    layout: str,
    data: Path,
    split: str,
    out: Path,
    changes: list[str],
    device: str,
    form_of: "Callable[[FileDataset[Any], ModelInfo | None], Form]",
) -> None:
    from veduta.data import open_layout
    from veduta.engine.predictor import Predictor
    from veduta.engine.progress import ProgressLine
    from veduta.engine.sources import open_source
    from veduta.engine.submit import chosen_on, submit
    from veduta.files import check_new_file

    refuse_ranks("submit")
    check_new_file(out)
    dataset = open_layout(layout, data, split)
    source = open_source(path, dataset=dataset, device=device, changes=changes)
    info = source.backend.info if isinstance(source, Predictor) else None
    form = form_of(dataset, info)
    batch_size = info.recipe.data.batch_size if info else 1
    evaluation = submit(source, form, out, batch_size=batch_size, line=ProgressLine())
    _tell(out, form, evaluation)
    if info and chosen_on(info, form):
        print(
            f"note: this checkpoint was chosen by its score on split '{split}', the split in the package: its score "
            "there is better than on images that had no say in it.",
            file=sys.stderr,
        )


def _tell(package: Path, form: "Form", evaluation: "Evaluation | None") -> None:
    print(f"{package}: {form.about()}; checked, each once and legal")
    print(evaluation.headline() if evaluation else f"not scored: split '{form.split}' has no labels here")
