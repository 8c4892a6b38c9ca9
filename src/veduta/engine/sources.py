"""Source: where predictions come from, be it a network that runs here or files that another program wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from veduta.backends import open_model
from veduta.data.fit import Pixels, Size
from veduta.data.sample import Sample, SampleDataset
from veduta.engine.predictor import Predictor
from veduta.engine.score import open_predictions
from veduta.labels import LabelMap
from veduta.tasks import Task
from veduta.tasks.metrics import Rules
from veduta.tasks.prediction import Prediction

PREDICTION_FILES = (".json", ".csv")  # any other file is meant as a model


class Source(Protocol):
    """What `evaluate` scores."""

    @property
    def labels(self) -> LabelMap: ...

    @property
    def task(self) -> Task: ...

    @property
    def protocol(self) -> str:
        """How the images were shown, in words that go beside every score."""
        ...

    @property
    def rules(self) -> Rules:
        """By which its predictions are scored; whether in full is the caller's choice."""
        ...

    @property
    def proof(self) -> str:
        """Which weights or files it is that predict, in words that go beside every score."""
        ...

    @property
    def sha256(self) -> str:
        """Of these weights or files."""
        ...

    def shown_size(self, image: Pixels, /) -> Size:
        """The size in which the image (H, W, 3) is shown; samples of one such size may come together."""
        ...

    def predict(self, samples: Sequence[Sample], /) -> list[Prediction]:
        """Samples of one shown size -> their predictions, in order. Raises ValueError where one cannot be told."""
        ...


def open_source(path: Path, *, dataset: SampleDataset, device: str = "auto", changes: Sequence[str] = ()) -> Source:
    """A run folder or a model file -> its Predictor; predictions in files -> what they say about samples of dataset.

    changes: assignments to fields of a model's recipe. Raises ValueError or FileNotFoundError, BadPrediction where
    predictions do not fit the data.
    """
    if is_model(path):
        return Predictor(open_model(path, device=device, changes=changes))
    if changes:
        raise ValueError(f"--set {changes[0]}: {path} holds predictions and no recipe that could be changed.")
    return open_predictions(path, dataset=dataset)


def is_model(path: Path) -> bool:
    """Whether a path is a run folder or a model file, rather than predictions. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"{path} not found. Expected a run folder, a model file, or predictions in files.")
    if path.is_dir():
        return (path / "checkpoints").is_dir() or any(path.glob("stage-*"))
    return path.suffix.lower() not in PREDICTION_FILES
