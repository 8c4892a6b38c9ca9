"""Promises of offline inference: images prepared for another runtime, run there, score as `veduta evaluate` says."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import expect_mistake, veduta
from exported_files import write_onnx
from model_files import random_backend, write_model
from numpy.testing import assert_array_equal
from prediction_files import data_of, scored
from small_runs import small_recipe

from veduta.backends import read_info
from veduta.config import Recipe
from veduta.data.label_maps import VOC
from veduta.data.layout import FileDataset
from veduta.data.sample import SampleDataset
from veduta.engine.offline import Form, form_for, prepare, stems_of
from veduta.engine.predictions.names import Named
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.engine.score import open_predictions
from veduta.export import runner
from veduta.tasks.evaluation import Evaluation

SEED = 3
LAYOUTS = {"segment": "voc", "classify": "imagenet", "detect_segment": "voc"}


def recipe_of(task: str, root: Path, protocol: str, crop: int | None = None) -> Recipe:
    recipe = small_recipe(task, root, protocol=protocol)
    return (
        recipe
        if crop is None
        else dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, crop_size=(crop, crop)))
    )


def prepared(model: Path, dataset: SampleDataset, out: Path, form: Form = Form()) -> Path:  # noqa: B008  # frozen
    info = read_info(model)
    prepare(info, dataset, out, form=form_for(info, form), data="it", split="val", line=ProgressLine(silent=True))
    return out


def run(model: Path, images: Path, out: Path, *options: str) -> Path:
    command = [sys.executable, runner.__file__, model, images, out, "--threads", "1", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def evaluated(recipe: Recipe, dataset: FileDataset[Any]) -> Evaluation:
    return scored(Predictor(random_backend(recipe, dataset.labels, SEED)), dataset)


def expect_same_score(found: Evaluation, expected: Evaluation) -> None:
    """What is printed is the same, digit for digit."""
    assert found.headline().split("(")[0] == expected.headline().split("(")[0]
    assert found.per_image == expected.per_image
    assert found.protocol == expected.protocol


CHAINS = [
    ("segment", "whole", None, Form(), ["--form", "msame"]),
    ("segment", "whole", None, Form(dtype="uint8", layout="nhwc"), ["--form", "npy"]),
    ("segment", "mirrored", None, Form(), ["--form", "310"]),
    ("segment", "mirrored", None, Form(), ["--form", "npy"]),
    ("segment", "deeplab", 65, Form(layout="nhwc"), ["--form", "msame", "--text"]),
    ("segment", "refinenet", 65, Form(), ["--form", "310"]),
    ("segment", "refinenet", 65, Form(dtype="uint8"), ["--form", "msame"]),
    ("classify", "resnest-mindspore", None, Form(), ["--form", "310"]),
    ("classify", "resnest", 64, Form(dtype="uint8", layout="nhwc"), ["--form", "msame"]),
    ("classify", "mirrored", None, Form(), ["--form", "msame"]),
    ("detect_segment", "blitznet-voc12", None, Form(), ["--form", "msame"]),
    ("detect_segment", "blitznet-voc12", None, Form(), ["--form", "npy"]),
]


@pytest.mark.parametrize(("task", "protocol", "crop", "form", "options"), CHAINS)
def test_a_split_that_ran_elsewhere_scores_as_evaluated(
    tmp_path: Path, task: str, protocol: str, crop: int | None, form: Form, options: list[str]
) -> None:
    dataset = data_of(LAYOUTS[task], tmp_path / "data")
    recipe = recipe_of(task, tmp_path, protocol, crop)
    model = write_model(tmp_path / "model.safetensors", recipe, dataset.labels, SEED)
    images = prepared(model, dataset, tmp_path / "prepared", form)
    network = write_onnx(tmp_path / "model.onnx", recipe, dataset.labels, SEED)
    outputs = run(network, images, tmp_path / "outputs", *options)
    found = scored(open_predictions(outputs, dataset=dataset, model=model), dataset)
    expect_same_score(found, evaluated(recipe, dataset))


@pytest.mark.parametrize(
    ("protocol", "crop"), [("whole", None), ("mirrored", None), ("deeplab", 65), ("deeplab", 33), ("refinenet", 65)]
)
def test_what_is_prepared_is_what_the_network_is_shown(tmp_path: Path, protocol: str, crop: int | None) -> None:
    dataset = data_of("voc", tmp_path / "data")
    recipe = recipe_of("segment", tmp_path, protocol, crop)
    backend = random_backend(recipe, dataset.labels, SEED)
    shown: list[Any] = []

    class Watched:
        info, runtime, device = backend.info, backend.runtime, backend.device

        def __call__(self, images: Any) -> Any:
            shown.append(np.asarray(images))
            return backend(images)

    model = write_model(tmp_path / "model.safetensors", recipe, dataset.labels, SEED)
    folder = prepared(model, dataset, tmp_path / "prepared", Form(dtype="uint8"))
    for index, row in enumerate(rows(folder)):
        shown.clear()
        Predictor(Watched()).predict([dataset[index]])
        files = [folder / row[key] for key in ("file", "mirrored_file") if row[key]]
        assert len(files) == len(shown)
        for file, images in zip(files, shown, strict=True):
            assert_array_equal(np.fromfile(file, np.uint8).reshape(images.shape), images)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_published_inputs_have_their_sizes(tmp_path: Path) -> None:
    """Of ResNeSt's, RefineNet's and BlitzNet's runs on Ascend 310."""
    for task, protocol, crop, form, expected in [
        ("classify", "resnest-mindspore", None, Form(), 3 * 256 * 256 * 4),
        ("segment", "refinenet", 513, Form(), 3 * 513 * 513 * 4),
        ("segment", "deeplab", 513, Form(dtype="uint8"), 3 * 513 * 513),
        ("detect_segment", "blitznet-voc12", None, Form(layout="nhwc", size=(300, 300)), 1_080_000),
    ]:
        dataset = data_of(LAYOUTS[task], tmp_path / protocol / "data")
        recipe = recipe_of(task, tmp_path, protocol, crop)
        model = write_model(tmp_path / protocol / "model.safetensors", recipe, dataset.labels, SEED)
        folder = prepared(model, dataset, tmp_path / protocol / "prepared", form)
        files = [folder / row["file"] for row in rows(folder)]
        assert len(files) == len(dataset) and {file.stat().st_size for file in files} == {expected}
        if protocol == "refinenet":
            assert all((folder / row["mirrored_file"]).stat().st_size == expected for row in rows(folder))


