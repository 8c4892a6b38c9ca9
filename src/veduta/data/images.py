"""Reading images and masks: encoded bytes -> arrays, within limits, whatever odd file it is.

What happens to each kind of file is told in docs/data.md. Colour profiles (ICC) are ignored, as training sets do.
"""

import errno
import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, GifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError

from veduta.data.deep_png import read_deep_png
from veduta.data.jpeg import MOST_EXIF, follow_scans, refuse_flood
from veduta.data.mask_colors import decode_colors
from veduta.data.rgb import to_rgb
from veduta.data.stored import Stored
from veduta.labels import LabelMap

MAX_PIXELS = 178_956_970  # decoded images beyond this are refused before any memory is taken (0.5 GiB of RGB)
MAX_PASSES = 16 * MAX_PIXELS  # pixels times scans of a JPEG: a scan of a few bytes costs a pass over all pixels

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")  # of files to look for; any case
LOSSY = ("jpeg", "tiff_jpeg", "webp")  # compressions inside of TIFF
MOST_PAGES = 64  # of a TIFF whose pages are looked at
MOST_TILES = 1 << 16  # of an uncompressed TIFF: Pillow spends its time on each, however small
MOST_CHUNKS = 10_000  # of a PNG below SMALL_CHUNK: Pillow takes microseconds for each, and keeps some
SMALL_CHUNK = 1 << 10  # bytes; encoders cut pixels into 8 KiB or more

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# What else lies under the name of an image: how it begins, and what to say.
STRANGERS = (
    (b"<", "it is text that begins with '<': perhaps the error page of a download"),
    (b"version https://git-lfs", "it is a Git LFS pointer: fetch the files with `git lfs pull`"),
    (b"\0\0\0", "if it is HEIC or AVIF, save it as JPEG"),
)

AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
SHRUNK = {  # OpenCV has the factor in its flags for grey and for BGR alone; RGB beside it wins over grey
    1: AS_STORED,
    2: AS_STORED | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: AS_STORED | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: AS_STORED | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

# EXIF orientation -> what makes the stored pixels upright (EXIF 2.3, 4.6.4 A).
UPRIGHT: dict[int, Callable[[cv2.typing.MatLike], cv2.typing.MatLike]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

# What matters about a damaged file is said by the error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Images beyond half of MAX_PIXELS are read without a word, unless the program has a filter of its own for them.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)


class Picture(Protocol):
    """An image whose size is known before its pixels are decoded. size: (height, width), upright."""

    size: tuple[int, int]

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; where that is cheaper, smaller by up to `shrink` (1, 2, 4 or 8) on each side."""
        ...


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its image before a pixel is decoded.

    format: one of FORMATS. mode: Pillow's name of the channels. bits: per channel. width, height: as stored.
    orientation: 1..8, EXIF's; 1 where it is missing or wrong. frames: pages or pictures of an animation, of a GIF or
    TIFF counted to 2 at most.
    """

    format: str
    mode: str
    bits: int
    width: int
    height: int
    orientation: int
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return (self.height, self.width) if self.orientation < 5 else (self.width, self.height)

    @property
    def too_deep(self) -> bool:
        """More than 8 bits per channel, in a format that does not say which of their values are black and white."""
        return self.bits > 8 and self.format != "PNG"


class StoredPicture:
    """A Picture on disk, read once and decoded on demand. Raises ValueError as `read_header` does."""

    def __init__(self, source: Stored) -> None:
        self.source, self.data = source, source.read()
        file = io.BytesIO(self.data)
        self.image, self.header = _open(file, source)
        self.scan = file.tell()  # of a JPEG: where Pillow stopped reading, at the data of the first scan
        self.size = self.header.size

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright. A JPEG is decoded at 1/shrink, each side rounded up; `read_rgb` tells more."""
        header, source = self.header, self.source
        _refuse_frames(header, source)
        if header.too_deep:
            raise ValueError(
                f"{source}: {header.bits} bits per channel (mode {header.mode}); which of their values are black "
                "and white is not said. Scale the image to 8 bits first."
            )
        with refusing(source):
            pixels = self._fast_pixels(shrink) if header.format == "JPEG" else None
            if header.bits > 8:
                pixels = read_deep_png(self.data)
            if pixels is None:
                pixels = to_rgb(self.image)
            return _upright(pixels, header)

    def _fast_pixels(self, shrink: int) -> NDArray[np.uint8] | None:
        """A JPEG by OpenCV, in half of Pillow's time and of the same pixels; None where Pillow has to judge."""
        height, width = self.header.height, self.header.width
        scans, whole = follow_scans(self.data, self.scan)
        if scans * height * width > MAX_PASSES:
            raise ValueError(f"{scans} scans over {width} x {height} pixels take too long")
        if not whole or self.header.mode not in ("L", "RGB"):  # OpenCV fills with grey what is missing
            return None
        pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), SHRUNK[shrink])
        if pixels is None or pixels.shape[:2] != (-(-height // shrink), -(-width // shrink)):
            return None
        return np.asarray(pixels, np.uint8)


class DecodedPicture:
    """A Picture that is an array (H, W, 3) uint8 already."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self.size = (image.shape[0], image.shape[1])

    def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
        return self.image


def read_header(source: Stored) -> Header:
    """What the file says of its image; of a whole file only what is needed is read.

    Raises FileNotFoundError, and ValueError for what is no image of FORMATS or has more than MAX_PIXELS.
    """
    if source.offset or source.size is not None:
        return _open(io.BytesIO(source.read()), source)[1]
    try:
        with source.path.open("rb") as file:
            return _open(file, source)[1]
    except FileNotFoundError:
        raise FileNotFoundError(f"{source.path} not found.") from None


def read_rgb(source: Stored | Path) -> NDArray[np.uint8]:
    """Image file -> (H, W, 3) uint8 RGB, upright by its EXIF orientation. Grey, palette and CMYK are converted.

    What is transparent is shown on white. Raises ValueError, naming the file, for what is no readable image, is too
    large, is animated or has several pages, or has more than 8 bits per channel and is no PNG.
    """
    return StoredPicture(Stored(source) if isinstance(source, Path) else source).pixels()


def read_mask(source: Stored | Path, labels: LabelMap) -> NDArray[np.uint8]:
    """Mask file -> (H, W) uint8 train ids, void as 255, upright: of class indices (grey or palette), or of colours.

    An RGB mask is decoded by the colours of the label map. Raises ValueError as `read_ids` and `decode_colors` do.
    """
    picture = StoredPicture(Stored(source) if isinstance(source, Path) else source)
    if picture.header.mode in ("RGB", "RGBA"):
        return decode_colors(_mask_values(picture, "RGB"), labels, path=picture.source)
    return labels.encode(_ids(picture), path=picture.source)


def read_ids(source: Stored) -> NDArray[np.uint8]:
    """Index mask file (8-bit grey or palette) -> (H, W) uint8 as stored, upright: file ids, before any label map.

    Raises ValueError, naming the file, for lossy files, colours and grey of another depth than 8 bits.
    """
    return _ids(StoredPicture(source))


def _ids(picture: StoredPicture) -> NDArray[np.uint8]:
    header, source = picture.header, picture.source
    if header.mode not in ("1", "L", "LA", "P"):
        raise ValueError(
            f"{source}: a mask must hold one 8-bit class index per pixel (grey or palette PNG) or its class's colour, "
            f"this one is of mode {header.mode}. Save it with 8 bits."
        )
    if header.mode != "P" and header.bits < 8:
        raise ValueError(
            f"{source}: a grey mask of {header.bits} bits, whose brightest value may stand for "
            f"{(1 << header.bits) - 1} or for 255. Save it with 8 bits."
        )
    return _mask_values(picture, "P" if header.mode == "P" else "L")


def _mask_values(picture: StoredPicture, mode: str) -> NDArray[np.uint8]:
    """What a mask file stores, upright; refused where that is not what was drawn."""
    header, source, image = picture.header, picture.source, picture.image
    _refuse_frames(header, source)
    if header.bits > 8:
        raise ValueError(f"{source}: a mask of {header.bits} bits per channel, 8 are expected. Save it with 8 bits.")
    if header.format == "JPEG" or (header.format == "TIFF" and image.info.get("compression") in LOSSY):
        raise ValueError(
            f"{source}: a mask with JPEG's lossy compression, which mixes the classes at every border. Make it again "
            "from its source as PNG; converting this file does not bring the values back."
        )
    with refusing(source):
        image.load()
        opaque = "A" not in image.getbands() or image.getchannel("A").getextrema()[0] == 255
        values = np.asarray(image if image.mode == mode else image.convert(mode))
    if not opaque:
        raise ValueError(
            f"{source}: a mask with transparent pixels (mode {header.mode}), whose class is not said. Save it without "
            "an alpha channel."
        )
    return _upright(values, header)


def _open(file: BinaryIO, source: Stored) -> tuple[Image.Image, Header]:
    """Open lazily: the header is read and judged, no pixel is decoded yet. `file` stays where Pillow left it."""
    with refusing(source):
        start = file.read(len(PNG_START))
        exif = _walk_png(file) if start == PNG_START else b""
        if start.startswith(JPEG_START):
            refuse_flood(file)
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(_what_else(file)) from None
        place = file.tell()
        if exif:
            image.info["exif"] = exif
        for key in ("xmp", "XML:com.adobe.xmp"):  # Pillow would look for an orientation in there too
            image.info.pop(key, None)
        header = _header(image, file)
        file.seek(place)
    if header.width * header.height > MAX_PIXELS:
        raise _too_large(source)
    return image, header


def _header(image: Image.Image, file: BinaryIO) -> Header:
    (width, height), bits = image.size, 1 if image.mode == "1" else 8
    frames = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if len(image.tile) > MOST_TILES:
            raise ValueError(f"it has {len(image.tile):,} tiles, the limit is {MOST_TILES:,}")
        bits = max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
        orientation = _orientation(image.tag_v2.get(ExifTags.Base.Orientation))
        if orientation >= 5:
            width, height = height, width  # Pillow tells the upright size of a TIFF, and turns its pixels itself
        frames = _count_pages(image)
    else:
        if image.format == "PNG":
            file.seek(24)
            bits = file.read(1)[0]
        if isinstance(image, GifImagePlugin.GifImageFile):
            frames += image.is_animated
        orientation = _exif_orientation(image)
    return Header(
        format="JPEG" if image.format == "MPO" else image.format or "",  # MPO: a preview follows the photo
        mode=image.mode,
        bits=bits,
        width=width,
        height=height,
        orientation=orientation,
        frames=frames,
    )


def _exif_orientation(image: Image.Image) -> int:
    try:
        return _orientation(Image.Image.getexif(image).get(ExifTags.Base.Orientation))  # PNG's own would decode it all
    except Exception:  # a damaged block of notes is no reason to refuse the photo
        return 1


def _orientation(value: Any) -> int:
    return int(value) if value in tuple(UPRIGHT) else 1  # EXIF numbers may be fractions, text or several


def _walk_png(file: BinaryIO) -> bytes:
    """The EXIF of a PNG, which may stand behind the pixels. Raises ValueError for more than MOST_CHUNKS."""
    exif, small, place = b"", 0, len(PNG_START)
    while small <= MOST_CHUNKS:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[4:] in (
            b"IEND",
            bytes(4),
        ):  # the end, or a copy that was cut off and filled with zeros
            return exif
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf" and not exif:
            exif = file.read(min(length, MOST_EXIF))
        small += length < SMALL_CHUNK
        place += length + 12
    raise ValueError(f"it has more than {MOST_CHUNKS:,} chunks of less than {SMALL_CHUNK:,} bytes")


def _count_pages(image: TiffImagePlugin.TiffImageFile) -> int:
    """1, or 2 for more than one. Smaller versions of a page and its masks (bits 0 and 2 of NewSubfileType) are none."""
    if not image.is_animated:
        return 1
    for page in range(1, MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        if not image.tag_v2.get(254, 0) & 0b101:
            return 2
    image.seek(0)
    return 1


def _what_else(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(64).lstrip()
    if not start:
        return "it is empty"
    for beginning, what in STRANGERS:
        if start.startswith(beginning):
            return what
    return f"it begins with {start[:8]!r}: none of {', '.join(FORMATS)}, or its header is damaged"


@contextmanager
def refusing(source: Stored) -> Iterator[None]:
    """Whatever a library raises about untrusted bytes becomes a ValueError that names the file.

    What the system says against reading stays an OSError: it is not about the bytes.
    """
    try:
        yield
    except Image.DecompressionBombError:
        raise _too_large(source) from None
    except Exception as error:
        # Pillow's own have no number; EINVAL is a place that the file names and no file can have.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, error.strerror, str(source)) from error
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{source}: not a readable image ({reason}). Replace the file or take it off the list."
        ) from error


def _too_large(source: Stored) -> ValueError:
    return ValueError(
        f"{source}: more than {MAX_PIXELS:,} pixels. Cut it into pieces, or save it as a tiled TIFF, which `veduta "
        "predict --set protocol=windows` reads by rows."
    )


def _refuse_frames(header: Header, source: Stored) -> None:
    if header.frames > 1:
        raise ValueError(
            f"{source}: {header.format} with several pictures or pages. Which one is meant? Save that one by itself."
        )


def _upright(pixels: NDArray[np.uint8] | cv2.typing.MatLike, header: Header) -> NDArray[np.uint8]:
    turn = UPRIGHT.get(header.orientation) if header.format != "TIFF" else None
    return np.asarray(turn(pixels) if turn else pixels, np.uint8)
