"""Promises of reading masks: class indices and class colours become train ids, all else is refused by its name."""

from pathlib import Path

import numpy as np
import pytest
from image_files import COLORS, FILE_IDS, IMAGE, TRAIN_IDS, chunk, encoded, png, put
from layouts import TINY
from PIL import Image

from veduta.data.images import read_ids, read_mask
from veduta.data.label_maps import CITYSCAPES, VOC
from veduta.data.mask_colors import decode_colors
from veduta.data.stored import Stored
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("palette", [False, True])
def test_a_mask_of_indices_keeps_them_in_grey_and_with_a_palette(tmp_path: Path, kind: str, palette: bool) -> None:
    mask = Image.fromarray(FILE_IDS)
    if palette:
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    path = put(tmp_path / "mask", encoded(mask, kind, **({"optimize": False} if kind == "GIF" else {})))
    assert (read_mask(path, TINY) == TRAIN_IDS).all()
    assert (read_ids(Stored(path)) == FILE_IDS).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_mask_of_few_bits_keeps_its_indices(tmp_path: Path, bits: int) -> None:
    colors = chunk(b"PLTE", bytes(range(3 << bits)))
    rows = b"\0" + b"\x01" * bits  # the last of each 8 / bits pixels is of index 1
    path = put(tmp_path / "mask.png", png(8, 1, bits=bits, color=3, rows=rows, before=colors))
    assert (read_ids(Stored(path))[0] == ([0] * (8 // bits - 1) + [1]) * bits).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_grey_mask_of_few_bits_is_refused_because_its_white_may_mean_255(tmp_path: Path, bits: int) -> None:
    path = put(tmp_path / "mask.png", png(8, 1, bits=bits, color=0, rows=bytes(1 + bits)))
    with pytest.raises(
        ValueError, match=rf"mask\.png: a grey mask of {bits} bits.*stand for {(1 << bits) - 1} or for 255"
    ):
        read_mask(path, TINY)


def test_a_mask_of_colours_is_decoded_by_the_label_map(tmp_path: Path) -> None:
    opaque = Image.fromarray(COLORS).convert("RGBA")
    for name, content in (
        ("rgb.png", encoded(COLORS, "PNG")),
        ("rgba.png", encoded(opaque, "PNG")),
        ("rgb.bmp", encoded(COLORS, "BMP")),
        ("lossless.webp", encoded(COLORS, "WEBP", lossless=True)),
    ):
        found = read_mask(put(tmp_path / name, content), TINY)
        assert found.dtype == np.uint8 and (found == TRAIN_IDS).all()


def test_void_is_black_or_vocs_colour_where_nothing_else_can_be_meant() -> None:
    black, vocs = np.zeros((1, 1, 3), np.uint8), np.array([[[224, 224, 192]]], np.uint8)
    assert decode_colors(black, CITYSCAPES, path="m") == IGNORE_INDEX  # no class is black
    assert decode_colors(black, VOC, path="m") == 0 and decode_colors(vocs, VOC, path="m") == IGNORE_INDEX
    with pytest.raises(ValueError, match=r"m: colour \(224, 224, 192\)"):
        decode_colors(vocs, CITYSCAPES, path="m")
    strict = LabelMap(name="strict", classes=TINY.classes)  # nothing is void
    with pytest.raises(ValueError, match=r"m: colour \(0, 0, 0\)"):
        decode_colors(black, strict, path="m")


def test_every_class_and_void_can_be_told_by_colour_up_to_255_classes() -> None:
    many = LabelMap(
        name="many",
        classes=tuple(LabelClass(file_id=i, name=str(i), color=(i, 9, 9)) for i in range(255)),
        void_ids=(255,),
    )
    colors = np.array([[*(c.color for c in many.classes), (0, 0, 0)]], np.uint8)
    assert decode_colors(colors, many, path="m").tolist() == [list(range(256))]


def test_a_colour_that_is_no_class_is_refused_with_its_place_and_count(tmp_path: Path) -> None:
    wrong = COLORS.copy()
    wrong[3, 5:7], wrong[8, 8] = (1, 2, 3), (9, 9, 9)
    reason = r"m\.png: colour \(1, 2, 3\) at row 3, column 5 \(2 pixels; also 1 other colours\).*\(120, 180, 230\) sky"
    with pytest.raises(ValueError, match=reason):
        read_mask(put(tmp_path / "m.png", encoded(wrong, "PNG")), TINY)


def test_a_mask_of_colours_is_refused_where_two_classes_share_one(tmp_path: Path) -> None:
    same = tuple(LabelClass(file_id=i, name=name, color=(5, 5, 5)) for i, name in enumerate(("cat", "dog")))
    with pytest.raises(ValueError, match=r"m\.png: .* gives 'cat' and 'dog' the same colour \(5, 5, 5\)"):
        read_mask(put(tmp_path / "m.png", encoded(COLORS, "PNG")), LabelMap(name="pets", classes=same))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_with_lossy_compression_is_refused_even_where_its_values_fit(tmp_path: Path, mode: str) -> None:
    mask = Image.new(mode, (16, 16))
    for name, content in (
        ("m.jpg", encoded(mask, "JPEG")),
        ("m.png", encoded(mask, "JPEG")),
        ("m.tif", encoded(mask, "TIFF", compression="jpeg")),
    ):
        with pytest.raises(ValueError, match=rf"{name}: a mask with JPEG's lossy compression.*PNG"):
            read_mask(put(tmp_path / name, content), VOC)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (Image.fromarray(FILE_IDS.astype(np.uint16)), r"one 8-bit class index.*mode I;16\."),
        (Image.fromarray(IMAGE).convert("CMYK"), r"one 8-bit class index.*mode CMYK\."),
        (Image.fromarray(np.dstack([COLORS, FILE_IDS])), r"transparent pixels \(mode RGBA\)"),
        (Image.fromarray(np.dstack([FILE_IDS, FILE_IDS])), r"transparent pixels \(mode LA\)"),
        (Image.fromarray(FILE_IDS * np.uint8(0) + np.uint8(60)), r"value 60 at row 0"),
    ],
)
def test_a_mask_that_is_neither_indices_nor_colours_is_refused(tmp_path: Path, mask: Image.Image, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"mask\.tif: .*{reason}"):
        read_mask(put(tmp_path / "mask.tif", encoded(mask, "TIFF")), TINY)
