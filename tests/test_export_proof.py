"""Promises of a proof: every size that a file takes, odd image files, photos of the data; and a table that says it."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import random_backend
from numpy.typing import NDArray
from PIL import Image
from stub_backend import RECIPE

from veduta.backends.torch import TorchBackend
from veduta.data.images import read_header, read_rgb
from veduta.data.label_maps import numbered
from veduta.data.stored import Stored
from veduta.export.proof import awkward_files, prove
from veduta.export.table import first_broken, headline, table, to_rows
from veduta.model_info import Bounds, Departure, Exported

LABELS = numbered(4, images=False)
OPEN = Exported(format="onnx", images=(None, 3, None, None), outputs={})
Change = Callable[[str, NDArray[Any]], NDArray[Any]]


class Runtime:
    """Says what a network says, in arrays, but for a change. shapes: of all that it was shown."""

    runtime, device = "a stub", "cpu"

    def __init__(self, network: TorchBackend, exported: Exported, change: Change = lambda name, array: array) -> None:
        self.network, self.change = network, change
        self.info = dataclasses.replace(network.info, exported=exported)
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        self.shapes.append(images.shape)
        return {name: self.change(name, output.numpy()) for name, output in self.network(images).items()}


def proof(runtime: Runtime, photos: list[tuple[str, NDArray[np.uint8]]] | None = None) -> list[Departure]:
    return list(prove(runtime.network, runtime, photos or [], lambda case: None))


@pytest.mark.parametrize(
    ("model", "task", "outputs"),
    [
        ("deeplabv3plus_tiny", "segment", {"mask_logits", "mask"}),
        ("resnest_tiny", "classify", {"class_logits", "class_scores", "top_classes", "top_scores"}),
        ("blitznet_tiny", "detect_segment", {"class_logits", "box_deltas", "priors", "mask_logits", "boxes", "mask"}),
    ],
)
def test_a_runtime_that_says_the_same_departs_nowhere(model: str, task: str, outputs: set[str]) -> None:
    """Of detectors both roads from numbers to boxes are gone, that of tensors and that of arrays."""
    recipe = dataclasses.replace(RECIPE, model=model, task=task)  # type: ignore[arg-type]
    found = proof(Runtime(random_backend(recipe, LABELS, 0), OPEN))
    assert {departure.output for departure in found} - {"aux_mask_logits"} == outputs
    assert not first_broken(found, Bounds(largest=1e-6))


def test_all_sizes_and_batches_are_shown_and_the_photos_at_their_own() -> None:
    runtime = Runtime(random_backend(RECIPE, LABELS, 0), OPEN)
    photo = np.zeros((50, 70, 3), np.uint8)
    cases = [departure.case for departure in proof(runtime, [("a photo", photo)])]
    assert "161 x 203, batch 3" in cases and "33 x 47, batch 1" in cases and "a photo" in cases
    assert (3, 3, 161, 203) in runtime.shapes and (1, 3, 50, 70) in runtime.shapes


def test_a_file_of_one_shape_is_shown_nothing_else() -> None:
    exported = dataclasses.replace(OPEN, images=(2, 3, 40, 56))
    runtime = Runtime(random_backend(RECIPE, LABELS, 0), exported)
    assert not first_broken(proof(runtime, [("a photo", np.zeros((50, 70, 3), np.uint8))]), Bounds())
    assert set(runtime.shapes) == {(2, 3, 40, 56)}


def test_one_wrong_pixel_of_one_case_is_found() -> None:
    def change(name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.shape[-2:] == (33, 47) and len(array) == 3:
            array = array.copy()
            array[2, 1, 30, 40] += 0.1 * (array.max() - array.min())
        return array

    found = proof(Runtime(random_backend(RECIPE, LABELS, 0), OPEN, change))
    why = first_broken(found, Bounds())
    assert why.startswith("on 33 x 47, batch 3 output mask_logits differs by 0.1 of its range, 0.001 is allowed")


def test_awkward_files_are_what_they_are_called_and_show_one_picture(tmp_path: Path) -> None:
    files = dict(awkward_files(tmp_path, OPEN))
    headers = {name: read_header(Stored(path)) for name, path in files.items()}
    assert [header.size for header in headers.values()] == [(96, 131)] * 5
    assert (headers["grey JPEG"].format, headers["grey JPEG"].mode) == ("JPEG", "L")
    assert (headers["CMYK JPEG"].format, headers["CMYK JPEG"].mode) == ("JPEG", "CMYK")
    assert headers["JPEG turned by EXIF"].orientation == 6
    assert (headers["PNG of 16 bits"].format, headers["PNG of 16 bits"].bits) == ("PNG", 16)
    assert headers["PNG with alpha"].mode == "RGBA"
    photo = read_rgb(files["PNG of 16 bits"]).astype(int)
    assert np.abs(read_rgb(files["JPEG turned by EXIF"]) - photo).mean() < 8
    grey = np.asarray(Image.fromarray(photo.astype(np.uint8)).convert("L"), int)
    assert np.abs(read_rgb(files["grey JPEG"])[..., 0] - grey).mean() < 4


def test_awkward_files_have_the_size_that_a_file_takes(tmp_path: Path) -> None:
    files = dict(awkward_files(tmp_path, dataclasses.replace(OPEN, images=(None, 3, 64, 80))))
    assert {read_rgb(path).shape for path in files.values()} == {(64, 80, 3)}


# The table

FOUND = (
    Departure(case="one", output="class_logits", largest=1e-6, agreement=1.0),
    Departure(case="one", output="boxes", largest=2e-5, box_shift=0.01),
    Departure(case="two", output="mask", largest=0.0, agreement=0.999999999),
)


def test_the_table_has_a_line_for_each_case_with_the_worst_of_its_outputs() -> None:
    _, one, two = table(FOUND).splitlines()
    assert one.split() == ["one", "boxes", "2.0e-05", "100.0000", "%", "0.0100"]
    assert two.split() == ["two", "mask", "0", "99.9999", "%"]  # not all, so never 100
    assert table([dataclasses.replace(FOUND[2], agreement=1.0)]).split()[-4:] == ["nothing", "0", "100.0000", "%"]


def test_the_headline_tells_the_worst_of_all_cases() -> None:
    assert headline(FOUND, Bounds()) == (
        "compared in 2 cases: outputs differ by 2.0e-05 of their range at most (boxes; 0.001 is allowed); "
        "the class is the same in 99.9999 % of the places or more; boxes are 0.0100 pixels apart at most"
    )


def test_the_first_broken_bound_is_named_and_the_others_are_counted() -> None:
    bad = [dataclasses.replace(each, largest=0.5) for each in FOUND]
    assert first_broken(bad, Bounds()) == (
        "on one output class_logits differs by 0.5 of its range, 0.001 is allowed (2 more rows of the table, too)"
    )
    assert first_broken(FOUND, Bounds()) == ""


def test_rows_for_machines_have_no_infinities() -> None:
    (row,) = to_rows([Departure(case="one", output="boxes", largest=math.inf, box_shift=math.inf)])
    assert row == {"case": "one", "output": "boxes", "largest": None, "agreement": None, "box_shift": None}
