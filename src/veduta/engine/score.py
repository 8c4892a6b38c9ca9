"""Score: opens predictions that lie in files, whatever form they have, as a Source for `evaluate`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from veduta.backends import open_model
from veduta.data.sample import SampleDataset
from veduta.engine.predictions import masks, tensor_files
from veduta.engine.predictions.class_table import open_class_table
from veduta.engine.predictions.coco_results import open_coco_results
from veduta.engine.predictions.masks import Ids, open_masks
from veduta.engine.predictions.raw_outputs import open_raw_outputs
from veduta.engine.predictions.source import Predictions, Progress, silent
from veduta.engine.predictions.written import CONTENT, open_written
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.metrics import BoxRules

FORMS = {  # what predictions may be -> the options that say more about them
    "index PNGs": ("--ids",),
    "a folder of `veduta predict`": ("--boxes",),
    "COCO results": ("--boxes",),
    "a table of classes": ("--logits",),
    "raw outputs": ("--model", "--set", "--outputs", "--channels-last", "--boxes"),
}


def open_predictions(
    path: Path,
    *,
    dataset: SampleDataset,
    ids: Ids | None = None,
    logits: bool = False,
    model: Path | None = None,
    changes: Sequence[str] = (),
    outputs: tuple[str, ...] = (),
    channels_last: bool = False,
    boxes: BoxRules | None = None,
    progress: Progress = silent,
) -> Predictions:
    """What files say about the samples of dataset; FORMS names the options that go with each form of them.

    ids: what the values of index PNGs are. logits: the scores of a CSV come before the soft-max. model, changes: what
    gave raw outputs, with changes of its recipe; outputs: their names in order; channels_last: how they lie in memory.
    boxes: the rules of average precision.

    Raises ValueError or FileNotFoundError for what is no prediction, BadPrediction where one is missing or damaged.
    """
    form = form_of(path, raw=model is not None)
    given = {
        "--ids": ids is not None,
        "--logits": logits,
        "--model": model is not None,
        "--set": bool(changes),
        "--outputs": bool(outputs),
        "--channels-last": channels_last,
        "--boxes": boxes is not None,
    }
    for option in (option for option, is_given in given.items() if is_given and option not in FORMS[form]):
        others = " and ".join(name for name, options in FORMS.items() if option in options)
        raise ValueError(f"{option} goes with {others}; {path} holds {form}.")
    match form:
        case "index PNGs":
            return open_masks(path, dataset, ids=ids, progress=progress)
        case "a table of classes":
            return open_class_table(path, dataset, logits=logits, progress=progress)
        case "COCO results":
            found = open_coco_results(path, dataset, progress=progress)
        case "a folder of `veduta predict`":
            found = open_written(path, dataset, progress=progress)
        case _:
            if model is None:
                raise ValueError(
                    f"{path} holds raw outputs. --model FILE says what they mean: their network's run folder or model "
                    "file."
                )
            found = open_raw_outputs(
                path,
                dataset,
                open_model(model, device="cpu", changes=changes),
                order=outputs,
                channels_last=channels_last,
                progress=progress,
            )
    if boxes is None:
        return found
    if not isinstance(found.task, DetectSegment):
        raise ValueError(f"--boxes {boxes}: {path} holds no boxes.")
    rules = dataclasses.replace(found.rules, boxes=boxes)
    return dataclasses.replace(found, rules=rules, protocol=f"{found.protocol}, AP by the rules {boxes}")


def form_of(path: Path, *, raw: bool) -> str:
    """The one of FORMS that a path holds, by the names of the files. raw: whether raw outputs are expected."""
    if not path.exists():
        raise FileNotFoundError(f"{path} not found. Expected predictions: {', '.join(FORMS)}.")
    if path.is_file():
        forms = {".json": "COCO results", ".csv": "a table of classes"}
        if path.name == CONTENT or path.suffix.lower() not in forms:
            hint = f" Give the folder that holds it: {path.parent}." if path.name == CONTENT else ""
            raise ValueError(f"{path} is neither COCO results (.json) nor a table of classes (.csv).{hint}")
        return forms[path.suffix.lower()]
    if (path / "checkpoints").is_dir():
        raise ValueError(f"{path} is a run folder and holds no predictions: `veduta evaluate {path}` scores its model.")
    if (path / CONTENT).is_file():
        return "a folder of `veduta predict`"
    endings = {file.suffix.lower() for file in path.rglob("*")}
    if endings.intersection(masks.ENDINGS) and not raw:
        return "index PNGs"
    if endings.intersection(tensor_files.ENDINGS):
        return "raw outputs"
    raise ValueError(
        f"{path} holds no predictions: no {CONTENT} of `veduta predict`, no index PNGs"
        f" and no raw outputs ({', '.join(tensor_files.ENDINGS)}). It is no run folder, either: that has checkpoints/."
    )
