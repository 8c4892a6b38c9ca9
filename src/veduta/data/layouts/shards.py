"""Shards: a split in a few large tar files, which tar and WebDataset read too, and an index that opens them at once.

ROOT/SPLIT-000000.tar, SPLIT-000001.tar, ...    the files of a sample follow each other:
    KEY.jpg         the encoded image (or .png, .gif, .bmp, .webp, .tif)
    KEY.mask.png    its mask, if there are any: file ids of the label map
    KEY.json        its name, boxes and class (note.py); or KEY.cls, a number: its class
ROOT/SPLIT.index.json       the tar files with sizes and hashes; written last, without it nothing opens
ROOT/SPLIT.index.bin        where the files of each sample lie: 48 bytes a sample
ROOT/labels.json            the label map, or classes.csv
"""

import hashlib
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from veduta.data.layout import FileDataset, Layout, Record, unknown_split
from veduta.data.layouts.lists import LABEL_FILES
from veduta.data.layouts.note import read_note
from veduta.data.layouts.tar import BLOCK, Member, members, read_header
from veduta.data.stored import MAX_BYTES, Stored
from veduta.files import replacing
from veduta.labels import LabelMap, read_label_map

IMAGE_ENDINGS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp", "TIFF": "tif"}  # as written
KNOWN_ENDINGS = (*IMAGE_ENDINGS.values(), "jpeg", "tiff")
MASK_ENDING, NOTE_ENDINGS = "mask.png", ("cls", "json")  # the first that is there counts

MOST_NOTE = 1 << 24  # bytes; a note of a thousand boxes has some 100,000
COLUMNS = 6  # of a sample in the index: offset and size of image, mask and note; zeros where there is none

Progress = Callable[[int, int], None]

_MOST_INDEX = 1 << 26  # bytes of the JSON; a thousand shards have some 200,000
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, kw_only=True, config=_STRICT)
class Shard:
    """One tar file."""

    file: str = Field(pattern=r"^[^/\\]+\.tar$")
    bytes: int = Field(ge=0, lt=1 << 62)
    samples: int = Field(ge=0, lt=1 << 32)
    sha256: str


@checked(frozen=True, kw_only=True, config=_STRICT)
class Index:
    """What SPLIT.index.json says. of: what the label map classifies. rows_sha256: of SPLIT.index.bin."""

    format: Literal["veduta shards 1"] = "veduta shards 1"
    of: Literal["pixels", "images"]
    shards: tuple[Shard, ...]
    rows_sha256: str

    @property
    def num_samples(self) -> int:
        return sum(shard.samples for shard in self.shards)


_INDEX = TypeAdapter(Index)


@dataclass(frozen=True)
class ShardedRecords:
    """ends: (number of shards,) int64, samples up to the end of each. rows: (N, COLUMNS) int64."""

    root: Path
    files: tuple[str, ...]
    ends: NDArray[np.int64]
    rows: NDArray[np.int64]
    labels: LabelMap

    def record(self, index: int) -> Record:
        """Raises ValueError where index and tar do not fit together, and for a note that cannot be read."""
        path = self.root / self.files[int(np.searchsorted(self.ends, index, side="right"))]
        image, image_size, mask, mask_size, note, note_size = self.rows[index].tolist()
        header = Stored(path, image - BLOCK, BLOCK, part=f"header at byte {image - BLOCK:,}").read()
        member = read_header(header, image, f"{path}, byte {image - BLOCK:,}")
        key, ending = _split(member.name)
        if member.size != image_size or ending not in KNOWN_ENDINGS:
            raise ValueError(f"{path}, byte {image:,}: not the image that the index speaks of. Was the tar changed?")
        name, boxes, scene_class = key, None, None
        if note_size:
            stored = Stored(path, note, note_size, part=f"note of {key}")
            noted, boxes, scene_class = read_note(stored.read(), self.labels, source=path, where=stored)
            name = noted or key
        return Record(
            name=name,
            image=Stored(path, image, image_size, part=member.name),
            mask=Stored(path, mask, mask_size, part=f"{key}.{MASK_ENDING}") if mask_size else None,
            boxes=boxes,
            scene_class=scene_class,
        )


