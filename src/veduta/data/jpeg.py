"""JPEG's markers: is a file whole, so that a decoder that fills gaps with grey can be trusted with it?"""

import re

# In entropy-coded data 0xFF is followed by 0 (stuffing), a restart marker or more 0xFF (padding): all else is a marker.
MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
BETWEEN_SCANS = frozenset((0xC4, START_OF_SCAN, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # tables, comments, APPn


def follow_scans(data: bytes, place: int) -> tuple[int, bool]:
    """How many scans a JPEG has, and whether they lead to its end marker with nothing foreign between them.

    place: where the entropy-coded data of the first scan begin. What stands behind the end marker does not count.
    """
    scans = 1
    while (found := MARKER.search(data, place)) and found[1][0] in BETWEEN_SCANS:
        scans += found[1][0] == START_OF_SCAN
        place = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    return scans, found is not None and found[1][0] == END_OF_IMAGE
