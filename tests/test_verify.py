"""Promises of `veduta verify`: an exported file is asked again, without PyTorch; what was changed is found."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from command import expect_mistake, veduta
from onnx import numpy_helper
from test_export import run, write_network

from veduta.backends import open_model
from veduta.backends.probes import probes_path
from veduta.engine.progress import ProgressLine
from veduta.export.onnx import save_onnx
from veduta.export.verify import runtimes_of, verify

# Refuses what an install for running exported files does not have.
WITHOUT_TORCH = """
import sys
for name in ("torch", "safetensors", "onnx", "onnxscript", "matplotlib"):
    sys.modules[name] = None
from veduta.cli.export import app
app()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `veduta export`, and its probes."""
    folder = tmp_path_factory.mktemp("made")
    out = folder / "a.onnx"
    run(write_network(folder / "m.safetensors"), out)
    return out


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    for path in (made, probes_path(made)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / made.name


def test_a_file_is_verified_without_torch(file: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        WITHOUT_TORCH,
        "verify",
        str(file),
        "--backend",
        "onnx",
        "--json",
        str(tmp_path / "v.json"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "48 x 64, batch 1" in result.stdout and "a.onnx says what its network says: ONNX Runtime" in result.stdout
    (runtime,) = json.loads((tmp_path / "v.json").read_text())["runtimes"]
    assert runtime["broken"] == "" and runtime["departures"][0]["largest"] < 1e-4


def test_every_runtime_that_opens_the_file_is_asked(file: Path) -> None:
    pytest.importorskip("openvino")
    names = runtimes_of(file, None)
    assert names == ["onnx", "openvino"]
    assert not any(verify(file, name, ProgressLine()).broken for name in names)


def test_a_flipped_weight_is_found_by_all_who_open_the_file(file: Path) -> None:
    content = bytearray(file.read_bytes())
    weights = max(
        onnx.load_from_string(bytes(content)).graph.initializer, key=lambda tensor: len(tensor.raw_data)
    ).raw_data
    content[content.index(weights) + len(weights) // 2] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(ValueError, match="It is damaged or was changed"):
        open_model(file, backend="onnx")
    expect_mistake(veduta("verify", file, "--backend", "onnx"), "a.onnx: the network hashes to")


def test_a_network_that_says_something_else_is_named_with_its_difference(file: Path) -> None:
    """Other weights, but a hash that fits: what only the probes can find."""
    proto, info = onnx.load(str(file)), open_model(file, backend="onnx").info
    largest = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(largest), largest.name))
    save_onnx(proto, info, file)
    result = veduta("verify", file, "--backend", "onnx")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "on 48 x 64, batch 1 output mask_logits differs by" in result.stderr
    assert "says what its network says" not in result.stdout


def test_missing_probes_and_those_of_another_file_are_misuse(file: Path) -> None:
    probes = probes_path(file)
    probes.write_bytes(probes.read_bytes() + b"x")
    expect_mistake(veduta("verify", file, "--backend", "onnx"), "these are not the probes of a.onnx")
    probes.unlink()
    expect_mistake(veduta("verify", file, "--backend", "onnx"), "a.probes.npz not found")


@pytest.mark.parametrize(
    ("name", "backend", "words"),
    [
        ("a.onnx", "torch", "--backend torch: does not open .onnx files"),
        ("m.safetensors", None, "no exported file"),
        ("m.txt", None, "no exported file"),
        ("missing.onnx", None, "missing.onnx not found"),
    ],
)
def test_a_mistake_is_said(file: Path, name: str, backend: str | None, words: str) -> None:
    for other in ("m.safetensors", "m.txt"):
        (file.parent / other).write_bytes(b"")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        runtimes_of(file.parent / name, backend)
