"""Promises of `veduta export`: what differs does not get its name, and nothing is left of it; what is written works."""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import expect_mistake, veduta
from exports import lively
from layouts import TINY, write_folder
from torch import nn
from torch.export import ExportedProgram

from veduta.backends import open_model
from veduta.backends.probes import read_probes
from veduta.backends.runtime import exported_of
from veduta.checkpoint import save_model
from veduta.data import open_dataset
from veduta.engine.progress import ProgressLine
from veduta.export import candidates as steps
from veduta.export.export import BrokenExport, Report, export, open_reference
from veduta.export.request import Labelled, Request, check_request
from veduta.export.scores import Scored
from veduta.export.trace import Shape, trace
from veduta.model_info import ModelInfo
from veduta.recipes import find_recipe

SMALL: Shape = (None, 3, 48, 64)  # fewer cases than of open sizes


def write_network(path: Path, model: str = "deeplabv3plus_tiny", task: str = "segment", **fields: Any) -> Path:
    recipe = dataclasses.replace(
        find_recipe("demo"),
        model=model,
        model_options={},
        task=task,  # type: ignore[arg-type]
        protocol="whole",
        **fields,
    )
    info = ModelInfo(recipe=recipe, labels=TINY, step=3)
    save_model(path, lively(model, TINY.num_classes).state_dict(), info)
    return path


def run(model: Path, out: Path, *, target: str = "onnx", data: Labelled | None = None, **asked: object) -> Report:
    request = Request(target=target, out=out, **{"shape": SMALL, **asked})  # type: ignore[arg-type]
    check_request(request)
    return export(open_reference(model, request.changes), request, ProgressLine(), data=data)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("networks") / "tiny.safetensors")


# What is written


@pytest.mark.parametrize(
    ("model", "task", "target", "name"),
    [
        ("resnest_tiny", "classify", "onnx", "a.onnx"),
        ("blitznet_tiny", "detect_segment", "onnx", "a.onnx"),
        ("deeplabv3plus_tiny", "segment", "torch", "a.pt2"),
        ("deeplabv3plus_tiny", "segment", "openvino", "a.xml"),
    ],
)
def test_what_is_exported_carries_its_proof_and_its_probes(
    tmp_path: Path, model: str, task: str, target: str, name: str
) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    source = write_network(tmp_path / "m.safetensors", model, task)
    report = run(source, tmp_path / name, target=target)
    backend = open_model(tmp_path / name, backend=target)
    exported = exported_of(backend.info)
    assert exported.proof == report.departures and exported.images == SMALL
    cases = {departure.case for departure in exported.proof}
    assert {"48 x 64, batch 1", "48 x 64, batch 3", "CMYK JPEG", "JPEG turned by EXIF", "PNG of 16 bits"} <= cases
    assert max(departure.largest for departure in exported.proof) < 1e-4
    assert len(read_probes(tmp_path / name, exported)) == 1
    assert backend.info.weights_sha256 == open_model(source).info.weights_sha256
    assert not list(tmp_path.glob(".*"))


def test_decoded_outputs_are_proven_too(tmp_path: Path) -> None:
    source = write_network(tmp_path / "m.safetensors", "blitznet_tiny", "detect_segment")
    report = run(source, tmp_path / "a.onnx", full=True)
    assert {departure.output for departure in report.departures} == {"boxes", "mask"}
    assert exported_of(report.info).full


def test_the_score_of_the_file_stands_beside_that_of_its_network(network: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        find_recipe("demo").data, dataset="folder", root=str(write_folder(tmp_path / "data"))
    )
    data = Labelled(name="folder", split="val", samples=open_dataset(settings, "val"), batch_size=2)
    report = run(network, tmp_path / "a.onnx", data=data, shape=(None, 3, None, None))
    assert report.scored is not None
    assert report.scored.network.scores.overall == report.scored.exported.scores.overall
    assert "difference" in report.table() and "folder val" in report.table()
    assert {departure.case for departure in report.departures} & {f"folder {sample.name}" for sample in data.samples}  # type: ignore[attr-defined]
    content = json.loads(report.to_json({}))
    assert content["scores"]["points"]["mean_iou"] == 0 and content["scores"]["images"] == len(data.samples)


