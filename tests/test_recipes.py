"""Recipes: each can be run as it is, and the published ones have the published values."""

import math
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import published_data
import pytest
from torch import nn

from veduta.config import Data, Optim, Recipe, recipe_from_json, recipe_to_json, set_fields, with_roots
from veduta.data import open_dataset
from veduta.data.layout import FileDataset
from veduta.data.loader import augment_sample
from veduta.data.sample import InMemory
from veduta.engine.optim import build_optimizer
from veduta.engine.schedules import learning_rate
from veduta.models import build_skeleton
from veduta.recipes import RECIPES, find_recipe

STAGES = [
    pytest.param(stage, id=f"{name}-{number}" if number > 1 else name)
    for name, recipe in RECIPES.items()
    for number, stage in enumerate(recipe().stages, start=1)
]
NUM_CLASSES = {"imagenet": 1000, "cityscapes": 19, "voc": 21, "sbd": 21}

IMAGENET, CITYSCAPES, TRAIN_AUG, VOC_TRAIN, SBD_MINUS_VOC = 1_281_167, 2975, 10_582, 1464, 9118  # images


def skeleton(recipe: Recipe) -> nn.Module:
    return build_skeleton(recipe.model, NUM_CLASSES.get(recipe.data.dataset, 5), **recipe.model_options)


