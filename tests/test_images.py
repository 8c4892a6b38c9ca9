"""Promises of reading: an odd file comes out as a person would expect, or is refused by its name with the reason."""

import errno
import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_files import (
    COLORS,
    FILE_IDS,
    IMAGE,
    QUARTER_TURN,
    SMOOTH,
    STORED_AS,
    TRAIN_IDS,
    Pixels,
    chunk,
    encoded,
    exif,
    png,
    put,
)
from layouts import TINY, save
from numpy.typing import NDArray
from PIL import Image, ImageOps

from veduta.data.images import IMAGE_ENDINGS, DecodedPicture, StoredPicture, read_header, read_mask, read_rgb
from veduta.data.jpeg import follow_scans
from veduta.data.layout import Record, read_record
from veduta.data.layouts.shards import IMAGE_ENDINGS as WRITTEN_ENDINGS
from veduta.data.sample import Sample
from veduta.data.stored import Stored


def read_pair(image: Path, mask: Path) -> Sample:
    return read_record(Record(name="a", image=Stored(image), mask=Stored(mask)), TINY)


def read_tiny_mask(path: Path) -> Pixels:
    return read_mask(path, TINY)


READERS = (read_rgb, read_tiny_mask)


# Images that are read


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "LAB"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(IMAGE).convert("RGB" if mode == "LAB" else mode)
    path = put(tmp_path / "image", encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    found = read_rgb(path)
    assert found.dtype == np.uint8
    assert (found == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}, {"quality": 40}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_of_any_kind_has_the_pixels_that_pillow_gives(
    tmp_path: Path, mode: str, options: dict[str, object]
) -> None:
    content = encoded(Image.fromarray(SMOOTH).convert(mode), "JPEG", **options)
    found = read_rgb(put(tmp_path / "a.jpg", content))
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(found.astype(int) - expected).max() <= 1  # two builds of libjpeg-turbo; most pixels are equal
    assert (found == expected).mean() > 0.9


def test_the_inks_of_a_cmyk_or_ycck_jpeg_become_the_colours_they_print(tmp_path: Path) -> None:
    cmyk = encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read_rgb(put(tmp_path / "cmyk.jpg", cmyk)).astype(int) - SMOOTH).mean() < 3
    # YCCK: Adobe's transform 2. The planes are stored inverted; they hold the YCC of the inks, and no black.
    ycc = np.asarray(Image.fromarray(255 - SMOOTH).convert("YCbCr"))
    planes = np.dstack([255 - ycc, np.zeros_like(ycc[..., 0])])
    ycck = bytearray(encoded(Image.frombytes("CMYK", (61, 45), planes.tobytes()), "JPEG", quality=95))
    ycck[ycck.index(b"Adobe") + 11] = 2
    assert np.abs(read_rgb(put(tmp_path / "ycck.jpg", bytes(ycck))).astype(int) - SMOOTH).mean() < 3


def test_what_is_transparent_is_shown_on_white(tmp_path: Path) -> None:
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:5], alpha[5:9] = 0, 128
    rgba = Image.fromarray(np.dstack([IMAGE, alpha]))
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = read_rgb(put(tmp_path / kind, encoded(rgba, kind, **options)))
        assert (found[:5] == 255).all() and (found[9:] == IMAGE[9:]).all()
        assert np.abs(found[5:9] - (IMAGE[5:9] * (128 / 255) + 127)).max() <= 1
    palette = Image.fromarray(FILE_IDS)
    palette.putpalette(bytes(range(256)) * 3)
    grey = Image.fromarray(IMAGE[..., 1])
    key = int(IMAGE[0, 0, 1])
    for kind in ("PNG", "GIF"):
        found = read_rgb(put(tmp_path / kind, encoded(palette, kind, transparency=7)))
        assert (found[FILE_IDS == 7] == 255).all() and (found[FILE_IDS == 10] == [30, 31, 32]).all()
    found = read_rgb(put(tmp_path / "key.png", encoded(grey, "PNG", transparency=key)))
    assert (found[IMAGE[..., 1] == key] == 255).all() and (found[..., 0] == IMAGE[..., 1]).mean() > 0.9


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_images_of_few_bits_go_from_black_to_white(tmp_path: Path, bits: int) -> None:
    path = put(tmp_path / "a.png", png(8, 1, bits=bits, color=0, rows=b"\0\x0f" + b"\xff" * (bits - 1)))
    assert (np.unique(read_rgb(path)[0, -4:]) == [255]).all() and read_rgb(path)[0, 0, 0] == 0
    assert read_header(Stored(path)).bits == bits


