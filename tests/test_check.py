"""Promises of the data check: exact counts, nothing read twice, nothing hidden; and its short form before training."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from layouts import TINY, paint, save, write_folder
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner
from writers import coco

from veduta.cli import data as cli_data
from veduta.data.check import cache, facts, survey
from veduta.data.check.card import log_weights
from veduta.data.check.faults import MOST_SHOWN
from veduta.data.check.quick import SplitSummary, check_samples
from veduta.data.check.run import PICTURES, DataCheck, check
from veduta.data.images import StoredPicture
from veduta.data.layouts.coco import open_coco
from veduta.data.layouts.folder import LAYOUT, open_folder
from veduta.data.sample import InMemory
from veduta.data.scenes import Scenes
from veduta.labels import read_label_map
from veduta.report.data_page import check_out_folder, render_check, write_data_report


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were decoded, by name, in a world where files are remembered as soon as they are written."""
    names: list[str] = []

    class Counting(StoredPicture):
        def pixels(self, *, shrink: int = 1) -> NDArray[np.uint8]:
            names.append(self.source.path.name)
            return super().pixels(shrink=shrink)

    monkeypatch.setattr(facts, "StoredPicture", Counting)
    monkeypatch.setattr(cache, "SETTLED", -1e9)
    return names


def run(root: Path, progress: Callable[[str, int, int], None] = lambda split, done, total: None) -> DataCheck:
    return check(root, "folder", LAYOUT, progress=progress)


def quick(root: Path) -> SplitSummary:
    return check_samples(open_folder(root, "train"), name="train", progress=lambda done, total: None)


def ids_of(root: Path, split: str) -> NDArray[np.uint8]:
    return np.concatenate([np.array(Image.open(path)).reshape(-1) for path in (root / "masks" / split).rglob("*.png")])


def test_a_card_counts_pixels_images_and_void_exactly(folder_root: Path) -> None:
    card = run(folder_root).cards["train"]
    ids = ids_of(folder_root, "train")
    assert card.pixels.tolist() == [int((ids == c.file_id).sum()) for c in TINY.classes]
    assert card.void == int(((ids == 255) | (ids == 3)).sum())
    assert card.images.tolist() == [3, 3, 3]
    assert card.sizes == {(24, 32): 3}


def test_counts_stay_exact_where_a_float_cannot_hold_them() -> None:
    ids = np.ones((4100, 4100), np.uint8)  # 16.8 million
    ids[0, :3] = 7
    assert dict(facts.count_values(ids)) == {1: 4100 * 4100 - 3, 7: 3}


def test_suggested_weights_are_those_of_the_loss(folder_root: Path) -> None:
    from veduta.config import Loss
    from veduta.tasks.segment import Segment

    pixels = run(folder_root).cards["train"].pixels
    task = Segment(TINY, Loss(class_weights="log"))
    task.fit_classes(pixels)
    assert task.class_weights is not None
    assert np.allclose(log_weights(pixels), task.class_weights)


def test_what_has_not_changed_is_not_read_again(folder_root: Path, decoded: list[str]) -> None:
    first = run(folder_root)
    assert len(decoded) == 6
    second = run(folder_root)
    assert len(decoded) == 6
    assert [fault.id for fault in first.faults] == [fault.id for fault in second.faults]
    assert first.cards["val"].facts() == second.cards["val"].facts()


def test_an_interrupted_check_goes_on_where_it_was(folder_root: Path, decoded: list[str]) -> None:
    def interrupt(split: str, done: int, total: int) -> None:
        if (split, done) == ("val", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder_root, interrupt)
    before = len(decoded)
    assert 4 <= before <= 6
    run(folder_root)
    assert len(decoded) == 6


def test_a_changed_file_is_examined_anew_whatever_its_size_and_date_say(folder_root: Path, decoded: list[str]) -> None:
    path = folder_root / "images/train/a.png"
    assert not run(folder_root).failed
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert "image-unreadable" in {fault.id for fault in run(folder_root).faults}


