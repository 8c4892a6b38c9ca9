"""Packing: a data set of any layout -> shards."""

import io
import os
import re
import socket
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from veduta.data.images import read_header
from veduta.data.layout import Boxes, FileDataset, Record, read_record
from veduta.data.layouts.note import write_note
from veduta.data.layouts.shards import (
    IMAGE_ENDINGS,
    MASK_ENDING,
    Index,
    Progress,
    Shard,
    label_file,
    write_index,
)
from veduta.data.layouts.tar import BLOCK, Writer
from veduta.data.sample import Sample, SampleDataset
from veduta.data.stored import Stored
from veduta.files import replacing, write_text
from veduta.labels import IGNORE_INDEX, LabelMap, read_label_map

SHARD_BYTES = 256 << 20  # large enough to read in one go, small enough to copy again
MOST_SHOWN = 5  # samples at fault that an error spells out

_SPLIT = re.compile(r"[A-Za-z0-9_.-]+")  # no +, which joins splits
_LABELS: TypeAdapter[LabelMap] = TypeAdapter(LabelMap)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Packed:
    """A sample as it goes into a shard. key: the same for its files. mask: b"" where there is none.

    has: what is known of it, in words.
    """

    key: str
    image_ending: str
    image: bytes
    mask: bytes
    note: bytes
    has: frozenset[str]

    @property
    def size(self) -> int:
        """At most so many bytes of a tar, its end included."""
        return len(self.image) + len(self.mask) + len(self.note) + 8 * BLOCK


def pack(
    dataset: SampleDataset,
    out: Path,
    *,
    split: str,
    workers: int,
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
) -> Index:
    """Write a split as shards of up to `shard_bytes` below `out`, which may hold other splits of the same label map.

    Every sample is decoded once, in `workers` threads. Encoded images are copied as they are, and so are PNG masks of
    indices; masks painted from outlines become palette PNGs; generated images become PNGs. The bytes written depend on
    the data set alone. The index comes last, so an interrupted split does not open; packing it again starts anew.

    Raises FileExistsError where the split is there or being packed, ValueError with up to MOST_SHOWN samples that
    cannot be read; then nothing of the split is left.
    """
    if not _SPLIT.fullmatch(split):
        raise ValueError(f"'{split}' cannot name a split of shards: letters, digits and _ - . only.")
    if not len(dataset):
        raise ValueError(f"split '{split}' has no samples to pack.")
    marker = out / f"{split}.packing"
    existing = [path for path in _files_of(out, split) if path != marker]
    if existing and ((out / f"{split}.index.json").exists() or not marker.exists()):
        raise FileExistsError(f"{existing[0]} exists; nothing is overwritten. Choose another --out, or move it away.")
    out.mkdir(parents=True, exist_ok=True)
    alone = not label_file(out).exists()
    _mark(marker, split)
    try:
        write_label_map(out, dataset.labels)
        for path in existing:  # of an interrupted pack
            path.unlink()
        index = _pack(dataset, out, split, workers, progress, shard_bytes)
    except BaseException:
        for path in _files_of(out, split):
            path.unlink(missing_ok=True)
        if alone and not any(out.glob("*.index.json")) and not any(out.glob("*.packing")):  # no other split needs it
            (out / "labels.json").unlink(missing_ok=True)
        raise
    marker.unlink()
    return index


def _mark(marker: Path, split: str) -> None:
    """Say which process packs a split. Raises FileExistsError where another one of this machine does."""
    host = socket.gethostname()
    if marker.exists():
        said = re.search(r"process (\d{1,9}) of (\S+),", marker.read_text(errors="replace"))
        if said and said[2] == host and int(said[1]) != os.getpid() and _runs(int(said[1])):
            raise FileExistsError(
                f"{marker}: split '{split}' is being packed by process {said[1]}. Wait for it; if that is another "
                "program, remove this file."
            )
        marker.unlink()
    with marker.open("x") as file:
        file.write(f"Being packed by process {os.getpid()} of {host}, or interrupted. Then pack it again.\n")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _files_of(out: Path, split: str) -> list[Path]:
    """What packing a split leaves, complete or not, temporary files of a killed one too; the marker is last."""
    name = re.escape(split) + r"(-\d+\.tar|\.index\.json|\.index\.bin|\.card\.md|\.packing)"
    named = re.compile(rf"{name}|\.{name}\.\d+\.tmp")
    return sorted((path for path in out.glob("*") if named.fullmatch(path.name)), key=lambda p: p.suffix == ".packing")


def _pack(dataset: SampleDataset, out: Path, split: str, workers: int, progress: Progress, shard_bytes: int) -> Index:
    shards: list[Shard] = []
    rows = array("q")
    with ThreadPoolExecutor(workers) as pool:
        packed = _ordered(pool, lambda index: _read(dataset, index), len(dataset), ahead=4 * workers)
        samples = _without_faults(packed, split, len(dataset), progress)
        sample = next(samples, None)
        while sample is not None:
            path = out / f"{split}-{len(shards):06d}.tar"
            with replacing(path) as temporary, temporary.open("wb") as file:
                tar, count = Writer(file), 0
                while sample is not None and (not count or tar.size + sample.size <= shard_bytes):
                    rows.extend(_add(tar, sample))
                    count += 1
                    sample = next(samples, None)
                tar.close()
            shards.append(Shard(file=path.name, bytes=tar.size, samples=count, sha256=tar.sha256.hexdigest()))
    write_text(out / f"{split}.card.md", _card(split, shards, dataset.labels))
    return write_index(out, split, shards, rows, of=dataset.labels.of)


