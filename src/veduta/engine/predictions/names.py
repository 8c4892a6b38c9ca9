"""Which prediction belongs to which image: by their names, each to exactly one."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from veduta.data.layout import FileDataset, Record
from veduta.data.sample import InMemory, SampleDataset
from veduta.engine.predictions.source import Progress
from veduta.errors import BadPrediction
from veduta.labels import LabelMap

Parts = tuple[str, ...]  # of a path, the ending of the last one taken off

NAMED = 5  # of a long list that are told
CITYSCAPES = re.compile(r"([A-Za-z-]+_\d{6}_\d{6})(_.*)?")  # CITY_SEQ_FRAME, and what a program adds to it


@dataclass(frozen=True)
class Named:
    """A sample by its name, and by its image file where it has one of its own."""

    name: str
    ways: tuple[Parts, ...]


def names_of(dataset: SampleDataset, progress: Progress) -> list[Named]:
    """The samples of a split, in its order. Raises ValueError where two have one name."""
    if isinstance(dataset, InMemory):
        dataset = dataset.dataset
    named: dict[str, Named] = {}
    for index in range(len(dataset)):
        if isinstance(dataset, FileDataset):
            record: Record = dataset.record(index)
            name, image = record.name, None if record.image.part else record.image.path
        else:
            name, image = dataset[index].name, None
        if name in named:
            raise ValueError(f"two samples of the split are called {name}; their predictions could not be told apart.")
        ways = (tuple(name.split("/")), *([image.with_suffix("").parts] if image else []))
        named[name] = Named(name, ways)
        progress("reading names", index + 1, len(dataset))
    return list(named.values())


def files_by_key(folder: Path, endings: Collection[str]) -> dict[str, Path]:
    """Path below the folder, without its ending -> file; sorted, hidden ones left out.

    Raises BadPrediction where two have one name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file():
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in files:
                raise BadPrediction(f"{files[key]} and {path} are predictions of one name. Take one of them away.")
            files[key] = path
    return files


def match(
    names: Sequence[Named], keys: Collection[str], labels: LabelMap, *, source: object
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The key of each sample's prediction, by its name; and the keys that belong to no sample.

    A prediction has the name of its sample or of the image file, with as many of the folders before it as one likes;
    in Cityscapes anything may follow CITY_SEQ_FRAME, as for its own scripts. Raises BadPrediction where a sample has
    none or two, or where one could belong to two.
    """
    short = _short_name(labels)
    exact = {named.name for named in names}
    by_last: defaultdict[str, dict[str, Named]] = defaultdict(dict)
    for named in names:
        for way in named.ways:
            by_last[short(way[-1])][named.name] = named

    found = {key: key for key in keys if key in exact}
    left_over = []
    for key in keys:
        if key in exact:
            continue
        parts = PurePath(key).parts
        fits = [n.name for n in by_last[short(parts[-1])].values() if any(_same(way, parts, short) for way in n.ways)]
        if len(fits) > 1:
            raise BadPrediction(f"{source}: {key} may belong to {listed(fits)}. Put the folders of the images into it.")
        if fits and fits[0] in found:
            raise BadPrediction(f"{source}: {found[fits[0]]} and {key} are both predictions of {fits[0]}. Which one?")
        if fits:
            found[fits[0]] = key
        else:
            left_over.append(key)
    if missing := [named.name for named in names if named.name not in found]:
        others = f" {len(left_over):,} others are of no image of the split: {listed(left_over)}." if left_over else ""
        raise BadPrediction(
            f"{source}: {len(missing):,} of {len(names):,} images of the split have no prediction: "
            f"{listed(missing)}.{others}"
        )
    return found, tuple(left_over)


def _same(way: Parts, parts: Parts, short: Callable[[str], str]) -> bool:
    """Whether one of two paths whose last parts agree ends in the other."""
    length = min(len(way), len(parts))
    return way[-length:-1] == parts[-length:-1] and short(way[-1]) == short(parts[-1])


def _short_name(labels: LabelMap) -> Callable[[str], str]:
    def of_cityscapes(name: str) -> str:
        found = CITYSCAPES.fullmatch(name)
        return found[1] if found else name

    return of_cityscapes if labels.name == "cityscapes" else str


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
