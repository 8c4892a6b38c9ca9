"""Promises of a sweep: every kept checkpoint once, the best one and the average, and what such a choice is worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layouts import TINY
from PIL import Image
from stub_backend import RECIPE
from torch import Tensor

from veduta.backends import open_model
from veduta.backends.torch import TorchBackend
from veduta.checkpoint import load_model, save_model
from veduta.data.layouts.folder import open_folder
from veduta.data.sample import SampleDataset
from veduta.engine.evaluate import evaluate
from veduta.engine.predictor import Predictor
from veduta.engine.sweep import Mean, Sweep, find_checkpoints, first_score, sweep
from veduta.engine.sweep_curve import draw_sweep
from veduta.model_info import ModelInfo
from veduta.models import build_model
from veduta.tasks.evaluation import Evaluation

STEPS = (100, 200, 1300)


def weights_of(seed: int, num_classes: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    weights = build_model("deeplabv3plus_tiny", num_classes).state_dict()
    return {name: tensor + seed if "num_batches" in name else tensor for name, tensor in weights.items()}


def write_run(run: Path, root: Path, *, best: int = 200) -> Path:
    """Checkpoints of random weights after STEPS; the best one is that of step `best`."""
    labels = open_folder(root, "val").labels
    recipe = replace(RECIPE, data=replace(RECIPE.data, root=str(root)))
    for step in STEPS:
        weights = weights_of(step, labels.num_classes)
        info = ModelInfo(recipe=recipe, labels=labels, step=step)
        folder = run / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
        save_model(folder / "model.safetensors", weights, info)
        if step == best:
            save_model(run / "checkpoints" / "best.safetensors", weights, info)
    return run


def run_sweep(run: Path, root: Path, *, split: str = "val", out: Path | None = None, full: bool = False) -> Sweep:
    dataset: SampleDataset = open_folder(root, "val")

    def score(name: str, backend: TorchBackend) -> Evaluation:
        return evaluate(Predictor(backend), dataset, name="folder", split=split, batch_size=3, full=full)

    return sweep(find_checkpoints(run), changes=[], device=torch.device("cpu"), split=split, score=score, out=out)


@pytest.fixture
def run(folder_root: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", folder_root)


def test_every_kept_checkpoint_is_scored_once_by_its_step_and_as_evaluate_does(run: Path, folder_root: Path) -> None:
    result = run_sweep(run, folder_root)
    assert [step for step, _ in result.checkpoints] == list(STEPS)
    assert [entry.name for entry in result.all] == ["step 100", "step 200", "step 1,300", "average of 3"]
    for _, entry in result.checkpoints:
        assert entry.file is not None
        alone = evaluate(
            Predictor(open_model(entry.file, device="cpu")),
            open_folder(folder_root, "val"),
            name="folder",
            split="val",
            batch_size=3,
            full=False,
        )
        assert entry.evaluation.headline() == alone.headline()
    scores = [first_score(entry) for _, entry in result.checkpoints]
    assert first_score(result.best) == max(scores)


def test_a_best_one_whose_checkpoint_is_gone_still_takes_part(run: Path, folder_root: Path) -> None:
    step = run / "checkpoints" / "step-00000200"
    (step / "model.safetensors").unlink()
    step.rmdir()
    result = run_sweep(run, folder_root)
    assert [(step, entry.file.name) for step, entry in result.checkpoints if entry.file] == [
        (100, "model.safetensors"),
        (200, "best.safetensors"),
        (1300, "model.safetensors"),
    ]


def test_the_average_is_that_of_the_weights_in_float64_and_of_the_statistics(run: Path, folder_root: Path) -> None:
    out = run.parent / "average.safetensors"
    result = run_sweep(run, folder_root, out=out)
    assert result.average is not None and result.average.file == out
    averaged, info = load_model(out)
    parts = [weights_of(step, info.labels.num_classes) for step in STEPS]
    for name, tensor in averaged.items():
        if tensor.is_floating_point():
            expected = (sum(part[name].double() for part in parts) / 3).to(tensor.dtype)  # type: ignore[union-attr]
            assert torch.equal(tensor, expected), name
            assert tensor.dtype == parts[0][name].dtype
        else:
            assert torch.equal(tensor, parts[-1][name]), name
    assert any("running_var" in name for name in averaged) and any("num_batches" in name for name in averaged)
    assert (info.step, info.scores) == (1300, {})
    assert result.average.evaluation.sha256 == info.weights_sha256
    assert "the average of steps 100, 200, 1,300" in result.average.evaluation.headline()
    alone = evaluate(
        Predictor(open_model(out, device="cpu")),
        open_folder(folder_root, "val"),
        name="folder",
        split="val",
        batch_size=3,
        full=False,
    )
    assert alone.scores.overall == result.average.evaluation.scores.overall


def test_an_average_of_equal_weights_is_these_weights() -> None:
    weights, info = weights_of(3, 4), ModelInfo(recipe=RECIPE, labels=TINY, step=7)
    mean = Mean()
    for _ in range(7):
        mean.add(weights, info, Path("a"))
    averaged, _ = mean.compute()
    assert all(torch.equal(averaged[name], weights[name]) for name in weights)


def test_weights_of_another_network_are_refused_by_name(run: Path, folder_root: Path) -> None:
    file = run / "checkpoints" / "step-00000200" / "model.safetensors"
    _, info = load_model(file)
    model = build_model("deeplabv3plus_small", info.labels.num_classes)
    save_model(file, model.state_dict(), replace(info, recipe=replace(info.recipe, model="deeplabv3plus_small")))
    with pytest.raises(ValueError, match="step-00000200/model.safetensors is of another network"):
        run_sweep(run, folder_root)


def test_a_damaged_checkpoint_is_refused_by_name(run: Path, folder_root: Path) -> None:
    file = run / "checkpoints" / "step-00001300" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="step-00001300/model.safetensors: the weights hash to"):
        run_sweep(run, folder_root)


def test_one_checkpoint_has_no_average(run: Path, folder_root: Path) -> None:
    for step in (100, 1300):
        (run / f"checkpoints/step-{step:08}/model.safetensors").unlink()
    assert run_sweep(run, folder_root).average is None
    with pytest.raises(ValueError, match="kept one checkpoint, there is nothing to average"):
        run_sweep(run, folder_root, out=run.parent / "average.safetensors")


def test_what_is_no_run_folder_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="is one model file. Give the run folder"):
        find_checkpoints(run / "checkpoints" / "best.safetensors")
    with pytest.raises(FileNotFoundError, match="no run that has saved"):
        find_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("test", ["was chosen here on 'test': what it scores there is no test score"]),
        ("2007/test", ["is no test score"]),
        ("val", ["'val' has chosen best.safetensors in training and chooses here again"]),
        ("val+extra", ["chooses here again"]),
        ("train", ["is what the run was trained on"]),
        ("held-out", []),
    ],
)
def test_what_a_choice_on_the_split_is_worth_is_said(
    split: str, words: list[str], run: Path, folder_root: Path
) -> None:
    warnings = run_sweep(run, folder_root, split=split).warnings
    assert len(warnings) == len(words)
    for warning, expected in zip(warnings, words, strict=True):
        assert expected in warning


def test_the_table_and_the_json_hold_all_and_mark_the_best(run: Path, folder_root: Path) -> None:
    result = run_sweep(run, folder_root, full=True)
    head, *lines = result.table().splitlines()
    assert head.split() == ["checkpoint", "mIoU", "95", "%", "pixel", "accuracy"]
    assert [line.endswith("best") for line in lines] == [entry is result.best for entry in result.all]
    assert str(result.best.file) in result.headline() and "3 of 3 images, each once" in result.headline()
    content = json.loads(result.to_json({"torch": "2"}))
    assert content["best"] == result.best.name and content["score"] == "mean_iou"
    assert [entry["name"] for entry in content["checkpoints"]] == [entry.name for entry in result.all]
    assert all(len(entry["per_image"]) == 3 and entry["sha256"] for entry in content["checkpoints"])


def test_the_curve_is_a_picture(run: Path, folder_root: Path) -> None:
    draw_sweep(run_sweep(run, folder_root, full=True), run.parent / "curve.png")
    with Image.open(run.parent / "curve.png") as picture:
        assert min(picture.size) > 400 and len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
