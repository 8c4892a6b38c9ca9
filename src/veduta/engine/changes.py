"""Changes: which fields of a recipe can be set where a trained network is scored."""

from collections.abc import Iterable

from veduta.config import field_paths

# Fields that say how a trained network is opened, shown images and fed; the others are about training.
OF_SCORES = ("protocol", "precision", "model_options", "data.dataset", "data.crop_size", "data.batch_size")
BY_OPTION = {"data.root": "--data", "data.val_split": "--split", "device": "--device"}  # of the verbs that score


def check_changes(assignments: Iterable[str]) -> None:
    """Raises ValueError where one of the `--set` assignments is to a field that changes no score or prediction.

    Unknown fields are left to `set_fields`.
    """
    for assignment in assignments:
        path = assignment.partition("=")[0].strip()
        if path in BY_OPTION:
            raise ValueError(f"--set {assignment}: say it by {BY_OPTION[path]}.")
        known = any(f"{field}.".startswith(f"{path}.") or f"{path}.".startswith(f"{field}.") for field in field_paths())
        if known and not any(f"{path}.".startswith(f"{field}.") for field in OF_SCORES):
            raise ValueError(
                f"--set {assignment}: it is about training and changes no score. What can be set here: "
                f"{', '.join(OF_SCORES)}."
            )
