"""Promises of limits: what a file claims is judged before memory or time is spent on it."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import IMAGE, SMOOTH, Pixels, chunk, encoded, png, put
from PIL import Image

from veduta.data.images import MAX_PIXELS, read_header, read_mask, read_rgb
from veduta.data.label_maps import VOC
from veduta.data.stored import Stored


def read_voc_mask(path: Path) -> Pixels:
    return read_mask(path, VOC)


@pytest.mark.parametrize("read", (read_rgb, read_voc_mask))
@pytest.mark.parametrize("side", [13_400, 30_000])
@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])  # others in this process may have lifted it
def test_a_header_that_claims_a_huge_image_is_refused_before_pixels_are_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Path], Pixels],
    side: int,
    pillows_limit: int | None,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=rf"bomb\.png: more than {MAX_PIXELS:,} pixels"):
        read(put(tmp_path / "bomb.png", png(side, side, bits=8, color=2, rows=b"")))


def gif(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b";"


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    )


def webp(width: int, height: int) -> bytes:
    body = (
        b"WEBPVP8X" + struct.pack("<II", 10, 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux counts it")
def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    """60,000 x 60,000 in a few bytes, text that inflates to 100 MB, directories that claim gigabytes."""
    inflating = zlib.compress(bytes(100 << 20), 1)
    grey = png(8, 8, bits=8, color=0, rows=bytes(72), before=chunk(b"zTXt", b"Comment\0\0" + inflating))
    profile = png(8, 8, bits=8, color=0, rows=bytes(72), before=chunk(b"iCCP", b"icc\0\0" + inflating))
    size = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
    bombs = {
        "huge.png": png(60_000, 60_000, bits=8, color=2, rows=b""),
        "huge.gif": gif(60_000, 60_000),
        "huge.webp": webp(16_000, 16_000),
        "huge.tif": tiff((256, 4, 1, 60_000), (257, 4, 1, 60_000), *size[2:], (273, 4, 1, 8), (279, 4, 1, 8)),
        "tags.tif": tiff(*size, *((1000 + i, 1, 0xFFFF_FFFF, 8) for i in range(5000))),
        "strips.tif": tiff(*size, (273, 4, 0xFFFF_FFF0, 8), (279, 4, 0xFFFF_FFF0, 8)),
        "text.png": grey,
        "profile.png": profile,
        "chunk.png": png(8, 8, bits=8, color=0, rows=bytes(72), before=struct.pack(">I4s", 0x7FFF_FFFF, b"eXIf")),
    }
    for name, content in bombs.items():
        put(tmp_path / name, content)
    script = """
import sys, time
from pathlib import Path
from veduta.data.images import read_header, read_rgb
from veduta.data.label_maps import VOC
from veduta.data.stored import Stored

def kilobytes(what):
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if what in line).split()[1])

