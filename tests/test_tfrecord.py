"""TFRecord files: what TensorFlow wrote is read back exactly, damage is named, and opening does not read the data."""

import json
import shutil
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import FOLDER
from pictures import PICTURES
from pydantic import TypeAdapter
from writers.tfrecord import blitznet_features, deeplab_features, example, framed, save, write_blitznet, write_deeplab

from veduta.data.label_maps import COCO, VOC
from veduta.data.layout import FileDataset
from veduta.data.layouts import tfrecord
from veduta.data.layouts.tfrecord import LAYOUT, open_tfrecord
from veduta.labels import LabelMap
from veduta.ops import wire
from veduta.ops.crc32c import masked_crc32c

PICTURE = PICTURES["train"][0]
GOLDEN = {
    "deeplab": "deeplab_tiny",  # splits
    "blitznet": "blitznet_tiny-voc12-train-segmentation",
}
SCALARS = {  # of the recording -> the feature that holds it
    "filename": "image/filename",
    "format": "image/format",
    "height": "image/height",
    "width": "image/width",
    "channels": "image/channels",
    "label_format": "image/segmentation/class/format",
    "segmentation_format": "image/segmentation/format",
}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    with np.load(FOLDER / "tfrecord_expected.npz") as arrays:
        return {**arrays, "meta": json.loads(str(arrays["meta"]))}


def example_at(dataset: FileDataset[int], index: int) -> tfrecord.Example:
    records = dataset.record_of.__self__  # type: ignore[attr-defined]
    return tfrecord._read(records.files, records.rows[index])


@pytest.mark.parametrize("schema", GOLDEN)
def test_records_of_tensorflow_are_read_to_the_last_feature(schema: str, expected: dict[str, Any]) -> None:
    dataset = open_tfrecord(FOLDER, GOLDEN[schema])
    assert len(dataset) == len(expected["meta"][schema]) == 3 and dataset.labels == VOC
    for index, said in enumerate(expected["meta"][schema]):
        found = example_at(dataset, index)
        for key in said.keys() & SCALARS.keys():
            (value, _), *others = [pair for kind in (1, 3) for pair in found.values(SCALARS[key], kind)]
            read: object = wire.text(value, "") if isinstance(said[key], str) else wire.integers(value, "")[0]
            assert read == said[key] and not others
        record = dataset.record(index)
        assert record.name == said["filename"].removesuffix(".jpg")
        assert record.mask is not None
        for stored, kind in ((record.image, "image"), (record.mask, "label")):
            data = stored.read()  # type: ignore[union-attr]
            assert (len(data), zlib.crc32(data)) == (said[f"{kind}_bytes"], said[f"{kind}_crc32"])
        sample: Any = dataset[index]
        name = f"{schema}{index}"
        assert np.array_equal(sample.mask, expected[f"{name}_label"])
        difference = np.abs(sample.image.astype(int) - expected[f"{name}_image"]).max()
        assert difference <= said["max_abs_difference_tf_vs_pillow_decode"]
        if schema == "deeplab":
            assert sample.boxes is None
            continue
        shares = expected[f"{name}_boxes_y1x1y2x2"][:, [1, 0, 3, 2]]
        size = [said["width"], said["height"]] * 2
        np.testing.assert_allclose(sample.boxes, (shares * size).reshape(-1, 4), rtol=1e-6)
        assert np.array_equal(sample.box_classes, expected[f"{name}_classes"])
        assert np.array_equal(sample.box_difficult, expected[f"{name}_difficult"] != 0)


