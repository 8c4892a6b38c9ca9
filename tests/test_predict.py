"""Promises of prediction: masks under the images' own names, nothing overwritten, no failure hidden."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import put, tiled
from layouts import TINY, paint, save
from model_files import random_backend
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter
from small_runs import small_recipe
from stub_backend import StubBackend

import veduta.engine.predict
from veduta.config import TaskName
from veduta.data.images import read_rgb
from veduta.engine.predict import _number, find_images, predict
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.labels import LabelMap
from veduta.tasks.prediction import OPACITY, draw_boxes, draw_mask


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/a.png, photos/b.JPG, photos/deep/c.png and a text file."""
    save(tmp_path / "photos/a.png", paint(0, 3)[0])
    save(tmp_path / "photos/b.JPG", paint(1, 3)[0])
    save(tmp_path / "photos/deep/c.png", paint(2, 3, (17, 50))[0])
    (tmp_path / "photos/notes.txt").write_text("no image")
    return tmp_path / "photos"


def run(images: dict[str, Path], out: Path) -> list[tuple[Path, str]]:
    return predict(Predictor(StubBackend()), images, out, ProgressLine())


def test_a_folder_is_searched_downwards_and_names_are_paths_below_it(photos: Path) -> None:
    found = find_images([str(photos)])
    assert found == {"a": photos / "a.png", "b": photos / "b.JPG", "deep/c": photos / "deep/c.png"}
    assert list(found) == ["a", "b", "deep/c"]


def test_files_and_globs_are_named_after_the_file(photos: Path) -> None:
    assert find_images([str(photos / "deep/c.png"), str(photos / "*.png")]) == {
        "c": photos / "deep/c.png",
        "a": photos / "a.png",
    }
    assert list(find_images([str(photos / "**/*.png")])) == ["a", "c"]


def test_a_file_named_like_a_glob_is_that_file(photos: Path) -> None:
    path = save(photos / "x[1].png", paint(0, 3)[0])
    assert find_images([str(path)]) == {"x[1]": path}


def test_one_image_given_twice_is_taken_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert find_images(["a.png", str(photos / "a.png"), "*.png"]) == {"a": Path("a.png")}


@pytest.mark.parametrize("argument", ["nowhere.png", "nothing-*.png", "empty"])
def test_an_argument_that_finds_nothing_is_refused_by_itself(tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"nowhere\.png not found|(nothing-.*|empty): no images found \(\.jpg, "
    ):
        find_images([str(tmp_path / argument)])


def test_two_images_that_would_share_a_name_are_refused(photos: Path) -> None:
    shutil.copy(photos / "a.png", photos / "deep/a.png")
    with pytest.raises(ValueError, match=r"a\.png and .*deep/a\.png would both be written as a\.png"):
        find_images([str(photos / "a.png"), str(photos / "deep/a.png")])
    shutil.copy(photos / "a.png", photos / "a.bmp")
    with pytest.raises(ValueError, match=r"a\.(png|bmp) and .*a\.(png|bmp) would both"):
        find_images([str(photos)])


def test_masks_hold_file_ids_and_the_palette_of_the_label_map(photos: Path, tmp_path: Path) -> None:
    assert run(find_images([str(photos)]), tmp_path / "out") == []
    with Image.open(tmp_path / "out/masks/deep/c.png") as mask:
        assert mask.mode == "P" and mask.size == (50, 17)
        ids, colors = np.asarray(mask), np.asarray(mask.convert("RGB"))
    image, train_ids = paint(2, 3, (17, 50))
    truth = TINY.decode(np.where(train_ids == 255, 0, train_ids).astype(np.uint8))
    assert (ids == truth).all()
    for label in TINY.classes:
        assert (colors[ids == label.file_id] == label.color).all()
    with Image.open(tmp_path / "out/overlays/deep/c.jpg") as overlay:
        assert overlay.size == (50, 17) and overlay.mode == "RGB"


def test_the_json_names_model_classes_and_the_share_of_each_class(photos: Path, tmp_path: Path) -> None:
    run(find_images([str(photos / "a.png")]), tmp_path / "deep" / "out")
    content = json.loads((tmp_path / "deep" / "out" / "predictions.json").read_text())
    assert content["model"] == {"name": "deeplabv3plus_tiny", "recipe": "stub", "weights_sha256": "0123456789abcdef"}
    assert content["labels"]["classes"][1] == {"file_id": 0, "name": "road", "color": [110, 90, 130]}
    assert content["labels"] == TypeAdapter(LabelMap).dump_python(TINY, mode="json")
    assert content["proof"] == "weights 0123456789ab at step 7" and content["protocol"].startswith("whole images")
    (row,) = content["images"]
    assert (row["name"], row["height"], row["width"], content["failed"]) == ("a", 24, 32, [])
    assert sum(row["shares"].values()) == pytest.approx(1) and set(row["shares"]) == {"sky", "road", "car"}


