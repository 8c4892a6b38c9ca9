"""Promises of `veduta bench`: every runtime in a process of its own, figures that hold together, mistakes refused."""

import csv
import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
from command import expect_mistake, veduta
from exported_files import write_onnx
from layouts import TINY
from model_files import write_model
from PIL import Image
from small_runs import small_recipe

from veduta.backends.runtime import installed
from veduta.engine.bench import Bench, Point, bench
from veduta.engine.bench_curve import draw_bench
from veduta.engine.bench_process import peak_memory
from veduta.engine.progress import ProgressLine

POINT = Point(
    file="a.onnx",
    runtime="ONNX Runtime 1.0",
    precision="fp32",
    height=64,
    width=96,
    batch_size=1,
    calls=10,
    p50_ms=20.0,
    p95_ms=30.0,
    images_per_second=50.0,
    peak_mib=100.0,
    load_seconds=0.5,
    file_mib=1.5,
    parameters=1234,
    gmacs=0.25,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One network as weights and as ONNX."""
    folder = tmp_path_factory.mktemp("models")
    recipe = small_recipe("segment", folder)
    return write_model(folder / "m.safetensors", recipe, TINY, 1), write_onnx(folder / "m.onnx", recipe, TINY, 1)


def test_every_runtime_of_every_file_is_measured_and_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    targets = [f"--{kind}={tmp_path / f'bench.{kind}'}" for kind in ("csv", "json")]
    result = veduta("bench", *files, "--size", "48x64", "--batch", "1,2", *targets, f"--plot={tmp_path / 'bench.png'}")
    assert result.returncode == 0, result.stderr
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    runtimes = ["PyTorch", "ONNX Runtime", *(["OpenVINO"] if installed("openvino") else [])]
    expected = [(name, str(batch)) for name in runtimes for batch in (1, 2)]
    assert [(row["runtime"].rpartition(" ")[0], row["batch_size"]) for row in rows] == expected
    content = json.loads((tmp_path / "bench.json").read_text())
    assert len(content["points"]) == len(rows) and content["failed"] == []
    assert content["machine"]["cpu"] and "Veduta" in content["machine"]["software"]
    for row in rows:
        assert (row["height"], row["width"], row["cpu"]) == ("48", "64", content["machine"]["cpu"])
        assert 0 < float(row["p50_ms"]) <= float(row["p95_ms"]) and float(row["images_per_second"]) > 0
        assert int(row["parameters"]) > 10_000 and float(row["gmacs"]) > 0
        assert row["runtime"].rpartition(" ")[0] in result.stdout
    torch_peak = max(float(row["peak_mib"]) for row in rows if row["runtime"].startswith("PyTorch"))
    onnx_peak = max(float(row["peak_mib"]) for row in rows if row["runtime"].startswith("ONNX"))
    assert 20 < onnx_peak < torch_peak  # a process that never imported PyTorch
    with Image.open(tmp_path / "bench.png") as picture:
        assert picture.width > 400


def test_a_file_for_one_batch_size_is_measured_with_that_one(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "fixed.onnx", small_recipe("segment", tmp_path), TINY, 1, (1, 3, 32, 48))
    run = partial(bench, [path], ProgressLine(), backend="onnx", device="auto", size=None)
    found = run(batch_sizes=(1, 2))
    assert [(point.batch_size, point.height, point.width) for point in found.points] == [(1, 32, 48)]
    refused = run(batch_sizes=(2,))
    assert refused.points == [] and "takes batches of 1. Give --batch 1." in refused.failed[0]


def test_what_cannot_be_measured_is_said_beside_the_rest(files: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(files[1].read_bytes()[:-1000])
    result = veduta("bench", bad, files[1], "--backend", "onnx", "--size", "32x32", "--batch", "1")
    assert result.returncode == 1 and "| m.onnx | ONNX Runtime" in result.stdout
    assert "not measured:\n  bad.onnx in ONNX Runtime: " in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", "48x"), "--size 48x: expected HEIGHTxWIDTH"),
        (("--batch", "1,0"), "--batch 1,0: expected batch sizes"),
        (("--plot", "curve.pdf"), "--plot curve.pdf: the picture is a PNG"),
        (("--backend", "tensorrt"), "backend 'tensorrt' does not open it. Choose onnx or openvino."),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    files: tuple[Path, Path], arguments: tuple[str, str], words: str
) -> None:
    expect_mistake(veduta("bench", files[1], *arguments), words)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    expect_mistake(veduta("bench", tmp_path / "none.onnx"), "none.onnx not found")


def test_files_of_one_name_are_told_apart(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "m.onnx"
    other.write_bytes(files[1].read_bytes())
    found = bench([files[1], other], ProgressLine(), backend="onnx", device="auto", size=(32, 32), batch_sizes=(1,))
    assert [point.file for point in found.points] == [str(files[1]), str(other)]


def test_the_table_has_a_row_for_each_runtime_and_a_column_for_each_batch_size(tmp_path: Path) -> None:
    points = [
        POINT,
        dataclasses.replace(POINT, batch_size=4, images_per_second=80.0, peak_mib=160.0, p50_ms=50.0),
        dataclasses.replace(POINT, runtime="OpenVINO 2.0", parameters=None, gmacs=None),
    ]
    found = Bench(points, [], {"cpu": "a processor"})
    table = found.table().splitlines()
    assert table[0] == "cpu: a processor" and "images/s at 1 | images/s at 4 |" in table[2]
    assert table[4].startswith("| a.onnx | ONNX Runtime 1.0, fp32 | 64 x 96 | 20.0 | 30.0 | 50.0 | 80.0 | 160 |")
    assert table[5].endswith("| 50.0 |  | 100 | 0.5 | 1.5 |  |  |")
    draw_bench(found, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG"


def test_the_peak_is_that_of_this_process_and_never_falls() -> None:
    before = peak_memory()
    block = bytearray(300 << 20)
    block[::4096] = b"x" * len(block[::4096])
    after = peak_memory()
    del block
    assert after > 300 << 20 and min(after - before, peak_memory() - after) > -(1 << 20)  # the system counts roughly