def test_a_split_may_be_several_files_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_deeplab(tmp_path)
    assert LAYOUT.splits(tmp_path) == ("train", "val")
    dataset = open_tfrecord(tmp_path, "train")
    assert [dataset[i].name for i in range(4)] == [PICTURES["train"][i].name for i in (0, 2, 1, 3)]
    record = dataset.record(3)
    assert str(record.image).endswith("train-00001-of-00002.tfrecord, record 1, image/encoded")
    (tmp_path / "train-00000-of-00002.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match="holds 1 files of split 'train', and 2 by the name of"):
        open_tfrecord(tmp_path, "train")


def test_opening_reads_headers_and_not_data(tmp_path: Path) -> None:
    features = {**deeplab_features(PICTURE), "padding": bytes(4_000_000)}
    save(tmp_path / "train", [example(features)] * 8)
    open_tfrecord(tmp_path, "train")
    tracemalloc.start()
    dataset = open_tfrecord(tmp_path, "train")
    assert tracemalloc.get_traced_memory()[1] < 6_000_000  # the first record, whose image names the classes
    tracemalloc.stop()
    assert len(dataset) == 8


def test_numbers_may_be_unpacked_and_masks_absent(tmp_path: Path) -> None:
    """Writers other than TensorFlow's own do not pack; the test split of VOC has no masks."""
    features = {name: values for name, values in blitznet_features(PICTURE).items() if "segmentation" not in name}
    unpacked = example(features).replace(b"\x1a\x04\n\x02\x0f\x07", b"\x1a\x04\x08\x0f\x08\x07")
    assert unpacked != example(features)
    save(tmp_path / "test", [unpacked])
    sample = open_tfrecord(tmp_path, "test")[0]
    assert sample.mask is None and sample.box_classes is not None
    assert sample.box_classes.tolist() == [15, 7]


def test_a_label_map_beside_the_files_counts_and_without_one_only_published_names_do(tmp_path: Path) -> None:
    save(tmp_path / "train", [example(deeplab_features(PICTURE) | {"image/filename": "street_7"})])
    with pytest.raises(ValueError, match=r"image 'street_7' is not named as those of PASCAL VOC.*labels\.json"):
        open_tfrecord(tmp_path, "train")
    (tmp_path / "classes.csv").write_text("index,name,r,g,b\n0,a,0,0,0\n7,b,1,1,1\n15,c,1,1,1\n")
    assert open_tfrecord(tmp_path, "train")[0].mask is not None
    coco = tmp_path / "coco"
    save(coco / "coco-seg-val-00000-of-00001", [example(deeplab_features(PICTURE))])
    assert open_tfrecord(coco, "coco-seg-val").labels == COCO


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image/encoded": b""}, r"record 0 \(byte 0\): no image/encoded; it has image/"),
        ({"image/filename": b""}, "no image/filename"),
        ({"image/filename": b"\xff"}, "is no text"),
        ({"image/filename": b"../../2008_000001.jpg"}, r"record 0 .*name '\.\./\.\./2008_.* leads out of the folder"),
        ({"image/filename": b"/tmp/2008_000001.jpg"}, "leads out of the folder"),
        ({"image/object/difficulty": [1]}, "2 classes, 1 difficulties and .* must be as many"),
        ({"image/object/bbox/xmax": [0.5, float("nan")]}, "no finite number"),
        ({"image/object/class/label": [15, 21]}, "a box of class 21, which label map 'voc' does not have"),
        ({"image/height": [47]}, r"are \[47\] and \[64\], the image is 48 x 64"),
    ],
)
def test_what_does_not_fit_is_refused_by_record(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(VOC))
    save(tmp_path / "train", [example(blitznet_features(PICTURE) | changes)])
    with pytest.raises(ValueError, match=message):
        open_tfrecord(tmp_path, "train")[0]


@pytest.mark.parametrize(("what", "part"), [("mask", "segmentation"), ("boxes", "object")])
def test_records_with_and_without_masks_or_boxes_in_one_split_are_refused(what: str, part: str, tmp_path: Path) -> None:
    features = blitznet_features(PICTURE)
    without = {name: value for name, value in features.items() if part not in name}
    save(tmp_path / "train", [example(features), example(without)])
    with pytest.raises(ValueError, match=rf"record 1 .*a record without {what}, the first of the split is with\."):
        open_tfrecord(tmp_path, "train")[1]
    save(tmp_path / "train", [example(without), example(features)])
    with pytest.raises(ValueError, match=rf"record 1 .*a record with {what}, the first of the split is without\."):
        open_tfrecord(tmp_path, "train")[1]


