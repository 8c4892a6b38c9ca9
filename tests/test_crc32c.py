"""Promises of the checksum: the standard's values, any length, any start, arrays as their bytes."""

import numpy as np
import pytest

from veduta.ops.crc32c import POLYNOMIAL, SPARSE_EXPONENTS, crc32c, mask, masked_crc32c


def crc_by_definition(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # the examples of RFC 3720, appendix B.4, and the customary check value
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_published_values_come_out(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


def test_every_short_length_follows_the_definition() -> None:
    data = np.random.default_rng(0).bytes(600)
    for length in [*range(40), *range(185, 200), 255, 256, 257, 599]:
        assert crc32c(data[:length]) == crc_by_definition(data[:length]), length


def test_long_data_of_any_length_and_start_has_the_crc_of_its_parts_put_together() -> None:
    # The CRC of a + b, both long, against that of a alone carried on byte by byte through a short b.
    data = np.random.default_rng(1).integers(0, 256, 420_000, dtype=np.uint8)
    for start, length in [(0, 90_959), (1, 90_960), (3, 90_961), (0, 90_969), (2, 230_001), (5, 400_003)]:
        part = data[start : start + length]
        crc = crc32c(part) ^ 0xFFFFFFFF
        for byte in data[start + length : start + length + 9].tolist():
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
        assert crc32c(data[start : start + length + 9]) == crc ^ 0xFFFFFFFF, (start, length)


def test_a_long_run_follows_the_definition() -> None:
    data = np.random.default_rng(2).bytes(100_001)
    assert crc32c(data) == crc_by_definition(data)


def test_the_sparse_polynomial_is_a_multiple_of_the_crcs_own() -> None:
    forward = int(f"{POLYNOMIAL:032b}"[::-1], 2) | 1 << 32
    left = sum(1 << exponent for exponent in SPARSE_EXPONENTS)
    while left.bit_length() > 32:
        left ^= forward << left.bit_length() - 33
    assert left == 0


def test_arrays_count_as_their_bytes() -> None:
    array = np.random.default_rng(3).normal(size=(50, 7)).astype(np.float32)
    assert crc32c(array) == crc32c(array.tobytes()) == crc32c(memoryview(array.tobytes())[:])
    assert crc32c(array.T) == crc32c(array.T.tobytes())
    assert crc32c(np.array(True)) == crc32c(b"\1")
    assert crc32c(np.zeros((0, 3))) == 0


def test_any_flipped_bit_of_long_data_changes_it() -> None:
    data = np.zeros(200_000, np.uint8)
    whole = crc32c(data)
    for place in (0, 7, 91_000, 199_999):
        data[place] ^= 4
        assert crc32c(data) != whole, place
        data[place] ^= 4


def test_masking_turns_by_15_bits_and_adds() -> None:
    assert mask(0) == 0xA282EAD8
    assert mask(1) == (0xA282EAD8 + (1 << 17)) % (1 << 32)
    assert masked_crc32c(b"123456789") == mask(0xE3069283) < 1 << 32