def open_shards(root: Path, split: str) -> FileDataset[int]:
    """One split, in the order of its shards; only the index is read.

    Raises FileNotFoundError for missing files, ValueError for a damaged index and for shards of another size than it
    says. Whether their bytes are the same tells `verify_shards`.
    """
    index, rows = read_index(root, split)
    labels = read_label_map(label_file(root), of=index.of)
    ends = np.cumsum([shard.samples for shard in index.shards], dtype=np.int64)
    files = tuple(shard.file for shard in index.shards)
    return FileDataset(labels, range(len(rows)), ShardedRecords(root, files, ends, rows, labels).record)


def read_index(root: Path, split: str) -> tuple[Index, NDArray[np.int64]]:
    """The index of a split and its rows (N, COLUMNS), checked against the sizes of the shards."""
    if not root.is_dir():
        raise FileNotFoundError(f"folder {root} not found. --data must be the folder that holds the shards.")
    path, rows_path = root / f"{split}.index.json", root / f"{split}.index.bin"
    if not path.is_file():
        raise _no_index(root, split)
    if path.stat().st_size > _MOST_INDEX:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes, the limit is {_MOST_INDEX:,}. Is it the right file?")
    try:
        index = _INDEX.validate_json(Stored(path).read())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where} {first['msg']}. Damaged, or of another version?") from error
    data = Stored(rows_path).read()
    if len(data) != index.num_samples * COLUMNS * 8 or hashlib.sha256(data).hexdigest() != index.rows_sha256:
        raise ValueError(f"{rows_path}: does not belong to {path.name}. Damaged; copy both again.")
    rows = np.frombuffer(data, "<i8").reshape(-1, COLUMNS)
    if not len(rows):
        raise ValueError(f"{path}: split '{split}' has no samples.")
    _check_rows(rows, index, path)
    for shard in index.shards:
        tar = root / shard.file
        if not tar.is_file():
            raise FileNotFoundError(f"{tar} not found; the index of split '{split}' speaks of it. Copy it too.")
        size = tar.stat().st_size
        if size != shard.bytes:
            raise ValueError(
                f"{tar}: {size:,} bytes, the index says {shard.bytes:,}. Cut off or changed? Copy it again."
            )
    return index, rows


def _check_rows(rows: NDArray[np.int64], index: Index, path: Path) -> None:
    offsets, sizes = rows[:, 0::2], rows[:, 1::2]
    lengths = np.repeat([shard.bytes for shard in index.shards], [shard.samples for shard in index.shards])[:, None]
    inside = (offsets >= 0) & (sizes >= 0) & (sizes <= MAX_BYTES) & (offsets <= lengths - sizes)
    if not (
        inside.all() and (offsets[:, 0] >= BLOCK).all() and (sizes[:, 0] > 0).all() and (sizes[:, 2] <= MOST_NOTE).all()
    ):
        raise ValueError(f"{path}: a sample lies outside of its shard. Damaged; make the shards anew.")
    for column, what in ((1, "masks"), (2, "notes")):
        if len(np.unique(sizes[:, column] > 0)) > 1:
            raise ValueError(f"{path}: some samples have {what} and some have none; make shards of one kind of sample.")


def _no_index(root: Path, split: str) -> Exception:
    if _shards_of(root, split):
        if (root / f"{split}.packing").exists():
            return ValueError(f"{root}: packing split '{split}' was interrupted or still goes on. Pack it again.")
        return ValueError(
            f"{root} holds shards of split '{split}' and no index {split}.index.json. Make it with "
            f"`veduta data index {root} --split {split}`."
        )
    return unknown_split(str(root), split, _splits(root))


