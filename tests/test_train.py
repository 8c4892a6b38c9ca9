"""Training: the same seed gives the same weights, mistakes stop it early, and a run folder holds what it promises."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import save, write_folder
from PIL import Image
from writers import coco, imagenet

from veduta.backends import open_model
from veduta.checkpoint import load_model
from veduta.config import Augment, Data, Loss, Optim, Recipe, read_recipe
from veduta.engine.checkpoints import newest_checkpoint, read_checkpoint
from veduta.engine.progress import ProgressLine
from veduta.engine.schedules import learning_rate
from veduta.engine.train import train


def small_recipe(root: Path, *, steps: int = 3, workers: int = 0, lr: float = 0.01) -> Recipe:
    """A few steps of the tiny model on a folder of small pictures."""
    augment = Augment(scale=(0.5, 2.0), brightness=0.3, saturation=0.3)
    return Recipe(
        name="small",
        model="deeplabv3plus_tiny",
        data=Data(dataset="folder", root=str(root), crop_size=(40, 48), batch_size=2, workers=workers, augment=augment),
        optim=Optim(name="adamw", lr=lr, ema_decay=0.9),
        steps=steps,
        device="cpu",
    )


def run(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    train(recipe, out, ProgressLine())
    return last_weights(out)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(run / "checkpoints", lambda line: None)
    assert checkpoint is not None
    return checkpoint.model


def test_the_same_seed_gives_the_same_weights_bit_for_bit_with_0_and_2_workers(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    alone = run(small_recipe(root, workers=0), tmp_path / "alone")
    helped = run(small_recipe(root, workers=2), tmp_path / "helped")
    assert alone.keys() == helped.keys()
    assert all(torch.equal(alone[name], helped[name]) for name in alone)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"), steps=1)
    first = run(recipe, tmp_path / "first")
    second = run(dataclasses.replace(recipe, seed=1), tmp_path / "second")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_run_folder_holds_recipe_checkpoints_metrics_and_pictures(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"))
    evaluation = train(recipe, tmp_path / "run", ProgressLine())
    assert read_recipe(tmp_path / "run" / "recipe.json") == recipe
    assert open_model(tmp_path / "run", device="cpu").info.weights_sha256 == evaluation.sha256
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 5  # the header and the same rows
    with Image.open(tmp_path / "run" / "first_batch.png") as picture:
        assert picture.size == (2 * 48, 2 * 40)  # two samples; images above, labels over them below
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    assert json.loads((tmp_path / "run" / "data.json").read_text())["train"]["samples"] == 3
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_training_learns_dark_from_bright(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            ids = np.zeros((48, 64), np.uint8)
            ids[:, 10 + 10 * i :] = 1
            save(tmp_path / "data" / "images" / split / f"{i}.png", np.repeat((40 + 170 * ids)[..., None], 3, axis=2))
            save(tmp_path / "data" / "masks" / split / f"{i}.png", ids)
    (tmp_path / "data" / "classes.csv").write_text("index,name,r,g,b\n0,dark,0,0,0\n1,bright,255,255,255\n")
    evaluation = train(small_recipe(tmp_path / "data", steps=40, lr=0.01), tmp_path / "run", ProgressLine())
    assert evaluation.proved
    assert evaluation.scores.overall["mean_iou"] > 0.7


def test_a_bad_mask_stops_the_run_before_its_folder_is_made(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    save(root / "masks" / "train" / "a.png", np.full((24, 32), 77, np.uint8))
    with pytest.raises(ValueError, match=r"train.a\.png: value 77"):
        train(small_recipe(root), tmp_path / "run", ProgressLine())
    assert not (tmp_path / "run").exists()


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists"):
        train(small_recipe(tmp_path), tmp_path, ProgressLine())
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"), steps=20, lr=1e30)
    with pytest.raises(FloatingPointError, match=r"loss of step \d+ is .*its batch: \w+"):
        train(recipe, tmp_path / "run", ProgressLine())


def test_init_takes_weights_by_name_and_shape_and_says_what_is_missing(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    recipe = small_recipe(root, steps=1)
    run(recipe, tmp_path / "first")
    with pytest.raises(ValueError, match="belongs to another network"):
        other = dataclasses.replace(recipe, model="deeplabv3plus_mobilenet_v2")
        train(other, tmp_path / "second", ProgressLine(), init=tmp_path / "first")
    frozen = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=1e-12, ema_decay=0.0))
    start = run(recipe, tmp_path / "third")
    train(frozen, tmp_path / "fourth", ProgressLine(), init=tmp_path / "third")
    weights = last_weights(tmp_path / "fourth")
    name = next(name for name, tensor in start.items() if tensor.ndim == 4)
    torch.testing.assert_close(weights[name], start[name])


def test_frozen_statistics_are_used_and_kept_while_scale_and_shift_train(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"), steps=2)
    recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, ema_decay=0.0))
    start = run(recipe, tmp_path / "start")
    frozen = dataclasses.replace(recipe, frozen_statistics=True)
    train(frozen, tmp_path / "frozen", ProgressLine(), init=tmp_path / "start")
    after = last_weights(tmp_path / "frozen")
    statistics = {name for name in start if "running" in name or "num_batches" in name}
    changed = {name for name in start if not torch.equal(start[name], after[name])}
    assert statistics and not statistics & changed
    norms = {name.removesuffix(".running_mean") for name in statistics if name.endswith("running_mean")}
    assert all({f"{norm}.weight", f"{norm}.bias"} <= changed for norm in norms)


def test_a_rate_multiplied_by_0_leaves_its_parameters_as_they_were(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"), steps=2)
    recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, ema_decay=0.0))
    start = run(recipe, tmp_path / "start")
    optim = dataclasses.replace(recipe.optim, lr_multipliers={"backbone": 0, "head": 2})
    train(dataclasses.replace(recipe, optim=optim), tmp_path / "run", ProgressLine(), init=tmp_path / "start")
    after = last_weights(tmp_path / "run")
    kept = {name for name in start if name.endswith((".weight", ".bias")) and torch.equal(start[name], after[name])}
    assert kept == {name for name in start if name.startswith("backbone.") and name.endswith((".weight", ".bias"))}


def test_a_multiplier_that_meets_no_parameter_stops_the_run_before_its_first_step(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"))
    optim = dataclasses.replace(recipe.optim, lr_multipliers={"bakbone": 0.1})
    with pytest.raises(ValueError, match=r"optim\.lr_multipliers: no parameter is 'bakbone' or in it"):
        train(dataclasses.replace(recipe, optim=optim), tmp_path / "run", ProgressLine())
    assert not (tmp_path / "run").exists()


def test_mixup_is_refused_where_images_have_no_class(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"))
    with pytest.raises(ValueError, match=r"task 'segment' does not read loss\.mixup; it reads class_weights"):
        train(dataclasses.replace(recipe, loss=Loss(mixup=0.2)), tmp_path / "run", ProgressLine())


def test_data_without_what_task_or_pipeline_need_is_refused_before_the_work(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"))
    augment = Augment(pipeline="blitznet")
    squares = dataclasses.replace(recipe.data, augment=augment, crop_size=(64, 64))
    with pytest.raises(ValueError, match="pipeline blitznet crops around boxes; split 'train' has none"):
        train(dataclasses.replace(recipe, data=squares), tmp_path / "run", ProgressLine())
    root = coco.write(tmp_path / "coco")
    for split in ("train", "val"):
        path = root / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        content["categories"] = content["categories"][:: 1 if split == "train" else -1]
        if split == "val":
            content["categories"] = [
                {**category, "name": f"other {category['id']}"} for category in content["categories"]
            ]
        path.write_text(json.dumps(content))
    data = dataclasses.replace(recipe.data, dataset="coco", root=str(root))
    with pytest.raises(ValueError, match="split 'train' has the classes .*, split 'val' .*They must be the same"):
        train(dataclasses.replace(recipe, data=data), tmp_path / "run", ProgressLine())
    with pytest.raises(ValueError, match="the joined splits have different classes"):
        train(
            dataclasses.replace(recipe, data=dataclasses.replace(data, train_split="train+val")),
            tmp_path / "run",
            ProgressLine(),
        )
    root = imagenet.write(tmp_path / "imagenet")
    data = dataclasses.replace(recipe.data, dataset="imagenet", root=str(root))
    with pytest.raises(ValueError, match="split 'train' has no masks, which task 'segment' needs"):
        train(dataclasses.replace(recipe, data=data), tmp_path / "run", ProgressLine())
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_numbers_are_never_written(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"), steps=1000, lr=1e30)
    recipe = dataclasses.replace(recipe, validate_every=3)  # a row of the log is due every second step
    with pytest.raises(FloatingPointError, match="The checkpoints before it are intact"):
        train(recipe, tmp_path / "run", ProgressLine())
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        assert all(torch.isfinite(tensor).all() for tensor in read_checkpoint(path).model.values()), path.name
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert not best.exists() or all(torch.isfinite(tensor).all() for tensor in load_model(best)[0].values())


def test_replaced_samples_are_counted_over_the_whole_run(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    data = (root / "images/train/a.png").read_bytes()
    (root / "images/train/a.png").write_bytes(data[:40] + b"broken" + data[60:])
    recipe = small_recipe(root, steps=6)  # two epochs make three batches
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, unreadable="replace"))
    train(recipe, tmp_path / "run", ProgressLine())
    content = json.loads((tmp_path / "run" / "unreadable.json").read_text())
    assert content["replaced"] == 4 and len(content["reasons"]) == 1


def test_a_batch_that_can_never_fit_is_refused_before_the_work(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"))
    data = dataclasses.replace(recipe.data, batch_size=100_000, crop_size=(2049, 2049))
    with pytest.raises(ValueError, match=r"100000 images of 2049x2049 takes at least .* GiB.*Lower data\.batch_size"):
        train(dataclasses.replace(recipe, data=data), tmp_path / "run", ProgressLine())
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_task_is_refused_before_any_data_is_opened(tmp_path: Path) -> None:
    recipe = dataclasses.replace(small_recipe(tmp_path / "nowhere"), model="resnest_tiny")
    with pytest.raises(ValueError, match="model 'resnest_tiny' gives class_logits; task 'segment' reads mask_logits"):
        train(recipe, tmp_path / "run", ProgressLine())


def test_a_row_of_the_log_has_the_loss_of_its_step_and_the_rate_that_it_used(tmp_path: Path) -> None:
    recipe = small_recipe(write_folder(tmp_path / "data"), steps=4)
    train(recipe, tmp_path / "run", ProgressLine())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates == pytest.approx([learning_rate(recipe.optim, step, 4) for step in range(4)])
    assert [row["epoch"] for row in rows if "lr" in row] == pytest.approx([2 / 3, 4 / 3, 2, 8 / 3], abs=1e-3)