def test_the_content_decides_not_the_ending(tmp_path: Path) -> None:
    assert (read_rgb(put(tmp_path / "really.jpg", encoded(IMAGE, "PNG"))) == IMAGE).all()
    assert (read_mask(put(tmp_path / "really.webp", encoded(FILE_IDS, "PNG")), TINY) == TRAIN_IDS).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_bytes_behind_the_image_and_a_foreign_colour_profile_change_nothing(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(SMOOTH).quantize(64) if kind == "GIF" else SMOOTH
    plain = put(tmp_path / "plain", encoded(image, kind))
    odd = put(tmp_path / "odd", encoded(image, kind, icc_profile=b"profile" * 99) + b"garbage" * 99)
    assert (read_rgb(odd) == read_rgb(plain)).all()


def test_chunks_behind_the_end_of_a_png_are_no_part_of_it(tmp_path: Path) -> None:
    plain = encoded(IMAGE, "PNG")
    path = put(tmp_path / "a.png", plain + chunk(b"eXIf", exif(QUARTER_TURN)[6:]) + bytes(1 << 20))
    assert read_header(Stored(path)).orientation == 1 and (read_rgb(path) == IMAGE).all()


def test_a_photo_with_megabytes_of_notes_is_read(tmp_path: Path) -> None:
    options = {"icc_profile": bytes(2 << 20), "exif": exif(QUARTER_TURN), "xmp": bytes(60_000), "comment": b"note" * 99}
    path = put(tmp_path / "a.jpg", encoded(SMOOTH, "JPEG", **options))
    assert read_rgb(path).shape == (*SMOOTH.shape[1::-1], 3)


def test_a_png_of_many_small_pieces_of_pixels_is_read(tmp_path: Path) -> None:
    whole = encoded(IMAGE, "PNG")
    start = whole.index(b"IDAT") + 4
    pixels = whole[start : start + int.from_bytes(whole[start - 8 : start - 4], "big")]
    pieces = b"".join(chunk(b"IDAT", pixels[i : i + 1]) for i in range(len(pixels)))
    path = put(tmp_path / "a.png", whole[: start - 8] + pieces + chunk(b"IEND", b""))
    assert len(pixels) > 1000 and (read_rgb(path) == IMAGE).all()


def test_a_photo_with_a_preview_behind_it_is_the_photo(tmp_path: Path) -> None:
    preview = Image.fromarray(SMOOTH).resize((20, 15))
    mpo = put(tmp_path / "phone.jpg", encoded(SMOOTH, "MPO", save_all=True, append_images=[preview]))
    assert read_rgb(mpo).shape == SMOOTH.shape and read_header(Stored(mpo)).format == "JPEG"
    smaller = {"tiffinfo": {254: 1}}  # NewSubfileType: a smaller version of another page
    pages = {"save_all": True, "append_images": [preview.copy()]}
    tiff = put(tmp_path / "map.tif", encoded(IMAGE, "TIFF", **pages, **smaller))
    assert (read_rgb(tiff) == IMAGE).all()


# Upright


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_and_masks_are_upright_by_their_exif_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    turn = STORED_AS[orientation]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = put(tmp_path / "image", encoded(turn(IMAGE).copy(), kind, exif=exif(orientation), **options))
    header = read_header(Stored(image))
    assert (
        (header.orientation, header.size)
        == (orientation, IMAGE.shape[:2])
        == (orientation, StoredPicture(Stored(image)).size)
    )
    assert (header.height, header.width) == turn(IMAGE).shape[:2]
    if kind == "JPEG":
        with Image.open(image) as opened:
            assert np.abs(read_rgb(image).astype(int) - np.asarray(ImageOps.exif_transpose(opened))).max() <= 1
        return
    assert (read_rgb(image) == IMAGE).all()
    mask = turn(COLORS if kind == "WEBP" else FILE_IDS).copy()
    assert (
        read_mask(put(tmp_path / "mask", encoded(mask, kind, exif=exif(orientation), **options)), TINY) == TRAIN_IDS
    ).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # pytest takes the filter of veduta.data.images away
@pytest.mark.parametrize("wrong", [exif(0), exif(9), exif(65_535), b"Exif\0\0", b"Exif\0\0garbage", exif(6)[:20]])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_wrong_exif_leaves_the_image_as_it_is_stored(tmp_path: Path, kind: str, wrong: bytes) -> None:
    content = encoded(SMOOTH, kind, exif=wrong)
    assert read_rgb(put(tmp_path / "a", content)).shape == SMOOTH.shape


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_only_exif_turns_an_image(tmp_path: Path, kind: str) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = put(tmp_path / "a", encoded(SMOOTH, kind, xmp=xmp))
    assert read_rgb(path).shape == SMOOTH.shape and read_header(Stored(path)).size == SMOOTH.shape[:2]


def test_the_exif_of_a_png_may_stand_behind_its_pixels(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.rot90(IMAGE))
    late = png(24, 32, bits=8, color=2, rows=rows, after=chunk(b"eXIf", exif(QUARTER_TURN)[6:]))
    picture = StoredPicture(Stored(put(tmp_path / "a.png", late)))
    assert picture.size == (24, 32) and (picture.pixels() == IMAGE).all()


def test_a_rotated_photo_fits_a_mask_that_was_drawn_upright(tmp_path: Path) -> None:
    image = put(tmp_path / "a.jpg", encoded(np.rot90(IMAGE).copy(), "JPEG", exif=exif(QUARTER_TURN)))
    assert read_pair(image, save(tmp_path / "mask.png", FILE_IDS)).image.shape == IMAGE.shape


DEEP = np.random.default_rng(0).integers(0, 1 << 16, (24, 32, 4)).astype(">u2")  # PNG's order of bytes
SHALLOW = np.rint(DEEP.astype(np.float64) / 257).astype(np.uint8)
GREY, GREY_ALPHA, COLOR, COLOR_ALPHA = 0, 4, 2, 6  # PNG's colour types


def deep_png(color: int, channels: list[int], before: bytes = b"", after: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in DEEP[..., channels])
    return png(32, 24, bits=16, color=color, rows=rows, before=before, after=after)


@pytest.mark.parametrize(
    ("color", "channels", "mode"),
    [(GREY, [0], "L"), (GREY_ALPHA, [0, 3], "LA"), (COLOR, [0, 1, 2], "RGB"), (COLOR_ALPHA, [0, 1, 2, 3], "RGBA")],
)
def test_a_png_of_16_bits_is_what_its_8_bit_version_is(
    tmp_path: Path, color: int, channels: list[int], mode: str
) -> None:
    path = put(tmp_path / "deep.png", deep_png(color, channels))
    assert read_header(Stored(path)).bits == 16
    shallow = Image.fromarray(SHALLOW[..., channels].squeeze())
    assert shallow.mode == mode
    assert (read_rgb(path) == read_rgb(put(tmp_path / "a.png", encoded(shallow, "PNG")))).all()
    with pytest.raises(ValueError, match=r"deep\.png: a mask "):
        read_mask(path, TINY)


def test_every_value_of_16_bits_is_rounded_to_the_nearest_of_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veduta.data.deep_png.PIECE", 5000)  # pixels: 19 rows at a time
    values = np.arange(1 << 16, dtype=">u2").reshape(256, 256)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    found = read_rgb(put(tmp_path / "a.png", png(256, 256, bits=16, color=GREY, rows=rows)))
    assert (found == np.rint(np.arange(1 << 16) / 257).reshape(256, 256, 1)).all()


@pytest.mark.parametrize(("color", "channels"), [(GREY, [0]), (COLOR, [0, 1, 2])])
def test_the_transparent_colour_of_16_bits_is_shown_on_white(tmp_path: Path, color: int, channels: list[int]) -> None:
    seen_through = DEEP[3, 4, channels]
    found = read_rgb(put(tmp_path / "a.png", deep_png(color, channels, chunk(b"tRNS", seen_through.tobytes()))))
    expected = np.broadcast_to(SHALLOW[..., channels], (24, 32, 3)).copy()
    expected[3, 4] = 255
    assert (found == expected).all()


def test_a_png_of_16_bits_is_turned_upright(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", deep_png(COLOR, [0, 1, 2], before=chunk(b"eXIf", exif(QUARTER_TURN)[6:])))
    assert (read_rgb(path) == np.rot90(SHALLOW[..., :3], -1)).all()
    assert read_header(Stored(path)).size == (32, 24)


@pytest.mark.parametrize("color", [GREY, COLOR])
def test_a_damaged_png_of_16_bits_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], color: int) -> None:
    whole = deep_png(color, [0] if color == GREY else [0, 1, 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[: len(whole) // 2], bytes(flipped)):
        with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
            read_rgb(put(tmp_path / "a.png", content))
    assert capfd.readouterr().err == ""  # no words of a library


# Images that are refused


@pytest.mark.parametrize(
    ("pixels", "kind", "bits"),
    [
        (IMAGE[..., 0].astype(np.uint16) * 200, "tif", 16),
        (IMAGE.astype(np.uint16) * 200, "tif", 16),
        (IMAGE[..., 0].astype(np.float32), "tif", 32),
        (IMAGE[..., 0].astype(np.int32), "tif", 32),
    ],
)
def test_more_than_8_bits_of_a_tiff_are_refused_in_grey_as_in_colour(
    tmp_path: Path, pixels: NDArray[np.generic], kind: str, bits: int
) -> None:
    path = tmp_path / f"deep.{kind}"
    assert cv2.imwrite(str(path), pixels)
    assert read_header(Stored(path)).bits == bits
    with pytest.raises(ValueError, match=rf"deep\.{kind}: {bits} bits per channel .*Scale the image to 8 bits"):
        read_rgb(path)
    with pytest.raises(ValueError, match=rf"deep\.{kind}: a mask "):
        read_mask(path, TINY)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("read", READERS)
def test_animations_and_several_pages_are_refused(tmp_path: Path, read: Callable[[Path], Pixels], kind: str) -> None:
    path = put(
        tmp_path / "two", encoded(FILE_IDS, kind, save_all=True, append_images=[Image.fromarray(FILE_IDS[::-1])])
    )
    assert read_header(Stored(path)).frames == 2
    with pytest.raises(ValueError, match=f"two: {kind} with several pictures or pages"):
        read(path)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><title>404", "begins with '<': perhaps the error page of a download"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\0\0\0\x20ftypheic", "HEIC"),
        (b"garbage" * 100, "none of JPEG, PNG"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
        (b"\xff\xd8\xff\xe0", ""),
        (png(0, 5, bits=8, color=0, rows=b""), ""),
        (b"GIF89a" + bytes(7) + b";", ""),
    ],
)
def test_a_file_that_is_no_image_is_refused_by_name_with_what_it_is(
    tmp_path: Path, read: Callable[[Path], Pixels], content: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"photo\.png: not a readable image.*{reason}.*Replace the file"):
        read(put(tmp_path / "photo.png", content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("read", READERS)
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, read: Callable[[Path], Pixels], kind: str) -> None:
    content = encoded(IMAGE if read is read_rgb and kind != "GIF" else FILE_IDS, kind)
    for length in (len(content) * 2 // 3, len(content) - 30 if kind != "GIF" else len(content) // 2):
        with pytest.raises(ValueError, match="photo: "):
            read(put(tmp_path / "photo", content[:length]))


@pytest.mark.parametrize(
    ("scans", "found"),
    [
        (b"ab\xff\0\xff\xd3\xff\xff\xd9", (1, True)),  # stuffing, a restart, padding
        (b"ab\xff\xc4\0\x04\xff\xd9cd\xff\xda\0\x02ef\xff\xd9rest", (2, True)),  # a table with an end in it
        (b"ab\xff\xda\0\x02ef\xff\0", (2, False)),  # cut off
        (b"ab\xff\x46\0\x02cd\xff\xd9", (1, False)),  # a marker that belongs elsewhere
        (b"ab\xff\xc4\0", (1, False)),
        (b"ab\xff\xc4\0\0\xff\xd9", (1, True)),
        (b"", (1, False)),
    ],
)
def test_the_scans_of_a_jpeg_are_followed_to_its_end(scans: bytes, found: tuple[int, bool]) -> None:
    assert follow_scans(b"head" + scans, 4) == found


def test_a_jpeg_with_foreign_bytes_in_its_scan_is_refused_rather_than_filled_with_grey(tmp_path: Path) -> None:
    content = bytearray(encoded(SMOOTH, "JPEG"))
    middle = len(content) - 300
    content[middle : middle + 2] = b"\xff\x46"  # no marker that belongs there
    with pytest.raises(ValueError, match="broken data stream"):
        read_rgb(put(tmp_path / "a.jpg", bytes(content)))


@pytest.mark.parametrize("read", [*READERS, lambda path: read_header(Stored(path))])
def test_a_missing_file_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png not found"):
        read(tmp_path / "nowhere.png")


class Failing(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def test_a_failing_disk_is_not_blamed_on_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.png", encoded(IMAGE, "PNG"))
    monkeypatch.setattr(Path, "open", lambda *_: Failing())
    with pytest.raises(OSError, match=r"Input/output error.*a\.png") as caught:
        read_header(Stored(path))
    assert caught.value.errno == errno.EIO


def test_a_place_that_no_file_has_is_blamed_on_the_image(tmp_path: Path) -> None:
    big = struct.pack("<2sHHHQ", b"II", 43, 8, 0, (1 << 63) - 1)  # BigTIFF: where its directory is
    with pytest.raises(ValueError, match=r"a\.tif: not a readable image"):
        read_header(Stored(put(tmp_path / "a.tif", big + bytes(64))))


def test_images_of_every_format_that_is_written_are_found_by_their_ending() -> None:
    assert {f".{ending}" for ending in WRITTEN_ENDINGS.values()} < set(IMAGE_ENDINGS)


# Part of a file, and smaller


def test_a_part_of_a_file_reads_as_the_file_would(tmp_path: Path) -> None:
    content = encoded(SMOOTH, "JPEG")
    alone, packed = Stored(put(tmp_path / "a.jpg", content)), put(tmp_path / "a.tar", b"x" * 512 + content + b"y" * 512)
    member = Stored(packed, offset=512, size=len(content), part="a.jpg")
    assert read_header(member) == read_header(alone)
    assert (read_rgb(member) == read_rgb(alone)).all()


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, QUARTER_TURN])
def test_a_jpeg_can_be_decoded_smaller_and_each_side_is_rounded_up(
    tmp_path: Path, shrink: int, orientation: int
) -> None:
    path = put(tmp_path / "a.jpg", encoded(SMOOTH, "JPEG", exif=exif(orientation), quality=95))
    picture = StoredPicture(Stored(path))
    found = picture.pixels(shrink=shrink)
    assert found.shape == (-(-picture.size[0] // shrink), -(-picture.size[1] // shrink), 3)
    whole = picture.pixels()
    small = cv2.resize(whole, (found.shape[1], found.shape[0]), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - small).mean() < 8  # RGB in RGB order: swapped it would be far off
    assert np.abs(found[..., ::-1].astype(int) - small).mean() > 20


def test_other_formats_come_whole_whatever_is_asked(tmp_path: Path) -> None:
    assert (StoredPicture(Stored(put(tmp_path / "a.png", encoded(IMAGE, "PNG")))).pixels(shrink=8) == IMAGE).all()
    assert DecodedPicture(IMAGE).pixels(shrink=4) is IMAGE


def test_a_picture_is_read_from_disk_once(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg", encoded(SMOOTH, "JPEG"))
    picture = StoredPicture(Stored(path))
    path.unlink()
    assert picture.pixels().shape == SMOOTH.shape and picture.pixels(shrink=2).shape == (23, 31, 3)


# With its image


def test_a_pair_comes_out_as_pixels_and_train_ids(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "a.png", IMAGE), save(tmp_path / "a_mask.png", FILE_IDS)
    sample = read_pair(image, mask)
    assert sample.name == "a" and sample.mask is not None
    assert sample.image.dtype == sample.mask.dtype == np.uint8
    assert (sample.image == IMAGE).all() and (sample.mask == TRAIN_IDS).all()


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "image.png", IMAGE), save(tmp_path / "mask.png", FILE_IDS[:, :-1])
    with pytest.raises(ValueError, match=r"mask\.png: the mask is 31 x 24, its image .*image\.png is 32 x 24"):
        read_pair(image, mask)