def _add(tar: Writer, sample: Packed) -> list[int]:
    """Write the files of a sample; returns its row of the index."""
    row = []
    for ending, data in ((sample.image_ending, sample.image), (MASK_ENDING, sample.mask), ("json", sample.note)):
        row += [tar.add(f"{sample.key}.{ending}", data), len(data)] if data else [0, 0]
    return row


def _ordered(
    pool: ThreadPoolExecutor, function: Callable[[int], Result], count: int, *, ahead: int
) -> Iterator[Result]:
    """function(0), function(1), ... computed in the pool, at most `ahead` of what is taken."""
    waiting: deque[Future[Result]] = deque()
    for index in range(count):
        waiting.append(pool.submit(function, index))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _without_faults(packed: Iterator[Packed | str], split: str, total: int, progress: Progress) -> Iterator[Packed]:
    """The samples; after the first fault no more of them, but further faults are looked for, so as to be named."""
    faults: list[str] = []
    first: Packed | None = None
    for done, result in enumerate(packed, start=1):
        if isinstance(result, Packed):
            first = first or result
            if result.has != first.has:  # boxes of some samples of a batch could not be told from those of others
                result = f"{result.key} has {_words(result)}, {first.key} has {_words(first)}"
        if isinstance(result, str):
            faults.append(result)
        elif not faults:
            yield result
        progress(done, total)
        if len(faults) == MOST_SHOWN:
            break
    if faults:
        listed = "\n  ".join(faults)
        count = f"{len(faults)} or more" if len(faults) == MOST_SHOWN else str(len(faults))
        raise ValueError(f"{count} of {total} samples of split '{split}' cannot be packed; nothing was:\n  {listed}")


def _words(packed: Packed) -> str:
    return " and ".join(sorted(packed.has)) or "neither mask nor boxes nor class"


def _read(dataset: SampleDataset, index: int) -> Packed | str:
    """A sample as it is packed, or why it cannot be."""
    try:
        if isinstance(dataset, FileDataset):
            record: Record = dataset.record(index)
            sample = read_record(record, dataset.labels)
            image, ending = record.image.read(), IMAGE_ENDINGS[read_header(record.image).format]
            mask = _copied_mask(record.mask) if isinstance(record.mask, Stored) else b""
            boxes = record.boxes
        else:
            sample = dataset[index]
            image, ending, mask, boxes = _png(Image.fromarray(sample.image)), "png", b"", _boxes_of(sample)
        if sample.mask is not None and not mask:
            mask = _encoded_mask(sample.mask, dataset.labels, sample.name)
        note = write_note(sample.name, boxes, sample.scene_class, dataset.labels)
    except (ValueError, OSError) as error:
        return str(error)
    has = {"a mask": mask, "boxes": boxes is not None, "a class": sample.scene_class is not None}
    known = frozenset(words for words, there in has.items() if there)
    return Packed(f"{index:09d}-{_plain(sample.name)}", ending, image, mask, note, known)


def _plain(name: str) -> str:
    """A name as every tar program and WebDataset take it; the real one is in the note."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[-60:]


def _copied_mask(source: Stored) -> bytes:
    """The bytes of a mask of indices; b"" where it has to be encoded anew: colours, or another format than PNG."""
    header = read_header(source)
    return source.read() if header.format == "PNG" and header.mode in ("L", "P") else b""


def _encoded_mask(mask: NDArray[np.uint8], labels: LabelMap, name: str) -> bytes:
    """Train ids (H, W) -> palette PNG of file ids."""
    if not labels.void_ids and (mask == IGNORE_INDEX).any():
        raise ValueError(f"{name}: its mask has void pixels, and label map '{labels.name}' has no value for void.")
    image = Image.fromarray(labels.decode(mask), mode="P")
    palette = np.zeros((256, 3), np.uint8)
    palette[[c.file_id for c in labels.classes]] = [c.color for c in labels.classes]
    image.putpalette(palette.tobytes())
    return _png(image)


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, format="PNG")
    return data.getvalue()


def _boxes_of(sample: Sample) -> Boxes | None:
    if sample.boxes is None or sample.box_classes is None:
        return None
    difficult = np.zeros(len(sample.boxes), np.bool_) if sample.box_difficult is None else sample.box_difficult
    return Boxes(
        xyxy=sample.boxes,
        classes=sample.box_classes,
        difficult=difficult,
        source=Path(sample.name),
        areas=sample.box_areas,
        crowds=sample.crowd_boxes,
        crowd_classes=sample.crowd_classes,
    )


def write_label_map(out: Path, labels: LabelMap) -> None:
    """Write labels.json. Raises ValueError where `out` has a label map of other classes."""
    path = label_file(out)
    if path.exists():
        if replace(read_label_map(path, of=labels.of), name=labels.name) != labels:
            raise ValueError(f"{path}: other classes than those of '{labels.name}'. Choose another --out.")
        return
    write_text(path, _LABELS.dump_json(labels, indent=1).decode())


def _card(split: str, shards: list[Shard], labels: LabelMap) -> str:
    """What a person who finds the folder should know."""
    return f"""# {split}: {sum(shard.samples for shard in shards):,} samples in {len(shards):,} shards

Label map '{labels.name}', {labels.num_classes} classes of {labels.of}: {", ".join(labels.names)} (labels.json).

Each shard is a plain tar. The files of a sample follow each other: its image as it was, its mask (KEY.mask.png, file
ids of the label map) and KEY.json with its name, boxes (xyxy pixels) and class, as far as there are any.
{split}.index.json holds the sha256 of every shard, {split}.index.bin where each file lies.

The terms of the data set that was packed hold for this copy too.
"""
