"""Promises of raw outputs: what another runtime wrote is scored as if the network had run here."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import random_backend, write_model
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from small_runs import small_recipe
from torch import Tensor
from writers import imagenet, voc

from veduta.backends.torch import TorchBackend
from veduta.config import Recipe
from veduta.data import open_layout
from veduta.data.batch import to_unit_range
from veduta.data.fit import stack
from veduta.data.layout import FileDataset
from veduta.engine.evaluate import evaluate
from veduta.engine.predictions.skeleton import skeleton_of
from veduta.engine.predictions.tensor_files import read_tensor
from veduta.engine.predictor import Predictor
from veduta.engine.score import open_predictions
from veduta.engine.sources import Source
from veduta.errors import BadPrediction
from veduta.model_info import Exported
from veduta.models.blitznet import BlitzNet
from veduta.tasks.evaluation import Evaluation

Array = NDArray[Any]
Write = Callable[[Path, Array], object]

WRITERS: dict[str, Write] = {
    ".bin": lambda path, values: values.astype("<f4").tofile(path),
    ".npy": lambda path, values: np.save(path, values),
    ".txt": lambda path, values: path.write_text(" \n".join(map(str, values.reshape(-1).tolist()))),
}


class Recorder:
    """A backend that keeps what it gives."""

    def __init__(self, backend: TorchBackend) -> None:
        self.info, self.runtime, self.device, self.backend = backend.info, backend.runtime, backend.device, backend
        self.calls: list[dict[str, Array]] = []

    def __call__(self, images: Array) -> dict[str, Tensor]:
        outputs = self.backend(images)
        self.calls.append({name: tensor.numpy() for name, tensor in outputs.items() if name != "priors"})
        return outputs


def data_of(task: str, root: Path) -> FileDataset[Any]:
    return (
        open_layout("imagenet", imagenet.write(root), "val")
        if task == "classify"
        else open_layout("voc", voc.write(root), "val")
    )


def scored(source: Source, dataset: FileDataset[Any]) -> Evaluation:
    return evaluate(source, dataset, name="it", split="val", batch_size=1, full=False)


def recorded(
    recipe: Recipe, dataset: FileDataset[Any], folder: Path, ending: str, name: str = "{image}_output_{number}"
) -> tuple[Evaluation, Path]:
    """The score of a network, whose outputs are written into a folder; and its model file."""
    recorder = Recorder(random_backend(recipe, dataset.labels, seed=3))
    predictor = Predictor(recorder)
    folder.mkdir()
    for index in range(len(dataset)):
        recorder.calls.clear()
        sample = dataset[index]
        predictor.predict([sample])
        for call, mirrored in zip(recorder.calls, ("", "_Flip"), strict=False):
            for number, (output, values) in enumerate(call.items()):
                image = sample.name.split("/")[-1]
                path = folder / f"{name.format(image=image, number=number, output=output)}{mirrored}{ending}"
                WRITERS[ending](path, values)
    model = write_model(folder.with_suffix(".safetensors"), recipe, dataset.labels, seed=3)
    return scored(predictor, dataset), model


@pytest.mark.parametrize("task", ["segment", "classify", "detect_segment"])
@pytest.mark.parametrize("ending", WRITERS)
def test_raw_outputs_score_as_their_network(tmp_path: Path, task: str, ending: str) -> None:
    dataset = data_of(task, tmp_path / "data")
    expected, model = recorded(small_recipe(task, tmp_path), dataset, tmp_path / "outputs", ending)
    source = open_predictions(tmp_path / "outputs", dataset=dataset, model=model)
    evaluation = scored(source, dataset)
    assert evaluation.scores.overall == expected.scores.overall
    assert evaluation.per_image == expected.per_image
    assert (evaluation.protocol, evaluation.rules) == (expected.protocol, expected.rules)
    assert f"raw outputs of outputs for {small_recipe(task, tmp_path).model}, sha256" in source.proof


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("{image}_{number}", "detect_segment"),
        ("{image}_{output}", "detect_segment"),
        ("{image}", "segment"),
        ("{image}_0", "classify"),
        ("{image}_output_0", "classify"),
    ],
)
def test_files_may_be_named_as_several_runtimes_name_them(tmp_path: Path, name: str, task: str) -> None:
    dataset = data_of(task, tmp_path / "data")
    expected, model = recorded(small_recipe(task, tmp_path), dataset, tmp_path / "outputs", ".bin", name)
    (tmp_path / "outputs/time.txt").write_text("NN inference cost average time: 3 ms of infer_count 2")
    folder = tmp_path / "outputs"
    if task != "classify":  # whose names have folders of their own
        folder = tmp_path / "deep"
        folder.mkdir()
        (tmp_path / "outputs").rename(folder / "20210304_120000")  # as some of them make
    source = open_predictions(folder, dataset=dataset, model=model)
    assert scored(source, dataset).per_image == expected.per_image


def test_outputs_that_are_there_twice_under_two_names_are_refused(tmp_path: Path) -> None:
    dataset = data_of("segment", tmp_path / "data")
    recipe = small_recipe("segment", tmp_path)
    _, model = recorded(recipe, dataset, tmp_path / "outputs", ".bin")
    first = next((tmp_path / "outputs").glob("*_output_0.bin"))
    np.save(first.with_name(first.name.replace("_output_0.bin", ".npy")), np.zeros(3, np.float32))
    with pytest.raises(BadPrediction, match=r"\.npy and .*_output_0\.bin are both outputs for"):
        open_predictions(tmp_path / "outputs", dataset=dataset, model=model)


def test_images_whose_names_end_in_numbers_are_not_taken_for_outputs(tmp_path: Path) -> None:
    root = imagenet.write(tmp_path / "data")
    for number, path in enumerate(sorted(root.glob("val/*/*.JPEG"))):
        path.rename(path.with_name(f"x_{number}.JPEG"))
    dataset = open_layout("imagenet", root, "val")
    expected, model = recorded(small_recipe("classify", tmp_path), dataset, tmp_path / "outputs", ".npy", "{image}")
    source = open_predictions(tmp_path / "outputs", dataset=dataset, model=model)
    assert scored(source, dataset).per_image == expected.per_image


def test_outputs_of_the_mirror_image_are_read_by_the_protocol_that_averages_them(tmp_path: Path) -> None:
    """MindSpore's RefineNet: NAME_0.bin and NAME_0_Flip.bin of padded squares."""
    dataset = data_of("segment", tmp_path / "data")
    recipe = dataclasses.replace(small_recipe("segment", tmp_path), model="refinenet_tiny", protocol="refinenet")
    expected, model = recorded(recipe, dataset, tmp_path / "outputs", ".bin", "{image}_{number}")
    assert len(list((tmp_path / "outputs").glob("*_0_Flip.bin"))) == 2
    source = open_predictions(tmp_path / "outputs", dataset=dataset, model=model)
    evaluation = scored(source, dataset)
    assert evaluation.scores.overall == expected.scores.overall and "mirror" in evaluation.protocol
    for path in (tmp_path / "outputs").glob("*_Flip.bin"):
        path.unlink()
    with pytest.raises(
        BadPrediction, match=r"protocol refinenet runs the network more often than its outputs are there"
    ):
        scored(open_predictions(tmp_path / "outputs", dataset=dataset, model=model), dataset)