def index_shards(root: Path, split: str, progress: Progress) -> Index:
    """Make the index of shards that another program wrote: SPLIT-NUMBER.tar, as `KEY.jpg` with `KEY.cls` and others.

    The label map must lie beside them: of images where there is a .cls, else of pixels. Files with other endings are
    passed over. Raises ValueError for shards that are no plain tar or hold something that cannot be told.
    """
    paths = _shards_of(root, split)
    if not paths:
        raise FileNotFoundError(
            f"no {split}-NUMBER.tar in {root}. Give the folder of the shards, and what they begin with."
        )
    if (root / f"{split}.index.json").exists():
        raise FileExistsError(f"{root / f'{split}.index.json'} exists; nothing is overwritten. Move it away first.")
    numbers = [_number(path) for path in paths]
    missing = sorted(set(range(numbers[0], numbers[0] + len(numbers))) - set(numbers))
    if missing:
        raise FileNotFoundError(f"{root} lacks number {missing[0]} of the shards of '{split}'. Copy all of them.")
    rows = array("q")
    shards, seen, classified = [], set[str](), False
    for done, path in enumerate(paths, start=1):
        before = len(seen)
        for key, group in groupby(members(path), key=lambda member: _split(member.name)[0]):
            if key in seen:
                raise ValueError(f"{path}: '{key}' comes twice, and not one after the other. Every sample counts once.")
            seen.add(key)
            found: dict[str, Member] = {}
            for member in group:
                same = found.setdefault(_split(member.name)[1], member)
                if same is not member:
                    raise ValueError(
                        f"{path}: '{same.name}' and '{member.name}' are the same part of '{key}'. Remove one."
                    )
            rows.extend(_row(path, key, found))
            classified |= NOTE_ENDINGS[0] in found
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        shards.append(Shard(file=path.name, bytes=path.stat().st_size, samples=len(seen) - before, sha256=digest))
        progress(done, len(paths))
    if not seen:
        raise ValueError(f"{paths[0]}: no sample in the shards of '{split}': nothing that ends as an image does.")
    of: Literal["pixels", "images"] = "images" if classified else "pixels"
    read_label_map(label_file(root), of=of)  # it must be there before anything says that the split is complete
    return write_index(root, split, shards, rows, of=of)


def _row(path: Path, key: str, found: dict[str, Member]) -> list[int]:
    images = [ending for ending in found if ending in KNOWN_ENDINGS]
    if len(images) != 1:
        raise ValueError(
            f"{path}: sample '{key}' has {len(images)} images among {', '.join(found)}; expected one of "
            f"{', '.join(KNOWN_ENDINGS)}. A mask is called {key}.{MASK_ENDING}."
        )
    parts = (found[images[0]], found.get(MASK_ENDING), next((found[e] for e in NOTE_ENDINGS if e in found), None))
    return [number for part in parts for number in ((part.offset, part.size) if part else (0, 0))]


def write_index(
    root: Path, split: str, shards: list[Shard], rows: "array[int]", *, of: Literal["pixels", "images"]
) -> Index:
    """Write both files of an index, the one that says that all is complete last. rows: COLUMNS numbers a sample."""
    data = np.array(rows, "<i8").tobytes()
    index = Index(of=of, shards=tuple(shards), rows_sha256=hashlib.sha256(data).hexdigest())
    _check_rows(np.frombuffer(data, "<i8").reshape(-1, COLUMNS), index, root / f"{split}.index.json")
    for name, content in ((f"{split}.index.bin", data), (f"{split}.index.json", _INDEX.dump_json(index, indent=1))):
        with replacing(root / name) as temporary:
            temporary.write_bytes(content)
    return index


def verify_shards(root: Path, split: str, progress: Progress) -> Index:
    """Read every byte of a split. Raises ValueError naming the shards that are not as they were packed."""
    index, _ = read_index(root, split)
    damaged = []
    for done, shard in enumerate(index.shards, start=1):
        with (root / shard.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                damaged.append(shard.file)
        progress(done, len(index.shards))
    if damaged:
        raise ValueError(f"{root}: damaged are {', '.join(damaged)} (their sha256 differs). Copy or pack them again.")
    return index


def _split(name: str) -> tuple[str, str]:
    """Key and ending of a member: its name is cut at the first dot behind the folders."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def label_file(root: Path) -> Path:
    """Where the label map of shards lies, or will. Raises ValueError for two of them."""
    found = [root / name for name in LABEL_FILES if (root / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{root} holds both {found[0].name} and {found[1].name}; move the wrong one away.")
    return found[0] if found else root / LABEL_FILES[0]


def _shards_of(root: Path, split: str) -> list[Path]:
    named = re.compile(re.escape(split) + r"-\d+\.tar")
    return sorted((path for path in root.glob("*.tar") if named.fullmatch(path.name)), key=_number)


def _number(shard: Path) -> int:
    return int(shard.stem.rpartition("-")[2])


def _splits(root: Path) -> tuple[str, ...]:
    indexed = {path.name.removesuffix(".index.json") for path in root.glob("*.index.json")}
    others = {path.stem.rpartition("-")[0] for path in root.glob("*.tar") if re.fullmatch(r".+-\d+", path.stem)}
    return tuple(sorted(indexed | others))


LAYOUT = Layout(
    open=open_shards, splits=_splits, about="tar shards of `veduta data pack` or WebDataset, for large data sets"
)