def test_a_changed_label_map_judges_remembered_masks_anew(folder_root: Path, decoded: list[str]) -> None:
    assert not run(folder_root).failed
    content = json.loads((folder_root / "labels.json").read_text())
    (folder_root / "labels.json").write_text(json.dumps({**content, "void_ids": [255, 4]}))
    assert [fault.title for fault in run(folder_root).faults if fault.severity == "error"] == []
    (folder_root / "labels.json").write_text(json.dumps({**content, "void_ids": [3]}))
    assert [fault.title for fault in run(folder_root).faults if fault.severity == "error"] == [
        "mask value 255 is not in the label map"
    ]


def test_a_file_just_written_is_not_remembered(folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.stamp(folder_root / "labels.json") is None
    monkeypatch.setattr(cache, "SETTLED", 0.0)
    assert cv2.__version__ in (cache.stamp(folder_root / "labels.json") or "")


def test_a_glance_at_a_header_does_not_stand_for_decoding(folder_root: Path, decoded: list[str]) -> None:
    path = folder_root / "images/train/a.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    quick(folder_root)
    assert "image-unreadable" in {fault.id for fault in run(folder_root).faults}
    with pytest.raises(ValueError, match="images are broken"):  # which is known from now on
        quick(folder_root)


def test_annotations_edited_during_a_check_are_counted_anew(tmp_path: Path, decoded: list[str]) -> None:
    root = coco.write(tmp_path / "coco")
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    before = open_coco(root, "train")
    content["annotations"][0]["category_id"] = 3 * 4 + 1
    path.write_text(json.dumps(content))
    old, new, again = (
        check_samples(dataset, name="train", progress=lambda done, total: None).pixels.tolist()
        for dataset in (before, open_coco(root, "train"), open_coco(root, "train"))
    )
    assert old[4] == 0 and new[4] > 0 and again == new


def test_checks_at_the_same_time_all_remember(tmp_path: Path) -> None:
    path = tmp_path / "check.sqlite"
    with cache.Cache(path) as one, cache.Cache(path) as other:
        for number, check_cache in enumerate((one, other)):
            check_cache.put(f"key {number}", "stamp", f"value {number}")
    with cache.Cache(path) as later:
        assert [later.get(f"key {number}", "stamp") for number in range(2)] == ["value 0", "value 1"]


def test_a_check_that_finds_the_cache_busy_remembers_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WRITE_EVERY", -1.0)
    path = tmp_path / "check.sqlite"
    with cache.Cache(path) as one, cache.Cache(path) as other:
        one.database.execute("BEGIN IMMEDIATE")
        other.put("key", "stamp", "value")
        one.database.rollback()
    with cache.Cache(path) as later:
        assert later.get("key", "stamp") == "value"


def test_a_user_without_a_home_has_no_cache(folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-of-this-name").expanduser())
    assert cache.cache_file() is None and not run(folder_root).failed


def test_threads_are_as_many_as_the_cores_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert survey.count_cores() == 2


def test_a_folder_that_goes_away_costs_no_finding(folder_root: Path) -> None:
    (gone := survey.Survey()).image_folders.add(str(folder_root / "nowhere"))
    assert list(gone.unlisted()) == []


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_broken_cache_does_no_harm(content: bytes, folder_root: Path, cache_folder: Path) -> None:
    (cache_folder / "veduta").mkdir(parents=True)
    (cache_folder / "veduta/check.sqlite").write_bytes(content)
    assert not run(folder_root).failed


def test_what_the_system_says_against_reading_is_not_remembered(
    folder_root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, formats: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Image, "open", fail)
        faults = [fault for fault in run(folder_root).faults if fault.severity == "error"]
    assert [fault.id for fault in faults] == ["image-unreadable", "mask-unreadable"]
    assert all("Input/output error" in str(fault) for fault in faults)
    assert not run(folder_root).failed


def test_names_that_are_not_utf_8_are_told(folder_root: Path, decoded: list[str]) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (folder_root / "images/train/a.png").rename(folder_root / "images/train" / name)
    (folder_root / "masks/train/a.png").rename(folder_root / "masks/train" / name)
    (folder_root / "images/train" / name).write_bytes(b"")
    result = run(folder_root)
    assert "caf\\udce9.png" in result.text() and "caf\\udce9.png" in result.to_json()
    assert "caf?.png" in render_check(result)


def test_nothing_is_written_into_the_data_set(folder_root: Path, cache_folder: Path) -> None:
    before = sorted(folder_root.rglob("*"))
    run(folder_root)
    assert sorted(folder_root.rglob("*")) == before
    assert [path.name for path in (cache_folder / "veduta").iterdir()] == ["check.sqlite"]


def test_faults_name_all_their_files_in_json_and_the_first_in_the_text(folder_root: Path) -> None:
    for i in range(MOST_SHOWN + 2):
        save(folder_root / f"images/train/x{i}.png", paint(20 + i, 3)[0])
        save(folder_root / f"masks/train/x{i}.png", np.full((24, 32), 99, np.uint8))
    result = run(folder_root)
    text, content = result.text(), json.loads(result.to_json())
    [fault] = [fault for fault in content["faults"] if fault["severity"] == "error"]
    assert (fault["id"], fault["count"], len(fault["findings"])) == ("mask-value", MOST_SHOWN + 2, MOST_SHOWN + 2)
    assert (
        "... and 2 more" in text and len(re.findall(r"masks/train/x\d.png: value 99, 768 pixels", text)) == MOST_SHOWN
    )
    assert text.splitlines()[-1].startswith("1 error, no warnings")


def test_pictures_show_every_class_and_are_the_same_each_time(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tiny")
    for i, file_id in enumerate([0] * 20 + [7, 10]):
        save(root / f"images/train/y{i:02}.png", paint(30 + i, 3)[0])
        save(root / f"masks/train/y{i:02}.png", np.full((24, 32), file_id, np.uint8))
    for name in ("a", "b", "sub/c"):
        save(root / f"masks/train/{name}.png", np.zeros((24, 32), np.uint8))
        save(root / f"masks/val/{name}.png", np.zeros((24, 32), np.uint8))
    result = run(root)
    names = [result.cards[split].rows[index][0] for split, index in result.pictures]
    assert {"y20", "y21"} <= set(names) and len(set(result.pictures)) == PICTURES
    assert result.pictures == run(root).pictures


def test_the_page_is_one_file_and_escapes_names(folder_root: Path) -> None:
    content = json.loads((folder_root / "labels.json").read_text())
    content["classes"][0]["name"] = "<script>alert(1)</script>"
    (folder_root / "labels.json").write_text(json.dumps(content))
    save(folder_root / "masks/val/a.png", np.full((24, 32), 99, np.uint8))
    page = render_check(run(folder_root))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=\"(?!data:image/|#)", page)
    assert page.count("data:image/jpeg;base64,") == 5  # six samples, one of them with an error
    assert "mask-value" in page and "masks/val/a.png" in page


def test_out_gets_page_card_and_a_label_map_that_reads_back(folder_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_out_folder(out)
    write_data_report(run(folder_root), out)
    assert sorted(path.name for path in out.iterdir()) == ["check.html", "check.json", "labels.json"]
    assert read_label_map(out / "labels.json") == TINY
    check_out_folder(out)  # of a former check
    (out / "mine.txt").touch()
    with pytest.raises(FileExistsError, match=r"mine\.txt, which is of no data check"):
        check_out_folder(out)


def command(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.add_typer(cli_data.app, name="data")
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command_exits_0_without_errors_1_with_and_2_if_misused(folder_root: Path, tmp_path: Path) -> None:
    assert command("check", folder_root)[0] == 0
    save(folder_root / "masks/val/a.png", np.full((24, 32), 99, np.uint8))
    code, output = command("check", folder_root, "--json", tmp_path / "check.json", "--out", tmp_path / "out")
    assert code == 1 and "mask value 99 is not in the label map" in output
    assert json.loads((tmp_path / "check.json").read_text())["layout"] == "folder"
    assert (tmp_path / "out/check.html").is_file()
    for arguments, words in {
        (folder_root, "--json", tmp_path / "check.json"): "nothing is overwritten",
        (folder_root, "--layout", "foldr"): "no such layout",
        (tmp_path / "nowhere",): "no folder",
        (tmp_path / "cache",): "fits none of the layouts",
    }.items():
        code, output = command("check", *arguments)
        assert code == 2 and words in output


def test_a_named_layout_says_what_is_missing(tmp_path: Path) -> None:
    code, output = command("check", tmp_path, "--layout", "folder")
    assert code == 1 and "/images: not found" in output


# The short form before training


def test_pixels_are_counted_per_class_and_void_apart(folder_root: Path) -> None:
    summary = quick(folder_root)
    ids = ids_of(folder_root, "train")
    assert summary.num_samples == 3
    assert summary.pixels.tolist() == [int((ids == c.file_id).sum()) for c in TINY.classes]
    assert summary.void == int((ids == 255).sum())
    assert summary.doubts == ()


@pytest.mark.parametrize("in_memory", [False, True])
def test_no_image_is_decoded_before_training(folder_root: Path, decoded: list[str], in_memory: bool) -> None:
    dataset = open_folder(folder_root, "train")
    calls: list[tuple[int, int]] = []
    check_samples(InMemory(dataset) if in_memory else dataset, name="train", progress=lambda *call: calls.append(call))
    assert decoded == [] and calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_cut_off_image_is_seen_before_training(ending: str, folder_root: Path) -> None:
    (folder_root / "images/train/a.png").unlink()
    path = save(folder_root / f"images/train/a.{ending}", paint(0, 3)[0])
    quick(folder_root)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"images are broken or cut off.*\n.*a\.{ending}"):
        quick(folder_root)


def test_bytes_after_the_end_of_an_image_are_no_fault(folder_root: Path, decoded: list[str]) -> None:
    path = folder_root / "images/train/a.png"
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    quick(folder_root)
    assert decoded == ["a.png"]


def test_made_samples_are_counted_too() -> None:
    summary = check_samples(Scenes("val"), name="val", progress=lambda done, total: None)
    assert summary.num_samples == 40 and summary.pixels.all()


def test_faults_of_every_kind_are_listed_together_with_their_files(folder_root: Path) -> None:
    (folder_root / "images/train/a.png").write_bytes(b"")
    save(folder_root / "masks/train/b.png", np.full((24, 32), 99, np.uint8))
    save(folder_root / "images/train/sub/c.png", paint(0, 3)[0][:-1])
    with pytest.raises(ValueError, match="^split 'train' cannot be used:") as caught:
        quick(folder_root)
    for words in ("a.png", "b.png: value 99, 768 pixels", "c.png: mask 32 x 24, image 32 x 23", "add 99 to void_ids"):
        assert words in str(caught.value)


def test_a_split_that_is_all_void_is_refused(folder_root: Path) -> None:
    for name in ("a", "b", "sub/c"):
        save(folder_root / f"masks/train/{name}.png", np.full((24, 32), 255, np.uint8))
    with pytest.raises(ValueError, match="a split has no pixel of any class"):
        quick(folder_root)


def test_a_split_of_one_class_and_void_is_a_doubt(folder_root: Path) -> None:
    for name in ("a", "b", "sub/c"):
        save(
            folder_root / f"masks/train/{name}.png", np.repeat(np.array([0, 255], np.uint8), [576, 192]).reshape(24, 32)
        )
    [doubt] = [doubt for doubt in quick(folder_root).doubts if doubt.id == "mask-binary-void"]
    assert "all splits: 25.0 % of the pixels are 255" in str(doubt)


def test_unreadable_samples_are_doubts_where_training_replaces_them(folder_root: Path) -> None:
    (folder_root / "images/train/a.png").write_bytes(b"no image")
    dataset = open_folder(folder_root, "train")
    summary = check_samples(dataset, name="train", progress=lambda done, total: None, unreadable="replace")
    assert [fault.id for fault in summary.doubts] == ["image-unreadable"]
    save(folder_root / "masks/train/b.png", np.full((24, 32), 99, np.uint8))
    with pytest.raises(ValueError, match="mask value 99"):
        check_samples(dataset, name="train", progress=lambda done, total: None, unreadable="replace")
