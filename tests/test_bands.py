"""Promises of reading images by rows and writing masks by rows: the same pixels as whole, and little memory."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import assembled, encode_part, encoded, put, tiled
from PIL import Image
from PIL.ExifTags import Base as Tag

from veduta.data import bands
from veduta.data.bands import TiffRows, mask_writer, open_rows
from veduta.data.images import MAX_PIXELS, read_rgb
from veduta.data.label_maps import VOC

HEIGHT, WIDTH = 133, 250
rng = np.random.default_rng(0)
PHOTO = np.kron(rng.integers(0, 256, (19, 25, 3)), np.ones((7, 10, 1))).astype(np.uint8)  # squares that compress


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "LARGE", 1000)
    monkeypatch.setattr(bands, "PART", 1000)


def check(path: Path) -> None:
    """Rows as they are asked for by windows, and any others, are those of the whole image."""
    rows, whole = open_rows(path), read_rgb(path)
    assert isinstance(rows, TiffRows) and rows.shape == whole.shape
    for top, bottom in ((0, 40), (30, 70), (30, 60), (60, 100), (99, 133), (0, 133), (5, 6), (132, 500)):
        np.testing.assert_array_equal(rows[top:bottom], whole[top:bottom])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("tile", [(16, 32), (64, 256), (144, 48)])
def test_rows_of_a_tiled_tiff_are_those_of_the_whole_image(
    tmp_path: Path, compression: str, tile: tuple[int, int]
) -> None:
    check(put(tmp_path / "a.tif", tiled(PHOTO, tile, compression)))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("rows", [8, 48, 136])
def test_rows_of_a_tiff_of_strips_are_those_of_the_whole_image(tmp_path: Path, compression: str, rows: int) -> None:
    options = {"compression": compression, "tiffinfo": {Tag.RowsPerStrip: rows}}
    check(put(tmp_path / "a.tif", encoded(PHOTO, "TIFF", **options)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_grey_palettes_and_transparency_are_converted_as_in_whole_images(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PHOTO).convert("RGBA")
    image.putalpha(Image.fromarray(PHOTO[..., 1]))
    image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK") else image.convert(mode)
    check(put(tmp_path / "strips.tif", encoded(image, "TIFF", compression="tiff_lzw")))


def test_a_predictor_and_big_endian_files_are_read(tmp_path: Path) -> None:
    data = tiled(PHOTO, (32, 64), "tiff_lzw")
    predicted = encoded(PHOTO, "TIFF", compression="tiff_lzw", tiffinfo={Tag.Predictor: 2, Tag.RowsPerStrip: 40})
    check(put(tmp_path / "predicted.tif", predicted))
    assert data[:2] == b"II"
    height, width, row = HEIGHT, WIDTH, WIDTH * 3
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 200), (259, 3, 1, 1 << 16), (262, 3, 1, 2 << 16)]
    tags += [(273, 4, 1, 206), (277, 3, 1, 3 << 16), (278, 4, 1, height), (279, 4, 1, height * row)]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags) + bytes(4)
    header = (struct.pack(">2sHI", b"MM", 42, 8) + directory).ljust(200, b"\0") + struct.pack(">3H", 8, 8, 8)
    check(put(tmp_path / "motorola.tif", header + PHOTO.tobytes()))


def test_a_file_of_the_kind_beyond_4_gib_is_read(tmp_path: Path) -> None:
    tags = [(256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, 3, 8 | 8 << 16 | 8 << 32), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 16, 1, 256), (277, 3, 1, 3), (278, 4, 1, HEIGHT), (279, 16, 1, PHOTO.nbytes)]
    directory = struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + bytes(8)
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + directory
    check(put(tmp_path / "big.tif", header.ljust(256, b"\0") + PHOTO.tobytes()))


def test_smaller_versions_of_the_page_are_no_pages(tmp_path: Path) -> None:
    small = {"append_images": [Image.fromarray(PHOTO[::2, ::2])], "save_all": True, "tiffinfo": {254: 1}}
    data = put(tmp_path / "pyramid.tif", encoded(PHOTO, "TIFF", **small))
    check(data)


def test_small_images_and_other_formats_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("PNG", "BMP"):
        found = open_rows(put(tmp_path / f"a.{kind.lower()}", encoded(PHOTO, kind)))
        assert isinstance(found, np.ndarray) and (found == PHOTO).all()
    monkeypatch.undo()
    assert isinstance(open_rows(put(tmp_path / "a.tif", tiled(PHOTO, (16, 32)))), np.ndarray)


UNSUITABLE = {
    "2 pages": encoded(PHOTO, "TIFF", save_all=True, append_images=[Image.fromarray(PHOTO)]),
    "16 bits": encoded(Image.fromarray(PHOTO[..., 0].astype(np.uint16)), "TIFF"),
    r"orientation 6": encoded(PHOTO, "TIFF", tiffinfo={Tag.Orientation: 6}),
    "250 pixels wide; the limit is 200": tiled(PHOTO, (16, 32)),
    "too large to be decoded at once": encoded(PHOTO, "TIFF", compression="tiff_lzw", tiffinfo={278: HEIGHT}),
}


@pytest.mark.parametrize("why", UNSUITABLE)
def test_what_cannot_be_read_by_rows_is_refused_only_where_it_is_too_large_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(bands, "MOST_PART", 5000)
    monkeypatch.setattr(bands, "MOST_ACROSS", 200 if "wide" in why else 1000)
    path = put(tmp_path / "a.tif", UNSUITABLE[why])
    if "pages" in why or "bits" in why:
        with pytest.raises(ValueError, match="pages|bits per channel"):
            open_rows(path)
    else:
        assert isinstance(open_rows(path), np.ndarray)
    monkeypatch.setattr(bands, "MAX_PIXELS", 5000)
    with pytest.raises(ValueError, match=rf"a\.tif: more than 5,000 pixels.*{why}.*Save it as a tiled TIFF"):
        open_rows(path)


def test_planes_of_single_colours_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(encoded(PHOTO, "TIFF"))
    place = data.index(struct.pack("<HHI", 284, 3, 1))
    data[place + 8] = 2
    monkeypatch.setattr(bands, "MAX_PIXELS", 5000)
    with pytest.raises(ValueError, match="colours are stored one after the other"):
        open_rows(put(tmp_path / "a.tif", bytes(data)))


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    data = tiled(PHOTO, (32, 64))
    rows = open_rows(put(tmp_path / "cut.tif", data[:-100]))
    with pytest.raises(ValueError, match=r"cut\.tif"):
        rows[:]
    turned = bytearray(data)
    turned[-300:-200] = bytes(100)
    rows = open_rows(put(tmp_path / "turned.tif", bytes(turned)))
    with pytest.raises(ValueError, match=r"turned\.tif: not a readable image"):
        rows[:]
    tags = encode_part(PHOTO[:32, :64], "raw")[1]
    with pytest.raises(
        ValueError, match=r"few\.tif: not a readable image \(it has 1 strips or tiles, its size needs 20"
    ):
        open_rows(put(tmp_path / "few.tif", assembled(tags, (HEIGHT, WIDTH), (32, 64), [b"x"])))
    with pytest.raises(ValueError, match=r"short\.tif: not a readable image \(it ends before its last row"):
        open_rows(put(tmp_path / "short.tif", encoded(PHOTO, "TIFF", tiffinfo={Tag.RowsPerStrip: HEIGHT})[:-200]))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tif not found"):
        open_rows(tmp_path / "nowhere.tif")


def test_what_is_kept_is_what_the_next_rows_need(tmp_path: Path) -> None:
    rows = open_rows(put(tmp_path / "a.tif", tiled(PHOTO, (16, 64))))
    assert isinstance(rows, TiffRows)
    rows[0:40]
    assert sorted(rows.kept) == [0, 1, 2]
    rows[32:60]
    assert sorted(rows.kept) == [2, 3]


@pytest.mark.parametrize("height", [1, 7, 133])
def test_a_mask_written_by_rows_is_the_png_of_the_whole(tmp_path: Path, height: int) -> None:
    mask = rng.integers(0, 21, (133, 250), np.uint8)
    path = tmp_path / "mask.png"
    with mask_writer(path, (133, 250), VOC.palette) as write:
        for top in range(0, 133, height):
            write(mask[top : top + height])
    with Image.open(path) as image:
        assert image.mode == "P" and (np.asarray(image) == mask).all()
        assert (np.asarray(image.convert("RGB")) == VOC.palette[mask]).all()
    content = path.read_bytes()
    assert content[12:16] == b"IHDR" and content.endswith(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))


def test_a_mask_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), mask_writer(tmp_path / "mask.png", (10, 10), VOC.palette) as write:
        write(np.zeros((5, 10), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


PEAK = """
import resource, sys
from pathlib import Path
from veduta.data.bands import open_rows
rows = open_rows(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(int(rows[top : top + 500].sum()) for top in range(0, rows.shape[0], 500))
print(rows.shape[0] * rows.shape[1], total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_an_image_beyond_the_limit_of_whole_ones_is_read_in_little_memory(tmp_path: Path) -> None:
    tile, tags = encode_part(np.full((512, 512, 3), 7, np.uint8), "tiff_adobe_deflate")
    across, down = 16, 45
    size = (down * 512, across * 512)
    path = put(tmp_path / "a.tif", assembled(tags, size, (512, 512), [tile] * (across * down)))
    assert size[0] * size[1] > MAX_PIXELS
    found = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True).stdout
    pixels, total, peak = map(int, found.split())
    assert (pixels, total) == (size[0] * size[1], 21 * size[0] * size[1])
    assert peak < 100_000  # kB: a band of 1024 x 8192 and its copy, where the image has 566 MB
