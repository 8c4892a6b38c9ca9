"""Predictors of a proof: a network and its exported file, shown images alike."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from veduta.backends import Backend
from veduta.data.fit import Pixels, stack
from veduta.engine.predictor import Predictor
from veduta.tasks.decoded import read_decoded
from veduta.tasks.prediction import Prediction


class DecodedPredictor(Predictor):
    """Of a file with decoded outputs, which gives predictions by itself, of whole images."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(_changed(backend, exported=None))
        self.decoded = backend

    def __call__(self, images: Sequence[Pixels]) -> list[Prediction]:
        return read_decoded(self.decoded(stack(images)))


def shown_whole(backend: Backend) -> Predictor:
    """By the one protocol that all tasks have, and that shows an image once."""
    whole = _changed(backend, recipe=dataclasses.replace(backend.info.recipe, protocol="whole"))
    exported = backend.info.exported
    return DecodedPredictor(whole) if exported is not None and exported.full else Predictor(whole)


def _changed(backend: Backend, **changes: Any) -> Backend:
    """The same with other words in its info."""
    other = copy.copy(backend)
    other.info = dataclasses.replace(backend.info, **changes)
    return other