def test_outputs_of_the_mirror_image_that_nobody_looks_at_are_refused(tmp_path: Path) -> None:
    dataset = data_of("segment", tmp_path / "data")
    recipe = dataclasses.replace(small_recipe("segment", tmp_path), protocol="mirrored")
    _, model = recorded(recipe, dataset, tmp_path / "outputs", ".bin")
    source = open_predictions(tmp_path / "outputs", dataset=dataset, model=model, changes=["protocol=whole"])
    with pytest.raises(BadPrediction, match=r"2009_000001 has outputs of its mirror image .* protocol whole does not"):
        scored(source, dataset)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("ending", [".txt", ".npy"])
def test_blitznets_masks_may_come_on_its_own_grid(tmp_path: Path, channels_last: bool, ending: str) -> None:
    """As the TensorFlow graph gives them: class logits, box deltas, and mask logits (1, h, w, classes)."""
    dataset = data_of("detect_segment", tmp_path / "data")
    recipe = small_recipe("detect_segment", tmp_path)
    expected, model = recorded(recipe, dataset, tmp_path / "outputs", ending)
    backend = random_backend(recipe, dataset.labels, seed=3)
    network = backend.model
    assert isinstance(network, BlitzNet)
    for index in range(len(dataset)):
        sample = dataset[index]
        images = torch.from_numpy(stack([sample.image]))
        with torch.inference_mode():
            grid = network.grid_mask_logits(network.pyramid(to_unit_range(images, backend.device)))
        values = (grid.permute(0, 2, 3, 1) if channels_last else grid).contiguous().numpy()
        assert values.size == 32 * 32 * 21
        WRITERS[ending](tmp_path / f"outputs/{sample.name}_output_2{ending}", values)
    told = channels_last and ending == ".txt"  # a .npy says it itself
    source = open_predictions(tmp_path / "outputs", dataset=dataset, model=model, channels_last=told)
    assert scored(source, dataset).per_image == expected.per_image


