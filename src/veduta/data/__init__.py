"""Data: files -> samples -> batches. A dataset layout is one file and one line in DATASETS."""

from pathlib import Path

from veduta.config import Data, nearest
from veduta.data import camvid, folder
from veduta.data.layout import Layout
from veduta.data.sample import InMemory, SampleDataset
from veduta.data.scenes import Scenes

DATASETS: dict[str, Layout] = {
    "camvid": camvid.LAYOUT,
    "folder": folder.LAYOUT,
}

GENERATED = {"scenes": Scenes}  # made, not read


def open_dataset(data: Data, split: str) -> SampleDataset:
    """One split of the data set that a recipe names. Raises ValueError or FileNotFoundError."""
    dataset: SampleDataset
    if data.dataset in GENERATED:
        if data.root:
            raise ValueError(f"{data.dataset} are generated and read no files, got {data.root}. Leave out --data.")
        dataset = GENERATED[data.dataset](split)
    elif data.dataset not in DATASETS:
        raise ValueError(f"dataset '{data.dataset}' is not known.{nearest(data.dataset, [*DATASETS, *GENERATED])}")
    elif not data.root:
        raise ValueError(f"dataset {data.dataset} needs --data PATH: {DATASETS[data.dataset].about}.")
    else:
        dataset = DATASETS[data.dataset].open(Path(data.root), split)
    return InMemory(dataset) if data.in_memory else dataset


def recognise(root: Path) -> dict[str, tuple[str, ...]]:
    """The layouts that a folder fits, with the splits found; a layout goes before those it is a special case of."""
    fits = {name: splits for name, layout in DATASETS.items() if (splits := layout.splits(root))}
    general = {name for fit in fits for name in DATASETS[fit].special_case_of}
    return {name: splits for name, splits in fits.items() if name not in general}
