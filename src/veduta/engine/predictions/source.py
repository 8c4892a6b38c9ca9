"""Predictions: a Source whose predictions were made before, somewhere else."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from veduta.data.fit import Pixels, Size
from veduta.data.sample import Sample
from veduta.errors import BadPrediction
from veduta.labels import LabelMap
from veduta.tasks import Task
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

Progress = Callable[[str, int, int], None]  # (what is being done, how many so far, of how many)

HASHED_AT_ONCE = 1 << 20  # bytes


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A Source. find: what the files say about a sample; raises ValueError or OSError where that cannot be told.

    left_over: names of predictions that belong to no image of the split.
    """

    labels: LabelMap
    task: Task
    protocol: str
    rules: Rules
    proof: str
    sha256: str
    find: Callable[[Sample], Prediction]
    left_over: tuple[str, ...] = ()

    def shown_size(self, image: Pixels, /) -> Size:
        return image.shape[0], image.shape[1]

    def predict(self, samples: Sequence[Sample], /) -> list[Prediction]:
        """Raises BadPrediction naming the file: damaged, foreign values, not of its image's size."""
        try:
            return [self.find(sample) for sample in samples]
        except (ValueError, OSError) as error:
            raise BadPrediction(str(error)) from error


def hash_files(files: Collection[Path], progress: Progress) -> str:
    """sha256 over the bytes of the files, one after the other. Raises BadPrediction for one that cannot be read."""
    digest = hashlib.sha256()
    for done, path in enumerate(files, start=1):
        try:
            with path.open("rb") as file:
                while part := file.read(HASHED_AT_ONCE):
                    digest.update(part)
        except OSError as error:
            raise BadPrediction(f"{path} cannot be read: {error.strerror}.") from error
        progress("hashing predictions", done, len(files))
    return digest.hexdigest()


def check_size(found: Size, sample: Sample, source: object) -> None:
    """Raises ValueError where a mask is not of the size of its image."""
    height, width = sample.image.shape[:2]
    if found != (height, width):
        raise ValueError(
            f"{source}: {found[1]} x {found[0]}, its image {sample.name} is {width} x {height} (width x height). "
            "Scores count the pixels of the image itself: write predictions in its size."
        )