def test_the_list_and_the_settings_say_what_there_is(tmp_path: Path) -> None:
    dataset = data_of("imagenet", tmp_path / "data")
    recipe = recipe_of("classify", tmp_path, "resnest-mindspore")
    model = write_model(tmp_path / "model.safetensors", recipe, dataset.labels, SEED)
    folder = prepared(model, dataset, tmp_path / "prepared", Form(dtype="uint8", layout="nhwc"))
    assert (folder / "labels.txt").read_text().splitlines() == list(dataset.labels.names)
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["size"], settings["dtype"], settings["layout"]) == ([256, 256], "uint8", "nhwc")
    assert (settings["protocol"], settings["mirrored"], settings["images"]) == (
        "resnest-mindspore",
        False,
        len(dataset),
    )
    for index, row in enumerate(rows(folder)):
        sample = dataset[index]
        assert (row["name"], int(row["class"])) == (sample.name, sample.scene_class)
        assert row["class_name"] == dataset.labels.names[int(row["class"])]
        assert (int(row["height"]), int(row["width"])) == sample.image.shape[:2]


@pytest.mark.parametrize("protocol", ["windows", "encoding", "encoding-multiscale", "refinenet-multiscale"])
def test_protocols_of_several_looks_are_refused(tmp_path: Path, protocol: str) -> None:
    dataset = data_of("voc", tmp_path / "data")
    recipe = recipe_of("segment", tmp_path, protocol, 65)
    model = write_model(tmp_path / "model.safetensors", recipe, dataset.labels, SEED)
    with pytest.raises(ValueError, match=rf"protocol '{protocol}' shows the network windows or several sizes"):
        prepared(model, dataset, tmp_path / "prepared")


