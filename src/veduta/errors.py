"""How a run ends before its last step, other than by a mistake."""


class RunStopped(Exception):  # noqa: N818  # it is no fault of the recipe or the data
    """The message says why, and what was saved. An empty one: another process says it."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
