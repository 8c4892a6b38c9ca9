"""Old checkpoints brought back: readers without their frameworks, rename rules, and the import."""

from veduta.legacy.build import from_arrays
from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import read_checkpoint
from veduta.legacy.sources import IMPORTS, importable_from

__all__ = ["IMPORTS", "CheckpointError", "from_arrays", "importable_from", "read_checkpoint"]
