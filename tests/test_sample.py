"""Promises of reading: every odd image comes out as upright 8-bit RGB, every bad file is refused by its name."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import TINY, paint, save
from numpy.typing import NDArray
from PIL import Image

from veduta.data.images import read_mask, read_rgb
from veduta.data.layout import Record, read_record
from veduta.data.sample import Sample, collate, to_unit_range
from veduta.data.stored import Stored

IMAGE, TRAIN_IDS = paint(0, TINY.num_classes)
FILE_IDS = TINY.decode(TRAIN_IDS)
ORIENTATION, ROTATED = 0x0112, 6  # EXIF: shown upright after a quarter turn clockwise


def png_header(path: Path, width: int, height: int) -> Path:
    """A few bytes that claim to be a large RGB image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def rotated(pixels: NDArray[np.uint8], path: Path) -> Path:
    """Stored a quarter turn anticlockwise, with the EXIF entry that undoes it."""
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    Image.fromarray(np.rot90(pixels).copy()).save(path, exif=exif)
    return path


def read_pair(image: Path, mask: Path) -> Sample:
    return read_record(Record(name="a", image=Stored(image), mask=Stored(mask)), TINY)


def test_a_pair_comes_out_as_pixels_and_train_ids(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "a.png", IMAGE), save(tmp_path / "a_mask.png", FILE_IDS)
    sample = read_pair(image, mask)
    assert sample.name == "a" and sample.mask is not None
    assert sample.image.dtype == sample.mask.dtype == np.uint8
    assert (sample.image == IMAGE).all() and (sample.mask == TRAIN_IDS).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "YCbCr"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode in ("CMYK", "YCbCr") else "image.png")
    image = Image.fromarray(IMAGE).convert(mode)
    image.save(path)
    found = read_rgb(path)
    assert found.dtype == np.uint8
    assert (found == np.asarray(image.convert("RGB"))).all()


def test_images_of_more_than_8_bits_of_grey_are_refused_rather_than_cut_off(tmp_path: Path) -> None:
    deep = np.linspace(0, 60000, 64).reshape(8, 8)
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "b.tif")
    for name in ("a.png", "b.tif"):
        with pytest.raises(ValueError, match=rf"{name}: one channel of more than 8 bits .*Scale it to 8 bits"):
            read_rgb(tmp_path / name)


def test_a_palette_mask_keeps_its_indices(tmp_path: Path) -> None:
    mask = Image.fromarray(FILE_IDS)
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    mask.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png", TINY) == TRAIN_IDS).all()


def test_images_and_masks_are_upright_by_their_exif_orientation(tmp_path: Path) -> None:
    image, mask = rotated(IMAGE, tmp_path / "image.png"), rotated(FILE_IDS, tmp_path / "mask.png")
    sample = read_pair(image, mask)
    assert (sample.image == IMAGE).all()
    assert sample.mask is not None and (sample.mask == TRAIN_IDS).all()


def test_a_rotated_photo_fits_a_mask_that_was_drawn_upright(tmp_path: Path) -> None:
    image, mask = rotated(IMAGE, tmp_path / "image.jpg"), save(tmp_path / "mask.png", FILE_IDS)
    assert read_pair(image, mask).image.shape == IMAGE.shape


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "image.png", IMAGE), save(tmp_path / "mask.png", FILE_IDS[:, :-1])
    with pytest.raises(ValueError, match=r"mask\.png: the mask is 31 x 24, its image .*image\.png is 32 x 24"):
        read_pair(image, mask)


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [(IMAGE, "RGB"), (FILE_IDS.astype(np.uint16), "I;16"), (FILE_IDS > 0, "1"), (IMAGE[..., :2], "LA")],
)
def test_a_mask_that_is_no_8_bit_index_is_refused_with_its_mode(
    tmp_path: Path, pixels: NDArray[np.uint8], mode: str
) -> None:
    path = save(tmp_path / "mask.png", pixels)
    with pytest.raises(ValueError, match=rf"mask\.png: a mask must hold one 8-bit class index.*mode {mode}\."):
        read_mask(path, TINY)


