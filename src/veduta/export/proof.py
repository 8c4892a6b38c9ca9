"""The proof of a fresh export: it is opened again, and asked what the network says, on many sizes and awkward files."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from veduta.backends import Backend
from veduta.backends.departures import Array, Expected, as_arrays, measured, outputs_of
from veduta.backends.probes import expected_of, in_words, shapes_within, street_scenes
from veduta.backends.runtime import exported_of
from veduta.data.fit import Pixels
from veduta.data.images import read_rgb
from veduta.export.shown import shown_whole
from veduta.model_info import Departure, Exported, OpenShape

FILE_SIZE = 96, 131  # height, width of the awkward files
TURNED = 6  # EXIF orientation: shown upright after a quarter turn clockwise


def prove(
    reference: Backend, fresh: Backend, photos: Sequence[tuple[str, Pixels]], progress: Callable[[str], None]
) -> Iterator[Departure]:
    """Whether the exported file, opened again, says what the network says that it was made of.

    Outputs are compared on generated street scenes of many sizes and batches, as far as the file takes them, and on
    photos (name, (H, W, 3) uint8 RGB); predictions on image files of odd kinds, from their bytes on. progress: gets the
    name of each case before it is run.
    """
    exported = exported_of(fresh.info)
    for case, images in _batches(exported.images, photos):
        progress(case)
        expected = expected_of(reference, exported, images)
        yield from _compared(case, expected, outputs_of(fresh.info, fresh(images)))
    with tempfile.TemporaryDirectory(prefix="veduta-") as folder:
        for case, path in awkward_files(Path(folder), exported):
            progress(case)
            photo = read_rgb(path)
            batch = [photo] * (exported.images[0] or 1)
            yield from _compared(case, as_arrays(shown_whole(reference)(batch)), as_arrays(shown_whole(fresh)(batch)))


def _batches(images: OpenShape, photos: Sequence[tuple[str, Pixels]]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for shape in shapes_within(images):
        yield in_words(shape), street_scenes(shape)
    for name, photo in photos:
        yield name, _as_batch(photo, images)


def _compared(case: str, expected: dict[str, Array], found: dict[str, Array]) -> Iterator[Departure]:
    return measured(case, {name: Expected.of(name, array) for name, array in expected.items()}, found)


def awkward_files(folder: Path, exported: Exported) -> Iterator[tuple[str, Path]]:
    """Image files as users have them: what they are, and where; of a size that the exported file takes."""
    height, width = (own or free for own, free in zip(exported.images[2:], FILE_SIZE, strict=True))
    photo = np.ascontiguousarray(street_scenes((1, height, width))[0].transpose(1, 2, 0))
    image = Image.fromarray(photo)

    grey = folder / "grey.jpg"
    image.convert("L").save(grey, quality=92)
    yield "grey JPEG", grey

    ink = folder / "cmyk.jpg"
    image.convert("CMYK").save(ink, quality=92)
    yield "CMYK JPEG", ink

    turned, exif = folder / "turned.jpg", Image.Exif()
    exif[ExifTags.Base.Orientation] = TURNED
    Image.fromarray(np.rot90(photo).copy()).save(turned, quality=92, exif=exif)
    yield "JPEG turned by EXIF", turned

    deep = folder / "deep.png"
    cv2.imwrite(str(deep), photo[..., ::-1].astype(np.uint16) * 257)
    yield "PNG of 16 bits", deep

    clear = folder / "clear.png"
    alpha = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[:, None], (height, width, 1))
    Image.fromarray(np.concatenate([photo, alpha], axis=2)).save(clear)
    yield "PNG with alpha", clear


def _as_batch(photo: Pixels, images: OpenShape) -> NDArray[np.uint8]:
    """A photo (H, W, 3) -> (N, 3, H, W) as a graph's input takes it: resized and repeated where that is fixed."""
    count, _, height, width = images
    size = height or photo.shape[0], width or photo.shape[1]
    if size != photo.shape[:2]:
        photo = np.asarray(cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return np.stack([photo] * (count or 1)).transpose(0, 3, 1, 2)
