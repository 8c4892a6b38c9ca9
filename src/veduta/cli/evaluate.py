"""`veduta evaluate`: scores of a model that prove themselves; with --sweep, of all checkpoints of a run."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veduta.cli.chosen_data import open_data
from veduta.cli.errors import FAILED, errors_for_people, stop
from veduta.cli.options import BackendOption, DataOption, DeviceOption
from veduta.cli.publish import publish

if TYPE_CHECKING:
    from torch import device as Device

    from veduta.backends.torch import TorchBackend
    from veduta.config import Data
    from veduta.data.sample import SampleDataset
    from veduta.engine.counting import Progress
    from veduta.engine.interrupt import Caught
    from veduta.engine.sources import Source
    from veduta.tasks.evaluation import Evaluation

app = typer.Typer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for."""

    model: Path
    data: Path | None
    split: str | None
    changes: list[str]
    backend: str
    sort: str | None
    json: Path | None
    report: Path | None
    resume: Path | None
    sweep: bool
    curve: Path | None
    out: Path | None


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run folder (its best checkpoint), a model file, or predictions.")],
    data: DataOption = None,
    split: Annotated[str | None, typer.Option(help="Which split to score; the recipe's validation split.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure into this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with pictures into this file.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="Order the table by a column, such as iou, or by class; else as labelled.")
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="Change a recipe field: protocol=mirrored. Repeatable.")
    ] = [],  # noqa: B006
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each device.")] = 1,
    resume: Annotated[
        Path | None, typer.Option(help="Keep what was counted in this folder, and go on from what is there.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Score all checkpoints that the run has kept, and their average.")
    ] = False,
    curve: Annotated[Path | None, typer.Option(help="With --sweep: draw the scores into this PNG.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --sweep: write the averaged weights into this NAME.safetensors.")
    ] = None,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Exit 0 although images failed; the headline says how many.")
    ] = False,
) -> None:
    """Score a model on a split: a table by class, and one headline that proves itself."""
    request = Request(
        model=model,
        data=data,
        split=split,
        changes=set_,
        backend=backend,
        sort=sort,
        json=json,
        report=report,
        resume=resume,
        sweep=sweep,
        curve=curve,
        out=out,
    )
    with errors_for_people():
        if devices > 1 and os.environ.get("WORLD_SIZE", "1") == "1":
            _check(request)
            from veduta.engine.launch import launch

            raise typer.Exit(launch([sys.executable, "-m", "veduta.cli", *sys.argv[1:]], devices))

        from veduta.engine.interrupt import caught_signals, told_to_stop
        from veduta.ranks import joined, lost_rank_named, on_first, rank

        with joined(device) as own, caught_signals() as caught, told_to_stop(caught), lost_rank_named():
            on_first(lambda: _check(request))
            evaluations, first = (_sweep if sweep else _evaluate)(request, own, caught), rank() == 0
        _judge(evaluations, allow_failed=allow_failed, says=first)


def _check(request: Request) -> None:
    """What can be wrong with a request before anything is opened. Raises ValueError or OSError."""
    from veduta.engine.changes import check_changes
    from veduta.files import check_new_files

    check_changes(request.changes)
    for option, value in (("--split", request.split), ("--sort", request.sort)):
        if value == "":
            raise ValueError(f"{option} is given nothing. Name one, or leave it out.")
    if request.curve is not None and request.curve.suffix.lower() != ".png":
        raise ValueError(f"--curve {request.curve}: the picture is a PNG. Give it a name that ends in .png.")
    check_new_files(
        {"--json": request.json, "--report": request.report, "--curve": request.curve, "--out": request.out}
    )
    if request.sweep:
        if request.report is not None or request.sort is not None:
            option = "--report" if request.report is not None else "--sort"
            raise ValueError(f"{option} is of one checkpoint. Leave out --sweep, and give the file of the one meant.")
        if request.out is not None and request.out.suffix != ".safetensors":
            raise ValueError(f"--out {request.out}: model files are called NAME.safetensors.")
    elif request.curve is not None or request.out is not None:
        option = "--curve" if request.curve is not None else "--out"
        raise ValueError(f"{option} is of all checkpoints of a run. Add --sweep.")


def _evaluate(request: Request, device: "Device", caught: "Caught") -> "list[Evaluation]":
    """Score, print, write."""
    from veduta.engine.evaluate import evaluate as run
    from veduta.engine.kept_counts import remove_folder
    from veduta.ranks import first_then_others, on_first
    from veduta.tasks.evaluation import find_column

    def opened() -> "tuple[Source, SampleDataset, Data, str, str | None]":
        source, settings = _open_model(request, device)
        settings, split, dataset = open_data(settings, request.data, request.split, changes=request.changes)
        source = source or _open_predictions(request, dataset)
        columns = source.task.metric(dataclasses.replace(source.rules, full=True)).compute().per_class
        return source, dataset, settings, split, find_column(request.sort, columns) if request.sort else None

    source, dataset, settings, split, sort = first_then_others(opened)
    evaluation = run(
        source,
        dataset,
        name=settings.dataset,
        split=split,
        batch_size=settings.batch_size,
        progress=_progress("evaluating", caught, request, share=True),
        drawing=_progress("drawing images anew", caught, request),
        resume=request.resume,
        settings=_identity(request, device),
    )

    def told() -> None:
        publish(
            evaluation,
            source,
            dataset,
            sort=sort,
            json=request.json,
            report=request.report,
            environment=_environment(device),
            run=request.model if request.model.is_dir() else None,
        )
        if request.resume is not None:
            remove_folder(request.resume)

    on_first(told)
    return [evaluation]


