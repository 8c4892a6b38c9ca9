"""Old checkpoints brought back: readers without their frameworks, rename rules, and the import."""

from veduta.legacy.build import from_arrays
from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import read_checkpoint
from veduta.legacy.sources import IMPORTS

__all__ = ["IMPORTS", "CheckpointError", "from_arrays", "read_checkpoint"]