def test_a_foreign_value_is_refused_with_the_mask_file(tmp_path: Path) -> None:
    mask = FILE_IDS.copy()
    mask[3, 5] = 77
    with pytest.raises(ValueError, match=r"mask\.png: value 77 at row 3, column 5 \(1 pixels\)"):
        read_mask(save(tmp_path / "mask.png", mask), TINY)


def read_tiny_ids(path: Path) -> NDArray[np.uint8]:
    return read_mask(path, TINY)


READERS = (read_rgb, read_tiny_ids)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_no_image_is_refused_by_name(
    tmp_path: Path, read: Callable[[Path], NDArray[np.uint8]], content: bytes
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.png: not a readable image.*Replace the file"):
        read(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("read", READERS)
def test_a_truncated_image_is_refused_by_name(
    tmp_path: Path, read: Callable[[Path], NDArray[np.uint8]], ending: str
) -> None:
    path = save(tmp_path / f"photo.{ending}", IMAGE if read is read_rgb else FILE_IDS)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(ValueError, match=rf"photo\.{ending}: "):
        read(path)


def test_random_damage_is_refused_as_a_users_error_or_read(tmp_path: Path) -> None:
    """Whatever a disk or a network does to a file, no other exception than ValueError comes out."""
    rng = np.random.default_rng(0)
    for ending in ("png", "jpg", "bmp", "webp"):
        content = save(tmp_path / f"photo.{ending}", IMAGE).read_bytes()
        for _ in range(40):
            damaged = bytearray(content)
            damaged[rng.integers(len(content) if rng.random() < 0.5 else 64)] = rng.integers(256)
            (tmp_path / f"photo.{ending}").write_bytes(damaged)
            try:
                assert read_rgb(tmp_path / f"photo.{ending}").dtype == np.uint8
            except ValueError as error:
                assert f"photo.{ending}" in str(error)


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_is_named(tmp_path: Path, read: Callable[[Path], NDArray[np.uint8]]) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png not found"):
        read(tmp_path / "nowhere.png")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_header_that_claims_a_huge_image_is_refused_before_memory_is_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Path], NDArray[np.uint8]],
    pillows_limit: int | None,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"bomb\.png: .*(900000000 pixels|30000 x 30000 pixels)"):
        read(png_header(tmp_path / "bomb.png", 30_000, 30_000))


def test_collate_stacks_what_it_is_given() -> None:
    batch = collate([Sample(image=IMAGE, mask=TRAIN_IDS, name=name) for name in ("a", "b")])
    images, masks, names = batch[:3]
    assert masks is not None and batch.boxes is None and batch.box_classes is None and batch.scene_classes is None
    assert images.shape == (2, 3, *TRAIN_IDS.shape) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (images[1].permute(1, 2, 0).numpy() == IMAGE).all()
    assert (masks[1].numpy() == TRAIN_IDS).all() and masks.dtype == torch.uint8
    assert names == ("a", "b")


def test_collate_keeps_boxes_per_image_and_classes_of_images() -> None:
    boxes = [np.zeros((count, 4), np.float32) for count in (2, 0)]
    classes = [np.ones(count, np.int64) for count in (2, 0)]
    samples = [
        Sample(image=IMAGE, name=str(i), boxes=boxes[i], box_classes=classes[i], scene_class=7 + i) for i in (0, 1)
    ]
    batch = collate(samples).to(torch.device("cpu"))
    assert batch.masks is None and batch.boxes is not None and batch.box_classes is not None
    assert [tuple(b.shape) for b in batch.boxes] == [(2, 4), (0, 4)]
    assert [c.tolist() for c in batch.box_classes] == [[1, 1], []]
    assert batch.scene_classes is not None and batch.scene_classes.tolist() == [7, 8]


def test_unit_range_goes_from_0_to_1() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = to_unit_range(images, torch.device("cpu"))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("bits", [2, 4])
def test_a_grey_mask_of_few_bits_is_refused_because_reading_would_stretch_its_values(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "mask.png"
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + bits))  # one row: the filter, then 8 values of `bits` bits
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(ValueError, match="2 or 4 bits"):
        read_mask(path, TINY)