def _sweep(request: Request, device: "Device", caught: "Caught") -> "list[Evaluation]":
    """Score all checkpoints, print, write."""
    from veduta.checkpoint import load_model
    from veduta.config import set_fields
    from veduta.engine.evaluate import evaluate as run
    from veduta.engine.kept_counts import open_folder, remove_folder
    from veduta.engine.predictor import Predictor
    from veduta.engine.sweep import find_checkpoints, sweep
    from veduta.engine.sweep_curve import draw_sweep
    from veduta.files import write_text
    from veduta.ranks import first_then_others, on_first

    def opened() -> "tuple[list[Path], Data, str, SampleDataset]":
        files = find_checkpoints(request.model)
        settings = set_fields(load_model(files[0])[1].recipe, request.changes).data
        return files, *open_data(settings, request.data, request.split, changes=request.changes)

    files, settings, split, dataset = first_then_others(opened)
    resume = request.resume
    if resume is not None:
        on_first(lambda: open_folder(resume, {"sweep of": [str(file.absolute()) for file in files]}))

    def score(name: str, backend: "TorchBackend") -> "Evaluation":
        source = first_then_others(lambda: Predictor(backend))
        return run(
            source,
            dataset,
            name=settings.dataset,
            split=split,
            batch_size=settings.batch_size,
            progress=_progress(f"evaluating {name}", caught, request, share=True),
            drawing=_progress("drawing images anew", caught, request),
            resume=resume / name.replace(" ", "-").replace(",", "") if resume else None,
            settings=_identity(request, device),
        )

    result = sweep(files, changes=request.changes, device=device, split=split, score=score, out=request.out)

    def told() -> None:
        for warning in result.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(result.table())
        print(result.headline())
        if request.json is not None:
            write_text(request.json, result.to_json(_environment(device)))
        if request.curve is not None:
            draw_sweep(result, request.curve)
        if resume is not None:
            remove_folder(resume)

    on_first(told)
    return [entry.evaluation for entry in result.all]


def _open_model(request: Request, device: "Device") -> "tuple[Source | None, Data | None]":
    """The model with the data settings of its recipe; nothing where predictions are given."""
    from veduta.backends import open_model
    from veduta.engine.predictor import Predictor
    from veduta.engine.sources import is_model
    from veduta.model_info import find_model

    if is_model(request.model):
        predictor = Predictor(
            open_model(request.model, device=str(device), backend=request.backend, changes=request.changes)
        )
        return predictor, predictor.backend.info.recipe.data
    if request.data is None:
        find_model(request.model)  # whoever gives no data means a model
        raise ValueError(f"{request.model} holds predictions; where their images lie is not in it. Add --data PATH.")
    return None, None


def _open_predictions(request: Request, dataset: "SampleDataset") -> "Source":
    from veduta.engine.sources import open_source

    return open_source(request.model, dataset=dataset, changes=request.changes)


def _progress(what: str, caught: "Caught", request: Request, *, share: bool = False) -> "Progress":
    """Shows how far the first process is, with its own share or with what all do; stops each one after a signal."""
    from veduta.engine.progress import ProgressLine
    from veduta.errors import RunStopped
    from veduta.ranks import rank, world_size

    line = ProgressLine(silent=rank() > 0)
    if share and world_size() > 1:
        what = f"{what}, process 1 of {world_size()}:"

    def progress(done: int, total: int) -> None:
        line.count(what, done, total)
        if caught.signal is not None:
            kept = (
                f"what was counted is kept in {request.resume}; the same command goes on from there."
                if request.resume is not None
                else "nothing is kept; with --resume FOLDER it would be."
            )
            message = f"stopped at {what} {done:,}/{total:,}: {kept}" if rank() == 0 else ""
            raise RunStopped(message, exit_code=caught.exit_code)

    return progress


def _environment(device: "Device") -> dict[str, Any]:
    from veduta.engine.environment import environment
    from veduta.ranks import world_size

    return {**environment(), "device": str(device), "processes": world_size()}


def _identity(request: Request, device: "Device") -> dict[str, Any]:
    """What else must be the same for counts to go on: all that changes predictions, but for what predicts."""
    return {
        "model": str(request.model.resolve()),
        "--set": request.changes,
        "device": device.type,
        "--backend": request.backend,
    }


def _judge(evaluations: "list[Evaluation]", *, allow_failed: bool, says: bool) -> None:
    """Exit 1 where a score proves nothing."""
    for evaluation in evaluations:
        if not evaluation.proved and not evaluation.failed:
            message = "samples of one name come more than once, so the score proves nothing. Take them out."
            stop(message if says else "", FAILED)
        if evaluation.failed and not allow_failed:
            listed = "\n  ".join(why for _, why in evaluation.failed[:5])
            message = (
                f"{len(evaluation.failed)} images failed; the score leaves them out:\n  {listed}\n"
                "Repair them, or accept the score with --allow-failed."
            )
            stop(message if says else "", FAILED)