def groups(recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Name of each trained parameter -> (multiplier of its rate, weight decay)."""
    model = skeleton(recipe)
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, recipe.optim, fused=False)
    return {names[p]: (g["lr_multiplier"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def decayed(recipe: Recipe) -> list[str]:
    found = groups(recipe)
    assert {decay for _, decay in found.values()} <= {0, recipe.optim.weight_decay}
    return [name for name, (_, decay) in found.items() if decay]


def values(recipe: Recipe) -> int:
    return sum(parameter.numel() for parameter in skeleton(recipe).parameters())


def rates(recipe: Recipe, *steps: int) -> list[float]:
    return [learning_rate(recipe.optim, step, recipe.steps) for step in steps]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_into_json_and_comes_back_equal_under_its_own_name(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe_from_json(recipe_to_json(recipe), source="a test") == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_the_command_that_runs_it(name: str) -> None:
    command = "veduta demo" if name == "demo" else f"veduta train {name} "
    assert command in (RECIPES[name].__doc__ or "")


@pytest.mark.parametrize("recipe", STAGES)
def test_a_recipes_model_exists_and_its_multipliers_name_parts_of_it(recipe: Recipe) -> None:
    found = {name: multiplier for name, (multiplier, _) in groups(recipe).items()}
    expected = {name: 1.0 for name, _ in skeleton(recipe).named_parameters()}
    for part, multiplier in recipe.optim.lr_multipliers.items():
        named = [name for name in expected if name == part or name.startswith(f"{part}.")]
        assert named, part
        expected |= dict.fromkeys(named, multiplier)
    assert found == {name: multiplier for name, multiplier in expected.items() if multiplier}  # 0 freezes


@pytest.mark.parametrize("recipe", STAGES)
def test_a_recipes_rate_is_never_negative_and_nowhere_above_its_peak(recipe: Recipe) -> None:
    found = rates(recipe, *range(0, recipe.steps, max(1, recipe.steps // 500)), recipe.steps - 1)
    assert min(found) >= 0 and max(found) == pytest.approx(recipe.optim.lr, rel=1e-3)


@pytest.mark.parametrize("recipe", STAGES)
def test_a_long_run_writes_a_checkpoint_every_2600_steps_and_keeps_only_written_ones(recipe: Recipe) -> None:
    if recipe.steps > 25_000:
        assert 0 < recipe.keep.every <= 2600
        assert not recipe.keep.multiples % recipe.keep.every


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Data, ...]]:
    """Published recipe -> the data of each stage, which is there."""
    root = published_data.write(tmp_path_factory.mktemp("published"))
    found = {}
    for name, folders in published_data.FOLDERS.items():
        recipe = with_roots(find_recipe(name), [root / folder for folder in folders])
        found[name] = tuple(stage.data for stage in recipe.stages)
    return found


@pytest.mark.parametrize("name", published_data.FOLDERS)
def test_a_published_recipe_reads_its_true_layout_and_crops_as_it_says(
    name: str, published: dict[str, tuple[Data, ...]]
) -> None:
    task = find_recipe(name).task
    for data in published[name]:
        dataset = open_dataset(data, data.train_split)
        assert dataset.labels.names == open_dataset(data, data.val_split).labels.names
        for index in range(len(dataset)):
            sample = augment_sample(dataset, index, data, np.random.default_rng(index))
            assert sample.image.shape == (*data.crop_size, 3)
            if task == "classify":
                assert sample.scene_class is not None
            else:
                assert sample.mask is not None and sample.mask.shape == data.crop_size
                assert task == "segment" or sample.boxes is not None


@pytest.mark.parametrize("name", published_data.FOLDERS)
def test_a_published_recipe_has_its_page(name: str) -> None:
    pages = (Path(__file__).parents[1] / "docs/systems").glob("*.md")
    assert sum(f"| `{name}` |" in page or f"veduta train {name} " in page for page in map(Path.read_text, pages)) == 1


def test_the_splits_are_those_of_the_publications(published: dict[str, tuple[Data, ...]]) -> None:
    def names(data: Data, split: str) -> set[str]:
        dataset = open_dataset(data, split)
        files = dataset.dataset if isinstance(dataset, InMemory) else dataset
        assert isinstance(files, FileDataset)
        return {files.record(i).name for i in range(len(files))}

    train, val = set(published_data.VOC_TRAIN), set(published_data.VOC_VAL)
    every = set(published_data.NAMES)
    (deeplab,) = published["deeplabv3plus-xception65-voc"]
    assert names(deeplab, deeplab.train_split) == train | val and names(deeplab, deeplab.val_split) == val
    for name in ("deeplabv3plus-xception65-voc-train-aug", "blitznet300-voc12"):
        (data,) = published[name]
        assert names(data, data.train_split) == every - val and names(data, data.val_split) == val
    for name in ("blitznet300-voc07+12", "blitznet512-voc"):
        (data,) = published[name]
        both = {f"2007/main-trainval/{n}" for n in every} | {f"2012/train_aug/{n}" for n in every - val}
        assert names(data, data.train_split) == both and names(data, data.val_split) == val
    first, second = published["refinenet101-voc"]
    assert names(first, first.train_split) == every - train - val
    assert names(second, second.train_split) == train and names(second, second.val_split) == val


# What is published beside steps, rates and counts, which have tests of their own below. EVERYWHERE: unless said.
EVERYWHERE: dict[str, Any] = {
    "data.augment.flip": 0.5,
    "data.augment.focus": 0,
    "data.augment.tint": 0,
    "data.augment.gamma": 0,
    "data.augment.policy": "none",
    "data.augment.lighting": 0,
    "data.unreadable": "stop",
    "optim.name": "sgd",
    "optim.momentum": 0.9,
    "optim.nesterov": False,
    "optim.lr_multipliers": {},
    "optim.ema_decay": 0,
    "optim.clip_norm": 0,
    "loss.class_weights": "none",
    "loss.hardest": 1,
    "loss.auxiliary": 0,
    "loss.dice": 0,
    "loss.smoothing": 0,
    "loss.mixup": 0,
    "loss.cutmix": 0,
    "precision": "fp32",
    "frozen_statistics": False,
    "sync_batch_norm": False,
    "accumulate": 1,
    "protocol": "whole",
    "not_finite": "stop",
}
COLOURS = {f"data.augment.{name}": 0.4 for name in ("brightness", "contrast", "saturation")}
RESNEST: dict[str, Any] = {
    "data.augment.pipeline": "imagenet",
    "data.crop_size": (224, 224),
    "data.batch_size": 64,
    "optim.schedule": "cosine",
    "optim.weight_decay": 1e-4,
    "optim.weight_decay_on": "names",
    "data.augment.area": (0.1, 1),
    "data.augment.crop_by": "height",
    "data.augment.policy": "randaugment",
    "data.augment.policy_first": True,
    "data.augment.lighting": 0.1,
    **COLOURS,
    "loss.smoothing": 0.1,
    "loss.smoothing_over": "all",
    "loss.mixup": 0.2,
    "protocol": "resnest",
}
CITYSCAPES_RUN: dict[str, Any] = {
    "data.augment.pipeline": "encoding",
    "data.augment.scale": (0.5, 2),
    "data.crop_size": (768, 768),
    "data.batch_size": 2,
    "optim.schedule": "poly",
    "optim.weight_decay": 1e-4,
    "optim.weight_decay_on": "all",
    "optim.lr_multipliers": {"aspp": 10, "head": 10, "aux_head": 10},
    "loss.auxiliary": 0.2,
    "sync_batch_norm": True,
    "protocol": "encoding",
}
DEEPLAB: dict[str, Any] = {
    "data.augment.pipeline": "deeplab",
    "data.augment.scale": (0.5, 2),
    "data.crop_size": (513, 513),
    "data.batch_size": 16,
    "optim.schedule": "poly",
    "optim.weight_decay": 4e-5,
    "optim.weight_decay_on": "full-kernels",
    "optim.lr_multipliers": {"head.bias": 2},
    "frozen_statistics": True,
    "protocol": "deeplab",
}
BLITZNET: dict[str, Any] = {
    "data.augment.pipeline": "blitznet",
    "data.crop_size": (300, 300),
    "data.batch_size": 32,
    "optim.name": "adam",
    "optim.schedule": "milestones",
    "optim.decay_factor": 0.1,
    "optim.weight_decay": 5e-5,
    "optim.weight_decay_on": "kernels",
    "protocol": "blitznet-voc12",
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "resnest50-imagenet": RESNEST,
    "resnest50-imagenet-mindspore": RESNEST
    | {
        "optim.schedule": "epoch-cosine",
        "optim.weight_decay_on": "kernels",
        "data.augment.area": (0.08, 1),
        "data.augment.crop_by": "area",
        "data.augment.policy": "randaugment-no-holes",
        "data.augment.policy_first": False,
        "data.augment.lighting": 0,
        "loss.smoothing_over": "others",
        "loss.mixup": 0,
        "precision": "fp16",
        "loss_scale": 0,
        "seed": 1,
        "protocol": "resnest-mindspore",
    },
    "resnest50-deeplabv3-cityscapes": CITYSCAPES_RUN,
    "resnest50-deeplabv3-cityscapes-ascend": CITYSCAPES_RUN | {"data.batch_size": 12},
    "deeplabv3plus-xception65-voc": DEEPLAB,
    "deeplabv3plus-xception65-voc-train-aug": DEEPLAB | {"frozen_statistics": False},
    "blitznet300-voc12": BLITZNET,
    "blitznet300-voc07+12": BLITZNET,
    "blitznet512-voc": BLITZNET | {"data.crop_size": (512, 512)},
    "refinenet101-voc": {
        "data.augment.pipeline": "refinenet",
        "data.augment.scale": (0.5, 3),
        "data.crop_size": (513, 513),
        "data.batch_size": 16,
        "optim.schedule": "cosine",
        "optim.weight_decay": 5e-4,
        "optim.weight_decay_on": "all",
        "optim.lr_multipliers": {
            f"backbone.layer{stage}.0.{conv}": 0
            for stage in (1, 2)
            for conv in ("conv1", "conv2", "conv3", "downsample.0")
        },
        "precision": "fp16",
        "loss_scale": 1024,
        "frozen_statistics": True,
        "protocol": "refinenet",
        "seed": 1,
    },
}


@pytest.mark.parametrize("name", published_data.FOLDERS)
def test_a_published_recipe_has_the_published_values_and_nothing_beside_them(name: str) -> None:
    expected = EVERYWHERE | PUBLISHED[name]
    for stage in find_recipe(name).stages:
        assert {path: attrgetter(path)(stage) for path in expected} == expected


def test_resnest50_is_trained_as_its_authors_do_in_pytorch() -> None:
    recipe = find_recipe("resnest50-imagenet")
    epoch = math.ceil(IMAGENET / 2048)
    assert recipe.steps == 270 * epoch and recipe.data.batch_size == 64
    first, warm, middle = rates(recipe, 0, 5 * epoch, 5 * epoch + 265 * epoch // 2)
    assert first == 0 and warm == 0.8 and middle == pytest.approx(0.4)
    assert rates(recipe, epoch)[0] == pytest.approx(0.16)
    assert rates(recipe, recipe.steps - 1)[0] < 1e-9
    assert len(decayed(recipe)) == 94 and len(groups(recipe)) == 94 + 169


@pytest.mark.parametrize(("name", "size"), [("resnest101", 48_275_016), ("resnest50_fast_4s2x40d", 30_417_592)])
def test_the_family_of_resnest_needs_no_more_than_set(name: str, size: int) -> None:
    assert f"--set model={name}" in (RECIPES["resnest50-imagenet"].__doc__ or "")
    recipe = set_fields(find_recipe("resnest50-imagenet"), [f"model={name}", "data.crop_size=[256,256]"])
    assert recipe.data.crop_size == (256, 256) and values(recipe) == size
    assert decayed(recipe) == [part for part in groups(recipe) if "bn" not in part and "bias" not in part]


def test_resnest50_is_trained_as_in_the_mindspore_port() -> None:
    recipe = find_recipe("resnest50-imagenet-mindspore")
    epoch = IMAGENET // (64 * 8)
    assert epoch == 2502 and recipe.steps == 270 * epoch and recipe.data.batch_size == 64
    assert rates(recipe, 0)[0] == pytest.approx(0.2 / epoch)
    expected = [0.1 * (1 + math.cos(math.pi * number / 270)) for number in (1, 1, 135, 269)]
    assert rates(recipe, epoch, 2 * epoch - 1, 135 * epoch, recipe.steps - 1) == pytest.approx(expected)
    shapes = dict(skeleton(recipe).named_parameters())
    assert decayed(recipe) == [name for name in groups(recipe) if shapes[name].ndim > 1]


def test_cityscapes_is_trained_as_in_pytorch_encoding() -> None:
    recipe = find_recipe("resnest50-deeplabv3-cityscapes")
    assert recipe.steps == 240 * (CITYSCAPES // 16) and recipe.data.batch_size * 8 == 16 and recipe.sync_batch_norm
    assert rates(recipe, 0, recipe.steps // 2) == pytest.approx([0.01, 0.01 * 0.5**0.9])
    found = groups(recipe)
    assert {decay for _, decay in found.values()} == {1e-4}
    multipliers = {name.split(".")[0]: multiplier for name, (multiplier, _) in found.items()}
    assert multipliers == {"backbone": 1, "aspp": 10, "head": 10, "aux_head": 10}
    assert values(recipe) == 43_929_254


def test_the_ascend_port_of_cityscapes_differs_where_its_readme_says_so() -> None:
    recipe, original = (find_recipe(f"resnest50-deeplabv3-cityscapes{ending}") for ending in ("-ascend", ""))
    assert recipe.model_options == {"pool_window": 7} and recipe.data.batch_size == 12
    assert recipe.steps == 500 * (CITYSCAPES // 12) and rates(recipe, 0) == [1e-5]
    assert recipe.data.augment == original.data.augment and recipe.loss == original.loss


def test_deeplab_is_trained_by_the_ports_command() -> None:
    recipe = find_recipe("deeplabv3plus-xception65-voc")
    assert recipe.steps == 200_000 and recipe.data.batch_size == 16 and recipe.frozen_statistics
    assert rates(recipe, 0, 100_000) == pytest.approx([1e-4, 1e-4 * 0.5**0.9])
    assert values(recipe) == 41_055_413
    assert len(decayed(recipe)) == 79
    assert [name for name, (multiplier, _) in groups(recipe).items() if multiplier == 2] == ["head.bias"]
    assert recipe.model_options["output_stride"] == 16


def test_deeplab_on_train_aug_follows_the_advice_of_its_code() -> None:
    recipe, trainval = (find_recipe(f"deeplabv3plus-xception65-voc{ending}") for ending in ("-train-aug", ""))
    assert recipe.steps == 30_000 and not recipe.frozen_statistics and recipe.data.batch_size == 16
    assert rates(recipe, 0) == [0.007]
    assert decayed(recipe) == decayed(trainval) and recipe.data.augment == trainval.data.augment


@pytest.mark.parametrize(
    ("name", "steps", "milestones", "size"),
    [
        ("blitznet300-voc12", 40_000, (25_000, 35_000), 59_379_951),
        ("blitznet300-voc07+12", 65_000, (40_000, 50_000), 59_379_951),
        ("blitznet512-voc", 65_000, (40_000, 50_000), 68_534_511),
    ],
)
def test_blitznet_is_trained_as_published(name: str, steps: int, milestones: tuple[int, int], size: int) -> None:
    recipe = find_recipe(name)
    assert recipe.steps == steps and recipe.data.batch_size == 32 and recipe.optim.name == "adam"
    first, second = milestones
    found = rates(recipe, 0, 1, first, first + 1, second, second + 1, steps - 1)
    assert found == pytest.approx([1e-5, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])
    assert values(recipe) == size
    shapes = dict(skeleton(recipe).named_parameters())
    assert decayed(recipe) == [parameter for parameter in groups(recipe) if shapes[parameter].ndim > 1]
    if "300" in name:
        assert len(decayed(recipe)) == 112
        priors = skeleton(recipe).get_buffer("priors")
        assert priors.shape == (45_390, 4)


def test_refinenet_is_trained_in_two_stages_as_on_one_gpu_of_the_port() -> None:
    first, second = find_recipe("refinenet101-voc").stages
    assert first.steps == 200 * (SBD_MINUS_VOC // 16) and second.steps == 200 * (VOC_TRAIN // 16)
    for stage, rate in ((first, 0.001), (second, 0.0001)):
        assert rates(stage, 0, stage.steps // 2) == pytest.approx([rate, rate / 2])
        sizes = {name: p.numel() for name, p in skeleton(stage).named_parameters()}
        trained = groups(stage)
        assert len(sizes.keys() - trained.keys()) == 8
        assert sum(sizes[name] for name in trained) == 117_601_877
        assert {decay for _, decay in trained.values()} == {5e-4}
        assert stage.model_options == {"dropout": 0.0, "output_resize": "legacy", "same_pool": True}
    assert first.validate_every == 0  # so that its last weights are its best, as in the port


def test_the_peaks_of_the_published_rates_are_those_of_their_batches() -> None:
    """0.1 for 256 images (ResNeSt), 0.01 for 16 (PyTorch-Encoding)."""
    recipes: dict[str, tuple[float, int]] = {
        "resnest50-imagenet": (0.1 / 256, 2048),
        "resnest50-imagenet-mindspore": (0.1 / 256, 512),
        "resnest50-deeplabv3-cityscapes": (0.01 / 16, 16),
    }
    for name, (per_image, batch) in recipes.items():
        optim: Optim = find_recipe(name).optim
        assert optim.lr == pytest.approx(per_image * batch)
