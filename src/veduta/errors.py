"""How work ends before its end, other than by a mistake in what was asked for."""


class RunStopped(Exception):  # noqa: N818  # it is no fault of the recipe or the data
    """The message says why, and what was saved. An empty one: another process says it."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Unreadable(ValueError):  # noqa: N818  # as above
    """A file of the data turned out to be damaged while it was being used."""


class BadPrediction(ValueError):  # noqa: N818  # as above
    """A prediction that is to be scored is missing, damaged, or not one for this data."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a device or a CPU; told by its words, for PyTorch need not be here."""
    words = ("out of memory", "DefaultCPUAllocator", "Failed to allocate memory", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