def test_numbers_of_boxes_come_back_as_the_float32_that_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.random(5000, np.float32) * 10 ** rng.integers(-8, 4, 5000).astype(np.float32)
    assert (np.array(json.loads(json.dumps([_number(value) for value in values])), np.float32) == values).all()
    assert _number(np.float32(0.9)) == 0.9


def test_scores_of_whole_images_are_written_in_full_and_those_of_unreadable_ones_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"photos/{name}.png", paint(ord(name), 3)[0])
    (tmp_path / "photos/b.png").write_bytes(b"no image")
    predictor = Predictor(random_backend(small_recipe("classify", tmp_path), TINY, seed=1))
    images = find_images([str(tmp_path / "photos")])
    assert len(predict(predictor, images, tmp_path / "out", ProgressLine())) == 1
    scores = np.load(tmp_path / "out/class_scores.npy")
    assert scores.dtype == np.float32 and scores.shape == (2, 3)
    for row, name in zip(scores, ("a", "c"), strict=True):
        (expected,) = predictor([read_rgb(tmp_path / f"photos/{name}.png")])
        assert (row == expected.class_scores).all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["class_scores.npy", "predictions.json"]


def test_confidence_is_written_where_it_is_asked_for(photos: Path, tmp_path: Path) -> None:
    images = find_images([str(photos / "deep")])
    for asked in (False, True):
        predict(Predictor(StubBackend()), images, tmp_path / f"{asked}", ProgressLine(), confidence=asked)
    assert not (tmp_path / "False/confidence").exists()
    confidence = np.load(tmp_path / "True/confidence/c.npy")
    assert confidence.dtype == np.float32 and confidence.shape == (5, 13)  # a quarter of 17 x 50
    assert (confidence > 0).all() and (confidence <= 1).all()


def test_an_unreadable_image_is_listed_and_the_others_are_done(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes(b"no image")
    ((path, why),) = run(find_images([str(photos)]), tmp_path / "out")
    assert path == photos / "a.png" and "a.png: not a readable image" in why
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [row["name"] for row in content["images"]] == ["b", "deep/c"]
    assert content["failed"] == [{"file": str(path), "why": why}]
    assert not (tmp_path / "out/masks/a.png").exists()


def test_when_no_image_can_be_read_the_json_still_says_so(photos: Path, tmp_path: Path) -> None:
    os.truncate(photos / "a.png", 20)
    assert len(run(find_images([str(photos / "a.png")]), tmp_path / "out")) == 1
    assert json.loads((tmp_path / "out/predictions.json").read_text())["images"] == []


def by_bands(images: dict[str, Path], out: Path) -> list[tuple[Path, str]]:
    backend = StubBackend()
    data = replace(backend.info.recipe.data, crop_size=(64, 64))
    backend.info = replace(backend.info, recipe=replace(backend.info.recipe, protocol="windows", data=data))
    return predict(Predictor(backend), images, out, ProgressLine())


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, NDArray[np.uint8], NDArray[np.uint8]]:
    """A tiled TIFF that is too large to be decoded whole, with its pixels and its train ids."""
    monkeypatch.setattr("veduta.data.bands.LARGE", 1000)
    monkeypatch.setattr("veduta.data.images.MAX_PIXELS", 1000)
    image, ids = paint(5, 3, (300, 200))
    return put(tmp_path / "wide.tif", tiled(image, (64, 48))), image, ids


def test_an_image_too_large_to_be_decoded_whole_is_read_and_its_mask_written_by_bands(
    wide: tuple[Path, NDArray[np.uint8], NDArray[np.uint8]], tmp_path: Path
) -> None:
    path, _, ids = wide
    assert by_bands({"wide": path}, tmp_path / "out") == []
    with Image.open(tmp_path / "out/masks/wide.png") as mask:
        assert mask.mode == "P" and mask.size == (200, 300)
        assert (np.asarray(mask) == TINY.decode(np.where(ids == 255, 0, ids).astype(np.uint8))).all()
    (row,) = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert (row["height"], row["width"]) == (300, 200) and sum(row["shares"].values()) == pytest.approx(1)
    ((other, why),) = run({"wide": path}, tmp_path / "whole")
    assert other == path and "more than 1,000 pixels" in why and "--set protocol=windows" in why


