"""Packing into shards and back: nothing is lost, the bytes depend on the data alone, and it is all or nothing."""

import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import TINY, paint, save
from numpy.typing import NDArray
from pictures import LABELS, PICTURES
from PIL import Image
from writers.shards import write as write_shards
from writers.tfrecord import write_blitznet

from veduta.data.layout import Boxes, FileDataset, NoMask, Painted, Record
from veduta.data.layouts.folder import open_folder
from veduta.data.layouts.imagenet import open_imagenet
from veduta.data.layouts.shards import LAYOUT, open_shards, verify_shards
from veduta.data.layouts.tfrecord import open_tfrecord
from veduta.data.pack import pack
from veduta.data.sample import Sample, SampleDataset
from veduta.data.scenes import Scenes
from veduta.data.stored import Stored
from veduta.data.unpack import unpack
from veduta.labels import IGNORE_INDEX, LabelClass, LabelMap

ANIMALS = LabelMap(
    name="animals",
    classes=tuple(LabelClass(file_id=i, name=name, color=(i, i, i)) for i, name in enumerate(("zebra", "ant"))),
    of="images",
)


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


class Blocks:
    """A mask that is painted: void above, class 7's train id below."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def __call__(self, size: tuple[int, int], /) -> NDArray[np.uint8]:
        mask = np.full(size, 2, np.uint8)
        mask[: size[0] // 2] = IGNORE_INDEX
        return mask


def listed(records: list[Record], labels: LabelMap = TINY) -> FileDataset[int]:
    return FileDataset(labels, range(len(records)), records.__getitem__)


@pytest.fixture
def odd(tmp_path: Path) -> FileDataset[int]:
    """Every kind of mask and image, names with dots and slashes, boxes beyond the image with fractions, and none."""
    image, ids = paint(0, TINY.num_classes)
    photo = save(tmp_path / "in/a.jpg", image)
    drawing = save(tmp_path / "in/b.png", image)
    scan = save(tmp_path / "in/c.bmp", image)
    grey = save(tmp_path / "in/a_mask.png", TINY.decode(ids))
    tiff = save(tmp_path / "in/c_mask.tif", TINY.decode(ids))
    boxes = Boxes(
        xyxy=np.array([[-3.25, 0.1, 40, 1 / 3], [1, 2, 3, 4]], np.float32),
        classes=np.array([2, 0], np.int64),
        difficult=np.array([True, False]),
        source=photo,
    )
    nothing = Boxes(
        xyxy=np.zeros((0, 4), np.float32), classes=np.zeros(0, np.int64), difficult=np.zeros(0, np.bool_), source=photo
    )
    painted: Painted = Blocks(photo)
    return listed(
        [
            Record(name="a", image=Stored(photo), mask=Stored(grey), boxes=boxes, scene_class=0),
            Record(name="munich/b.left", image=Stored(drawing), mask=painted, boxes=nothing, scene_class=1),
            Record(name="münchen/b_left", image=Stored(scan), mask=Stored(tiff), boxes=nothing, scene_class=0),
            Record(name="d" * 150, image=Stored(photo), mask=NoMask(photo), boxes=nothing, scene_class=3),
        ]
    )


def assert_equal(found: Sample, expected: Sample) -> None:
    assert found.name == expected.name and found.scene_class == expected.scene_class
    for field in ("image", "mask", "boxes", "box_classes", "box_difficult"):
        a, b = getattr(found, field), getattr(expected, field)
        assert (a is None) == (b is None), field
        if a is not None:
            assert a.dtype == b.dtype and np.array_equal(a, b), field


def assert_equal_sets(found: SampleDataset, expected: SampleDataset) -> None:
    assert found.labels == expected.labels and len(found) == len(expected)
    for index in range(len(expected)):
        assert_equal(found[index], expected[index])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_packed_comes_back_equal_and_encoded_images_as_they_were(odd: FileDataset[int], tmp_path: Path) -> None:
    pack(odd, tmp_path / "out", split="train", workers=2, progress=quiet)
    packed = open_shards(tmp_path / "out", "train")
    assert_equal_sets(packed, odd)
    for index in range(len(odd)):
        assert packed.record(index).image.read() == odd.record(index).image.read()
        assert np.array_equal(packed.record(index).boxes.xyxy, odd.record(index).boxes.xyxy)  # type: ignore[union-attr]
    mask = packed.record(0).mask
    assert isinstance(mask, Stored) and mask.read() == (tmp_path / "in/a_mask.png").read_bytes()
    assert sorted(bytes_of(tmp_path / "out")) == [
        "labels.json", "train-000000.tar", "train.card.md", "train.index.bin", "train.index.json",
    ]  # fmt: skip
    assert "4 samples in 1 shards" in (tmp_path / "out/train.card.md").read_text()


def test_shards_are_plain_tars_whose_files_of_a_sample_share_a_key(odd: FileDataset[int], tmp_path: Path) -> None:
    pack(odd, tmp_path / "out", split="train", workers=1, progress=quiet)
    with tarfile.open(tmp_path / "out/train-000000.tar") as tar:
        names = tar.getnames()
        assert names[:6] == [
            *("000000000-a.jpg", "000000000-a.mask.png", "000000000-a.json"),
            *("000000001-munich_b_left.png", "000000001-munich_b_left.mask.png", "000000001-munich_b_left.json"),
        ]
        file = tar.extractfile(names[4])
        assert file is not None
        with Image.open(io.BytesIO(file.read())) as mask:
            assert mask.mode == "P" and mask.convert("RGB").getpixel((0, 23)) == (40, 70, 190)
            assert np.array_equal(np.unique(np.asarray(mask)), [7, 255])


def test_bytes_depend_neither_on_workers_nor_on_the_day(odd: FileDataset[int], tmp_path: Path) -> None:
    for workers in (1, 2, 5):
        pack(odd, tmp_path / str(workers), split="train", workers=workers, progress=quiet, shard_bytes=8000)
    first = bytes_of(tmp_path / "1")
    assert first == bytes_of(tmp_path / "2") == bytes_of(tmp_path / "5")
    assert sum(name.endswith(".tar") for name in first) > 1
    assert max(len(data) for name, data in first.items() if name.endswith(".tar")) <= 8000
    assert_equal_sets(open_shards(tmp_path / "1", "train"), odd)
    verify_shards(tmp_path / "1", "train", quiet)


def test_generated_samples_are_packed_as_png(tmp_path: Path) -> None:
    scenes = Scenes("val")
    first = [scenes[i] for i in range(3)]

    class Few:
        labels = scenes.labels

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            return first[index]

    pack(Few(), tmp_path, split="val", workers=2, progress=quiet)
    packed = open_shards(tmp_path, "val")
    for index, sample in enumerate(first):
        assert_equal(packed[index], sample)


@pytest.mark.parametrize(
    ("write", "open_split"), [(write_blitznet, open_tfrecord), (write_shards, open_shards)], ids=["tfrecord", "shards"]
)
def test_other_layouts_go_into_shards_one_split_beside_the_other(
    write: Callable[[Path], Path], open_split: Callable[[Path, str], FileDataset[int]], tmp_path: Path
) -> None:
    root, out = write(tmp_path / "in"), tmp_path / "out"
    for split in PICTURES:
        pack(open_split(root, split), out, split=split, workers=2, progress=quiet)
        assert_equal_sets(open_shards(out, split), open_split(root, split))
    assert LAYOUT.splits(out) == ("train", "val")
    other = listed([Record(name="x", image=Stored(save(tmp_path / "x.png", paint(0, 3)[0])))])
    with pytest.raises(ValueError, match=r"labels\.json: other classes than those of 'tiny'"):
        pack(other, out, split="test", workers=1, progress=quiet)
    (out / "val.packing").touch()  # killed after the last step but one: complete all the same
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        pack(open_split(root, "val"), out, split="val", workers=1, progress=quiet)
    assert len(open_shards(out, "val")) == 2


def test_unreadable_samples_are_named_and_nothing_is_left(odd: FileDataset[int], tmp_path: Path) -> None:
    records = [odd.record(0)] * 3
    for number in range(8):
        path = tmp_path / f"bad{number}.jpg"
        path.write_bytes((tmp_path / "in/a.jpg").read_bytes()[: 300 if number % 2 else 10])
        records.append(replace(records[0], name=path.name, image=Stored(path)))
    with pytest.raises(
        ValueError, match=r"(?s)5 or more of 11 samples of split 'train'.*nothing was:.*bad0.*bad4"
    ) as caught:
        pack(listed(records), tmp_path / "out", split="train", workers=2, progress=quiet, shard_bytes=1)
    assert "bad5" not in str(caught.value)
    assert bytes_of(tmp_path / "out") == {}
    with pytest.raises(ValueError, match=r"^1 of 4 samples"):
        pack(listed(records[:4]), tmp_path / "out", split="train", workers=2, progress=quiet)


def test_a_pack_that_is_killed_does_not_open_and_can_be_done_again(
    odd: FileDataset[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack(odd, out, split="train", workers=1, progress=stop, shard_bytes=1)
    assert bytes_of(out) == {}

    with monkeypatch.context() as patch:  # no code runs after a kill
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            pack(odd, out, split="train", workers=1, progress=stop, shard_bytes=1)
    temporary = [name for name in bytes_of(out) if name.endswith(".tmp")]
    assert temporary and {"train-000000.tar", "train.packing"} <= bytes_of(out).keys()
    with pytest.raises(ValueError, match="packing split 'train' was interrupted or still goes on. Pack it again"):
        open_shards(out, "train")
    pack(odd, out, split="train", workers=1, progress=quiet)
    assert_equal_sets(open_shards(out, "train"), odd)
    assert "train-000001.tar" not in bytes_of(out) and not bytes_of(out).keys() & set(temporary)


def test_a_split_that_another_process_packs_is_left_alone(odd: FileDataset[int], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from veduta.data.pack import _mark\n"
        "_mark(Path(sys.argv[1]), 'train'); print(flush=True); sys.stdin.read()"
    )
    marker, begun = tmp_path / "train.packing", tmp_path / "train-000000.tar"
    command = [sys.executable, "-c", code, str(marker)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        begun.write_bytes(b"begun")
        with pytest.raises(FileExistsError, match=f"split 'train' is being packed by process {other.pid}\\."):
            pack(odd, tmp_path, split="train", workers=1, progress=quiet)
        assert begun.read_bytes() == b"begun" and marker.exists()
        other.communicate()
    pack(odd, tmp_path, split="train", workers=1, progress=quiet)  # it ended and left its marker
    assert_equal_sets(open_shards(tmp_path, "train"), odd)


def test_a_pack_that_fails_leaves_the_label_map_to_the_others(odd: FileDataset[int], tmp_path: Path) -> None:
    def other_begins(done: int, total: int) -> None:
        pack(odd, tmp_path / "a", split="val", workers=1, progress=quiet)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(odd, tmp_path / "a", split="train", workers=1, progress=other_begins)
    assert_equal_sets(open_shards(tmp_path / "a", "val"), odd)

    table = tmp_path / "b/classes.csv"
    table.parent.mkdir()
    table.write_text(
        "index,name,r,g,b\n10,sky,120,180,230\n0,road,110,90,130\n7,car,40,70,190\n255,void,0,0,0\n3,ignore,0,0,0\n"
    )
    with pytest.raises(ValueError, match="1 of 1 samples"):
        bad = replace(odd.record(0), image=Stored(table))
        pack(listed([bad]), table.parent, split="train", workers=1, progress=quiet)
    assert list(bytes_of(table.parent)) == ["classes.csv"]


def test_what_could_not_be_opened_again_is_not_packed(odd: FileDataset[int], tmp_path: Path) -> None:
    labels = replace(TINY, void_ids=())
    with pytest.raises(ValueError, match="its mask has void pixels, and label map 'tiny' has no value for void"):
        pack(listed([odd.record(1)], labels), tmp_path / "out", split="train", workers=1, progress=quiet)
    for split in ("2007/train", "train+val"):
        with pytest.raises(ValueError, match=rf"'{re.escape(split)}' cannot name a split of shards"):
            pack(odd, tmp_path / "out", split=split, workers=1, progress=quiet)
    whole = odd.record(0)
    for other, found in (
        (replace(whole, mask=None), "a class and boxes"),
        (replace(whole, boxes=None), "a class and a mask"),
        (replace(whole, scene_class=None), "a mask and boxes"),
        (Record(name="a", image=whole.image), "neither mask nor boxes nor class"),
    ):
        for mixed in ([whole, other], [other, whole]):
            with pytest.raises(ValueError, match=f"00000000[01]-a has {found}(, 0|$)"):
                pack(listed(mixed), tmp_path / "out", split="train", workers=1, progress=quiet)
    with pytest.raises(ValueError, match="no samples to pack"):
        pack(listed([]), tmp_path / "out", split="train", workers=1, progress=quiet)


def test_tars_of_somebody_else_are_not_overwritten(odd: FileDataset[int], tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"train-000000\.tar exists; nothing is overwritten"):
        pack(odd, tmp_path, split="train", workers=1, progress=quiet)
    assert (tmp_path / "train-000000.tar").read_bytes() == b"mine"


def test_unpacked_shards_are_the_layout_folder_again(odd: FileDataset[int], tmp_path: Path) -> None:
    pack(odd, tmp_path / "shards", split="train", workers=1, progress=quiet)
    out = tmp_path / "out"
    assert unpack(tmp_path / "shards", "train", out, progress=quiet) == 4
    dataset = open_folder(out, "train")
    by_name = {sample.name: sample for sample in map(dataset.__getitem__, range(4))}
    for expected in map(odd.__getitem__, range(4)):
        found = by_name[expected.name]
        assert np.array_equal(found.image, expected.image) and np.array_equal(found.mask, expected.mask)  # type: ignore[arg-type]
    assert (out / "images/train/a.jpg").read_bytes() == (tmp_path / "in/a.jpg").read_bytes()
    assert (out / "notes/train/a.json").read_bytes().startswith(b'{"name":"a","boxes":[{"box":[-3.25,')
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        unpack(tmp_path / "shards", "train", out, progress=quiet)


def test_unpacked_classified_images_lie_in_a_folder_per_class(tmp_path: Path) -> None:
    images = [Stored(save(tmp_path / f"{i}.png", paint(i, 3)[0])) for i in range(3)]

    def unpacked(labels: LabelMap, folders: tuple[str, str], split: str) -> list[str]:
        records = [Record(name=f"{folders[i % 2]}i{i}", image=images[i], scene_class=i % 2) for i in range(3)]
        dataset = listed(records, labels)
        pack(dataset, tmp_path / split, split=split, workers=1, progress=quiet)
        assert_equal_sets(open_shards(tmp_path / split, split), dataset)
        unpack(tmp_path / split, split, tmp_path / split / "out", progress=quiet)
        found = bytes_of(tmp_path / split / "out")
        assert next(data for name, data in found.items() if name.endswith("i1.png")) == images[1].read()
        return sorted(found)

    in_order = replace(ANIMALS, classes=ANIMALS.classes[::-1])
    assert unpacked(in_order, ("", ""), "a") == ["a/ant/i0.png", "a/ant/i2.png", "a/zebra/i1.png", "labels.json"]
    assert unpacked(ANIMALS, ("", ""), "b") == ["b/0000/i0.png", "b/0000/i2.png", "b/0001/i1.png", "labels.json"]
    assert unpacked(ANIMALS, ("n1/", "n2/"), "c") == ["c/n1/i0.png", "c/n1/i2.png", "c/n2/i1.png", "labels.json"]
    with pytest.raises(ValueError, match="do not sort as the classes do"):
        unpacked(ANIMALS, ("n2/", "n1/"), "d")
    with pytest.raises(ValueError, match="folder 'n1' would hold two classes"):
        unpacked(ANIMALS, ("n1/", "n1/"), "e")


def test_unpacked_classes_keep_their_index_where_a_split_lacks_some(tmp_path: Path) -> None:
    insects = replace(
        ANIMALS, classes=tuple(LabelClass(file_id=i, name=n, color=(i, i, i)) for i, n in enumerate("abc"))
    )
    images = [Stored(save(tmp_path / f"{i}.png", paint(i, 3)[0])) for i in range(3)]

    def packed(split: str, classes: list[int], folders: str = "abc") -> None:
        records = [Record(name=f"{folders[i]}/{i}", image=images[i], scene_class=i) for i in classes]
        pack(listed(records, insects), tmp_path / "shards", split=split, workers=1, progress=quiet)

    packed("train", [0, 1, 2])
    packed("val", [0, 2])
    packed("other", [0, 2], folders="xbc")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"2 folders for 3 classes.*Unpack a train split"):
        unpack(tmp_path / "shards", "val", out, progress=quiet)
    unpack(tmp_path / "shards", "train", out, progress=quiet)
    unpack(tmp_path / "shards", "val", out, progress=quiet)
    dataset = open_imagenet(out, "val")
    assert dataset.labels.names == ("a", "b", "c")
    assert [dataset.record(i).scene_class for i in range(2)] == [0, 2]
    with pytest.raises(ValueError, match="do not sort as the classes do"):
        unpack(tmp_path / "shards", "other", out, progress=quiet)
    assert not (out / "other").exists()


def test_images_without_masks_and_classes_are_not_unpacked(odd: FileDataset[int], tmp_path: Path) -> None:
    boxes_only = replace(odd.record(0), mask=None)
    pack(listed([boxes_only]), tmp_path / "shards", split="train", workers=1, progress=quiet)
    with pytest.raises(ValueError, match="images of split 'train' have no masks"):
        unpack(tmp_path / "shards", "train", tmp_path / "out", progress=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "a/../../b"])
def test_names_that_lead_out_of_the_folder_are_not_packed(name: str, tmp_path: Path) -> None:
    image = Stored(save(tmp_path / "a.png", paint(0, 3)[0]))
    with pytest.raises(ValueError, match=f"its name '{name}' leads out of the folder"):
        pack(listed([Record(name=name, image=image)]), tmp_path / "shards", split="train", workers=1, progress=quiet)


@pytest.mark.parametrize("name", ["a\\b", "c:a", "a\nb", "a//b"])
def test_names_that_are_none_of_files_are_not_written(name: str, odd: FileDataset[int], tmp_path: Path) -> None:
    named = replace(odd.record(0), name=name)
    pack(listed([named]), tmp_path / "shards", split="train", workers=1, progress=quiet)
    with pytest.raises(ValueError, match="is no name to write a file under"):
        unpack(tmp_path / "shards", "train", tmp_path / "out/in", progress=quiet)
    assert list(bytes_of(tmp_path / "out")) == ["in/labels.json"]


def test_pictures_of_voc_keep_their_boxes_through_tfrecord_and_shards(tmp_path: Path) -> None:
    pack(open_tfrecord(write_blitznet(tmp_path / "in"), "val"), tmp_path, split="val", workers=1, progress=quiet)
    for sample, picture in zip(map(open_shards(tmp_path, "val").__getitem__, range(2)), PICTURES["val"], strict=True):
        np.testing.assert_allclose(sample.boxes, picture.expected.boxes, atol=1e-4)  # type: ignore[arg-type]
        assert np.array_equal(sample.mask, picture.mask)  # type: ignore[arg-type]
    assert open_shards(tmp_path, "val").labels == LABELS


def test_damaged_shards_are_not_unpacked(odd: FileDataset[int], tmp_path: Path) -> None:
    pack(odd, tmp_path / "shards", split="train", workers=1, progress=quiet)
    path = tmp_path / "shards" / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged are train-000000\.tar"):
        unpack(tmp_path / "shards", "train", tmp_path / "again", progress=quiet)
    assert not (tmp_path / "again").exists()