def test_sizes_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    recipe = recipe_of("segment", tmp_path, "whole")
    model = write_model(tmp_path / "model.safetensors", recipe, dataset.labels, SEED)
    out = tmp_path / "prepared"
    with pytest.raises(ValueError, match=r"2009_000001: protocol 'whole' shows it in .*, and the network takes 65x65"):
        prepared(model, dataset, out, Form(size=(65, 65)))
    info = random_backend(recipe_of("segment", tmp_path, "refinenet", 65), dataset.labels, SEED).info
    with pytest.raises(ValueError, match=r"protocol 'refinenet' shows 65x65, not 33x33"):
        form_for(info, Form(size=(33, 33)))
    info = random_backend(recipe_of("detect_segment", tmp_path, "whole"), dataset.labels, SEED).info
    with pytest.raises(ValueError, match=r"--size 64x32: BlitzNet sees squares"):
        form_for(info, Form(size=(64, 32)))
    out.mkdir()
    with pytest.raises(FileExistsError, match="prepared exists; nothing is overwritten"):
        prepared(model, dataset, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model.safetensors", "prepared"]


def test_an_image_that_cannot_be_read_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    model = write_model(tmp_path / "model.safetensors", recipe_of("segment", tmp_path, "whole"), dataset.labels, SEED)
    dataset.record(1).image.path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"(?s)2009_000002.*Nothing was written"):
        prepared(model, dataset, tmp_path / "prepared")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model.safetensors"]


def named(*names: str) -> list[Named]:
    return [Named(name, (tuple(name.split("/")),)) for name in names]


def test_files_lie_flat_where_names_allow_it() -> None:
    assert stems_of(named("a/1", "b/2.5"), VOC) == {"a/1": "1", "b/2.5": "2.5"}
    assert stems_of(named("a/1", "b/1"), VOC) == {"a/1": "a/1", "b/1": "b/1"}
    assert stems_of(named("a/x", "b/X"), VOC) == {"a/x": "a/x", "b/X": "b/X"}


@pytest.mark.parametrize("name", ["../x", "/x", "a/.x", "", "x" * 201, "x_Flip"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a file|mirror images are known by"):
        stems_of(named("a", name), VOC)


def test_a_flat_name_that_is_another_image_keeps_its_folders() -> None:
    mixed = [Named("a/1", (("a", "1"),)), Named("2", (("2",), ("pictures", "1")))]
    with pytest.raises(ValueError, match="1 may belong to|would be mixed up"):
        stems_of(mixed, VOC)


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    model = write_model(tmp_path / "a model.safetensors", recipe_of("segment", tmp_path, "whole"), dataset.labels, SEED)
    options: list[str | Path] = ["--data", tmp_path / "data", "--split", "val", "--out"]
    done = veduta("offline", "prepare", model, *options, tmp_path / "one", "--set", "protocol=mirrored")
    assert done.returncode == 0, done.stderr
    assert "2 images and their mirror images in" in done.stdout and "float32 nchw" in done.stdout
    assert f"veduta score OUTPUTS --model '{model}'" in done.stdout and "--set protocol=mirrored" in done.stdout
    expect_mistake(veduta("offline", "prepare", model, *options, tmp_path / "one"), "exists; nothing is overwritten")
    expect_mistake(
        veduta("offline", "prepare", model, *options, tmp_path / "two", "--size", "5x"),
        "--size 5x: expected HEIGHTxWIDTH",
    )


def test_no_runtime_is_chosen_to_prepare_for_another_one(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    network = write_onnx(tmp_path / "model.onnx", recipe_of("segment", tmp_path, "whole"), dataset.labels, SEED)
    done = veduta("offline", "prepare", network, "--data", tmp_path / "data", "--out", tmp_path / "prepared")
    assert done.returncode == 0 and "runs in" not in done.stderr, done.stderr


def test_the_runner_says_what_does_not_fit(tmp_path: Path) -> None:
    dataset = data_of("voc", tmp_path / "data")
    model = write_onnx(tmp_path / "m.onnx", recipe_of("segment", tmp_path, "whole"), dataset.labels, SEED)
    (tmp_path / "images").mkdir()
    np.zeros(3 * 5 * 7, np.uint8).tofile(tmp_path / "images/x.bin")
    options = ["--dtype", "uint8", "--layout", "nhwc", "--size"]
    out = run(model, tmp_path / "images", tmp_path / "out", *options, "5x7")
    assert (out / "x_output_0.bin").stat().st_size == 21 * 5 * 7 * 4
    for arguments, words in [
        ([*options, "5x8"], r"x.bin: 105 numbers, expected 1 x 5 x 8 x 3 of uint8"),
        ([], "its size is not known. Give --size"),
    ]:
        command = [sys.executable, runner.__file__, model, tmp_path / "images", tmp_path / "out 2", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 1 and words in done.stderr
    assert len(Path(runner.__file__).read_text().splitlines()) <= 150
