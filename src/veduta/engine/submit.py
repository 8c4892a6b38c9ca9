"""Submit: the package that a test server takes. Every image of the split is in it, once and legal, or there is none.

A finished package is read back: what is checked and scored are its own bytes.
"""

import dataclasses
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from veduta.data.images import read_header, read_ids
from veduta.data.layout import FileDataset, Record
from veduta.data.sample import Sample
from veduta.data.stored import Stored
from veduta.engine.archive import Ending, entry_names, unpack, writing
from veduta.engine.counting import read_ahead
from veduta.engine.evaluate import check_classes, evaluate
from veduta.engine.predictions.masks import open_masks
from veduta.engine.predictions.source import silent
from veduta.engine.predictor import batches_by_size
from veduta.engine.progress import ProgressLine
from veduta.engine.sources import Source
from veduta.errors import Unreadable
from veduta.files import replacing
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo
from veduta.tasks.evaluation import Evaluation
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

Progress = Callable[[int, int], None]  # (images done, images in all)
Entries = Iterable[tuple[str, bytes]]  # (name inside of the package, content)


class Form(ABC):
    """What a server wants of one split of its data set. A form is filled in once.

    dataset: the split, with the truth that is at hand. ending: of the package's name.
    """

    layout: ClassVar[str]
    ending: ClassVar[Ending]
    wants: ClassVar[Literal["mask", "boxes"]]  # of a prediction, and what of a sample it is scored with
    labels: ClassVar[LabelMap]  # that the server scores

    def __init__(self, dataset: FileDataset[Any], split: str) -> None:
        if dataset.labels.names != self.labels.names:
            raise ValueError(
                f"--data: its classes are {', '.join(dataset.labels.names)}; the server scores "
                f"{', '.join(self.labels.names)}. Give the data set as it was published."
            )
        self.split, self.dataset = split, dataset
        self.records = [dataset.record(index) for index in range(len(dataset))]
        self.names = {record.name for record in self.records}
        missing = [record.image for record in self.records if not record.image.path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]} not found: {len(missing)} of {len(dataset)} images of split '{split}' are missing. A "
                "package holds all of them; bring them back."
            )

    @property
    def has_truth(self) -> bool:
        return getattr(self.records[0], self.wants) is not None

    @abstractmethod
    def entries(self, name: str, prediction: Prediction) -> Entries:
        """What goes into the package once an image is predicted. Raises ValueError for what the server refuses."""

    def last_entries(self) -> Entries:
        """What goes into it when all of them are."""
        return ()

    @abstractmethod
    def files(self) -> list[str]:
        """The names of the files that an unpacked package consists of."""

    @abstractmethod
    def file_of(self, entry: str) -> str | None:
        """Under which of these names an entry of a package is unpacked; None for one that is not of this form."""

    @abstractmethod
    def check(self, folder: Path, progress: Progress) -> None:
        """Raises ValueError where an unpacked file holds what the server refuses."""

    @abstractmethod
    def open(self, folder: Path, rules: Rules) -> Source:
        """The predictions of an unpacked package, to be scored by `rules`."""

    @abstractmethod
    def about(self) -> str:
        """What a package of this form holds, in words."""


class MaskForm(Form):
    """An index PNG for each image, of the data set's file ids."""

    wants = "mask"
    legal: ClassVar[frozenset[int]]  # file ids that the server takes
    palette: ClassVar[bytes | None] = None  # of the PNG; None: a grey one

    @abstractmethod
    def entry_of(self, name: str) -> str:
        """The name in the package of an image's mask."""

    def entries(self, name: str, prediction: Prediction) -> Entries:
        if prediction.mask is None:
            raise ValueError(f"{name}: boxes are predicted, but no mask; split '{self.split}' is scored by masks.")
        ids = self.labels.decode(prediction.mask)
        self._values(ids, name)
        image, data = Image.fromarray(ids), io.BytesIO()
        if self.palette:
            image.putpalette(self.palette)
        image.save(data, format="PNG")
        return [(self.entry_of(name), data.getvalue())]

    def files(self) -> list[str]:
        return [f"{name}.png" for name in self.names]

    def check(self, folder: Path, progress: Progress) -> None:
        values: set[int] = set()
        for done, record in enumerate(self.records, start=1):
            mask = Stored(folder / f"{record.name}.png")
            found, expected = read_header(mask), read_header(record.image).size
            if found.format != "PNG" or found.size != expected:
                raise ValueError(
                    f"{record.name}: its mask is a {found.format} of {found.size[1]} x {found.size[0]}, expected a PNG "
                    f"of its image's {expected[1]} x {expected[0]} (width x height)."
                )
            values |= self._values(read_ids(mask), record.name)
            progress(done, len(self.records))
        no_class = values - {c.file_id for c in self.labels.classes}
        if len(no_class) > 1 and max(values) < self.labels.num_classes:  # one alone may stand for "unlabelled"
            raise ValueError(
                f"all masks together have the values {sorted(values)}: these look like train ids. The server takes the "
                f"ids of the data set's own masks, where {self.labels.names[0]} is {self.labels.classes[0].file_id}."
            )

    def open(self, folder: Path, rules: Rules) -> Source:
        return open_masks(folder, self.dataset, ids="file", progress=silent)

    def _values(self, ids: NDArray[np.uint8], name: str) -> set[int]:
        """The values of a mask (H, W) of file ids. Raises ValueError where the server takes one of them not."""
        values = set(np.flatnonzero(np.bincount(ids.reshape(-1), minlength=256)).tolist())
        for value in sorted(values - self.legal):
            row, column = (int(v) for v in np.argwhere(ids == value)[0])
            raise ValueError(
                f"{name}: value {value} at row {row}, column {column} ({int((ids == value).sum()):,} pixels). The "
                f"server takes {min(self.legal)} to {max(self.legal)}; every pixel needs a class."
            )
        return values


