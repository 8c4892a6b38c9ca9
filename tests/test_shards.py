"""Shards: opened by their index alone, read within bounds, refused with reason; other programs' tars get an index."""

import io
import json
import pickle
import tarfile
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import LABELS, PICTURES
from writers.shards import files_of, save, write

from veduta.data.images import read_rgb
from veduta.data.layouts.shards import LAYOUT, Shard, index_shards, open_shards, read_index, verify_shards, write_index
from veduta.data.layouts.tar import BLOCK, Writer, members

PICTURE = PICTURES["train"][0]
CLASSES = "index,name,r,g,b\n0,cat,1,1,1\n1,dog,2,2,2\n"


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def one(name: str, data: bytes = b"data", **fields: Any) -> bytes:
    """A tar with one member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def with_size(size: bytes) -> bytes:
    header = bytearray(one("a.jpg"))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:BLOCK])
    return bytes(header)


def pax(**headers: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = headers
        tar.addfile(info)
    return out.getvalue()


def test_shards_of_other_programs_are_read_with_their_names_masks_and_boxes(tmp_path: Path) -> None:
    dataset = open_shards(write(tmp_path), "train")
    assert len(dataset) == 4 and dataset.labels == LABELS
    for index, number in enumerate((0, 2, 1, 3)):
        sample, expected = dataset[index], PICTURES["train"][number].expected
        assert sample.name == expected.name
        for field in ("mask", "boxes", "box_classes", "box_difficult"):
            assert np.array_equal(getattr(sample, field), getattr(expected, field)), field
        assert dataset.record(index).image.read() == PICTURES["train"][number].jpeg
    assert str(dataset.record(3).mask).endswith("train-000001.tar, 2008_000004.mask.png")
    assert LAYOUT.splits(tmp_path) == ("train", "val") and LAYOUT.splits(tmp_path / "nowhere") == ()


def test_classified_images_need_a_label_map_of_images(tmp_path: Path) -> None:
    files = {f"n/{key}.{ending}": data for key in "ab" for ending, data in (("JPEG", PICTURE.jpeg), ("cls", b"1\n"))}
    save(tmp_path / "train-000007.tar", files | {"n/b.txt": b"passed over"})
    with pytest.raises(
        ValueError, match=r"no index train\.index\.json\. Make it with `veduta data index .* --split train`"
    ):
        open_shards(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"labels\.json not found"):
        index_shards(tmp_path, "train", quiet)
    (tmp_path / "classes.csv").write_text(CLASSES)
    index_shards(tmp_path, "train", quiet)
    dataset = open_shards(tmp_path, "train")
    sample = dataset[1]
    assert (sample.name, sample.scene_class, sample.mask, sample.boxes) == ("n/b", 1, None, None)
    assert dataset.labels.of == "images"
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        index_shards(tmp_path, "train", quiet)
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds both labels\.json and classes\.csv"):
        open_shards(tmp_path, "train")


def test_an_index_takes_less_than_60_bytes_a_sample_and_opens_without_the_shards(tmp_path: Path) -> None:
    count = 300_000
    with (tmp_path / "train-000000.tar").open("wb") as file:
        file.truncate(count * 2048)  # sparse: takes no room
    (tmp_path / "classes.csv").write_text(CLASSES)
    rows = np.zeros((count, 6), np.int64)
    rows[:, 0], rows[:, 1] = np.arange(count) * 2048 + BLOCK, 1000
    shard = Shard(file="train-000000.tar", bytes=count * 2048, samples=count, sha256="")
    write_index(tmp_path, "train", [shard], array("q", rows.reshape(-1)), of="images")
    tracemalloc.start()
    dataset = open_shards(tmp_path, "train")
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset) == count and kept < 60 * count and most < 200 * count


def test_a_shard_that_was_changed_is_found_by_its_hash_and_a_cut_one_when_opened(tmp_path: Path) -> None:
    path = write(tmp_path) / "train-000001.tar"
    good = path.read_bytes()
    assert verify_shards(tmp_path, "train", quiet).num_samples == 4
    path.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    open_shards(tmp_path, "train")
    with pytest.raises(ValueError, match=r"damaged are train-000001\.tar \(their sha256 differs\)"):
        verify_shards(tmp_path, "train", quiet)
    path.write_bytes(good[:-1])
    with pytest.raises(ValueError, match=r"train-000001\.tar: [\d,]+ bytes, the index says .* Copy it again"):
        open_shards(tmp_path, "train")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000001\.tar not found; the index"):
        open_shards(tmp_path, "train")


def test_an_index_that_does_not_fit_the_shard_is_seen_at_the_sample(tmp_path: Path) -> None:
    path = write(tmp_path) / "train-000000.tar"
    size = path.stat().st_size
    save(path, dict(reversed(files_of(PICTURE).items())))
    with path.open("ab") as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=r"train-000000\.tar, byte [\d,]+: (no header|not the image that the index)"):
        open_shards(tmp_path, "train")[0]


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (one("../a.jpg"), r"'\.\./a\.jpg'.*leads out of the folder"),
        (one("/etc/a.jpg"), "leads out of the folder"),
        (one("a\\..\\b.jpg"), "leads out of the folder"),
        (
            one("a.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "is a symbolic link; plain files are expected",
        ),
        (one("a.jpg", b"", type=tarfile.LNKTYPE, linkname="b.jpg"), "is a hard link"),
        (one("a.jpg", b"", type=tarfile.CHRTYPE), "is a device"),
        (one("a.jpg", b"", type=tarfile.FIFOTYPE), "is a pipe"),
        (one("a.jpg", b"", type=tarfile.GNUTYPE_SPARSE), "is a sparse file"),
        (one("././@LongLink", b"a" * 200, type=tarfile.GNUTYPE_LONGNAME), "is a name of more than 100 bytes"),
        (pax(path="../../etc/passwd"), "an extended header with 'path'"),
        (pax(**{"GNU.sparse.major": "1"}), r"an extended header with 'GNU\.sparse\.major'"),
        (pax(size="1"), "an extended header with 'size'"),
        (pax(comment="x" * 100_000), "an extended header of 100,0.. bytes, the limit is 65,536"),
        (with_size(b"77777777777\0"), "8,589,934,591 bytes, the limit is 1,073,741,824"),
        (with_size(b"00000077777\0"), "32,767 bytes, but the file ends before"),
        (with_size(b"\x80" + b"\xff" * 11), "no header of a plain tar"),
        (with_size(b"-0000000001\0"), "no header of a plain tar"),
        (with_size(b"0000000_004\0"), "no header of a plain tar"),
        (with_size(b"+0000000004\0"), "no header of a plain tar"),
        (with_size(b"0o000000004\0"), "no header of a plain tar"),
        (b"\x1f\x8b" + bytes(1000), r"no header of a plain tar. Compressed \(unpack \.tar\.gz"),
        (one("a.jpg")[:300], "no header of a plain tar"),
        (one("a.txt"), r"sample 'a' has 0 images among txt"),
        (one("a.jpg")[:1024] + one("a.png"), "sample 'a' has 2 images among jpg, png.*A mask is called a.mask.png"),
        (one("a.jpg")[:1024] + one("b.jpg")[:1024] + one("a.jpg"), "'a' comes twice"),
        (one("a.jpg")[:1024] + one("a.JPG"), "'a.jpg' and 'a.JPG' are the same part of 'a'"),
        (one("a.mask.png")[:1024] + one("a.mask.png")[:1024] + one("a.jpg"), "are the same part of 'a'"),
        (one("a.jpg")[:1024] + one("a.json")[:1024] + one("b.jpg"), "some samples have notes and some have none"),
        (one("a.jpg")[:1024] + one("a.mask.png")[:1024] + one("b.jpg"), "some samples have masks and some have none"),
    ],
)
def test_a_tar_that_is_no_plain_one_of_samples_is_refused_with_reason(tar: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"classes": [{"file_id": 0, "name": "a", "color": [0, 0, 0]}]}))
    (tmp_path / "train-000000.tar").write_bytes(tar)
    with pytest.raises(ValueError, match=rf"(?s)train.*{message}"):
        index_shards(tmp_path, "train", quiet)
    assert not (tmp_path / "train.index.json").exists()


def test_a_missing_number_and_an_unknown_split_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=r"has the splits train, val, not 'trane'"):
        open_shards(tmp_path, "trane")
    save(tmp_path / "more-3.tar", files_of(PICTURE))
    save(tmp_path / "more-5.tar", files_of(PICTURE))
    with pytest.raises(FileNotFoundError, match="lacks number 4 of the shards of 'more'"):
        index_shards(tmp_path, "more", quiet)
    with pytest.raises(FileNotFoundError, match=r"no trane-NUMBER\.tar in "):
        index_shards(tmp_path, "trane", quiet)
    with pytest.raises(FileNotFoundError, match="nowhere not found"):
        open_shards(tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (b"{", "Invalid JSON"),
        (b'{"boxes": [{"box": [1, 2, 3], "class": "cat"}]}', r"boxes\.0\.box"),
        (b'{"boxes": [{"box": [1, 2, 3, NaN], "class": "cat"}]}', r"boxes\.0\.box\.3"),
        (b'{"boxes": [{"box": [1, 2, 3, 4], "class": "zebra"}]}', "a box of class 'zebra', which label map 'voc'"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"scene_class": -1}', "scene_class"),
        (b'{"scene_class": true}', "scene_class: Input should be a valid integer"),
        (b'{"scene_class": 1.0}', "scene_class: Input should be a valid integer"),
        (b"true", "Input should be a valid integer"),
        (b"-1", "Input should be greater than or equal to 0"),
        (b'{"label": 2}', "none of name, boxes and scene_class is in it"),
        (b'{"name": "../../up", "scene_class": 1}', r"its name '\.\./\.\./up' leads out of the folder"),
        (b'{"name": "/tmp/up"}', "leads out of the folder"),
        (b"\xff\xfe", "Invalid JSON"),
    ],
)
def test_a_note_of_another_form_is_refused_by_sample(note: bytes, message: str, tmp_path: Path) -> None:
    files = files_of(PICTURE) | {f"{PICTURE.name}.json": note}
    (write(tmp_path) / "train.index.json").unlink()
    save(tmp_path / "train-000000.tar", files)
    index_shards(tmp_path, "train", quiet)
    with pytest.raises(ValueError, match=rf"train-000000\.tar, note of 2008_000001: .*{message}"):
        open_shards(tmp_path, "train")[0]


def damage_index(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(0, 4))) + data[at + int(rng.integers(0, 4)) :]


def damage_tar(data: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes of a header and put its checksum right again."""
    out = bytearray(data)
    headers = [start for start in range(0, len(data), BLOCK) if data[start + 257 : start + 262] == b"ustar"]
    start = int(rng.choice(headers))
    for _ in range(int(rng.integers(1, 4))):
        out[start + int(rng.integers(0, 350))] = int(rng.integers(256))
    out[start + 148 : start + 156] = b" " * 8
    out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + BLOCK])
    return bytes(out)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("train.index.json", damage_index), ("train.index.bin", damage_index), ("train-000000.tar", damage_tar)],
)
def test_damage_gives_samples_or_a_value_error(
    name: str, damage: Callable[[bytes, np.random.Generator], bytes], tmp_path: Path
) -> None:
    path = write(tmp_path) / name
    good, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(200):
        path.write_bytes(damage(good, rng))
        try:
            if path.suffix == ".tar":
                list(members(path))
            dataset = open_shards(tmp_path, "train")
            for index in range(2):
                dataset.record(index)
        except (ValueError, FileNotFoundError):
            refused += 1
    assert 20 < refused <= 200


