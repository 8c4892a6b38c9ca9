"""Promises of an install without PyTorch: exported files predict and score, to the byte as with it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import expect_mistake
from exports import OPEN
from model_files import random_backend
from small_runs import TASKS, small_recipe, write_data
from typer.testing import CliRunner
from without_torch import link_packages, veduta_without_torch

from veduta.backends import open_model
from veduta.checkpoint import save_model
from veduta.cli import app
from veduta.data import open_layout
from veduta.data.fit import stack
from veduta.engine.predictions.skeleton import skeleton_of
from veduta.export.onnx import save_onnx, to_onnx
from veduta.export.trace import trace

ROAD = (
    "veduta.cli, veduta.backends.onnx, veduta.backends.choose, veduta.data, veduta.engine.predict, "
    "veduta.engine.predictor, veduta.engine.evaluate, veduta.engine.score, veduta.engine.environment, "
    "veduta.report.page"
)


@dataclass(frozen=True)
class Case:
    """model: a file with weights. exported: of it. photos: of split val of the data. raw: what is given for them."""

    model: Path
    exported: Path
    data: Path
    photos: list[Path]
    raw: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_packages(tmp_path_factory.mktemp("install") / "packages", "runtime")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=TASKS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    recipe = small_recipe(request.param, write_data(folder / "data"))
    dataset = open_layout(recipe.data.dataset, Path(recipe.data.root), "val")
    network = random_backend(recipe, dataset.labels, seed=3)
    model = folder / "model.safetensors"
    info = save_model(model, network.model.state_dict(), network.info)
    save_onnx(to_onnx(trace(network.model, OPEN), info), info, folder / "model.onnx")
    backend = open_model(folder / "model.onnx", backend="onnx")
    raw = folder / "raw"
    for sample in map(dataset.__getitem__, range(len(dataset))):
        for name, values in backend(stack([sample.image])).items():
            if name != "priors":
                path = raw / f"{sample.name}_{name}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, values)
    photos = [record.image.path for record in map(dataset.record, range(len(dataset)))]
    return Case(model, folder / "model.onnx", Path(recipe.data.root), photos, raw)


def both(packages: Path, *arguments: str | Path, out: Path) -> tuple[str, str]:
    """What the same command prints without and with PyTorch. out: of which they write `without` and `with`."""
    without = veduta_without_torch(packages, *arguments, out / "without")
    assert without.returncode == 0, without.stdout + without.stderr
    here = CliRunner().invoke(app, [*map(str, arguments), str(out / "with")])
    assert here.exit_code == 0, here.output
    return without.stdout, here.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_install_has_no_pytorch(packages: Path) -> None:
    assert (packages / "onnxruntime").is_dir() and (packages / "numpy").is_dir()
    for name in ("torch", "safetensors", "matplotlib", "onnx", "openvino"):
        assert not (packages / name).exists()


def test_predictions_are_the_same_to_the_byte(case: Case, packages: Path, tmp_path: Path) -> None:
    both(packages, "predict", case.exported, *case.photos, "--confidence", "--out", out=tmp_path)
    found = contents(tmp_path / "without")
    assert len(found) > 1 and found == contents(tmp_path / "with")


def test_raw_outputs_score_the_same(case: Case, packages: Path, tmp_path: Path) -> None:
    arguments = ("score", case.raw, "--model", case.exported, "--data", case.data, "--split", "val")
    without, here = both(packages, *arguments, "--json", out=tmp_path)
    assert without == here
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("without", "with"))
    assert "torch" in other["environment"] and "torch" not in one["environment"]
    for content in (one, other):
        content.pop("environment")
        content.pop("seconds", None)
    assert one == other


def test_an_exported_file_tells_of_its_outputs_what_its_network_tells(case: Case) -> None:
    exported = skeleton_of(open_model(case.exported, backend="onnx"))
    network = skeleton_of(open_model(case.model, device="cpu"))
    assert exported.recorded == network.recorded and list(exported.outputs) == list(network.outputs)
    for size in ((40, 60), (64, 64)):
        for name, shapes in exported.shapes(size).items():
            assert shapes[0] == network.shapes(size)[name][0] and {*shapes} <= {*network.shapes(size)[name]}
    for name, values in network.constants.items():
        np.testing.assert_array_equal(exported.constants[name], values)


@pytest.mark.parametrize("case", ["segment"], indirect=True)
def test_a_folder_of_predictions_scores_the_same(case: Case, packages: Path, tmp_path: Path) -> None:
    result = veduta_without_torch(packages, "predict", case.exported, *case.photos, "--out", tmp_path / "it")
    assert result.returncode == 0, result.stderr
    arguments = ("score", tmp_path / "it", "--data", case.data, "--split", "val")
    without, here = both(packages, *arguments, "--report", out=tmp_path)
    assert without == here and "voc val: 2 of 2 images" in without


@pytest.mark.parametrize("case", ["segment"], indirect=True)
def test_what_needs_pytorch_says_so(case: Case, packages: Path, tmp_path: Path) -> None:
    commands: list[list[str | Path]] = [
        ["predict", case.model, *case.photos, "--out", tmp_path / "it"],
        ["evaluate", case.model],
        ["train", "demo", "--out", tmp_path / "it"],
    ]
    for command in commands:
        expect_mistake(veduta_without_torch(packages, *command), "needs PyTorch", "pip install 'veduta[train]'")
    assert not (tmp_path / "it").exists()


def test_the_road_of_an_exported_file_does_not_import_pytorch_where_it_is_installed() -> None:
    code = f"import sys, {ROAD}; sys.exit(bool({{'torch', 'safetensors', 'matplotlib'}} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
