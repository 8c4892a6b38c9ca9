"""Promises of --init: what is taken from a file, by which names, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from veduta.checkpoint import save_model
from veduta.config import Data, Optim, Recipe
from veduta.data.label_maps import VOC, numbered, with_background
from veduta.engine.init import load_init
from veduta.labels import LabelMap
from veduta.model_info import ModelInfo
from veduta.models import build_model

STREET = with_background("street", ("road", "car", "person"))
MIXED = with_background("mixed", ("person", "drone", "road"))  # two of STREET's classes and a new one
PRIORS = 6  # BlitzNet's, per cell


def recipe_of(model: str, **options: Any) -> Recipe:
    data = Data(dataset="folder")
    return Recipe(name="test", model=model, model_options=options, data=data, optim=Optim(lr=0.1), steps=1)


def built(model: str, labels: LabelMap, *, seed: int = 1, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(model, labels.num_classes, **options)


def saved(path: Path, model: str, labels: LabelMap, **options: Any) -> tuple[Path, dict[str, Tensor]]:
    """A model file with weights that no builder gives, counters and statistics included."""
    state = built(model, labels, seed=0, **options).state_dict()
    state = {n: torch.rand_like(t) if t.is_floating_point() else torch.full_like(t, 7) for n, t in state.items()}
    save_model(path, state, ModelInfo(recipe=recipe_of(model, **options), labels=labels, step=3))
    return path, state


def differing(found: nn.Module, expected: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in found.state_dict().items() if not torch.equal(tensor, expected[name])}


def test_the_same_network_with_the_same_classes_is_taken_whole(tmp_path: Path) -> None:
    path, state = saved(tmp_path / "a.safetensors", "deeplabv3plus_tiny", STREET)
    model = built("deeplabv3plus_tiny", STREET)
    said = load_init(model, recipe_of("deeplabv3plus_tiny"), STREET, path)
    assert not differing(model, state)
    count = sum(not name.endswith("num_batches_tracked") for name in state)
    assert said == f"{count} of {count} tensors from {path}"


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    _, state = saved(tmp_path / "run/checkpoints/best.safetensors", "deeplabv3plus_tiny", STREET)
    model = built("deeplabv3plus_tiny", STREET)
    load_init(model, recipe_of("deeplabv3plus_tiny"), STREET, tmp_path / "run")
    assert not differing(model, state)


def test_classes_are_matched_by_name_and_the_others_stay_as_initialised(tmp_path: Path) -> None:
    path, state = saved(tmp_path / "a.safetensors", "deeplabv3plus_tiny", STREET)
    model = built("deeplabv3plus_tiny", MIXED)  # as many classes: shapes alone would tell nothing
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = load_init(model, recipe_of("deeplabv3plus_tiny"), MIXED, path)
    assert differing(model, state) == {"head.weight", "head.bias"}
    for name in ("head.weight", "head.bias"):
        rows = model.state_dict()[name]
        for place, class_name in enumerate(MIXED.names):
            source = state[name][STREET.names.index(class_name)] if class_name in STREET.names else before[name][place]
            assert torch.equal(rows[place], source), (name, class_name)
    assert "; of its 4 classes, by their names: background, person, road; classes from scratch: drone" in said


@pytest.mark.parametrize("model", ["deeplabv3plus_tiny", "refinenet_tiny"])
def test_more_classes_than_the_file_has_are_no_hindrance(tmp_path: Path, model: str) -> None:
    path, state = saved(tmp_path / "a.safetensors", model, STREET)
    network = built(model, VOC)
    load_init(network, recipe_of(model), VOC, path)
    head = network.get_parameter("head.weight")
    assert torch.equal(head[VOC.names.index("car")], state["head.weight"][STREET.names.index("car")])


def test_every_prior_of_blitznet_gets_its_classes(tmp_path: Path) -> None:
    path, state = saved(tmp_path / "a.safetensors", "blitznet_tiny", STREET)
    model = built("blitznet_tiny", VOC)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_init(model, recipe_of("blitznet_tiny"), VOC, path)
    for name in ("class_heads.shared.weight", "class_heads.shared.bias"):
        found, theirs = model.state_dict()[name], state[name]
        for prior in range(PRIORS):
            rows = {n: found[prior * VOC.num_classes + i] for i, n in enumerate(VOC.names)}
            assert torch.equal(rows["person"], theirs[prior * 4 + STREET.names.index("person")])
            assert torch.equal(rows["background"], theirs[prior * 4])
            assert torch.equal(rows["cow"], before[name][prior * VOC.num_classes + VOC.names.index("cow")])
    assert torch.equal(model.state_dict()["box_heads.shared.weight"], state["box_heads.shared.weight"])
    assert torch.equal(model.get_parameter("mask_head.bias")[15], state["mask_head.bias"][STREET.names.index("person")])


def test_without_a_common_class_all_of_the_head_starts_fresh_and_it_is_said(tmp_path: Path) -> None:
    path, state = saved(tmp_path / "a.safetensors", "deeplabv3plus_tiny", STREET)
    labels = LabelMap(
        name="other", classes=tuple(dataclasses.replace(c, name=f"other {c.name}") for c in STREET.classes)
    )
    model = built("deeplabv3plus_tiny", labels)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = load_init(model, recipe_of("deeplabv3plus_tiny"), labels, path)
    assert torch.equal(model.state_dict()["head.weight"], before["head.weight"])
    assert differing(model, state) == {"head.weight", "head.bias"}
    assert "by their names: none; classes from scratch: other background, " in said
    assert said.endswith("; from scratch: head")


def test_classes_that_a_file_does_not_name_are_taken_in_their_order_and_it_is_said(tmp_path: Path) -> None:
    path, state = saved(tmp_path / "a.safetensors", "deeplabv3plus_tiny", numbered(4, images=False))
    model = built("deeplabv3plus_tiny", STREET)
    said = load_init(model, recipe_of("deeplabv3plus_tiny"), STREET, path)
    assert not differing(model, state)
    assert said.endswith("; its classes, which it does not name, in their order")

    save_file(state, tmp_path / "plain.safetensors")
    model = built("deeplabv3plus_tiny", STREET)
    assert load_init(model, recipe_of("deeplabv3plus_tiny"), STREET, tmp_path / "plain.safetensors").endswith("order")
    assert not differing(model, state)
    said = load_init(built("deeplabv3plus_tiny", VOC), recipe_of("deeplabv3plus_tiny"), VOC, path)
    assert said.endswith("; from scratch: head")


def test_a_classifier_is_the_backbone_of_a_network_and_the_other_way_round(tmp_path: Path) -> None:
    of_images = numbered(5, images=True)
    path, state = saved(tmp_path / "a.safetensors", "mobilenet_v2", of_images)
    model = built("deeplabv3plus_mobilenet_v2", STREET)
    said = load_init(model, recipe_of("deeplabv3plus_mobilenet_v2"), STREET, path)
    found = {n.removeprefix("backbone."): t for n, t in model.state_dict().items() if n.startswith("backbone.")}
    assert {name.split(".")[1] for name in state.keys() - found.keys()} == {"18", "1"}  # what only a classifier has
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    assert said.endswith("; from scratch: aspp, low_level, decoder, head")

    path, state = saved(tmp_path / "b.safetensors", "deeplabv3plus_mobilenet_v2", STREET)
    classifier = built("mobilenet_v2", of_images)
    said = load_init(classifier, recipe_of("mobilenet_v2"), of_images, path)
    assert said.endswith("; from scratch: some of features, classifier")
    assert torch.equal(classifier.get_parameter("features.0.0.weight"), state["backbone.features.0.0.weight"])


def test_a_backbone_alone_under_the_networks_names_is_enough(tmp_path: Path) -> None:
    _, state = saved(tmp_path / "a.safetensors", "blitznet_tiny", STREET)
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    save_file(backbone, tmp_path / "trunk.safetensors")
    model = built("blitznet_tiny", STREET)
    said = load_init(model, recipe_of("blitznet_tiny"), STREET, tmp_path / "trunk.safetensors")
    assert {name for name in state if name not in differing(model, state)} >= backbone.keys()
    assert said.endswith("; from scratch: extra, up, box_heads, class_heads, mask_convs, mask_head")


def test_halves_become_floats_and_counters_may_be_missing(tmp_path: Path) -> None:
    _, state = saved(tmp_path / "a.safetensors", "deeplabv3plus_tiny", STREET)
    halves = {name: tensor.half() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(halves, tmp_path / "halves.safetensors")
    model = built("deeplabv3plus_tiny", STREET)
    said = load_init(model, recipe_of("deeplabv3plus_tiny"), STREET, tmp_path / "halves.safetensors")
    found = model.state_dict()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in halves.items())
    assert all(found[name].dtype == tensor.dtype for name, tensor in state.items())
    assert said.startswith(f"{len(halves)} of {len(halves)} tensors")


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ("resnet18", "resnest14", r"only \d+ of the model's \d+ tensors .* The model wants, for one, conv1\.0\.weight"),
        ("deeplabv3plus_tiny", "refinenet_tiny", r"only \d+ of the model's \d+ tensors"),
        ("resnet34", "resnet18", "a deeper one: .* no place here; for one, layer"),
        ("resnet18", "resnet34", "a shallower one: .* not in it by name and shape; for one, layer1.2"),
        ("resnet50", "resnet101", "a shallower one: 255 tensors .* for one, layer3.6"),
        pytest.param(
            *(
                "refinenet_resnet50",
                "refinenet_resnet101",
                "a shallower one: 255 tensors .* for one, backbone.layer3.6",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_network_is_refused_and_left_alone(tmp_path: Path, theirs: str, ours: str, words: str) -> None:
    path, _ = saved(tmp_path / "a.safetensors", theirs, STREET)
    model = built(ours, STREET)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=words) as error:
        load_init(model, recipe_of(ours), STREET, path)
    assert f"--init {path}: " in str(error.value) and "belongs to another network" in str(error.value)
    assert not differing(model, before)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path / "a.safetensors", "deeplabv3plus_tiny", STREET)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="It is damaged"):
        load_init(built("deeplabv3plus_tiny", STREET), recipe_of("deeplabv3plus_tiny"), STREET, path)
