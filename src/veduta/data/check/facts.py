"""What a file of a data set is, before anyone judges it: its header, its hash, the values of a mask."""

import hashlib
import json
import pickle
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from veduta.data.check.cache import Cache, stamp
from veduta.data.images import Header, StoredPicture, read_header, read_ids, read_mask
from veduta.data.layout import Painted
from veduta.data.stored import Stored
from veduta.labels import LabelMap

ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
EXACT = 1 << 24  # float32, in which OpenCV counts, is exact up to here


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of an image: format, mode, size as it is stored, orientation, and digest of the encoded bytes if it was decoded.

    Of a mask: size as it is read, and values: pixels of each value that it holds. `decoded` says that these are train
    ids and 255, not yet file ids. problem: the second half of a fault's id (`missing`, `empty`), and why; the rest is
    empty then.
    """

    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: str = ""
    values: tuple[tuple[int, int], ...] = ()
    decoded: bool = False
    problem: tuple[str, str] | None = None

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) of an image after EXIF has turned it."""
        return (self.height, self.width) if self.orientation < 5 else (self.width, self.height)


def recall_image(source: Stored, cache: Cache, *, decode: bool) -> Facts:
    """The facts of an image, out of the cache where the file is as it was. decode: all its pixels, not its header."""
    place = f"{source.path.absolute()} {source.offset} {source.size}"
    before = stamp(source.path)
    decoded = cache.get(f"image {place}", before) if before and not decode else None
    if decoded:
        return _from_json(decoded)
    key = f"{'image' if decode else 'header'} {place}"
    return _recall(key, source, cache, lambda: read_image(source, decode=decode))


def recall_mask(source: Stored, labels: LabelMap, cache: Cache) -> Facts:
    """The facts of a mask file, out of the cache where it is as it was."""
    key = f"mask {source.path.absolute()} {source.offset} {source.size} {_fingerprint(labels)}"
    return _recall(key, source, cache, lambda: read_mask_facts(source, labels))


def recall_painted(mask: Painted, size: tuple[int, int], labels: LabelMap, cache: Cache) -> Facts:
    """The facts of a mask that is painted: its values are train ids and 255.

    Its outlines may be older than its file is now, so that they are part of what the facts are known by.
    """
    source = Stored(mask.source)
    content = hashlib.blake2b(pickle.dumps(mask), digest_size=16).hexdigest()

    def paint() -> Facts:
        try:
            return _facts_of(mask(size), decoded=True)
        except ValueError as error:
            return Facts(problem=("outline", _why(error, source)))

    key = f"{type(mask).__qualname__} {mask.source.absolute()} {content} {size} {_fingerprint(labels)}"
    return _recall(key, source, cache, paint)


def _recall(key: str, source: Stored, cache: Cache, read: Callable[[], Facts]) -> Facts:
    """Out of the cache, or by reading. What the system says against reading may change, and is not remembered."""
    before = stamp(source.path)  # of the bytes that are read after it, or of older ones
    found = cache.get(key, before) if before else None
    if found:
        return _from_json(found)
    try:
        facts = read()
    except (FileNotFoundError, ValueError):  # no file can have a name with a zero byte
        return _missing(source)
    except OSError as error:
        return Facts(problem=("unreadable", _why(error, source)))
    if before:
        cache.put(key, before, _to_json(facts))
    return facts


def read_image(source: Stored, *, decode: bool) -> Facts:
    """Of all its pixels, or of its header and its end. A bad file is no exception but a `problem`. Raises OSError."""
    if _is_empty(source):
        return Facts(problem=("empty", ""))
    digest = ""
    try:
        picture = StoredPicture(source) if decode else None
        header = picture.header if picture else read_header(source)
        if header.frames > 1:
            return Facts(problem=("frames", f"a {header.format} of several"))
        if header.too_deep:
            return Facts(problem=("depth", f"{header.bits} bits per channel"))
        if not picture and _may_be_cut_off(source, header):
            picture = StoredPicture(source)
        if picture:
            digest = hashlib.blake2b(picture.data, digest_size=16).hexdigest()
            picture.pixels()
    except ValueError as error:
        return Facts(problem=("unreadable", _why(error, source)))
    return Facts(
        format=header.format,
        mode=header.mode,
        width=header.width,
        height=header.height,
        orientation=header.orientation,
        digest=digest,
    )


