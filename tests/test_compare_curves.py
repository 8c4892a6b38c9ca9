"""Two loss curves over each other: equal windows, the first step that is too far away, and what makes it unfair."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import expect_mistake, veduta
from PIL import Image

from veduta.config import Recipe, recipe_to_json
from veduta.engine.compare_curves import compare_curves
from veduta.engine.progress import ProgressLine
from veduta.engine.runlog import RunLog
from veduta.recipes.demo import demo


def write_run(
    folder: Path,
    losses: list[float],
    *,
    recipe: Recipe | None = None,
    every: int = 1,
    samples: int = 100,
    lr: float = 0.1,
) -> Path:
    """A run folder with a row every `every` steps and a validation at the end."""
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe_to_json(recipe or demo()))
    log = RunLog(
        folder,
        ProgressLine(),
        steps=len(losses),
        batch_size=8,
        scores=("mean_iou",),
    )
    for step in range(every, len(losses) + 1, every):
        parts = [{"boxes": 0.75 * loss, "mask": 0.25 * loss} for loss in losses[step - every : step]]
        log.training(step, parts, epoch=step * 8 / samples, lr=lr, seconds=1.0, waited=0.0, device=torch.device("cpu"))
    log.validation(len(losses), {"mean_iou": 0.5 + losses[-1]})
    return folder


CURVE = [2.0 / step for step in range(1, 41)]


def test_equal_runs_differ_by_nothing(tmp_path: Path) -> None:
    found = compare_curves(write_run(tmp_path / "a", CURVE), write_run(tmp_path / "b", CURVE))
    assert len(found.steps) == 40 and not found.warnings and not found.differing
    assert all(not column.absolute.any() for column in found.columns.values())
    assert found.table().count("never") == 2 * 4  # loss, boxes, mask, learning rate
    found.draw(tmp_path / "equal.png")
    with Image.open(tmp_path / "equal.png") as picture:
        assert picture.size == (990, 1100)


def test_the_first_step_beyond_each_limit_is_found(tmp_path: Path) -> None:
    other = [loss * (1 + 1e-4 * step) for step, loss in enumerate(CURVE, start=1)]
    other[29] *= 1.1
    found = compare_curves(write_run(tmp_path / "a", CURVE), write_run(tmp_path / "b", other))
    assert found.first_above("loss", 1e-3) == 11  # at 10 it is 0.000999 of the larger one
    assert found.first_above("loss", 1e-2) == 30
    assert found.first_above("loss", 0.5) is None
    assert found.columns["loss_mask"].absolute[29] == pytest.approx(0.25 * (other[29] - CURVE[29]))
    line = next(line for line in found.table().splitlines() if line.startswith("loss "))
    assert line.split() == ["loss", "4.31e-03", "9.36e-02", "30", "11", "30"]
    content = json.loads(found.to_json())
    assert content["columns"]["loss"]["first_step_above"] == {"0.001": 11, "0.01": 30}
    assert content["curves"]["loss"][1][29] == pytest.approx(other[29])


def test_rows_of_another_length_are_brought_to_the_same_steps(tmp_path: Path) -> None:
    found = compare_curves(write_run(tmp_path / "a", CURVE, every=4), write_run(tmp_path / "b", CURVE, every=10))
    assert found.steps.tolist() == [20, 40]
    assert found.columns["loss"].one == pytest.approx([np.mean(CURVE[:20]), np.mean(CURVE[20:])])
    assert found.columns["loss"].relative.max() < 1e-12


def test_what_a_port_changes_is_told_and_everything_else_is_a_warning(tmp_path: Path) -> None:
    recipe = demo()
    ported = dataclasses.replace(recipe, device="auto", precision="bf16")
    first = write_run(tmp_path / "a", CURVE, recipe=recipe)
    found = compare_curves(first, write_run(tmp_path / "b", CURVE, recipe=ported))
    assert found.differing == ("device: cpu -> auto", "precision: fp32 -> bf16") and not found.warnings
    another = dataclasses.replace(ported, optim=dataclasses.replace(ported.optim, lr=0.1, lr_multipliers={"head": 2.0}))
    found = compare_curves(first, write_run(tmp_path / "c", CURVE, recipe=another, samples=50, lr=0.2))
    assert found.warnings[:2] == (
        f"another recipe, optim.lr: {demo().optim.lr} -> 0.1",
        "another recipe, optim.lr_multipliers.head: - -> 2.0",
    )
    assert "step 40 is epoch 3.2 of A and 6.4 of B" in found.warnings[2]
    assert found.first_above("lr", 1e-3) == 1


def test_the_command_prints_draws_and_writes_and_overwrites_nothing(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", CURVE)
    other = write_run(tmp_path / "b", [loss * 1.02 for loss in CURVE], recipe=dataclasses.replace(demo(), seed=1))
    picture, file = tmp_path / "curves.png", tmp_path / "curves.json"
    result = veduta("compare-curves", one, other, "--out", picture, "--json", file, guard=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "40 steps compared, 1 to 40" in result.stdout
    assert "A 55.00 at step 40, B 55.10 at step 40: +0.10" in result.stdout
    assert "warning: another recipe, seed: 0 -> 1" in result.stderr
    assert picture.stat().st_size > 10_000 and json.loads(file.read_text())["steps_compared"] == 40
    before = picture.read_bytes()
    expect_mistake(
        veduta("compare-curves", one, other, "--out", picture), "curves.png exists", "nothing is overwritten"
    )
    assert picture.read_bytes() == before


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", CURVE)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder\. Give the run folders"):
        compare_curves(one, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no step in common: .* 1 to 40 and 50 to 50\."):
        compare_curves(one, write_run(tmp_path / "late", [1.0] * 50, every=50))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl not found; every run folder has one\.$"):
        compare_curves(empty, one)
    (empty / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no row with a loss"):
        compare_curves(one, empty)
    staged = tmp_path / "staged"
    staged.mkdir()
    write_run(staged / "stage-1", CURVE)
    with pytest.raises(FileNotFoundError, match="It has the stages stage-1: give one of them"):
        compare_curves(staged, one)
