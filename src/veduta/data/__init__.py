"""Data: files -> samples -> batches. A dataset layout is one file and one line in DATASETS."""

from pathlib import Path
from typing import Protocol

from veduta.config import Data, nearest
from veduta.data.camvid import CamVid
from veduta.data.folder import Folder
from veduta.data.sample import InMemory, SampleDataset
from veduta.data.scenes import Scenes


class OpenDataset(Protocol):
    """root: the folder of `--data`, None for generated data. Raises ValueError or FileNotFoundError."""

    def __call__(self, root: Path | None, *, split: str) -> SampleDataset: ...


DATASETS: dict[str, OpenDataset] = {
    "camvid": CamVid,
    "folder": Folder,
    "scenes": Scenes,
}


def open_dataset(data: Data, split: str) -> SampleDataset:
    """One split of the data set that a recipe names."""
    if data.dataset not in DATASETS:
        raise ValueError(f"dataset '{data.dataset}' is not known.{nearest(data.dataset, DATASETS)}")
    dataset = DATASETS[data.dataset](Path(data.root) if data.root else None, split=split)
    return InMemory(dataset) if data.in_memory else dataset
