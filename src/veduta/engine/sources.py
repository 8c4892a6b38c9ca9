"""Source: where predictions come from, be it a network that runs here or files that another program wrote."""

from collections.abc import Sequence
from typing import Protocol

from veduta.data.fit import Pixels, Size
from veduta.data.sample import Sample
from veduta.labels import LabelMap
from veduta.tasks import Task
from veduta.tasks.prediction import Prediction


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
