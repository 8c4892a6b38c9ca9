"""`veduta compare` as its users meet it: what is printed and written, exit codes, and mistakes told in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from layouts import TINY, write_folder
from model_files import write_model
from small_runs import small_recipe
from typer.testing import CliRunner, Result

from veduta.cli import app
from veduta.config import set_fields


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("compare") / "data")


@pytest.fixture(scope="module")
def models(root: Path) -> tuple[Path, Path]:
    recipe = set_fields(small_recipe("segment", root), ["data.dataset=folder", "data.root="])
    one, other = (
        write_model(root.parent / f"{name}.safetensors", recipe, TINY, seed) for seed, name in enumerate("ab")
    )
    return one, other


def run(command: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def compared(*arguments: str | Path) -> Result:
    return run("compare", *arguments, "--device", "cpu")


def test_two_models_are_compared_on_the_same_images(root: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    result = compared(*models, "--data", root, "--json", tmp_path / "both.json")
    assert result.exit_code == 0, result.output
    first, second, *_, headline = result.stdout.splitlines()
    assert first.startswith(f"A  {models[0]}: mIoU ") and second.startswith(f"B  {models[1]}: mIoU ")
    assert " images/s, " in first and " parameters, " in first and " MB; " in first
    assert headline.startswith("B beats A on ") and headline.count("[") == 1
    assert "warning: 3 images are few" in result.stderr
    content: dict[str, Any] = json.loads((tmp_path / "both.json").read_text())
    assert content["headline"] == headline and content["a"]["given"] == str(models[0])
    assert "torch" in content["environment"] and "environment" not in content["a"]
    assert content["a"]["file_bytes"] == models[0].stat().st_size
    assert [image["name"] for image in content["b"]["per_image"]] == ["a", "b", "sub/c"]


def test_a_model_is_compared_with_what_it_predicted_before(
    root: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    predicted = tmp_path / "predicted"
    assert run("predict", models[0], root / "images/val", "--out", predicted, "--device", "cpu").exit_code == 0
    for pair in ((models[0], predicted), (predicted, models[0])):
        result = compared(*pair, "--data", root)
        assert result.exit_code == 0, result.output
        assert "same 3; mIoU +0.00 [+0.00, +0.00]: " in result.stdout
    result = compared(predicted, predicted, "--data", root, "--split", "val")
    assert result.exit_code == 0 and "A and B are the same weights or files" in result.stderr


def test_another_protocol_of_one_model_is_compared_and_warned_about(root: Path, models: tuple[Path, Path]) -> None:
    result = compared(models[0], models[0], "--set-b", "protocol=mirrored", "--data", root)
    assert result.exit_code == 0, result.output
    assert "warning: A is shown whole images" in result.stderr and "mirror" in result.stderr
    assert "warning: A and B are the same weights" in result.stderr


def test_images_that_failed_end_in_exit_1_after_the_comparison(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    (data / "images/val/b.png").write_bytes(b"")
    result = compared(*models, "--data", data)
    assert result.exit_code == 1 and "B beats A on " in result.stdout
    assert "error: 1 images failed" in result.stderr and "b.png: not a readable image" in result.stderr


def test_a_page_with_the_pictures_is_written(root: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    result = compared(*models, "--data", root, "--report", page)
    assert result.exit_code == 0, result.output
    assert "sub/c" in page.read_text() and "B beats A on" in page.read_text()


def test_outputs_of_two_precisions_are_compared_module_by_module(
    root: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "outputs.json"
    result = compared(models[0], models[0], "--outputs", "--set-b", "precision=bf16", "--data", root, "--json", file)
    assert result.exit_code == 0, result.output
    assert f"A  {models[0]} on cpu, fp32, weights " in result.stdout and " on cpu, bf16, weights " in result.stdout
    assert "modules on 3 images, tolerance 0.02" in result.stdout and "nothing departs" in result.stdout
    content = json.loads(file.read_text())
    assert content["outputs"][0]["name"] == "mask_logits" and content["outputs"][0]["agreement"] > 0.9
    assert len(content["modules"]) > 40 and content["departing"] is None


def test_outputs_of_two_models_depart_at_their_first_weights(root: Path, models: tuple[Path, Path]) -> None:
    result = compared(*models, root / "images/val", "--outputs")
    assert result.exit_code == 0, result.output
    assert "backbone.conv1 is the first that departs" in result.stdout.splitlines()[-1]


def test_a_tolerance_of_the_users_own_is_taken(root: Path, models: tuple[Path, Path]) -> None:
    strict = ["--set-b", "precision=bf16", "--tolerance", "1e-5"]
    result = compared(models[0], models[0], root / "images/val/a.png", "--outputs", *strict)
    assert "on 1 images, tolerance 1e-05" in result.stdout
    assert "backbone.conv1 is the first that departs" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photo.png"], "photo.png: image files goes with --outputs"),
        (["--tolerance", "0.1"], "--tolerance goes with --outputs"),
        (["--outputs", "--report", "new.html"], "--report shows scores, and --outputs compares none"),
        (["--outputs", "photo.png", "--data", "here"], "takes images or --data, and both were given"),
        (["--json", "one.x", "--report", "one.x"], "the same file as --report"),
        (["--json", "there.json"], "there.json exists; nothing is overwritten"),
        (["--set-a", "protocol=unheard"], "protocol: "),
        (["--set-b", "steps=3"], "it is about training and changes no score"),
        ([], "dataset folder needs --data PATH"),
    ],
)
def test_a_mistake_is_told_before_the_work(
    arguments: list[str], words: str, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("{}")
    result = compared(*models, *arguments)
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert result.stderr.count("error: ") == 1


def test_several_processes_are_refused(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = compared(*models)
    assert result.exit_code == 2 and "runs in one process" in result.stderr
