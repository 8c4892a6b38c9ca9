"""The report: one HTML page with a score, its proof and its pictures. It needs no network and no other file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veduta import __version__
from veduta.data.images import read_rgb
from veduta.report.examples import ShownExample, show_example
from veduta.report.html import Detail, data_uri, load_template, write_page
from veduta.report.overlays import shrink
from veduta.report.tables import (
    calibration_bins,
    class_rows,
    confused_pairs,
    confusion_rows,
    data_card,
    flatten,
    overconfidence,
)
from veduta.tasks.evaluation import WORDS, Evaluation, Example

BATCH_SIDE = 1400  # pixels that the first training batch is shrunk to
MAX_FAILED = 100  # names listed on the page; `to_json` has all of them


def write_report(
    evaluation: Evaluation, path: Path, *, run: Path | None, environment: Mapping[str, Any] | None = None
) -> None:
    """Write the page.

    run: the folder of the training run; what it holds of curves, data, recipe and machine is shown. environment: the
    machine of the evaluation, where it is another one.
    """
    write_page(path, lambda detail: render(evaluation, run=run, environment=environment or {}, detail=detail))


def render(evaluation: Evaluation, *, run: Path | None, environment: Mapping[str, Any], detail: Detail) -> str:
    """The page as text."""
    scores = evaluation.scores
    (first, figure), *others = scores.overall.items()
    columns, bins = list(scores.per_class), calibration_bins(evaluation)
    return load_template("template.html", quality=detail.quality).render(
        evaluation=evaluation,
        scores=scores,
        first=first,
        figure=figure,
        others=others,
        details={name: score for name, score in scores.details.items() if name != "calibration_error"},
        doubts=list(find_doubts(evaluation)),
        failed=evaluation.failed[:MAX_FAILED],
        rows=class_rows(evaluation),
        num_present=int(scores.present.sum()),
        columns=columns,
        bars=[column for column in columns if column in (columns[0], "iou")],
        confusion=confusion_rows(evaluation),
        pairs=confused_pairs(evaluation),
        bins=bins,
        overconfidence=overconfidence(bins),
        of_images=scores.confusion_of == "images",
        words=WORDS,
        examples=list(show_examples(evaluation, side=detail.side)),
        run=run.resolve().name if run else None,
        environment=list(flatten(environment)),
        version=__version__,
        **_of_run(run),
    )


def show_examples(evaluation: Evaluation, *, side: int) -> Iterator[ShownExample]:
    """Worst, typical and best; an image of several of these is shown where it stands first."""
    groups: dict[str, tuple[Example, ...]] = {
        "Worst": evaluation.worst,
        "Typical": evaluation.typical,
        "Best": evaluation.best,
    }
    places: dict[str, tuple[int, str]] = {}
    for group, examples in groups.items():
        for place, example in enumerate(examples):
            places[example.score.name] = min(places.get(example.score.name, (place, group)), (place, group))
    for group, examples in groups.items():
        for place, example in enumerate(examples):
            if places[example.score.name] == (place, group):
                yield show_example(example, evaluation.labels, group=group, side=side)


def find_doubts(evaluation: Evaluation) -> Iterator[str]:
    """Why `evaluation.proved` is False, in words."""
    if evaluation.failed:
        yield f"{len(evaluation.failed):,} of {evaluation.images_total:,} images failed and are not in these numbers."
    elif evaluation.images_counted != evaluation.images_total:
        yield f"{evaluation.images_counted:,} images were counted, the split has {evaluation.images_total:,}."
    repeated = len(evaluation.per_image) - len({score.name for score in evaluation.per_image})
    if repeated:
        yield f"{repeated:,} of the images counted had a name that had been counted before."
    if evaluation.images_counted != len(evaluation.per_image):
        yield f"{evaluation.images_counted:,} images were counted, {len(evaluation.per_image):,} have their own scores."


def _of_run(run: Path | None) -> dict[str, Any]:
    """What the folder of a training run adds to the page; what it lacks is None or empty."""
    curves, sweep, batch = (_find(run, f"{name}.png") for name in ("curves", "sweep", "first_batch"))
    recipe, data, machine = (_find(run, name) for name in ("recipe.json", "data.json", "environment.json"))
    return {
        "curves": data_uri("image/png", curves.read_bytes()) if curves else None,
        "sweep": data_uri("image/png", sweep.read_bytes()) if sweep else None,
        "first_batch": shrink(read_rgb(batch), (BATCH_SIDE, BATCH_SIDE)) if batch else None,
        "cards": data_card(data.read_text(encoding="utf-8")) if data else [],
        "trained_on": list(flatten(json.loads(machine.read_text(encoding="utf-8")))) if machine else [],
        "recipe": recipe.read_text(encoding="utf-8", errors="replace") if recipe else None,
        "hashes": [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in (recipe, data) if file],
    }


def _find(run: Path | None, name: str) -> Path | None:
    return run / name if run and (run / name).is_file() else None
