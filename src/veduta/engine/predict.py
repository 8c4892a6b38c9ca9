"""Predict: image files in; index masks, overlays and one JSON out, under the images' own names."""

import glob
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.data.bands import Rows, open_rows
from veduta.data.images import IMAGE_ENDINGS, read_rgb
from veduta.engine.band_pictures import write_pictures
from veduta.engine.pipeline import in_threads
from veduta.engine.predictions.class_scores import CLASS_SCORES, ScoreRows
from veduta.engine.predictions.written import ABOUT, CONFIDENCE, CONTENT, About
from veduta.engine.predictor import MOST_PIXELS, Predictor
from veduta.engine.progress import ProgressLine
from veduta.errors import Unreadable
from veduta.files import check_new_folder, replacing, write_text
from veduta.labels import LabelMap
from veduta.tasks.prediction import MOST_CLASSES, Prediction

THREADS = min(8, max(2, (os.cpu_count() or 1) // 2))  # that read beside the network, and as many that write


def find_images(arguments: Sequence[str]) -> dict[str, Path]:
    """Files, folders (searched downwards) and globs -> output name -> image file, in order.

    The name is the path below the given folder, or the file name, without its ending. Raises FileNotFoundError where
    an argument finds nothing and ValueError where two images would share a name.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        if not argument:
            raise FileNotFoundError("an empty name was given for an image. Expected a file, a folder or a glob.")
        path = Path(argument)
        if path.is_dir():
            images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
            named = [(p.relative_to(path).with_suffix("").as_posix(), p) for p in images]
        else:
            files = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207
            named = [(p.stem, p) for p in files if p.is_file()]
        if not named and not path.exists() and not glob.has_magic(argument):
            raise FileNotFoundError(f"{argument} not found. Expected an image file, a folder or a glob.")
        if not named:
            raise FileNotFoundError(f"{argument}: no images found ({', '.join(IMAGE_ENDINGS)}).")
        for name, image in named:
            if found.setdefault(name, image).resolve() != image.resolve():
                raise ValueError(
                    f"{found[name]} and {image} would both be written as {name}.png. Predict them into two folders."
                )
    return found


def predict(
    predictor: Predictor, images: dict[str, Path], out: Path, line: ProgressLine, *, confidence: bool = False
) -> list[tuple[Path, str]]:
    """Write out/predictions.json and, where the task gives masks or boxes, pictures; or the scores of whole images.

    masks/NAME.png holds file ids, with the palette; overlays/NAME.jpg masks and boxes drawn over the photo;
    class_scores.npy a row for each image of the JSON. confidence: confidence/NAME.npy, too, what Prediction has of a
    mask. All numbers come back as they were: scoring the folder says what evaluating the model says, of the calibration
    error where there are confidences.
    While the network sees an image, threads read the next ones and write the last ones.
    Returns the images that could not be read, with the reason. Raises FileExistsError where `out` exists.
    """
    check_new_folder(out)
    rows: list[dict[str, Any]] = []
    failed: list[tuple[Path, str]] = []
    work = _Work(predictor, out, line, confidence=confidence)
    read = in_threads((partial(work.read, *each) for each in images.items()), THREADS, _beside)
    written = in_threads((work.predicted(each) for each in read), THREADS, _beside)
    with ScoreRows(out / CLASS_SCORES) as scores, closing(read), closing(written):
        for each in written:
            if each.row is None:
                failed.append((each.path, each.why))
            else:
                rows.append(each.row)
            if each.class_scores is not None:
                scores.add(each.class_scores)
            line.count("predicting", len(rows) + len(failed), len(images))
    info = predictor.backend.info
    about = About(
        task=info.recipe.task,
        protocol=predictor.protocol,
        rules=predictor.rules,
        proof=predictor.proof,
        labels=predictor.labels,
    )
    content = {
        "model": {"name": info.recipe.model, "recipe": info.recipe.name, "weights_sha256": info.weights_sha256},
        **ABOUT.dump_python(about, mode="json"),
        "images": rows,
        "failed": [{"file": str(path), "why": why} for path, why in failed],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CONTENT, json.dumps(content, indent=1) + "\n")
    return failed


@dataclass(frozen=True)
class _Image:
    """One image on its way; where it could not be read, why."""

    name: str
    path: Path
    image: Rows | None = None
    why: str = ""
    row: dict[str, Any] | None = None  # of the JSON
    class_scores: NDArray[np.float32] | None = None
    pixels: int = MOST_PIXELS


def _beside(last: _Image) -> int:
    """Images beside the next one, which will be about as large as the last; of large ones fewer."""
    return min(2 * THREADS, MOST_PIXELS // last.pixels)


class _Work:
    """What is done with one image: it is read in a thread, predicted in that of the caller, written in a thread."""

    def __init__(self, predictor: Predictor, out: Path, line: ProgressLine, *, confidence: bool) -> None:
        self.predictor, self.out, self.line, self.confidence = predictor, out, line, confidence

    def read(self, name: str, path: Path) -> _Image:
        try:
            image = open_rows(path) if self.predictor.by_bands else read_rgb(path)
        except (ValueError, OSError) as error:
            return _Image(name, path, why=str(error))
        return _Image(name, path, image, pixels=image.shape[0] * image.shape[1])

    def predicted(self, each: _Image) -> Callable[[], _Image]:
        """What is still to be done when the network has seen an image."""
        if each.image is None:
            return lambda: each
        bands = self.predictor.bands(each.image)
        if self.predictor.by_bands:  # written while they come
            written = self.write(each, each.image, bands)
            return lambda: written
        return partial(self.write, each, each.image, list(bands))

    def write(self, each: _Image, image: Rows, bands: Iterable[Prediction]) -> _Image:
        labels, confidence = self.predictor.labels, self.confidence
        progress = partial(self.line.count, f"predicting {each.name}, row")
        try:
            prediction, counts = write_pictures(
                bands, image, self.out, each.name, labels, progress, confidence=confidence
            )
        except Unreadable as error:
            return replace(each, image=None, why=str(error))
        if confidence and prediction.confidence is not None:
            _save_array(self.out / CONFIDENCE / f"{each.name}.npy", prediction.confidence)
        height, width = image.shape[:2]
        words = _in_words(prediction, counts, labels)
        row = {"name": each.name, "file": str(each.path), "height": height, "width": width, **words}
        return replace(each, image=None, row=row, class_scores=prediction.class_scores)


def _in_words(prediction: Prediction, counts: NDArray[np.int64], labels: LabelMap) -> dict[str, Any]:
    """What a prediction says, by the names of the classes; best first. counts: pixels of each class in its mask."""
    words: dict[str, Any] = {}
    if prediction.mask is not None:
        size = counts.sum()
        words["shares"] = {n: round(c / size, 6) for n, c in zip(labels.names, counts.tolist(), strict=True) if c}
    if prediction.boxes is not None:
        assert prediction.box_classes is not None and prediction.box_scores is not None
        found = zip(prediction.boxes, prediction.box_classes, prediction.box_scores, strict=True)
        words["boxes"] = [
            {"class": labels.names[c], "score": _number(s), "xyxy": [_number(v) for v in box]} for box, c, s in found
        ]
    if prediction.class_scores is not None:
        best = np.argsort(-prediction.class_scores, kind="stable")[:MOST_CLASSES]
        scores = prediction.class_scores
        words["scores"] = [{"class": labels.names[c], "score": _number(scores[c])} for c in best]
    return words


def _save_array(path: Path, values: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def _number(value: np.float32) -> float:
    """With the few digits that say which float32 it is."""
    return float(str(value))
