"""Predictors of a proof: a network and its exported file, shown images alike."""

import copy
import dataclasses

from veduta.backends import Backend
from veduta.engine.predictor import Predictor


def shown_whole(backend: Backend) -> Predictor:
    """By the one protocol that all tasks have, and that shows an image once; also to files with decoded outputs."""
    other = copy.copy(backend)
    other.info = dataclasses.replace(backend.info, recipe=dataclasses.replace(backend.info.recipe, protocol="whole"))
    return Predictor(other)