@pytest.mark.parametrize("windows", [False, True])
def test_overlays_of_large_images_are_smaller_and_show_the_same(
    wide: tuple[Path, NDArray[np.uint8], NDArray[np.uint8]],
    windows: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, image, ids = wide
    monkeypatch.setattr("veduta.engine.band_pictures.OVERLAY", 6700)  # a ninth, rounded up
    if windows:
        by_bands({"wide": path}, tmp_path / "out")
    else:
        monkeypatch.setattr("veduta.data.images.MAX_PIXELS", image.size)
        run({"wide": save(tmp_path / "wide.bmp", image)}, tmp_path / "out")
    seen = np.where(ids == 255, 0, ids).astype(np.uint8)[::3, ::3]
    Image.fromarray(draw_mask(image[::3, ::3], seen, TINY)).save(tmp_path / "expected.jpg", quality=92)
    assert (tmp_path / "out/overlays/wide.jpg").read_bytes() == (tmp_path / "expected.jpg").read_bytes()


def test_a_part_that_is_damaged_fails_its_image_and_leaves_no_mask(
    wide: tuple[Path, NDArray[np.uint8], NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = wide[0]
    os.truncate(path, path.stat().st_size - 100)
    good = put(tmp_path / "good.tif", tiled(wide[1], (32, 200)))
    ((failed, why),) = by_bands({"bad": path, "good": good}, tmp_path / "out")
    assert failed == path and "wide.tif" in why
    assert [file.name for file in (tmp_path / "out/masks").iterdir()] == ["good.png"]
    assert [file.name for file in (tmp_path / "out/overlays").iterdir()] == ["good.jpg"]


def test_an_output_that_exists_is_refused_and_stays_as_it_is(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists.*nothing is overwritten"):
        run(find_images([str(photos)]), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_overlay_shows_colours_over_the_photo_and_leaves_void_alone() -> None:
    image, mask = np.full((6, 9, 3), 100, np.uint8), np.zeros((6, 9), np.uint8)
    mask[:, 3:6], mask[:, 6:] = 2, 255
    before = image.copy()
    overlay = draw_mask(image, mask, TINY)
    np.testing.assert_allclose(overlay[0, 0], (1 - OPACITY) * 100 + OPACITY * np.array(TINY.classes[0].color), atol=1)
    np.testing.assert_allclose(overlay[0, 5], (1 - OPACITY) * 100 + OPACITY * np.array(TINY.classes[2].color), atol=1)
    assert (overlay[:, 7:] == 100).all() and (overlay[:, 3] < overlay[:, 4]).all()
    assert (image == before).all()


def test_boxes_are_drawn_in_their_class_colour_on_a_copy() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    drawn = draw_boxes(image, np.array([[5, 4, 25, 16]], np.float32), np.array([2]), TINY)
    assert not image.any() and drawn.shape == image.shape
    assert drawn[4, 10].tolist() == drawn[15, 10].tolist() == list(TINY.classes[2].color)
    assert not drawn[8:12, 10:20].any()


@pytest.fixture
def many(tmp_path: Path) -> dict[str, Path]:
    """Photos of several sizes, one of them unreadable."""
    for number in range(12):
        save(tmp_path / f"many/{number:02}.png", paint(number, 3, (20 + 5 * number % 17, 30 + number))[0])
    (tmp_path / "many/05.png").write_bytes(b"no image")
    return find_images([str(tmp_path / "many")])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_what_is_written_is_the_same_whether_images_are_predicted_one_by_one_or_beside_each_other(
    task: TaskName, many: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(random_backend(small_recipe(task, tmp_path), TINY, seed=1))
    failed = predict(predictor, many, tmp_path / "beside", ProgressLine(), confidence=True)
    monkeypatch.setattr("veduta.engine.predict.MOST_PIXELS", 0)
    assert predict(predictor, many, tmp_path / "one", ProgressLine(), confidence=True) == failed
    assert [path.name for path, _ in failed] == ["05.png"]
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "beside") and len(one) == (2 if task == "classify" else 1 + 3 * 11)


def test_images_are_read_and_written_in_threads_beside_the_network_which_stays_in_the_callers(
    many: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, beside = False, dict.fromkeys(("read_rgb", "write_pictures"), 0)
    plain = StubBackend.__call__

    def call(self: StubBackend, images: NDArray[Any]) -> dict[str, Any]:
        nonlocal inside
        assert threading.current_thread() is threading.main_thread()
        inside = True
        time.sleep(0.05)
        inside = False
        return plain(self, images)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            beside[name] += inside
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(StubBackend, "__call__", call)
    for name in beside:
        monkeypatch.setattr(f"veduta.engine.predict.{name}", counted(name, getattr(veduta.engine.predict, name)))
    predict(Predictor(StubBackend()), many, tmp_path / "out", ProgressLine())
    assert min(beside.values()) > 0
    rows = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [row["name"] for row in rows] == [f"{number:02}" for number in range(12) if number != 5]


def test_what_the_network_raises_ends_it_and_leaves_nothing_half_written(
    many: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, plain = count(), StubBackend.__call__

    def call(self: StubBackend, images: NDArray[Any]) -> dict[str, Any]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, images)

    monkeypatch.setattr(StubBackend, "__call__", call)
    with pytest.raises(KeyboardInterrupt):
        predict(Predictor(StubBackend()), many, tmp_path / "out", ProgressLine())
    left = [Path(name) for name in contents(tmp_path / "out")]
    assert left and not [path for path in left if path.suffix == ".tmp" or path.name == "predictions.json"]
    assert next(calls) < 9  # the rest was not begun


def test_files_written_beside_each_other_can_be_read_by_whom_the_umask_allows(
    many: dict[str, Path], tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        run(many, tmp_path / "out")
    finally:
        assert os.umask(before) == 0o027
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 23 and {path.stat().st_mode & 0o777 for path in files} == {0o640}