def require_source(source: Source, form: Form) -> None:
    """Raises ValueError where a source does not predict the classes, or what of them, that a form wants."""
    check_classes(source.labels, form.dataset)
    if source.task.truth not in (form.wants, "boxes"):  # what finds boxes paints masks, too
        what = {"mask": "masks", "boxes": "boxes"}[form.wants]
        raise ValueError(
            f"split '{form.split}' is scored by {what}, which the source does not predict. {form.about()}."
        )


def chosen_on(info: ModelInfo, form: Form) -> bool:
    """Whether a run chose this checkpoint by its score on the split that the form is of."""
    data = info.recipe.data
    ran = info.origin is None and bool(info.scores)
    return ran and (data.dataset, _list(data.val_split)) == (form.layout, _list(form.split))


def _list(split: str) -> str:
    return split.rpartition("/")[2]  # VOC's may have the year before it, where there are several


def submit(source: Source, form: Form, out: Path, *, batch_size: int, line: ProgressLine) -> Evaluation | None:
    """Write the package `out`, read it back and check it; its score where the truth is at hand.

    Raises ValueError where an image cannot be read or predicted, or where the server would refuse what is predicted;
    then nothing is left of the package.
    """
    require_source(source, form)
    if out.suffix != form.ending:
        raise ValueError(f"--out {out}: the server takes a {form.ending}. Give it a name that ends so.")
    with TemporaryDirectory(prefix="veduta-submit-") as temporary:
        folder = Path(temporary)
        with replacing(out) as package:
            with writing(package, form.ending) as add:
                for name, prediction in _predicted(source, form, batch_size, partial(line.count, "predicting")):
                    for entry, data in form.entries(name, prediction):
                        add(entry, data)
                for entry, data in form.last_entries():
                    add(entry, data)
            _read_back(package, entry_names(package), form, folder, line)
        evaluation = _score(form, folder, source.rules, line)
    return evaluation and dataclasses.replace(
        evaluation, protocol=source.protocol, proof=f"{source.proof}; read back from {out.name}"
    )


def check_package(package: Path, forms: Sequence[Form], line: ProgressLine) -> list[Evaluation | None]:
    """Check a package that was made elsewhere, of one form or several; their scores where the truth is at hand.

    Raises ValueError where an entry is missing, comes twice, is not of any form, or would be refused.
    """
    names = entry_names(package)
    foreign = next((name for name in names if not any(form.file_of(name) for form in forms)), None)
    if foreign is not None:
        raise ValueError(
            f"{package}: '{foreign}' does not belong there. Expected only {' and '.join(f.about() for f in forms)}."
        )
    evaluations: list[Evaluation | None] = []
    for form in forms:
        with TemporaryDirectory(prefix="veduta-submit-") as temporary:
            _read_back(package, names, form, Path(temporary), line)
            scored = _score(form, Path(temporary), Rules(), line)
        what = f"{package.name}, sha256 of its files {scored.sha256[:12]}" if scored else ""
        evaluations.append(scored and dataclasses.replace(scored, proof=what))
    return evaluations


def _predicted(source: Source, form: Form, batch_size: int, progress: Progress) -> Iterator[tuple[str, Prediction]]:
    """Names and predictions of all images; the truth is not read."""
    images = FileDataset(form.labels, form.records, _image_alone)

    def readable() -> Iterator[tuple[int, Sample]]:
        for index, read in read_ahead(images, range(len(images)), most=2 * batch_size):
            if not isinstance(read, Sample):
                raise Unreadable(f"{read} A package holds every image, so nothing was packed.")
            yield index, read

    done = 0
    for batch in batches_by_size(readable(), batch_size, source.shown_size):
        predictions = source.predict([sample for _, sample in batch])
        yield from ((sample.name, prediction) for (_, sample), prediction in zip(batch, predictions, strict=True))
        done += len(batch)
        progress(done, len(images))


def _image_alone(record: Record) -> Record:
    return dataclasses.replace(record, mask=None, boxes=None)


def _read_back(package: Path, names: Sequence[str], form: Form, folder: Path, line: ProgressLine) -> None:
    """Unpack what is of this form, a package's entries being `names`; raises ValueError where it is not all right."""
    counts = Counter(map(form.file_of, names))
    for file in form.files():
        if counts[file] != 1:
            raise ValueError(f"{package}: holds {counts[file]} entries for {file}. Expected one: {form.about()}.")

    def place(entry: str) -> Path | None:
        file = form.file_of(entry)
        return folder / file if file else None

    unpack(package, place)
    try:
        form.check(folder, partial(line.count, "checking"))
    except ValueError as error:
        raise ValueError(f"{package}, {str(error).replace(f'{folder}/', '')}") from error


def _score(form: Form, folder: Path, rules: Rules, line: ProgressLine) -> Evaluation | None:
    if not form.has_truth:
        return None
    return evaluate(
        form.open(folder, rules),
        form.dataset,
        name=form.layout,
        split=form.split,
        batch_size=1,
        progress=partial(line.count, "scoring"),
    )
