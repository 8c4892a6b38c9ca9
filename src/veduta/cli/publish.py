"""What verbs that score print and write of an evaluation."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veduta.data.sample import SampleDataset
    from veduta.engine.sources import Source
    from veduta.tasks.evaluation import Evaluation


def publish(
    evaluation: "Evaluation",
    source: "Source",
    dataset: "SampleDataset",
    *,
    sort: str | None,
    json: Path | None,
    report: Path | None,
    environment: Mapping[str, Any],
    run: Path | None = None,
) -> None:
    """Print table, further scores and headline; write the JSON, and the page with pictures. run: a run folder."""
    from veduta.engine.evaluate import with_examples
    from veduta.engine.progress import ProgressLine
    from veduta.files import write_text

    print(evaluation.table(sort))
    if evaluation.scores.details:
        print(evaluation.details())
    print(evaluation.headline())
    if json is not None:
        write_text(json, evaluation.to_json(environment))
    if report is not None:
        from veduta.report.page import write_report

        progress = partial(ProgressLine().count, "predicting pictures")
        shown = with_examples(evaluation, source, dataset, progress=progress)
        write_report(shown, report, run=run, environment=environment)
