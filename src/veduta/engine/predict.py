"""Predict: image files in; index masks, overlays and one JSON out, under the images' own names."""

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.data.images import IMAGE_ENDINGS, read_rgb
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.files import check_new_folder, replacing, write_text
from veduta.labels import LabelMap
from veduta.tasks.prediction import Prediction, draw

MOST_CLASSES = 5  # of a whole image that are named


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


def predict(predictor: Predictor, images: dict[str, Path], out: Path, line: ProgressLine) -> list[tuple[Path, str]]:
    """Write out/predictions.json and, where the task gives masks or boxes, pictures.

    masks/NAME.png holds file ids, with the palette; overlays/NAME.jpg masks and boxes drawn over the photo.
    Returns the images that could not be read, with the reason. Raises FileExistsError where `out` exists.
    """
    check_new_folder(out)
    labels = predictor.labels
    rows, failed = [], []
    for done, (name, path) in enumerate(images.items(), start=1):
        line.count("predicting", done, len(images))
        try:
            image = read_rgb(path)
        except (ValueError, OSError) as error:
            failed.append((path, str(error)))
            continue
        prediction = predictor([image])[0]
        if prediction.mask is not None:
            _save(out / "masks" / f"{name}.png", _index_image(prediction.mask, labels))
        if prediction.mask is not None or prediction.boxes is not None:
            _save(out / "overlays" / f"{name}.jpg", Image.fromarray(draw(image, prediction, labels)))
        height, width = image.shape[:2]
        rows.append(
            {"name": name, "file": str(path), "height": height, "width": width, **_in_words(prediction, labels)}
        )
    info = predictor.backend.info
    content = {
        "model": {"name": info.recipe.model, "recipe": info.recipe.name, "weights_sha256": info.weights_sha256},
        "classes": [{"file_id": c.file_id, "name": c.name, "color": c.color} for c in labels.classes],
        "images": rows,
        "failed": [{"file": str(path), "why": why} for path, why in failed],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "predictions.json", json.dumps(content, indent=1) + "\n")
    return failed


def _in_words(prediction: Prediction, labels: LabelMap) -> dict[str, Any]:
    """What a prediction says, by the names of the classes; best first."""
    words: dict[str, Any] = {}
    if prediction.mask is not None:
        counts = np.bincount(prediction.mask.reshape(-1), minlength=labels.num_classes)
        size = prediction.mask.size
        words["shares"] = {n: round(int(c) / size, 6) for n, c in zip(labels.names, counts, strict=False) if c}
    if prediction.boxes is not None:
        assert prediction.box_classes is not None and prediction.box_scores is not None
        found = zip(prediction.boxes, prediction.box_classes, prediction.box_scores, strict=True)
        words["boxes"] = [
            {"class": labels.names[c], "score": round(float(s), 6), "xyxy": [round(float(v), 2) for v in box]}
            for box, c, s in found
        ]
    if prediction.class_scores is not None:
        best = np.argsort(-prediction.class_scores, kind="stable")[:MOST_CLASSES]
        scores = prediction.class_scores
        words["scores"] = [{"class": labels.names[c], "score": round(float(scores[c]), 6)} for c in best]
    return words


def _index_image(mask: NDArray[np.uint8], labels: LabelMap) -> Image.Image:
    """A palette image whose pixel values are the data set's file ids and whose colours are the label map's."""
    image = Image.fromarray(labels.decode(mask))
    palette = np.zeros((256, 3), np.uint8)
    for label in labels.classes:
        palette[label.file_id] = label.color
    image.putpalette(palette.tobytes())
    return image


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    with replacing(path) as temporary:
        image.save(temporary, format=kind, quality=92)
