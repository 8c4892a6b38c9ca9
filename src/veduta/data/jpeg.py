"""JPEG's markers: is a file whole, so that a decoder that fills gaps with grey can be trusted with it?"""

import re
from typing import BinaryIO

MOST_EXIF = 1 << 20  # bytes; a photo has one segment, of 64 KiB at most
MOST_SEGMENTS = 10_000  # decoders take each by itself, however short; photos have 10 to 100, some 2,000 with notes

# In entropy-coded data 0xFF is followed by 0 (stuffing), a restart marker or more 0xFF (padding): all else is a marker.
MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
HAVE_LENGTHS = frozenset((*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xF0), 0xFE))
BETWEEN_SCANS = frozenset((0xC4, START_OF_SCAN, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # tables, comments, APPn


def refuse_flood(file: BinaryIO) -> None:
    """Raise ValueError for more than MOST_SEGMENTS (stray bytes count too) or MOST_EXIF before the first scan."""
    place, exif = 2, 0
    for _ in range(MOST_SEGMENTS):
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or head[:2] == bytes((0xFF, START_OF_SCAN)):
            return
        has_length = head[0] == 0xFF and head[1] in HAVE_LENGTHS
        length = 2 + max(2, int.from_bytes(head[2:4], "big")) if has_length else 1
        exif += length * (head[4:] == b"Exif\0\0")
        if exif > MOST_EXIF:  # Pillow puts them together one by one: time grows with the square
            raise ValueError(f"it has more than {MOST_EXIF:,} bytes of EXIF")
        place += length
    raise _flood()


def follow_scans(data: bytes, place: int) -> tuple[int, bool]:
    """How many scans a JPEG has, and whether they lead to its end marker with nothing foreign between them.

    place: where the entropy-coded data of the first scan begin. What stands behind the end marker does not count.
    Raises ValueError for more than MOST_SEGMENTS.
    """
    scans = 1
    for _ in range(MOST_SEGMENTS):
        found = MARKER.search(data, place)
        if not found or found[1][0] not in BETWEEN_SCANS:
            return scans, found is not None and found[1][0] == END_OF_IMAGE
        scans += found[1][0] == START_OF_SCAN
        place = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    raise _flood()


def _flood() -> ValueError:
    return ValueError(f"it has more than {MOST_SEGMENTS:,} segments")