def test_int8_is_refused_by_its_score_and_says_which_layers_it_keeps(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(
        find_recipe("demo").data, dataset="folder", root=str(write_folder(tmp_path / "data"))
    )
    samples = open_dataset(settings, "val")
    data = Labelled(name="folder", split="val", samples=samples, batch_size=1, calibration=samples)
    size: Shape = (None, 3, 24, 32)  # that of the images
    whole = run(network, tmp_path / "a.onnx", data=data, int8=True, max_drop=100, shape=size)
    exported = exported_of(whole.info)
    assert (exported.precision, exported.kept) == ("int8", ()) and exported.bounds.largest > 1e-3
    assert (tmp_path / "a.onnx").stat().st_size < 0.5 * network.stat().st_size

    drops = iter(["too low", "too low", ""])
    monkeypatch.setattr(Scored, "broken", lambda self, max_drop: next(drops))
    kept = run(network, tmp_path / "b.onnx", data=data, int8=True, shape=size)
    assert exported_of(kept.info).kept and "of its layers stay in float" in kept.headline()

    monkeypatch.setattr(Scored, "broken", lambda self, max_drop: "too low")
    with pytest.raises(BrokenExport, match="c.onnx is not written: too low"):
        run(network, tmp_path / "c.onnx", data=data, int8=True, shape=size)
    with pytest.raises(
        ValueError, match="is shown to the network as 24 x 32 by protocol .whole., and the file is to take 48 x 64"
    ):
        run(network, tmp_path / "c.onnx", data=data, int8=True)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["a.onnx", "a.probes.npz", "b.onnx", "b.probes.npz"]


def test_two_targets_of_one_network_share_their_probes(network: Path, tmp_path: Path) -> None:
    run(network, tmp_path / "a.onnx")
    run(network, tmp_path / "a.pt2", target="torch")
    for name in ("a.onnx", "a.pt2"):
        read_probes(
            tmp_path / name, exported_of(open_model(tmp_path / name, backend=name[2:].replace("pt2", "torch")).info)
        )


def test_probes_of_another_network_are_not_overwritten(network: Path, tmp_path: Path) -> None:
    (tmp_path / "a.probes.npz").write_bytes(b"of another file")
    with pytest.raises(FileExistsError, match=r"a\.probes\.npz exists, and belongs to another file"):
        run(network, tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.probes.npz"]


# What differs does not get its name

Plant = Callable[[nn.Module], None]


def change_weights(model: nn.Module) -> None:
    """As if other weights were written than those that were traced."""
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
        last.weight *= 1.05


def use_batch_statistics(model: nn.Module) -> None:
    """As if BatchNorm had stayed in training mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None


def plant(monkeypatch: pytest.MonkeyPatch, broken: Plant) -> None:
    """Another network is traced than the one that is asked for."""

    def traced(model: nn.Module, shape: Shape) -> ExportedProgram:
        doctored = lively("deeplabv3plus_tiny", TINY.num_classes)
        doctored.load_state_dict(model.state_dict())
        broken(doctored)
        return trace(doctored, shape)

    monkeypatch.setattr(steps, "trace", traced)


@pytest.mark.parametrize("broken", [change_weights, use_batch_statistics])
def test_an_export_that_differs_is_refused_and_nothing_is_left(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Plant
) -> None:
    plant(monkeypatch, broken)
    with pytest.raises(
        BrokenExport, match=r"a\.onnx is not written: on .* output mask_logits differs by .* of its"
    ) as e:
        run(network, tmp_path / "a.onnx")
    assert e.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_logits_that_are_resized_in_another_way_are_refused(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corners aligned or not: the classic fault of exporters."""

    def traced(model: nn.Module, shape: Shape) -> ExportedProgram:
        whole = nn.functional.interpolate
        with monkeypatch.context() as patch:
            patch.setattr(nn.functional, "interpolate", lambda *a, **k: whole(*a, **k | {"align_corners": False}))
            return trace(model, shape)

    monkeypatch.setattr(steps, "trace", traced)
    with pytest.raises(BrokenExport, match="output mask_logits differs by"):
        run(network, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_score_that_differs_is_refused_and_nothing_is_left(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bounds of the outputs would have let it pass."""
    settings = dataclasses.replace(
        find_recipe("demo").data, dataset="folder", root=str(write_folder(tmp_path / "data"))
    )
    data = Labelled(name="folder", split="val", samples=open_dataset(settings, "val"), batch_size=2)
    plant(monkeypatch, use_batch_statistics)
    monkeypatch.setattr("veduta.export.export.first_broken", lambda *_: "")
    with pytest.raises(BrokenExport, match=r"is not written: its .* is .* points away from the network's, 0\.01"):
        run(network, tmp_path / "a.onnx", data=data, shape=(None, 3, None, None))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_leaves_no_file_of_the_name(
    number: signal.Signals, network: Path, tmp_path: Path
) -> None:
    code = (
        "import signal, sys, time; from veduta.export import export as steps\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored\n"
        "def hang(*a, **k):\n    print('proving', flush=True); time.sleep(60)\n"
        "steps.prove = hang\n"
        "from veduta.cli.export import app; app()"
    )
    command = [sys.executable, "-c", code, "export", str(network), "--to", "onnx", "--out", str(tmp_path / "a.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "proving\n"
        process.send_signal(number)
    left = [path.name for path in tmp_path.iterdir()]
    if number == signal.SIGKILL:
        assert all(name.startswith(".") for name in left)
    else:
        assert not left and process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]


def test_a_network_that_was_trained_in_half_precision_is_exported_in_float(tmp_path: Path) -> None:
    path = write_network(tmp_path / "half.safetensors", precision="fp16", loss_scale=1024.0)
    assert open_reference(path, []).info.recipe.precision == "fp32"


# Mistakes


def test_what_does_not_go_together_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = write_network(tmp_path / "tiny.safetensors")
    monkeypatch.setattr("veduta.export.export.candidates", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match="protocol 'mirrored' averages them over views of an image. Leave --full out"):
        run(network, tmp_path / "a.onnx", full=True, changes=("protocol=mirrored",))
    settings = dataclasses.replace(
        find_recipe("demo").data, dataset="folder", root=str(write_folder(tmp_path / "data"))
    )
    data = Labelled(name="folder", split="val", samples=open_dataset(settings, "val"), batch_size=2)
    with pytest.raises(ValueError, match=r"is shown to the network as 24 x 32 .* is to take 48 x 64 alone"):
        run(network, tmp_path / "a.onnx", data=data)
    scenes = Labelled(name="scenes", split="val", samples=open_dataset(find_recipe("demo").data, "val"), batch_size=2)
    with pytest.raises(ValueError, match="They must be the same, in order"):
        run(network, tmp_path / "a.onnx", data=scenes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "onx", "--out", "a.onnx"], ["--to onx: there is no such target. Did you mean onnx?"]),
        (["--to", "onnx", "--out", "a.pt2"], ["--to onnx writes a .onnx. Call it", "a.onnx"]),
        (["--to", "onnx", "--out", "there.onnx"], ["there.onnx exists; nothing is overwritten"]),
        (["--to", "triton", "--out", "folder"], ["folder exists; nothing is overwritten"]),
        (["--to", "onnx", "--out", "a.onnx", "--size", "3x4x5"], ["--size 3x4x5: expected HEIGHTxWIDTH"]),
        (["--to", "onnx", "--out", "a.onnx", "--size", "0"], ["--size 0: expected HEIGHTxWIDTH"]),
        (["--to", "onnx", "--out", "a.onnx", "--int8"], ["--int8 needs images. Add --data PATH."]),
        (["--to", "onnx", "--out", "a.onnx", "--split", "val"], ["--split needs images"]),
        (
            ["--to", "onnx", "--out", "a.onnx", "--data", "d", "--batch", "2"],
            ["--batch 2 with --data: images of a split"],
        ),
        (["--to", "ascend", "--out", "a", "--full"], ["--full is nothing that ATC takes"]),
        (["--to", "torch", "--out", "a.pt2", "--full"], ["--full is for the targets that are made of ONNX"]),
        (
            ["--to", "onnx", "--out", "a.onnx", "--set", "precision=bf16"],
            ["--set precision: an exported file computes"],
        ),
        (["--to", "onnx", "--out", "a.onnx", "--set", "optim.lr=1"], ["it is about training"]),
    ],
)
def test_a_mistake_is_said_before_the_model_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    expect_mistake(veduta("export", "missing.safetensors", *arguments), *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "there.onnx"]


def test_an_exported_file_is_not_exported_again(network: Path, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.onnx: an exported file is not exported again. Give the run folder or"):
        open_reference(tmp_path / "a.onnx", ())


def test_the_command_says_what_it_proved_and_what_to_do_next(network: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "a.onnx", tmp_path / "a.json"
    result = veduta(
        "export",
        network,
        "--to",
        "onnx",
        "--out",
        out,
        "--size",
        "33x47",
        "--batch",
        "1",
        "--json",
        figures,
        guard=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "33 x 47, batch 1" in result.stdout and "CMYK JPEG" in result.stdout
    assert f"try: veduta predict {out} IMAGES --out FOLDER" in result.stdout
    content = json.loads(figures.read_text())
    assert content["images"] == [1, 3, 33, 47] and content["bytes"] == out.stat().st_size
    assert {row["case"] for row in content["departures"]} >= {"33 x 47, batch 1", "PNG with alpha"}