def test_one_file_under_two_names_does_not_pass_for_two(tmp_path: Path) -> None:
    write_deeplab(tmp_path)
    shutil.copy(tmp_path / "val-00000-of-00002.tfrecord", tmp_path / "val-00000-of-00002")
    (tmp_path / "val-00001-of-00002.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match=r"each number once; here they are \[0, 0\]\."):
        open_tfrecord(tmp_path, "val")
    shutil.copy(tmp_path / "train-00001-of-00002.tfrecord", tmp_path / "train-00001-of-00003.tfrecord")
    (tmp_path / "train-00001-of-00002.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match="holds 2 files of split 'train', and 2 by the name of"):
        open_tfrecord(tmp_path, "train")


def test_a_flipped_byte_and_a_cut_file_are_named_with_record_and_byte(tmp_path: Path) -> None:
    path = write_blitznet(tmp_path) / "train"
    good = path.read_bytes()
    second = len(framed(example(blitznet_features(PICTURE))))
    place = rf"train, record 1 \(byte {second:,}\): "
    path.write_bytes(good[: second + 100] + bytes([good[second + 100] ^ 1]) + good[second + 101 :])
    dataset = open_tfrecord(tmp_path, "train")
    assert dataset[0].name == PICTURE.name
    with pytest.raises(ValueError, match=place + "its data does not fit its checksum.*copy"):
        dataset[1]
    path.write_bytes(good[: second + 3] + bytes([good[second + 3] ^ 1]) + good[second + 4 :])
    with pytest.raises(ValueError, match=place + "its length does not fit its checksum"):
        open_tfrecord(tmp_path, "train")
    path.write_bytes(good[: second + 1000])
    with pytest.raises(ValueError, match=place + r"the file ends [\d,]+ bytes early"):
        open_tfrecord(tmp_path, "train")
    path.write_bytes(good)
    dataset = open_tfrecord(tmp_path, "train")
    path.write_bytes(good[: second + 1000])  # while it is open
    with pytest.raises(ValueError, match=r"train, record 1: the file ends [\d,]+ bytes early"):
        dataset[1]


def test_a_record_without_end_takes_neither_time_nor_memory(tmp_path: Path) -> None:
    flood = example(deeplab_features(PICTURE)) + b"\x10\x01" * 2_000_000
    save(tmp_path / "train", [flood])
    start = time.process_time()
    with pytest.raises(ValueError, match="more than 20,000 fields"):
        open_tfrecord(tmp_path, "train")
    assert time.process_time() - start < 2
    long = (1 << 40).to_bytes(8, "little")
    (tmp_path / "train").write_bytes(long + masked_crc32c(long).to_bytes(4, "little") + b"data")
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes of data, the limit is"):
        open_tfrecord(tmp_path, "train")


def damaged(good: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(good)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data)))
        match rng.integers(3):
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                del data[at : at + int(rng.integers(1, 200))]
            case _:
                data[at:at] = data[at : at + int(rng.integers(1, 200))]
    return bytes(data)


@pytest.mark.parametrize("checksums", ["as they were", "of the damage"])
def test_hundreds_of_damaged_records_give_samples_or_a_value_error(checksums: str, tmp_path: Path) -> None:
    """Under a right checksum the damage reaches the code behind it."""
    rng, path = np.random.default_rng(0), tmp_path / "train"
    good = example(blitznet_features(PICTURE))
    refused = 0
    for case in range(800):
        right = checksums == "of the damage"
        path.write_bytes(framed(damaged(good, rng)) if right else damaged(framed(good), rng))
        try:
            dataset = open_tfrecord(tmp_path, "train")
            dataset[0] if case % 20 == 0 else dataset.record(0)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert 200 < refused <= 800


def test_other_files_are_no_splits_and_no_split_is_named_right(tmp_path: Path) -> None:
    write_blitznet(tmp_path)
    (tmp_path / "README").write_text("no records in here")
    (tmp_path / "a.txt").write_bytes((tmp_path / "train").read_bytes())
    shutil.copy(tmp_path / "val", tmp_path / "val.tfrecord")
    assert LAYOUT.splits(tmp_path) == ("train", "val")
    assert LAYOUT.splits(tmp_path / "nowhere") == ()
    with pytest.raises(FileNotFoundError, match="holds 2 files of split 'val', and 1 by the name of val"):
        open_tfrecord(tmp_path, "val")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="split 'empty' has no records"):
        open_tfrecord(tmp_path, "empty")
