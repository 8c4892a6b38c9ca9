"""Promises of recipes: equal after JSON, every change checked against its field, errors that name file and field."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from veduta.config import (
    Augment,
    Data,
    Optim,
    Recipe,
    differing_fields,
    field_paths,
    nearest,
    read_recipe,
    recipe_from_json,
    recipe_to_json,
    set_fields,
    with_roots,
)
from veduta.data import DATASETS, GENERATED
from veduta.models import MODELS
from veduta.recipes import RECIPES, find_recipe

RECIPE = Recipe(
    name="small",
    model="deeplabv3plus_tiny",
    data=Data(dataset="camvid", crop_size=(64, 96), augment=Augment(scale=(0.5, 2.0))),
    optim=Optim(lr=0.1),
    steps=10,
    model_options={"output_stride": 8, "rate": 1.0, "aux": True, "kind": "8"},
)


def value_at(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name)
    return value


def another_value(path: str) -> Any:
    """A value that the field at `path` can take; not its own where it has a choice."""
    *parents, leaf = path.split(".")
    part = value_at(RECIPE, ".".join(parents)) if parents else RECIPE
    hint = get_type_hints(type(part))[leaf]
    if get_origin(hint) is Literal:
        return get_args(hint)[-1]
    if get_origin(hint) is tuple:
        return (0.25, 0.5) if leaf == "area" else (33, 65)
    return {int: 4, float: 0.25, str: "other", bool: True}.get(hint, {"output_stride": 16})


def changed_json(**changes: Any) -> str:
    return json.dumps({**json.loads(recipe_to_json(RECIPE)), **changes})


def test_a_recipe_is_equal_after_json_with_the_types_of_its_options() -> None:
    again = recipe_from_json(recipe_to_json(RECIPE), source="recipe.json")
    assert again == RECIPE
    assert [type(v) for v in again.model_options.values()] == [int, float, bool, str]


def test_a_recipe_is_equal_after_a_file(tmp_path: Path) -> None:
    recipe = replace(RECIPE, name="Straße")
    (tmp_path / "recipe.json").write_text(recipe_to_json(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.json") == recipe


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPE.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("path", [p for p in field_paths() if p != "then"])
def test_every_field_can_be_set_and_nothing_else_changes(path: str) -> None:
    value = another_value(path)
    of_images = path.split(".")[-1] in ("pipeline", "area", "crop_by", "policy", "policy_first", "lighting")
    augment = Augment(pipeline="window" if path.endswith("pipeline") else "imagenet")
    recipe = RECIPE
    if of_images:
        recipe = replace(RECIPE, task="classify", data=replace(RECIPE.data, augment=augment))
    if path == "loss_scale":
        recipe = replace(RECIPE, precision="fp16")
    changed = set_fields(recipe, [f"{path}={value if isinstance(value, str) else json.dumps(value)}"])
    assert value_at(changed, path) == value
    differing = [p for p in field_paths() if value_at(changed, p) != value_at(recipe, p)]
    assert differing == ([path] if value != value_at(recipe, path) else [])
    assert recipe_from_json(recipe_to_json(changed), source="recipe.json") == changed


@pytest.mark.parametrize(
    "path", [p for p in field_paths() if p not in ("model_options", "optim.lr_multipliers", "then")]
)
def test_every_field_refuses_a_value_of_another_type_by_name(path: str) -> None:
    with pytest.raises(ValueError, match=rf"^--set {path}=.*: {path}: Input should be .*got \{{'no': 1\}}"):
        set_fields(RECIPE, [f'{path}={{"no": 1}}'])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lr=fast", r"optim\.lr: Input should be a valid number.*got 'fast'"),
        ("optim.lr=0", r"optim\.lr: Input should be greater than 0, got 0"),
        ("optim.lr=NaN", r"optim\.lr: .*got nan"),
        ("optim.momentum=1", r"optim\.momentum: Input should be less than 1, got 1"),
        ("optim.hold_steps=0", r"optim\.hold_steps: Input should be greater than or equal to 1, got 0"),
        ("optim.decay_factor=0", r"optim\.decay_factor: Input should be greater than 0, got 0"),
        ("optim.milestones=[5, 5]", r"optim: milestones must rise, got \(5, 5\)"),
        ("optim.milestones=[-1]", r"optim\.milestones\.0: Input should be greater than or equal to 0, got -1"),
        ("optim.schedule=step", r"optim\.schedule: Input should be 'poly', .*got 'step'"),
        ('optim={"lr": 1, "nesterov": true, "momentum": 0}', r"optim: nesterov needs sgd with momentum, got sgd"),
        ('optim={"lr": 1, "nesterov": true, "name": "adam"}', r"optim: nesterov needs sgd with momentum, got adam"),
        ('optim.lr_multipliers={"head": -1}', r"optim\.lr_multipliers\.head: .*greater than or equal to 0, got -1"),
        ('optim.lr_multipliers={"head": "no"}', r"optim\.lr_multipliers\.head: .*valid number.*got 'no'"),
        ("loss.hardest=0", r"loss\.hardest: Input should be greater than 0, got 0"),
        ("loss.smoothing=1", r"loss\.smoothing: Input should be less than 1, got 1"),
        ("loss.mixup=-0.2", r"loss\.mixup: Input should be greater than or equal to 0, got -0\.2"),
        ("optim.lr=Infinity", r"optim\.lr: Input should be a finite number, got inf"),
        ("steps=1.5", r"steps: Input should be a valid integer.*got 1\.5"),
        ("precision=fp8", r"precision: Input should be 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ("data.crop_size=[31, 96]", r"data: crop_size must be from 32 to 16,384 on each side, got \(31, 96\)"),
        ("data.crop_size=[96]", r"data\.crop_size\.1: Field required"),
        ("data.augment.scale=[2, 1]", r"data\.augment: scale must be \(low, high\) with 0 < low <= high"),
        ("model_options.output_stride=[8]", r"model_options\.output_stride.*got \[8\]"),
    ],
)
def test_a_wrong_value_is_refused_with_field_expectation_and_finding(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_fields(RECIPE, [assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.learning=1", r"no field 'optim\.learning'"),
        ("optim.momentun=1", r"no field 'optim\.momentun'\. Did you mean momentum\?"),
        ("data.augment.flipp=1", r"Did you mean flip\?"),
        ("step=3", r"Did you mean steps"),
        ("lr=1", r"no field 'lr'.*There is optim\.lr\."),
        ("optim.lr.value=1", r"A field without parts stands before it"),
        ("optim.lr", r"expected field=value, such as optim\.lr=0\.02"),
        ('optim={"lr": 1, "momentun": 0}', r"unknown field 'optim\.momentun'\. Did you mean momentum\?"),
    ],
)
def test_a_misspelt_name_gets_a_hint(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_fields(RECIPE, [assignment])


def test_model_options_may_be_new() -> None:
    assert set_fields(RECIPE, ["model_options.dropout=0.5"]).model_options == {**RECIPE.model_options, "dropout": 0.5}


def test_later_assignments_see_the_earlier_ones() -> None:
    changed = set_fields(RECIPE, ['optim={"lr": 1}', "optim.momentum=0.5", "optim.lr=2"])
    assert changed.optim == Optim(lr=2, momentum=0.5)


def test_setting_leaves_the_given_recipe_as_it_was() -> None:
    before = recipe_to_json(RECIPE)
    set_fields(RECIPE, ["model_options.output_stride=32", "data.augment.flip=0"])
    assert recipe_to_json(RECIPE) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed_json(stepz=3), r"unknown field 'stepz'\. Did you mean steps\?"),
        (changed_json(optim={"lr": 1, "learning": 2}), r"unknown field 'optim\.learning'"),
        (changed_json(steps="many"), r"steps: Input should be a valid integer.*'many'"),
        (changed_json(optim={}), r"optim\.lr: Field required"),
        ("[]", r"recipe: Input should be a dictionary.*got \[\]"),
        ('{"name": ', r"not valid JSON"),
    ],
)
def test_a_wrong_recipe_file_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"recipe\.json not found\. Expected a recipe as JSON"):
        read_recipe(tmp_path / "recipe.json")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_equal_and_names_what_exists(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe_from_json(recipe_to_json(recipe), source=name) == recipe
    assert recipe.name == name and recipe.model in MODELS and recipe.data.dataset in {**DATASETS, **GENERATED}
    assert RECIPES[name].__doc__


def test_a_recipe_is_found_by_name_or_by_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(recipe_to_json(RECIPE))
    assert find_recipe("demo") == RECIPES["demo"]()
    assert find_recipe(str(path)) == RECIPE
    with pytest.raises(ValueError, match=r"no recipe is called 'camvit'\. Did you mean camvid"):
        find_recipe("camvit")


def test_nearest_lists_everything_where_nothing_is_near() -> None:
    assert nearest("xyz", ["apple", "pear"]) == " Known: apple, pear."
    assert nearest("aple", ["apple", "fig"]) == " Did you mean apple?"


def test_a_recipe_that_is_not_utf8_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"bad\.json: not UTF-8"):
        read_recipe(tmp_path / "bad.json")


def test_a_value_out_of_bounds_is_said_once() -> None:
    with pytest.raises(ValueError, match=r"crop_size must be from 32 to 16,384 on each side, got \(0, 0\)\.$"):
        set_fields(find_recipe("demo"), ["data.crop_size=[0,0]"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.augment.focus=0.5", "pipeline deeplab does not read focus; window would"),
        ("data.augment.area=[0.1,1]", "pipeline deeplab does not read area; imagenet would"),
        ("data.augment.brightness=0.2", "pipeline deeplab does not read brightness; window and imagenet would"),
    ],
)
def test_a_field_that_the_pipeline_would_ignore_is_refused(assignment: str, message: str) -> None:
    recipe = set_fields(find_recipe("camvid-cpu"), ['data.augment={"pipeline":"deeplab"}'])
    with pytest.raises(ValueError, match=message):
        set_fields(recipe, [assignment])


def test_blitznets_squares_need_a_square_crop() -> None:
    with pytest.raises(ValueError, match=r"pipeline blitznet makes squares, got crop_size \(161, 225\)"):
        set_fields(find_recipe("camvid-cpu"), ['data.augment={"pipeline":"blitznet"}'])


def test_fields_that_only_go_together_may_be_set_in_any_order() -> None:
    assignments = ["data.augment.policy=randaugment", "data.augment.pipeline=imagenet", "data.augment.scale=[1,1]"]
    recipe = set_fields(RECIPE, [*assignments, "task=classify"])
    assert recipe == set_fields(RECIPE, ["task=classify", *assignments[::-1]])
    assert recipe.data.augment == Augment(pipeline="imagenet", policy="randaugment")
    with pytest.raises(
        ValueError, match=r"^--set data\.augment\.policy=randaugment: data\.augment: pipeline window does not"
    ):
        set_fields(RECIPE, assignments[:1])


def test_a_pipeline_that_drops_what_the_task_needs_is_refused() -> None:
    with pytest.raises(
        ValueError, match="pipeline imagenet keeps neither masks nor boxes; it is not for task 'segment'"
    ):
        set_fields(RECIPE, ['data.augment={"pipeline":"imagenet"}'])


def test_the_fields_of_a_next_stage_are_set_by_its_name() -> None:
    recipe = replace(RECIPE, then=replace(RECIPE, name="second"))
    changed = set_fields(recipe, ["then.optim.lr=0.25", "steps=3"])
    assert changed.then is not None and changed.then.optim.lr == 0.25 and changed.steps == 3
    assert differing_fields(changed, recipe) == ["steps", "then.optim.lr"]
    assert [stage.name for stage in changed.stages] == [RECIPE.name, "second"]
    assert recipe_from_json(recipe_to_json(changed), source="recipe.json") == changed
    with pytest.raises(ValueError, match=r"a recipe has no field 'then\.optim\.lrr'\. Did you mean lr"):
        set_fields(recipe, ["then.optim.lrr=1"])
    with pytest.raises(ValueError, match="A field without parts stands before it"):
        set_fields(RECIPE, ["then.steps=1"])


def test_folders_of_data_go_to_the_stages_in_their_order(tmp_path: Path) -> None:
    recipe = replace(RECIPE, then=replace(RECIPE, name="second"))
    roots = [tmp_path / "sbd", tmp_path / "voc"]
    assert [stage.data.root for stage in with_roots(recipe, roots).stages] == [str(root) for root in roots]
    assert {stage.data.root for stage in with_roots(recipe, roots[:1]).stages} == {str(roots[0])}
    with pytest.raises(ValueError, match=r"--data is given 3 times\. Give it one for each of the 2 stages"):
        with_roots(recipe, [*roots, tmp_path])


def test_parts_with_names_of_their_own_are_set_one_by_one() -> None:
    recipe = set_fields(RECIPE, ["optim.lr_multipliers.backbone=0.1", "model_options.rate=2"])
    assert recipe.optim.lr_multipliers["backbone"] == 0.1 and recipe.model_options["rate"] == 2
    with pytest.raises(ValueError, match="A field without parts stands before it"):
        set_fields(RECIPE, ["model_options=5", "model_options.a=1"])


@pytest.mark.parametrize("text", ["[" * 200_000, '{"name": ' * 100_000])
def test_deeply_nested_json_is_refused_and_no_crash(text: str) -> None:
    with pytest.raises(ValueError, match="^recipe.json: not valid JSON"):
        recipe_from_json(text, source="recipe.json")
    with pytest.raises(ValueError, match="^--set steps=.*valid integer"):
        set_fields(RECIPE, [f"steps={text}"])
