"""CRC-32C (Castagnoli) of bytes at memory speed in numpy, and the masked form that TensorFlow stores.

A CRC is the remainder of the data, read as a polynomial over GF(2), divided by the polynomial of the CRC. Long data is
first divided by a *sparse* multiple of that polynomial, which leaves the remainder as it was and costs three XORs of
whole words; what is left is folded in half until one word stays.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78  # reversed: the highest power is the lowest bit, as in the data
MASK_DELTA = 0xA282EAD8

# x^5685 + x^1362 + x^426 + 1 is a multiple of the polynomial. So is its 64th power, and squaring over GF(2) only
# doubles exponents: the same four terms, counted in words of 64 bits. A word may thus be moved by these distances.
SPARSE_EXPONENTS = (5685, 1362, 426, 0)
_REACH = SPARSE_EXPONENTS[0]
_MOVES = tuple(_REACH - exponent for exponent in SPARSE_EXPONENTS[1:])
_BLOCK = min(_MOVES)  # so many words at once: none of them is moved onto another of them
_CHUNK = 4 * _BLOCK  # words taken in at a time; with _REACH words they stay in the cache

_SHORT = 192  # bytes; below, a loop in Python is faster than the calls of numpy


def crc32c(data: bytes | bytearray | memoryview | NDArray[np.generic]) -> int:
    """CRC-32C of bytes, or of the bytes of a C-contiguous array of any type and shape; 0 for none."""
    octets = _octets(data)
    if octets.size < _SHORT:
        return _crc_of_few(octets.tobytes())
    words = _reduce(octets) if octets.size > 16 * _REACH else _padded(octets)
    # The register starts as ones, which is the same as turning the first four bytes over.
    while words.size > 1:
        half = words.size // 2
        words = _advance(words[:half], half) ^ words[half:]
    return int(_advance(words, 1)[0]) ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """The form in which TensorFlow stores a CRC, so that a CRC of data that holds CRCs is still a good one."""
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def masked_crc32c(data: bytes | bytearray | memoryview | NDArray[np.generic]) -> int:
    """`mask(crc32c(data))`."""
    return mask(crc32c(data))


def _octets(data: bytes | bytearray | memoryview | NDArray[np.generic]) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _crc_of_few(data: bytes) -> int:
    table = _byte_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _padded(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """uint32 words, their count a power of two; zeros in front, because they leave a register of zero as it is."""
    count = 1 << (-(-octets.size // 4) - 1).bit_length()
    padded = np.zeros(4 * count, np.uint8)
    start = padded.size - octets.size
    padded[start:] = octets
    padded[start : start + 4] ^= 0xFF
    return padded.view("<u4")


def _reduce(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Divide by the sparse multiple: -> uint32 words with the same remainder, their count a power of two."""
    work = np.zeros(_REACH + _CHUNK, "<u8")
    window = work.view(np.uint8)
    # The first, odd part of the data goes to the end of the empty window: in front of it there are only zeros.
    done = octets.size % 8 + 8
    window[8 * _REACH - done : 8 * _REACH] = octets[:done]
    window[8 * _REACH - done : 8 * _REACH - done + 4] ^= 0xFF
    while done < octets.size:
        chunk = octets[done : done + 8 * _CHUNK]
        window[8 * _REACH : 8 * _REACH + chunk.size] = chunk
        count = chunk.size // 8
        for start in range(0, count, _BLOCK):
            length = min(_BLOCK, count - start)
            block = work[start : start + length]
            for move in _MOVES:
                work[start + move : start + move + length] ^= block
        work[:_REACH] = work[count : count + _REACH].copy()
        work[_REACH:] = 0  # a shorter chunk comes last: nothing older may lie behind it
        done += chunk.size
    left = work[:_REACH].view("<u4")
    words = np.zeros(1 << (left.size - 1).bit_length(), "<u4")
    words[-left.size :] = left
    return words


def _advance(crcs: NDArray[np.uint32], words: int) -> NDArray[np.uint32]:
    """Registers after `words` more words of zeros, a power of two; one table per byte of the register."""
    tables = _tables(words)
    octets = crcs.reshape(-1, 1).view(np.uint8)
    found = tables[0].take(octets[:, 0])
    for k in range(1, 4):
        found ^= tables[k].take(octets[:, k])
    return found


@cache
def _tables(words: int) -> NDArray[np.uint32]:
    """(4, 256) uint32: what becomes of byte k of a register after `words` words of zeros, a power of two."""
    if words > 1:
        half = _tables(words // 2)
        return _advance(half.reshape(-1), words // 2).reshape(4, 256)
    table = _byte_table()
    found = np.empty((4, 256), "<u4")
    for k in range(4):
        for byte in range(256):
            crc = byte << 8 * k
            for _ in range(4):
                crc = table[crc & 0xFF] ^ crc >> 8
            found[k, byte] = crc
    return found


@cache
def _byte_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table
