"""Evaluate: one split through a Source, counted image by image, into a score that proves itself."""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from veduta import __version__
from veduta.data.layout import FileDataset, Record
from veduta.data.sample import InMemory, Sample, SampleDataset
from veduta.data.stored import Stored
from veduta.engine.counting import Progress, Share, count_share, goodness
from veduta.engine.kept_counts import kept_in, open_folder
from veduta.engine.sources import Source
from veduta.labels import LabelMap
from veduta.ranks import gathered, on_first, rank, said_once, share_of_rank, wait_for_all, world_size
from veduta.tasks.bootstrap import interval
from veduta.tasks.evaluation import Evaluation, Example, ImageScore
from veduta.tasks.prediction import Prediction

NUM_EXAMPLES = 4  # best, typical and worst pictures that a report shows
MOST_SIDE = 2048  # pixels of the longer side of such a picture; a report shows less


def evaluate(
    source: Source,
    dataset: SampleDataset,
    *,
    name: str,
    split: str,
    batch_size: int,
    progress: Progress = lambda done, total: None,
    drawing: Progress = lambda done, total: None,
    full: bool = True,
    resume: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a split, each process its share of it; all of them return the same.

    Unreadable samples are counted as failed and named, never skipped in silence. full: scores that take time, and the
    interval of the first one, too. progress: (images done, images in all) of this process. drawing: (draws done, draws
    in all) of the interval. Both may raise RunStopped.

    resume: a folder in which the counts are kept while it runs and when it is stopped; what is there already, of the
    same evaluation, is not counted again. The caller removes it in the end. settings: what else has to be the same for
    that, such as changes of the recipe.

    Raises ValueError where the data's classes are not the model's, where a sample has nothing to compare with, or
    where the folder holds other counts.
    """
    on_first(lambda: check_classes(source.labels, dataset))
    rules = dataclasses.replace(source.rules, full=full)
    indices = share_of_rank(len(dataset), rank(), world_size())
    share = Share(source.task.metric(rules), indices.start)
    count = partial(count_share, source, dataset, indices, share, batch_size=batch_size, progress=progress)
    waiting = partial(progress, len(indices), len(indices))
    if resume is None:
        count()
        wait_for_all(waiting)
    else:
        identity = {
            "sha256 of what predicts": source.sha256,
            "proof": source.proof,
            "protocol": source.protocol,
            "task": type(source.task).__name__,
            "rules": dataclasses.asdict(rules),
            "data": name,
            "split": split,
            "images": len(dataset),
            "sha256 of their files": _hash_files(dataset),
            "batch size": batch_size,
            "processes": world_size(),
            "Veduta": __version__,
            **(settings or {}),
        }
        on_first(lambda: open_folder(resume, identity))
        with kept_in(resume, rank(), share) as keep:
            count(keep=keep)
        wait_for_all(waiting)
    whole, *others = gathered(share)
    for other in others:
        whole.merge(other)
    if whole.without_truth is not None:
        what = source.task.truth.replace("_", " ")
        raise said_once(
            ValueError(f"{whole.without_truth} of split '{split}' has no {what} to compare with. Choose another split.")
        )
    return Evaluation(
        dataset=name,
        split=split,
        labels=source.labels,
        protocol=source.protocol,
        rules=rules,
        proof=source.proof,
        sha256=source.sha256,
        images_total=len(dataset),
        images_counted=len(whole.images),
        failed=tuple((f"sample {index}", why) for index, why in sorted(whole.failed)),
        scores=whole.metric.compute(),
        interval=interval(whole.metric, progress=drawing) if full and len(whole.images) > 1 else None,
        per_image=tuple(whole.images),
        order=tuple(whole.order),
        metric=whole.metric,
        seconds=whole.seconds,
    )


def check_classes(labels: LabelMap, dataset: SampleDataset) -> None:
    """Raises ValueError where the data's classes are not the model's, which are `labels`."""
    if dataset.labels.names != labels.names:
        raise ValueError(
            f"the model knows {labels.num_classes} classes ({', '.join(labels.names)}), the data "
            f"{dataset.labels.num_classes} ({', '.join(dataset.labels.names)}). They must be the same, in order."
        )


def with_examples(
    evaluation: Evaluation,
    source: Source,
    dataset: SampleDataset,
    *,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """The same with pictures, which are read and predicted once more, since none were kept.

    Images without a score are neither good nor bad. Of equal ones the first come first.
    """
    scored = [(place, goodness(image)) for place, image in enumerate(evaluation.per_image) if goodness(image)[0] >= 0]
    ranked = [place for place, _ in sorted(scored, key=lambda entry: entry[1], reverse=True)]
    worst = [place for place, _ in sorted(scored, key=lambda entry: entry[1])][:NUM_EXAMPLES]
    middle = max(0, (len(ranked) - NUM_EXAMPLES) // 2)
    best, typical = ranked[:NUM_EXAMPLES], ranked[middle : middle + NUM_EXAMPLES]
    shown: dict[int, Example] = {}
    places = dict.fromkeys((*best, *typical, *worst))
    for done, place in enumerate(places, start=1):
        sample = dataset[evaluation.order[place]]
        shown[place] = example_of(evaluation.per_image[place], sample, *source.predict([sample]))
        progress(done, len(places))
    return dataclasses.replace(
        evaluation,
        best=tuple(shown[place] for place in best),
        typical=tuple(shown[place] for place in typical),
        worst=tuple(shown[place] for place in worst),
    )


def example_of(score: ImageScore, sample: Sample, prediction: Prediction) -> Example:
    """A picture to keep: at most MOST_SIDE pixels long, so that some of them are nothing, however large the images."""
    height, width = sample.image.shape[:2]
    scale = MOST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        true, found = (
            {
                "mask": None if it.mask is None else cv2.resize(it.mask, size, interpolation=cv2.INTER_NEAREST_EXACT),
                "boxes": None if it.boxes is None else it.boxes * np.float32(scale),
            }
            for it in (sample, prediction)
        )
        image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
        sample = dataclasses.replace(sample, image=image, **true)  # type: ignore[arg-type]
        prediction = dataclasses.replace(prediction, confidence=None, **found)  # type: ignore[arg-type]
    return Example(score=score, sample=sample, prediction=prediction)


def _hash_files(dataset: SampleDataset) -> str:
    """Of what is known of samples without opening their files; of generated ones, which never change, of nothing."""
    files = dataset.dataset if isinstance(dataset, InMemory) else dataset
    digest = hashlib.sha256()
    if isinstance(files, FileDataset):
        for index in range(len(files)):
            try:
                digest.update(_facts_of(files.record(index)).encode(errors="surrogatepass"))
            except (ValueError, OSError):  # it is counted as failed, in its turn
                digest.update(b"\n")
    return digest.hexdigest()


def _facts_of(record: Record) -> str:
    """Name, class and boxes of a sample, and place, size and time of change of its files."""
    facts: list[Any] = [record.name, record.scene_class]
    if record.boxes is not None:
        facts += [record.boxes.xyxy.tolist(), record.boxes.classes.tolist(), record.boxes.difficult.tolist()]
    for source in (record.image, record.mask, record.instances):
        path = source.path if isinstance(source, Stored) else source.source if source is not None else None
        if path is not None:
            found = path.stat()
            facts += [str(path), found.st_size, found.st_mtime_ns, getattr(source, "offset", 0)]
    return f"{facts}\n"