read_rgb(Path(sys.argv[1]))  # loads all that is loaded late
for path in map(Path, sys.argv[2:]):
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    before, start = kilobytes("VmRSS"), time.process_time()
    for read in (lambda path: read_header(Stored(path)), read_rgb):
        try:
            read(path)
        except ValueError:
            pass
    print(path.name, (kilobytes("VmHWM") - before) // 1024, round(time.process_time() - start, 2))
"""
    small = put(tmp_path / "small.tif", encoded(IMAGE, "TIFF"))
    command = [sys.executable, "-c", script, str(small), *(str(tmp_path / name) for name in bombs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == list(bombs)
    assert not [row for row in rows if int(row[1]) > 50 or float(row[2]) > 2], rows


def test_a_tiff_of_countless_tiles_is_refused(tmp_path: Path) -> None:
    size = ((256, 4, 1, 300), (257, 4, 1, 300), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
    tiles = ((322, 4, 1, 1), (323, 4, 1, 1), (324, 4, 90_000, 122), (325, 4, 90_000, 360_122))  # of one pixel each
    with pytest.raises(ValueError, match="90,000 tiles, the limit is 65,536"):
        read_header(Stored(put(tmp_path / "a.tif", tiff(*size, *tiles) + bytes(8 * 90_000))))


GREY = png(8, 8, bits=8, color=0, rows=bytes(72))
BEFORE_IEND = len(GREY) - 12
JPEG, PROGRESSIVE = encoded(SMOOTH, "JPEG"), encoded(SMOOTH, "JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE.rindex(b"\xff\xda")
COMMENT, EXIF = b"\xff\xfe\0\2", b"\xff\xe1\xff\xffExif\0\0" + bytes(65_535 - 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GREY[:33] + chunk(b"tEXt", b"") * 10_001 + GREY[33:], "10,000 chunks of less than 1,024 bytes"),
        (GREY[:BEFORE_IEND] + chunk(b"tEXt", b"") * 10_001 + GREY[BEFORE_IEND:], "10,000 chunks"),
        (GREY[:BEFORE_IEND] + chunk(b"IDAT", b"") * 10_001 + GREY[BEFORE_IEND:], "10,000 chunks"),
        (GREY[:33] + chunk(b"eXIf", b"") + chunk(b"tEXt", b"") * 10_001 + GREY[33:], "10,000 chunks"),
        (JPEG[:2] + COMMENT * 10_001 + JPEG[2:], "10,000 segments"),
        (JPEG[:2] + b"\xff\xf0\xff\xff" * 10_001 + JPEG[2:], "10,000 segments"),  # a marker without a length
        (JPEG[:3] + bytes([0xFF]) * 10_001 + JPEG[3:], "10,000 segments"),
        (PROGRESSIVE[:LAST_SCAN] + COMMENT * 10_001 + PROGRESSIVE[LAST_SCAN:], "10,000 segments"),
        (JPEG[:2] + EXIF * 17 + JPEG[2:], "1,048,576 bytes of EXIF"),
    ],
)
def test_floods_of_chunks_and_segments_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"flood: not a readable image .it has more than {reason}"):
        read_rgb(put(tmp_path / "flood", content))


def test_large_images_are_read_without_a_warning_and_other_programs_keep_theirs(tmp_path: Path) -> None:
    """Pillow warns beyond half of MAX_PIXELS."""
    path = put(tmp_path / "large.png", png(10_000, 10_000, bits=8, color=0, rows=b""))
    read = "import sys, pathlib, veduta.data.images as images, veduta.data.stored as stored\n"
    read += "assert images.read_header(stored.Stored(pathlib.Path(sys.argv[1]))).size == (10_000, 10_000)"
    done = subprocess.run([sys.executable, "-c", read, str(path)], capture_output=True, text=True, check=True)
    assert not done.stderr
    script = """
import sys, warnings
from PIL import Image
warnings.simplefilter("error", Image.DecompressionBombWarning)
import veduta.data.images
try:
    Image.open(sys.argv[1])
except Image.DecompressionBombWarning:
    print("as it was")
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "as it was\n"


def test_a_header_is_read_without_reading_the_file(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg", encoded(SMOOTH, "JPEG"))
    os.truncate(path, 8 << 30)  # a sparse file; as an image it is refused for its bytes
    assert read_header(Stored(path)).size == SMOOTH.shape[:2]
    with pytest.raises(ValueError, match="8,589,934,592 bytes"):
        read_rgb(path)


def test_a_jpeg_whose_many_scans_would_take_hours_is_refused(tmp_path: Path) -> None:
    """Also where nothing else of it is right, and Pillow would be asked."""
    content = encoded(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    for end in (b"\xff\xd9", b"", b"\xff\x46"):
        with pytest.raises(ValueError, match="210 scans over 4000 x 4000 pixels take too long"):
            read_rgb(put(tmp_path / "a.jpg", content[:last] + content[last:-2] * 201 + end))