def test_outputs_in_another_order_are_named(tmp_path: Path) -> None:
    dataset = data_of("detect_segment", tmp_path / "data")
    expected, model = recorded(small_recipe("detect_segment", tmp_path), dataset, tmp_path / "outputs", ".bin")
    for path in (tmp_path / "outputs").glob("*_output_0.bin"):
        path.rename(path.with_name(path.name.replace("_0.bin", "_4.bin")))
    with pytest.raises(
        BadPrediction, match=r"5 outputs for each image; the network gives class_logits, box_deltas, mask"
    ):
        open_predictions(tmp_path / "outputs", dataset=dataset, model=model)
    order = ("unused", "box_deltas", "mask_logits", "priors", "class_logits")
    source = open_predictions(tmp_path / "outputs", dataset=dataset, model=model, outputs=order)
    assert scored(source, dataset).per_image == expected.per_image


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    dataset = data_of("detect_segment", tmp_path / "data")
    _, model = recorded(small_recipe("detect_segment", tmp_path), dataset, tmp_path / "outputs", ".bin")
    (tmp_path / "outputs/2009_000002_output_1.bin").unlink()
    with pytest.raises(BadPrediction, match=r"outputs, 2009_000002: no file of box_deltas"):
        open_predictions(tmp_path / "outputs", dataset=dataset, model=model)
    for path in (tmp_path / "outputs").glob("2009_000002*"):
        path.unlink()
    with pytest.raises(BadPrediction, match=r"1 of 2 images of the split have no prediction: 2009_000002"):
        open_predictions(tmp_path / "outputs", dataset=dataset, model=model)
    with pytest.raises(ValueError, match=r"outputs holds raw outputs\. --model FILE says what they mean"):
        open_predictions(tmp_path / "outputs", dataset=dataset)
    for path in (tmp_path / "outputs").glob("*"):
        path.rename(path.with_name(f"image{path.name}"))
    with pytest.raises(BadPrediction, match=r"none of 3 files .* is named after an image.*2009_000001_output_0\.bin"):
        open_predictions(tmp_path / "outputs", dataset=dataset, model=model)


