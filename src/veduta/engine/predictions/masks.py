"""Index PNGs: one image of class values, or of class colours, for each image of the split."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from veduta.config import Loss
from veduta.data.images import StoredPicture, read_header, read_ids, read_mask, read_rgb
from veduta.data.mask_colors import decode_colors
from veduta.data.sample import Sample, SampleDataset
from veduta.data.stored import Stored
from veduta.engine.predictions.names import files_by_key, match, names_of
from veduta.engine.predictions.source import Predictions, Progress, check_size, hash_files
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction
from veduta.tasks.segment import Segment

ENDINGS = (".png",)

Ids = Literal["file", "train", "colors"]


def open_masks(folder: Path, dataset: SampleDataset, *, ids: Ids | None, progress: Progress) -> Predictions:
    """ids: what the values of the pixels are: file ids or train ids of the label map; or their colours count.

    Where that is not told they are file ids, and a mask that looks as if it were something else is refused.
    """
    labels = dataset.labels
    files = files_by_key(folder, ENDINGS)
    found, left_over = match(names_of(dataset, progress), files, labels, source=folder)
    paths = {name: files[key] for name, key in found.items()}
    sha256 = hash_files(paths.values(), progress)
    read = READERS[ids]
    return Predictions(
        labels=labels,
        task=Segment(labels, Loss()),
        protocol="masks as they were written",
        rules=Rules(),
        proof=f"{len(paths):,} masks of {folder.name}, sha256 {sha256[:12]}",
        sha256=sha256,
        find=partial(_find, paths, labels, read),
        left_over=left_over,
    )


def _find(paths: dict[str, Path], labels: LabelMap, read: "Read", sample: Sample) -> Prediction:
    mask = read(paths[sample.name], labels)
    check_size((mask.shape[0], mask.shape[1]), sample, paths[sample.name])
    return Prediction(mask=mask)


Read = Callable[[Path, LabelMap], NDArray[np.uint8]]  # -> (H, W) train ids, 255 void


def read_file_ids(path: Path, labels: LabelMap) -> NDArray[np.uint8]:
    return read_mask(path, labels)


def read_train_ids(path: Path, labels: LabelMap) -> NDArray[np.uint8]:
    return read_mask(path, _by_train_ids(labels))


def read_colors(path: Path, labels: LabelMap) -> NDArray[np.uint8]:
    return decode_colors(read_rgb(path), labels, path=path)


def read_undoubted(path: Path, labels: LabelMap) -> NDArray[np.uint8]:
    """File ids, unless values or palette say otherwise: then ValueError, with the option that says what they are."""
    stored = Stored(path)
    if read_header(stored).mode in ("RGB", "RGBA"):
        return read_mask(stored, labels)
    ids = read_ids(stored)
    values = np.flatnonzero(np.bincount(ids.reshape(-1))).tolist()
    _refuse_train_ids(values, labels, path)
    palette = StoredPicture(stored).image.getpalette("RGB")
    if palette is not None:
        _refuse_other_palette(values, palette, labels, path)
    return labels.encode(ids, path=path)


READERS: dict[Ids | None, Read] = {
    None: read_undoubted,
    "file": read_file_ids,
    "train": read_train_ids,
    "colors": read_colors,
}


def _refuse_train_ids(values: list[int], labels: LabelMap, path: Path) -> None:
    known = {c.file_id for c in labels.classes}
    void = [v for v in values if v not in known and v != IGNORE_INDEX]
    if void and all(v < labels.num_classes or v == IGNORE_INDEX for v in values):
        raise ValueError(
            f"{path}: value {void[0]} is no class of label map '{labels.name}' as it stands in mask files, but all "
            f"values are train ids, 0 to {labels.num_classes - 1}. Say what they are: --ids train, or --ids file."
        )


def _refuse_other_palette(values: list[int], palette: list[int], labels: LabelMap, path: Path) -> None:
    """A palette that shows a value in the colour of another class."""
    of_color: dict[tuple[int, ...], LabelClass | None] = {}
    for entry in labels.classes:
        of_color[entry.color] = None if entry.color in of_color else entry
    for value in values:
        shown = of_color.get(tuple(palette[3 * value : 3 * value + 3]))
        if shown is not None and shown.file_id != value:
            train = labels.classes.index(shown) == value
            raise ValueError(
                f"{path}: its palette shows value {value} in the colour of '{shown.name}', which is {shown.file_id} in "
                f"mask files. Say what counts: --ids {'train' if train else 'colors'}, or --ids file."
            )


def _by_train_ids(labels: LabelMap) -> LabelMap:
    """The same classes where the values of masks are train ids."""
    classes = (LabelClass(file_id=i, name=c.name, color=c.color) for i, c in enumerate(labels.classes))
    void_ids = (IGNORE_INDEX,) if labels.num_classes <= IGNORE_INDEX else ()
    return LabelMap(name=labels.name, classes=tuple(classes), void_ids=void_ids)