def read_mask_facts(source: Stored, labels: LabelMap) -> Facts:
    """Values that are no class are no problem here; others are as for `read_image`."""
    if _is_empty(source):
        return Facts(problem=("empty", ""))
    header = None
    try:
        try:
            return _facts_of(read_ids(source), decoded=False)
        except ValueError:
            header = read_header(source)
            if header.mode not in ("RGB", "RGBA"):
                raise
            return _facts_of(read_mask(source, labels), decoded=True)
    except ValueError as error:
        problem = _mask_problem(header)
        return Facts(problem=(problem, "" if problem == "jpeg" else _why(error, source)))


def count_values(ids: NDArray[np.uint8]) -> tuple[tuple[int, int], ...]:
    """(H, W) uint8 -> the values there are, each with its pixels. A tenth of the time of numpy's unique."""
    counts = np.zeros(256, np.int64)
    for part in np.array_split(ids, -(-ids.size // EXACT)):
        histogram = cv2.calcHist([np.ascontiguousarray(part)], [0], None, [256], [0, 256])
        counts += histogram.reshape(-1).astype(np.int64)
    return tuple((int(value), int(counts[value])) for value in np.flatnonzero(counts))


def _facts_of(ids: NDArray[np.uint8], *, decoded: bool) -> Facts:
    return Facts(height=ids.shape[0], width=ids.shape[1], values=count_values(ids), decoded=decoded)


def _is_empty(source: Stored) -> bool:
    return source.size == 0 or (source.size is None and source.path.stat().st_size <= source.offset)


def _may_be_cut_off(source: Stored, header: Header) -> bool:
    """Whether the last bytes are not those of the format. Some files go on behind their end; decoding tells."""
    end = ENDS.get(header.format, b"")
    stop = source.path.stat().st_size if source.size is None else source.offset + source.size
    return Stored(source.path, stop - len(end), len(end)).read() != end


def _missing(source: Stored) -> Facts:
    twin = find_twin(source.path)
    if twin is None:
        return Facts(problem=("missing", ""))
    return Facts(problem=("case", f"there is {twin.name}: {shlex.join(('mv', '--', str(twin), str(source.path)))}"))


def _why(error: Exception, source: Stored) -> str:
    return str(error).removeprefix(f"{source}: ")


def _mask_problem(header: Header | None) -> str:
    if header is None:
        return "unreadable"
    if header.format == "JPEG":
        return "jpeg"
    if header.mode in ("RGB", "RGBA"):
        return "colors"
    return "unreadable" if header.bits == 8 and header.mode in ("L", "P") else "depth"


@lru_cache(maxsize=8)
def _fingerprint(labels: LabelMap) -> str:
    return hashlib.blake2b(repr(labels).encode(), digest_size=8).hexdigest()


def find_twin(path: Path) -> Path | None:
    """The file of the same name but for upper and lower case, and for jpg or jpeg, tif or tiff."""
    try:
        names = _names_in(path.parent, path.parent.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None
    twin = names.get(_plain(path.name))
    return path.with_name(twin) if twin else None


@lru_cache(maxsize=64)
def _names_in(folder: Path, written: int) -> dict[str, str]:
    return {_plain(path.name): path.name for path in folder.iterdir()}


def _plain(name: str) -> str:
    return name.lower().replace(".jpeg", ".jpg").replace(".tiff", ".tif")


def _to_json(facts: Facts) -> str:
    return json.dumps(vars(facts))


def _from_json(text: str) -> Facts:
    content = json.loads(text)
    values = tuple((value, count) for value, count in content.pop("values"))
    problem = content.pop("problem")
    return Facts(**content, values=values, problem=tuple(problem) if problem else None)