def test_outputs_that_were_decoded_in_an_exported_file_are_no_raw_ones(tmp_path: Path) -> None:
    backend = random_backend(small_recipe("segment", tmp_path), data_of("segment", tmp_path / "data").labels, seed=3)
    exported = Exported(format="onnx", full=True, images=(None, 3, None, None), outputs={"mask": (None, None, None)})
    backend.info = dataclasses.replace(backend.info, exported=exported)
    with pytest.raises(
        ValueError, match=r"exported with --full and gives mask; .* exported without it, or write masks"
    ):
        skeleton_of(backend)


# One file


SHAPE = (1, 3, 4, 5)
VALUES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def read(path: Path, *, channels_last: bool = False) -> Array:
    values: Array = read_tensor(path, "mask_logits", [SHAPE, (1, 3, 2, 2)], channels_last=channels_last)
    return values


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_gives_its_numbers_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    WRITERS[ending](path, VALUES)
    assert_array_equal(read(path), VALUES)
    WRITERS[ending](path, VALUES[..., :2, :2])
    assert_array_equal(read(path), VALUES[..., :2, :2])
    WRITERS[ending](path, np.moveaxis(VALUES, 1, -1))
    assert_array_equal(read(path, channels_last=True), VALUES)


def test_half_precision_is_known_by_the_size_of_the_file(tmp_path: Path) -> None:
    half = VALUES.astype("<f2")
    half.tofile(tmp_path / "x.bin")
    np.save(tmp_path / "x.npy", half)
    for name in ("x.bin", "x.npy"):
        assert_array_equal(read(tmp_path / name), half.astype(np.float32))


def test_where_both_precisions_fit_some_shape_a_bin_holds_float32(tmp_path: Path) -> None:
    VALUES.tofile(tmp_path / "x.bin")
    larger = (1, 3, 8, 5)  # of which a file of half precision has as many bytes
    assert_array_equal(read_tensor(tmp_path / "x.bin", "mask_logits", [larger, SHAPE], channels_last=False), VALUES)


def test_a_npy_says_its_shape(tmp_path: Path) -> None:
    for values in (VALUES[0], VALUES.reshape(-1), np.moveaxis(VALUES, 1, -1), np.moveaxis(VALUES, 1, -1)[0]):
        np.save(tmp_path / "x.npy", values)
        assert_array_equal(read(tmp_path / "x.npy"), VALUES)
    np.save(tmp_path / "x.npy", VALUES.reshape(1, 3, 5, 4))
    with pytest.raises(
        ValueError, match=r"its shape is \(1, 3, 5, 4\); expected of mask_logits 60 numbers, 1 x 3 x 4 x 5"
    ):
        read(tmp_path / "x.npy")


def test_a_file_of_another_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "x.bin").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no space
    with pytest.raises(ValueError, match=r"x\.bin: 1,099,511,627,776 bytes; expected 240 \(1 x 3 x 4 x 5\) or 48 "):
        read(tmp_path / "x.bin")
    (tmp_path / "x.bin").rename(tmp_path / "x.txt")
    with pytest.raises(ValueError, match=r"x\.txt: 1,099,511,627,776 bytes; 60 numbers fit into 1,920"):
        read(tmp_path / "x.txt")
    (tmp_path / "y.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"y\.txt: 3 numbers, .*expected of mask_logits 60 numbers"):
        read(tmp_path / "y.txt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (" ".join(["1"] * 59 + ["one"]), "not all of it are numbers"),
        (" ".join(["1"] * 59 + ["nan"]), "1 of its numbers are not finite"),
        (" ".join(["1"] * 59 + ["1e999"]), "1 of its numbers are not finite"),
    ],
)
def test_a_text_that_holds_more_than_numbers_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "x.txt")


def test_a_npy_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}] * 60, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x\.npy: not a readable \.npy file"):
        read(tmp_path / "x.npy")
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, VALUES)
    with pytest.raises(ValueError, match=r"x\.npy: not a readable \.npy file"):
        read(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros(SHAPE, np.int64))
    with pytest.raises(ValueError, match=r"numbers of type int64, expected float32"):
        read(tmp_path / "x.npy")
