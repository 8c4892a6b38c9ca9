"""Bands: an image read, and a mask written, some rows at a time, so that memory does not grow with its height."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from veduta.data.images import MAX_PIXELS, MOST_PAGES, PNG_START, read_rgb, refusing
from veduta.data.rgb import to_rgb
from veduta.data.stored import Stored
from veduta.errors import Unreadable
from veduta.files import replacing

LARGE = 1 << 24  # pixels: smaller images are decoded whole, whatever their format
MOST_PART = 1 << 25  # pixels of a strip or a tile, which is decoded at once
MOST_ROW = 1 << 27  # pixels of all tiles side by side: they are decoded together
MOST_ACROSS = 1 << 18  # pixels of a row: bands of it are held in memory
PART = 1 << 20  # pixels of the parts into which a strip that is not compressed is cut
CHUNK = 1 << 16  # bytes of a mask's PNG that are written at a time

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: of files beyond 4 GiB
ENCODING = (  # tags that say how a strip or a tile is encoded
    *(Tag.BitsPerSample, Tag.Compression, Tag.PhotometricInterpretation, Tag.FillOrder, Tag.SamplesPerPixel),
    *(Tag.PlanarConfiguration, Tag.Predictor, Tag.ColorMap, Tag.ExtraSamples, Tag.SampleFormat, Tag.JPEGTables),
    *(Tag.YCbCrCoefficients, Tag.YCbCrSubSampling, Tag.YCbCrPositioning, Tag.ReferenceBlackWhite),
)


class Rows(Protocol):
    """An image whose rows are read when they are asked for; an array (H, W, 3) uint8 RGB is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]: ...


