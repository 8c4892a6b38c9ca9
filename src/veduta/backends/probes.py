"""Probes: a few images beside an exported file, and what the network it was made of says about them.

FILE.probes.npz is a zip of arrays (.npy) and of `probes.json`, which says what they are. So on any machine, with any
runtime and without PyTorch, the file can be asked whether it still says the same.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from veduta.backends.departures import Array, Expected, decoded_of, measured, outputs_of
from veduta.files import replacing
from veduta.model_info import Departure, Exported, OpenShape

if TYPE_CHECKING:
    from veduta.backends import Backend

ENDING = ".probes.npz"
ABOUT = "probes.json"
SIZES = ((192, 192), (128, 256), (161, 203), (33, 47))  # height, width: square, 2:1, odd, tiny
BATCHES = (1, 3)
MOST_VALUES = 1 << 14  # of an output that are kept

MOST_FILE = 1 << 26  # bytes
MOST_BYTES = 1 << 29  # of all arrays, unpacked
MOST_ABOUT = 1 << 20  # bytes
MOST_ENTRIES = 1000

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class About:
    """Of one output of one probe, what is not in its arrays."""

    shape: tuple[int, ...]
    step: int
    span: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AboutProbe:
    """case: of its images, in words."""

    case: str
    outputs: dict[str, About]


ABOUT_ALL: TypeAdapter[list[AboutProbe]] = TypeAdapter(list[AboutProbe])


class Probe:
    """images: (N, 3, H, W) uint8 RGB. expected: by the name of the output."""

    def __init__(self, case: str, images: NDArray[np.uint8], expected: dict[str, Expected]) -> None:
        self.case, self.images, self.expected = case, images, expected


def probes_path(model: Path) -> Path:
    """Where the probes of a model file lie."""
    return model.with_suffix(ENDING)


def shapes_within(images: OpenShape) -> list[tuple[int, int, int]]:
    """(N, height, width) of SIZES and BATCHES as far as a graph's input (N, 3, H, W) leaves its axes open."""
    count, _, height, width = images
    sizes = dict.fromkeys((height or own, width or other) for own, other in SIZES)
    return [(each, *size) for size in sizes for each in ((count,) if count else BATCHES)]


def street_scenes(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Generated photos (N, 3, H, W) uint8 RGB, the same on every machine; larger ones have larger pixels."""
    from veduta.data.scenes import SPLITS, Scenes

    count, height, width = shape
    scenes, images = Scenes("test"), np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        photo = scenes[number % SPLITS["test"]].image
        kernel = cv2.INTER_AREA if height < photo.shape[0] and width < photo.shape[1] else cv2.INTER_NEAREST
        images[number] = cv2.resize(photo, (width, height), interpolation=kernel)
    return images.transpose(0, 3, 1, 2)


def in_words(shape: tuple[int, int, int]) -> str:
    count, height, width = shape
    return f"{height} x {width}, batch {count}"


def make_probes(reference: "Backend", exported: Exported) -> list[Probe]:
    """Ask the network that was exported what the exported file has to say; of every size one batch, in turn."""
    shapes = shapes_within(exported.images)
    batches = len(BATCHES) if exported.images[0] is None else 1
    chosen = [shapes[batches * i + i % batches] for i in range(len(shapes) // batches)]
    probes = []
    for shape in chosen:
        images = street_scenes(shape)
        expected = expected_of(reference, exported, images)
        kept = {name: Expected.of(name, array, most=MOST_VALUES) for name, array in expected.items()}
        probes.append(Probe(in_words(shape), images, kept))
    return probes


def expected_of(reference: "Backend", exported: Exported, images: NDArray[np.uint8]) -> dict[str, Array]:
    """What the network says about images (N, 3, H, W), in the outputs of the exported file."""
    return (decoded_of if exported.full else outputs_of)(reference.info, reference(images))


def save_probes(path: Path, probes: Sequence[Probe]) -> str:
    """Write FILE.probes.npz; returns its sha256. The same probes give the same bytes."""
    about = []
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
            for number, probe in enumerate(probes):
                _put(file, f"{number}/images", probe.images.transpose(0, 2, 3, 1))
                for name, kept in probe.expected.items():
                    _put(file, f"{number}/{name}", kept.values)
                    if kept.classes is not None:
                        _put(file, f"{number}/{name}/classes", kept.classes)
                outputs = {
                    name: About(shape=kept.shape, step=kept.step, span=kept.span)
                    for name, kept in probe.expected.items()
                }
                about.append(AboutProbe(case=probe.case, outputs=outputs))
            file.writestr(zipfile.ZipInfo(ABOUT), ABOUT_ALL.dump_json(about), zipfile.ZIP_DEFLATED)
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def read_probes(model: Path, exported: Exported) -> list[Probe]:
    """Those beside a model file.

    Raises FileNotFoundError where there are none, and ValueError where they are damaged or those of another file.
    """
    path = probes_path(model)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found. It lies beside {model.name} when `veduta export` has written it: copy both, or export "
            "again."
        )
    if path.stat().st_size > MOST_FILE:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes, the limit of probes is {MOST_FILE:,}.")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != exported.probes_sha256:
        raise ValueError(
            f"{path}: these are not the probes of {model.name}: they hash to {found[:12]}, the file says "
            f"{exported.probes_sha256[:12] or 'nothing'}. Copy both files again, or export again."
        )
    try:
        return list(_unpacked(content))
    except (zipfile.BadZipFile, zlib.error, ValidationError, KeyError, ValueError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not readable as probes ({error}). Export again.") from error


def departures(backend: "Backend", probes: Sequence[Probe]) -> Iterator[Departure]:
    """How far a backend is from what the probes expect of it; probe by probe."""
    for probe in probes:
        yield from measured(probe.case, probe.expected, outputs_of(backend.info, backend(probe.images)))


def _put(file: zipfile.ZipFile, name: str, array: Array) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)


def _unpacked(content: bytes) -> Iterator[Probe]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = file.infolist()
        if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise ValueError(f"more than {MOST_ENTRIES:,} arrays or {MOST_BYTES:,} bytes")
        every = ABOUT_ALL.validate_json(_read(file, ABOUT, MOST_ABOUT))
        if not every:
            raise ValueError("there is none")
        for number, about in enumerate(every):
            names, expected = file.NameToInfo, {}
            for name, each in about.outputs.items():
                classes = f"{number}/{name}/classes"
                expected[name] = Expected(
                    each.shape,
                    _array(file, f"{number}/{name}"),
                    each.step,
                    each.span,
                    _array(file, classes) if f"{classes}.npy" in names else None,
                )
            images = _array(file, f"{number}/images")
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise ValueError(f"images of {images.dtype} {images.shape}")
            yield Probe(about.case, images.copy().transpose(0, 3, 1, 2), expected)  # PyTorch wants memory of its own


def _read(file: zipfile.ZipFile, name: str, most: int = MOST_BYTES) -> bytes:
    size = file.getinfo(name).file_size
    if size > most:
        raise ValueError(f"{name} has {size:,} bytes")
    with file.open(name) as entry:
        return entry.read(size)  # not read(): it would unpack first and count then


def _array(file: zipfile.ZipFile, name: str) -> Array:
    content = io.BytesIO(_read(file, f"{name}.npy"))
    np.lib.format.read_magic(content)
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(content)
    body: Any = content.getbuffer()[content.tell() :]
    if dtype.hasobject or by_columns or dtype.itemsize * int(np.prod(shape, dtype=object)) != len(body):
        raise ValueError(f"{name} is no plain array")
    return np.frombuffer(body, dtype).reshape(shape)
