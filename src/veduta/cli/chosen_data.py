"""Which samples a verb that scores is about: of a model's recipe, or as the options say."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from veduta.cli.data import find_layout

if TYPE_CHECKING:
    from veduta.config import Data
    from veduta.data.sample import SampleDataset


def open_data(
    settings: "Data | None", data: Path | None, split: str | None, *, dataset: str | None = None, changes: Sequence[str]
) -> "tuple[Data, str, SampleDataset]":
    """Settings, split and samples: of the layout `dataset`, else of the recipe's, else of the one that `data` fits.

    settings: of the recipe, where there is one. changes: those of the recipe; one that names a layout is obeyed.
    """
    from veduta.data import open_dataset, recognise

    if settings is None or dataset is not None:
        settings, split = find_data(data, dataset, split)
    elif data is not None:
        fits = recognise(data)
        chosen = any(change.replace(" ", "").startswith("data.dataset=") for change in changes)
        if len(fits) == 1 and settings.dataset not in fits and not chosen:
            settings = dataclasses.replace(settings, dataset=next(iter(fits)))
        settings = dataclasses.replace(settings, root=str(data))
    settings = dataclasses.replace(settings, in_memory=False)  # every sample is seen a few times at most
    split = split or settings.val_split
    return settings, split, open_dataset(settings, split)


def find_data(data: Path | None, dataset: str | None, split: str | None) -> "tuple[Data, str]":
    """The data set in a folder, or a generated one, and the split."""
    from veduta.config import Data
    from veduta.data import DATASETS, GENERATED

    if dataset in GENERATED:
        return Data(dataset=dataset, root=str(data or "")), split or "val"
    if data is None:
        raise ValueError("predictions in files do not say what is true of their images. Add --data PATH.")
    layout = find_layout(data, dataset, "--dataset")
    known = DATASETS[layout].splits(data)
    if split is None:
        if "val" not in known and len(known) != 1:
            raise ValueError(f"{data} has the splits {', '.join(known)}. Which one is predicted? Add --split NAME.")
        split = "val" if "val" in known else known[0]
    return Data(dataset=layout, root=str(data)), split