class TiffRows:
    """A TIFF (H, W, 3) uint8 RGB whose strips or tiles are decoded when their rows are asked for, each as a small TIFF.

    What was decoded is kept until rows below it are asked for. Raises Unreadable for strips or tiles that are damaged.
    """

    def __init__(self, path: Path, tags: ImageFileDirectory_v2) -> None:
        self.path = path
        self.width, self.height = int(tags[Tag.ImageWidth]), int(tags[Tag.ImageLength])
        self.shape = (self.height, self.width, 3)
        self.encoding = {tag: tags[tag] for tag in ENCODING if tag in tags}
        if Tag.TileOffsets in tags:
            self.part = int(tags[Tag.TileLength]), int(tags[Tag.TileWidth])
            self.offsets, self.sizes = tags[Tag.TileOffsets], tags[Tag.TileByteCounts]
        else:
            self.part = min(int(tags.get(Tag.RowsPerStrip, self.height)), self.height), self.width
            self.offsets, self.sizes = tags[Tag.StripOffsets], tags[Tag.StripByteCounts]
            if _is_plain_strip(tags):
                self._cut_strip(tags.get(Tag.SamplesPerPixel, 1))
        self.across = -(-self.width // self.part[1])
        expected = -(-self.height // self.part[0]) * self.across
        if len(self.offsets) != expected or len(self.sizes) != expected:
            raise ValueError(f"it has {len(self.offsets):,} strips or tiles, its size needs {expected:,}")
        self.kept: dict[int, NDArray[np.uint8]] = {}  # rows of parts, by their number

    def _cut_strip(self, samples: int) -> None:
        """A strip that is not compressed holds one row after the other, so it is as good as many strips."""
        rows, row_size, start = max(1, PART // self.width), samples * self.width, self.offsets[0]
        tops = range(0, self.height, rows)
        self.part = rows, self.width
        self.offsets = tuple(start + top * row_size for top in tops)
        self.sizes = tuple(min(rows, self.height - top) * row_size for top in tops)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        top, bottom, _ = rows.indices(self.height)
        height = self.part[0]
        self.kept = {number: part for number, part in self.kept.items() if number >= top // height}
        pixels = np.empty((bottom - top, self.width, 3), np.uint8)
        for number in range(top // height, -(-bottom // height)):
            if number not in self.kept:
                try:
                    self.kept[number] = self._decode(number)
                except ValueError as error:
                    raise Unreadable(str(error)) from error
            begin = number * height
            first, last = max(top, begin), min(bottom, begin + height)
            pixels[first - top : last - top] = self.kept[number][first - begin : last - begin]
        return pixels

    def _decode(self, row: int) -> NDArray[np.uint8]:
        """One strip, or one row of tiles."""
        height = min(self.part[0], self.height - row * self.part[0])
        pixels = np.empty((height, self.width, 3), np.uint8)
        for column in range(self.across):
            left = column * self.part[1]
            width = min(self.part[1], self.width - left)
            pixels[:, left : left + width] = self._decode_part(row * self.across + column, height)[:height, :width]
        return pixels

    def _decode_part(self, number: int, height: int) -> NDArray[np.uint8]:
        with refusing(Stored(self.path)):
            data = Stored(self.path, self.offsets[number], self.sizes[number]).read()
            directory = ImageFileDirectory_v2()
            for tag, value in self.encoding.items():
                directory[tag] = value
            directory[Tag.ImageWidth] = self.part[1]
            directory[Tag.ImageLength] = directory[Tag.RowsPerStrip] = self.part[0] if self.across > 1 else height
            directory[Tag.StripOffsets], directory[Tag.StripByteCounts] = 0, len(data)  # right behind the directory
            file = io.BytesIO()
            directory.save(file)
            file.write(data)
            with Image.open(file, formats=("TIFF",)) as image:
                return to_rgb(image)


def open_rows(path: Path) -> Rows:
    """An image file. Of a large TIFF strips or tiles are read as they are needed; all else is decoded whole.

    Raises FileNotFoundError, and ValueError as `read_rgb` does, but of a TIFF not for its size.
    """
    try:
        with path.open("rb") as file, refusing(Stored(path)):
            pages = _pages(file)
            num_pixels = int(pages[0][Tag.ImageWidth]) * int(pages[0][Tag.ImageLength]) if pages else 0
            why = _unsuitable(pages, file.seek(0, 2)) if num_pixels > LARGE else "it is small"
            if why is None:
                return TiffRows(path, pages[0])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} not found.") from None
    if num_pixels <= MAX_PIXELS:
        return read_rgb(path)
    raise ValueError(
        f"{path}: more than {MAX_PIXELS:,} pixels, so it has to be read by rows, but {why}. Save it as a tiled TIFF of "
        "8-bit RGB, one page."
    )


def _pages(file: BinaryIO) -> list[ImageFileDirectory_v2]:
    """The directories of a TIFF, without smaller versions and masks of its pages; none for another format."""
    start = file.read(16)
    if start[:4] not in TIFF_STARTS:
        return []
    if b"+" not in start[:4]:
        start = start[:8]
    pages: list[ImageFileDirectory_v2] = []
    directory = ImageFileDirectory_v2(start)
    while (place := directory.next) and len(pages) < MOST_PAGES:
        directory = ImageFileDirectory_v2(start)
        file.seek(place)
        directory.load(file)
        pages.append(directory)
    return pages[:1] + [page for page in pages[1:] if not page.get(Tag.NewSubfileType, 0) & 0b101]


def _unsuitable(pages: Sequence[ImageFileDirectory_v2], length: int) -> str | None:
    """Why a TIFF of so many bytes cannot be read by rows. Raises ValueError where it lacks pixels."""
    tags = pages[0]
    rows, columns = tags.get(Tag.RowsPerStrip, tags[Tag.ImageLength]), tags[Tag.ImageWidth]
    if Tag.TileOffsets in tags:
        rows, columns = tags[Tag.TileLength], tags[Tag.TileWidth]
    bits = max(tags.get(Tag.BitsPerSample, (1,)))
    if len(pages) > 1:
        return f"it has {len(pages)} pages"
    if bits != 8:
        return f"it has {bits} bits per channel"
    if tags.get(Tag.Orientation, 1) != 1:
        return f"it is stored turned or mirrored (orientation {tags[Tag.Orientation]})"
    if tags.get(Tag.PlanarConfiguration, 1) != 1:
        return "its colours are stored one after the other"
    if _is_plain_strip(tags):
        if tags[Tag.StripOffsets][0] + _plain_size(tags) > length:
            raise ValueError("it ends before its last row")
    elif (rows if Tag.TileOffsets in tags else min(rows, tags[Tag.ImageLength])) * columns > MOST_PART:
        return f"its parts of {columns} x {min(rows, tags[Tag.ImageLength])} pixels are too large to be decoded at once"
    elif min(rows, tags[Tag.ImageLength]) * tags[Tag.ImageWidth] > MOST_ROW:
        return f"a row of its parts, {tags[Tag.ImageWidth]} x {rows} pixels, is too large to be decoded at once"
    if tags[Tag.ImageWidth] > MOST_ACROSS:
        return f"it is {tags[Tag.ImageWidth]:,} pixels wide; the limit is {MOST_ACROSS:,}"
    return None


def _is_plain_strip(tags: ImageFileDirectory_v2) -> bool:
    """Whether all pixels lie in one piece, as they are."""
    return Tag.TileOffsets not in tags and len(tags[Tag.StripOffsets]) == 1 and tags.get(Tag.Compression, 1) == 1


def _plain_size(tags: ImageFileDirectory_v2) -> int:
    """Bytes of all pixels."""
    return int(tags[Tag.ImageLength] * tags[Tag.ImageWidth] * tags.get(Tag.SamplesPerPixel, 1))


@contextmanager
def mask_writer(
    path: Path, size: tuple[int, int], palette: NDArray[np.uint8]
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A palette PNG of `size` (height, width), written by rows (h, width) uint8 from the top; whole or not there.

    palette: (256, 3) uint8 RGB.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        compressor, waiting = zlib.compressobj(), bytearray()

        def put(data: bytes, at_least: int) -> None:
            waiting.extend(data)
            if len(waiting) > at_least:
                _write_chunk(file, b"IDAT", waiting)
                waiting.clear()

        def write(rows: NDArray[np.uint8]) -> None:
            unfiltered = np.zeros((len(rows), 1 + size[1]), np.uint8)  # a row begins with the number of its filter
            unfiltered[:, 1:] = rows
            put(compressor.compress(unfiltered.data), CHUNK)

        file.write(PNG_START)
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, 3, 0, 0, 0))
        _write_chunk(file, b"PLTE", palette.tobytes())
        yield write
        put(compressor.flush(), 0)
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, body: bytes | bytearray) -> None:
    file.write(struct.pack(">I", len(body)) + kind)
    file.write(body)
    file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))
