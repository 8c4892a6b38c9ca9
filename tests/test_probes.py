"""Promises of probes: they come back as they were saved, say how far a backend departs, and trust no file."""

import dataclasses
import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import info_of
from model_files import random_backend
from numpy.typing import NDArray
from stub_backend import RECIPE

from veduta.backends import probes
from veduta.backends.departures import Expected, as_arrays, broken, measured, outputs_of
from veduta.backends.probes import Probe, departures, make_probes, probes_path, read_probes, save_probes, shapes_within
from veduta.data.label_maps import numbered
from veduta.model_info import Bounds, Departure, Exported
from veduta.tasks.prediction import Prediction

Array = NDArray[Any]
OPEN = Exported(format="onnx", images=(None, 3, None, None), outputs={})
LOGITS = np.random.default_rng(0).normal(size=(2, 4, 9, 11)).astype(np.float32)


def asked(found: Mapping[str, Array], expected: Mapping[str, Array]) -> list[Departure]:
    return list(measured("here", {name: Expected.of(name, array) for name, array in expected.items()}, found))


def one(found: Array, expected: Array, name: str = "mask_logits") -> Departure:
    (departure,) = asked({name: found}, {name: expected})
    return departure


def detections(*rows: tuple[float, float, float, float, int, float]) -> dict[str, Array]:
    """Of one image: xyxy, class, score."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return as_arrays(
        [Prediction(boxes=values[:, :4], box_classes=values[:, 4].astype(np.int64), box_scores=values[:, 5])]
    )


# What is measured


def test_the_same_outputs_do_not_depart() -> None:
    assert one(LOGITS.copy(), LOGITS) == Departure(case="here", output="mask_logits", largest=0.0, agreement=1.0)


def test_a_difference_is_a_share_of_the_range() -> None:
    found = LOGITS.copy()
    found[1, 2, 3, 4] += 0.01
    span = float(LOGITS.max() - LOGITS.min())
    assert one(found, LOGITS).largest == pytest.approx(0.01 / span, rel=1e-3)


def test_classes_are_compared_at_all_places_even_where_values_are_sampled() -> None:
    found = LOGITS.copy()
    found[0, :, 5, 6] = [9, -9, -9, -9] if LOGITS[0, :, 5, 6].argmax() else [-9, 9, -9, -9]
    kept = Expected.of("mask_logits", LOGITS, most=20)
    assert len(kept.values) <= 20
    (departure,) = measured("here", {"mask_logits": kept}, {"mask_logits": found})
    assert departure.agreement == pytest.approx(1 - 1 / (2 * 9 * 11))


def test_where_two_classes_are_as_good_as_equal_rounding_decides_and_nobody_is_asked() -> None:
    expected = np.zeros((1, 3, 1, 2), np.float32)
    expected[0, :, 0, 0] = [1.0, 1.0 - 1e-7, 0.0]  # a tie
    expected[0, :, 0, 1] = [1.0, 0.9, 0.0]
    other = expected.copy()
    other[0, :2, 0, 0] = [1.0 - 1e-7, 1.0]
    assert one(other, expected).agreement == 1.0
    other[0, :2, 0, 1] = [0.9, 1.0]
    assert one(other, expected).agreement == 0.0


@pytest.mark.parametrize(
    "found", [np.full_like(LOGITS, np.nan), np.full_like(LOGITS, np.inf), LOGITS[:, :, :8]], ids=["nan", "inf", "shape"]
)
def test_no_number_and_another_shape_are_infinitely_far(found: Array) -> None:
    departure = one(found, LOGITS)
    assert departure.largest == math.inf and broken(departure, Bounds(largest=1e9))


def test_outputs_that_only_a_loss_reads_are_asked_of_no_exported_file() -> None:
    info = info_of("deeplabv3plus_tiny")
    info = dataclasses.replace(info, recipe=dataclasses.replace(info.recipe, task="segment", protocol="whole"))
    logits = np.zeros((1, 3, 2, 2), np.float32)
    assert list(outputs_of(info, {"mask_logits": logits, "aux_mask_logits": logits})) == ["mask_logits"]


def test_an_output_that_is_missing_is_infinitely_far() -> None:
    (departure,) = asked({}, {"priors": LOGITS})
    assert departure.largest == math.inf


TWO = detections((10, 10, 40, 60, 1, 0.9), (50, 20, 90, 80, 2, 0.6))


@pytest.mark.parametrize(
    ("found", "shift"),
    [
        (detections((10, 10, 40, 60, 1, 0.9), (50, 20, 90, 80.25, 2, 0.6)), 0.25),
        (detections((50, 20, 90, 80, 2, 0.6), (10, 10, 40, 60, 1, 0.9)), 0.0),  # in another order
        (detections((10, 10, 40, 60, 1, 0.9), (50, 20, 90, 80, 2, 0.49)), 0.0),  # a score beside the threshold
        (detections((10, 10, 40, 60, 1, 0.9)), math.inf),  # one is missing
        (detections((10, 10, 40, 60, 1, 0.9), (20, 20, 60, 80, 2, 0.6)), 30.0),  # one is elsewhere
        (detections((10, 10, 40, 60, 1, 0.9), (50, 20, 90, 80, 1, 0.6)), math.inf),  # of another class
        (
            detections((10, 10, 40, 60, 1, 0.9), (50, 20, 90, 80, 2, 0.6), (0, 0, 9, 9, 1, 0.5)),
            51.0,
        ),  # one too many
        (detections((10, 10, 40, 60, 1, 0.9), (50, 20, 90, 80, 2, 0.6), (0, 0, 9, 9, 1, 0.4)), 0.0),  # of a low score
    ],
)
def test_boxes_are_paired_with_the_nearest_of_their_class(found: dict[str, Array], shift: float) -> None:
    (departure,) = asked(found, TWO)
    assert departure.box_shift == shift
    assert bool(broken(departure, Bounds(largest=1, box_shift=0.1))) == (shift > 0.1)


def test_the_scores_of_paired_boxes_are_compared() -> None:
    (departure,) = asked(detections((10, 10, 40, 60, 1, 0.8), (50, 20, 90, 80, 2, 0.6)), TWO)
    assert departure.largest == pytest.approx(0.1)


def test_without_boxes_nothing_is_told_of_them() -> None:
    (departure,) = asked(detections((0, 0, 9, 9, 1, 0.3)), detections())
    assert departure.box_shift is None and departure.largest == 0


@pytest.mark.parametrize(
    ("departure", "words"),
    [
        (Departure(case="c", output="o", largest=2e-3), "differs by 0.002 of its range, 0.001 is allowed"),
        (Departure(case="c", output="o", largest=math.nan), "differs by nan"),
        (Departure(case="c", output="o", largest=0, agreement=0.9998), "agrees on 99.9800 % of the places, 99.99 %"),
        (
            Departure(case="c", output="o", largest=0, box_shift=0.2),
            "a box that is 0.2 pixels from the nearest, 0.1 is allowed",
        ),
        (
            Departure(case="c", output="o", largest=0, box_shift=math.inf),
            "lacks all boxes of a class of which one scores 0.5 or more",
        ),
        (Departure(case="c", output="o", largest=1e-3, agreement=0.9999, box_shift=0.1), ""),
    ],
)
def test_what_is_beyond_a_bound_is_said(departure: Departure, words: str) -> None:
    said = broken(departure, Bounds())
    assert words in said if words else not said


# Which images


@pytest.mark.parametrize(
    ("images", "shapes"),
    [
        ((1, 3, 64, 96), [(1, 64, 96)]),
        ((None, 3, 64, 96), [(1, 64, 96), (3, 64, 96)]),
        ((2, 3, None, 47), [(2, 192, 47), (2, 128, 47), (2, 161, 47), (2, 33, 47)]),
    ],
)
def test_only_what_a_file_takes_is_shown_to_it(
    images: tuple[int | None, ...], shapes: list[tuple[int, int, int]]
) -> None:
    assert shapes_within(images) == shapes


def test_an_open_file_is_asked_for_many_sizes_and_batches() -> None:
    shapes = shapes_within(OPEN.images)
    assert {count for count, _, _ in shapes} == {1, 3} and len(shapes) == 8
    assert {(height, width) for _, height, width in shapes} == {(192, 192), (128, 256), (161, 203), (33, 47)}


# The file


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Exported]:
    """The probes of a small network, beside where its file would be; and what that file would say."""
    made = make_probes(random_backend(RECIPE, numbered(4, images=False), 0), OPEN)
    sha256 = save_probes(tmp_path / "a.probes.npz", made)
    return tmp_path / "a.onnx", dataclasses.replace(OPEN, probes_sha256=sha256)


def test_probes_come_back_and_their_network_agrees_with_them(saved: tuple[Path, Exported]) -> None:
    model, exported = saved
    back = read_probes(model, exported)
    assert [probe.images.shape for probe in back] == [
        (1, 3, 192, 192),
        (3, 3, 128, 256),
        (1, 3, 161, 203),
        (3, 3, 33, 47),
    ]
    found = list(departures(random_backend(RECIPE, numbered(4, images=False), 0), back))
    assert len(found) == 4 and not any(broken(each, Bounds()) for each in found)
    others = list(departures(random_backend(RECIPE, numbered(4, images=False), 1), back))
    assert all(broken(each, Bounds()) for each in others)


def test_the_file_of_probes_is_small_and_the_same_every_time(saved: tuple[Path, Exported], tmp_path: Path) -> None:
    path = probes_path(saved[0])
    assert path.name == "a.probes.npz" and path.stat().st_size < 3_000_000
    again = tmp_path / "again.npz"
    assert save_probes(again, read_probes(*saved)) == saved[1].probes_sha256
    assert again.read_bytes() == path.read_bytes()


def test_probes_of_a_large_fixed_size_are_small_too(tmp_path: Path) -> None:
    images = probes.street_scenes((1, 1024, 2048))
    probe = Probe("large", images, {"mask_logits": Expected.of("mask_logits", LOGITS)})
    save_probes(tmp_path / "a.npz", [probe])
    assert (tmp_path / "a.npz").stat().st_size < 3_000_000


def test_missing_probes_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.probes\.npz not found. It lies beside a\.onnx"):
        read_probes(tmp_path / "a.onnx", OPEN)


def test_probes_of_another_file_are_refused(saved: tuple[Path, Exported]) -> None:
    with pytest.raises(ValueError, match=r"a\.probes\.npz: these are not the probes of a\.onnx"):
        read_probes(saved[0], dataclasses.replace(saved[1], probes_sha256="0" * 64))
    with pytest.raises(ValueError, match="the file says nothing"):
        read_probes(saved[0], OPEN)


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The zip with other contents, whose hash the file would know: what somebody could make who means harm."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    change(entries)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return content.getvalue()


def npy(array: Array, *, pickled: bool = False) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=pickled)
    return content.getvalue()


def huge_header() -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    return content.getvalue()


HARM: dict[str, Callable[[dict[str, bytes]], None]] = {
    "objects": lambda e: e.update({"0/images.npy": npy(np.array([{}]), pickled=True)}),
    "a terabyte in the header": lambda e: e.update({"0/mask_logits.npy": huge_header()}),
    "images of other numbers": lambda e: e.update({"0/images.npy": npy(np.zeros((1, 2, 3, 3)))}),
    "no images": lambda e: e.__delitem__("0/images.npy"),
    "no list": lambda e: e.__delitem__("probes.json"),
    "a list of something else": lambda e: e.update({"probes.json": b'[{"case": 1}]'}),
    "a long list": lambda e: e.update({"probes.json": b" " * (2 << 20)}),
    "too many": lambda e: e.update({f"{number}.npy": b"" for number in range(2000)}),
}


@pytest.mark.parametrize("what", HARM)
def test_probes_that_mean_harm_are_refused(saved: tuple[Path, Exported], what: str) -> None:
    path = probes_path(saved[0])
    content = rewrite(path, HARM[what])
    path.write_bytes(content)
    exported = dataclasses.replace(saved[1], probes_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match=r"a\.probes\.npz: not readable as probes"):
        read_probes(saved[0], exported)


def test_probes_that_would_unpack_to_more_than_the_limit_are_refused(
    saved: tuple[Path, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "MOST_BYTES", 1_000_000)
    with pytest.raises(ValueError, match="1,000,000 bytes"):
        read_probes(*saved)
    monkeypatch.setattr(probes, "MOST_FILE", 1000)
    with pytest.raises(ValueError, match="the limit of probes is 1,000"):
        read_probes(*saved)


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.probes.npz").write_bytes(b"nothing")
    exported = dataclasses.replace(OPEN, probes_sha256=hashlib.sha256(b"nothing").hexdigest())
    with pytest.raises(ValueError, match="not readable as probes"):
        read_probes(tmp_path / "a.onnx", exported)