def test_rows_that_lie_outside_of_the_shard_are_refused(tmp_path: Path) -> None:
    index, rows = read_index(write(tmp_path), "train")
    for column, value in ((0, 0), (0, -512), (1, 0), (1, 1 << 31), (2, 1 << 62), (3, -1), (5, 1 << 25)):
        wrong = rows.copy()
        wrong[0, column] = value
        with pytest.raises(ValueError, match="a sample lies outside of its shard"):
            write_index(tmp_path, "train", list(index.shards), array("q", wrong.reshape(-1)), of=index.of)


def test_written_tars_are_plain_ones_with_nothing_of_their_maker(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        writer = Writer(file)
        offset = writer.add("a.jpg", PICTURE.jpeg)
        writer.add("a.json", b"{}")
        writer.close()
    with tarfile.open(tmp_path / "a.tar") as tar:
        info = tar.getmember("a.jpg")
        assert (info.offset_data, info.mtime, info.uid, info.uname) == (offset, 0, 0, "")
        extracted = tar.extractfile(info)
        assert extracted is not None and extracted.read() == PICTURE.jpeg
        assert tar.getnames() == ["a.jpg", "a.json"] == [member.name for member in members(tmp_path / "a.tar")]


def test_a_worker_gets_the_same_records(tmp_path: Path) -> None:
    dataset = open_shards(write(tmp_path), "val")
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[1].image, read_rgb(dataset.record(1).image))


def test_shards_without_a_sample_get_no_index(tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_bytes(bytes(10240))
    (tmp_path / "classes.csv").write_text("index,name,r,g,b\n0,a,1,2,3\n")
    with pytest.raises(ValueError, match="no sample in the shards of 'train'"):
        index_shards(tmp_path, "train", quiet)
    assert not list(tmp_path.glob("*.index.*"))
