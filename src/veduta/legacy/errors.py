"""The one error of all readers of checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that is damaged, unsafe or of no known format. The message names the file and the place in it."""
