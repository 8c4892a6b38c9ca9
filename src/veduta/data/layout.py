"""Layout: how a published data set lies on disk. A layout turns files into Records; one function reads a Record.

Record -> Sample happens here and nowhere else, so that every layout keeps the same promises.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from veduta.data.images import DecodedPicture, Picture, StoredPicture, read_mask, read_rgb
from veduta.data.sample import Sample, SampleDataset
from veduta.data.stored import Stored
from veduta.labels import ENCODING, IGNORE_INDEX, LabelMap

Key = TypeVar("Key", bound=Hashable)


class Painted(Protocol):
    """A mask that is no image file: painted from polygons, read from a .mat. It pickles."""

    @property
    def source(self) -> Path:
        """The file it comes from."""
        ...

    def __call__(self, size: tuple[int, int], /) -> NDArray[np.uint8]:
        """The mask (H, W) uint8 in train ids, 255 void, for an image of size (height, width)."""
        ...


@dataclass(frozen=True)
class NoMask:
    """An image of a data set with masks that has none itself: all of it is void (BlitzNet's rule)."""

    source: Path

    def __call__(self, size: tuple[int, int], /) -> NDArray[np.uint8]:
        return np.full(size, IGNORE_INDEX, np.uint8)


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The annotated objects of an image: xyxy (N, 4) float32 pixels of the upright image, as the file says, unclipped.

    classes: (N,) int64 train ids. difficult: (N,) bool. source: the file that they come from. areas: (N,) float64
    square pixels of the objects themselves. crowds: (K, 4) float32 and crowd_classes: (K,) int64, groups that were not
    told apart: no training sees them, COCO's scores do.
    """

    xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    source: Path
    areas: NDArray[np.float64] | None = None
    crowds: NDArray[np.float32] | None = None
    crowd_classes: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a layout knows about one sample before a pixel is decoded. A Stored mask holds file ids.

    instances: Cityscapes' instance ids.
    """

    name: str
    image: Stored
    mask: Stored | Painted | None = None
    boxes: Boxes | None = None
    scene_class: int | None = None
    instances: Stored | None = None


class FileDataset(Generic[Key]):
    """One split on disk: a key for each sample, and a function from a key to the sample's Record.

    `record_of` must pickle (a function of a module, or functools.partial of one), since workers get a copy.
    """

    def __init__(self, labels: LabelMap, keys: Sequence[Key], record_of: Callable[[Key], Record]) -> None:
        self.labels, self.keys, self.record_of = labels, keys, record_of

    def __len__(self) -> int:
        return len(self.keys)

    def record(self, index: int) -> Record:
        return self.record_of(self.keys[index])

    def __getitem__(self, index: int) -> Sample:
        return read_record(self.record(index), self.labels)


def join(datasets: dict[str, FileDataset[Hashable]]) -> FileDataset[tuple[str, Hashable]]:
    """Splits by name, one after the other; `a` of `train` is called `train/a`.

    Raises ValueError where their classes differ.
    """
    first, *others = datasets.values()
    for other in others:
        if other.labels != first.labels:
            raise ValueError(
                f"the joined splits have different classes ({', '.join(first.labels.names)}; "
                f"{', '.join(other.labels.names)}), or other values for them. Give all of them one list of classes."
            )
    keys = [(name, key) for name, dataset in datasets.items() for key in dataset.keys]
    return FileDataset(first.labels, keys, partial(_joined, {name: d.record_of for name, d in datasets.items()}))


def _joined(records: dict[str, Callable[[Hashable], Record]], key: tuple[str, Hashable]) -> Record:
    record = records[key[0]](key[1])
    return replace(record, name=f"{key[0]}/{record.name}")


class OpenLayout(Protocol):
    """Raises ValueError or FileNotFoundError that say what is missing; an unknown split names the known ones."""

    def __call__(self, root: Path, split: str, /) -> FileDataset[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An entry of DATASETS.

    open: one split. splits: the splits that lie below a folder, none where it is not of this layout; must not raise.
    about: one line for `veduta list data`. special_case_of: layouts that its folders also fit, and that it goes before.
    """

    open: OpenLayout
    splits: Callable[[Path], tuple[str, ...]]
    about: str
    special_case_of: tuple[str, ...] = ()


def read_record(record: Record, labels: LabelMap) -> Sample:
    """Decode what a Record names. Boxes are clipped to the image; those of no area stay (warping drops them).

    Raises ValueError or FileNotFoundError naming the file: unreadable, foreign values, mask of another size.
    """
    image = read_rgb(record.image)
    size = (image.shape[0], image.shape[1])
    mask, boxes = _read_mask_of(record, labels, size), record.boxes
    sample = Sample(
        image=image, name=record.name, mask=mask, scene_class=record.scene_class, instances=record.instances
    )
    if boxes is None:
        return sample
    limits = np.array([size[1], size[0]] * 2, np.float32)
    return replace(
        sample,
        boxes=np.clip(boxes.xyxy, 0, limits),
        box_classes=boxes.classes,
        box_difficult=boxes.difficult,
        box_areas=boxes.areas,
        crowd_boxes=None if boxes.crowds is None else np.clip(boxes.crowds, 0, limits),
        crowd_classes=boxes.crowd_classes,
    )


def _read_mask_of(record: Record, labels: LabelMap, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The mask of a Record whose image has `size` (height, width), as train ids."""
    if record.mask is None:
        return None
    mask = read_mask(record.mask, labels) if isinstance(record.mask, Stored) else record.mask(size)
    if mask.shape != size:
        source = record.mask if isinstance(record.mask, Stored) else record.mask.source
        raise ValueError(
            f"{source}: the mask is {mask.shape[1]} x {mask.shape[0]}, its image {record.image} is "
            f"{size[1]} x {size[0]} (width x height). Masks must have their image's size; resize masks with nearest "
            "neighbour only."
        )
    return mask


def open_picture(dataset: SampleDataset, index: int) -> tuple[Picture, Record | Sample]:
    """The image of a sample before it is decoded, where the data set has files, with what else is known of it."""
    if isinstance(dataset, FileDataset):
        record: Record = dataset.record(index)
        return StoredPicture(record.image), record
    sample = dataset[index]
    return DecodedPicture(sample.image), sample


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list file that hold something, stripped, with their numbers from 1.

    Raises FileNotFoundError, and ValueError where it is no UTF-8 text or holds zero bytes.
    """
    try:
        text = path.read_text(encoding=ENCODING)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} not found.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    for number, line in lines:
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: a zero byte. Damaged, or saved as UTF-16? Save it as UTF-8.")
    return lines


def unknown_split(layout: str, split: str, known: Sequence[str]) -> ValueError:
    """The error for a split that a layout does not have."""
    return ValueError(f"{layout} has the splits {', '.join(known)}, not '{split}'.")


def refuse_repeats(names: Sequence[Hashable], source: Path) -> None:
    """Raises ValueError where a list names something twice: every image counts once."""
    if len(set(names)) < len(names):
        seen: set[Hashable] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{source} lists {twice} more than once; every image counts once. Take one line out.")
