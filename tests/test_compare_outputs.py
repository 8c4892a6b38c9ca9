"""Promises of comparing outputs: the module at fault is named, rounding is not a fault, memory stays bounded."""

import copy
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from layouts import TINY
from numpy.typing import NDArray
from stub_backend import RECIPE, StubBackend
from torch import Tensor, nn

from veduta.backends.torch import TorchBackend
from veduta.engine import compare_outputs as module
from veduta.engine.compare_outputs import Kept, Running, compare_outputs, watched
from veduta.engine.departure import Difference, OutputComparison
from veduta.model_info import ModelInfo
from veduta.models import build_model

NAMES = ("runs/a", "runs/b")
NETWORKS = {"segment": "deeplabv3plus_tiny", "classify": "resnest_tiny", "detect_segment": "blitznet_tiny"}


def network(name: str = "deeplabv3plus_tiny", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, TINY.num_classes).eval()


def backend(model: nn.Module, name: str = "deeplabv3plus_tiny", **changes: Any) -> TorchBackend:
    recipe = replace(RECIPE, model=name, **changes)
    return TorchBackend(model, ModelInfo(recipe=recipe, labels=TINY, step=7), torch.device("cpu"))


def altered(model: nn.Module, name: str, change: float = 1e-3) -> nn.Module:
    """A copy in which the weights of one module are larger by a share of them."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.get_submodule(name).parameters():
            parameter.mul_(1 + change)
    return other


def photos(count: int = 2, size: tuple[int, int] = (64, 80)) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


def compared(one: nn.Module, other: nn.Module, **changes: Any) -> OutputComparison:
    return compare_outputs(backend(one), backend(other), photos(), names=NAMES, **changes)


def test_a_network_against_itself_differs_nowhere() -> None:
    model = network()
    found = compared(model, model)
    assert found.departing is None and found.images == 2 and found.why_none == ""
    assert {difference.largest for difference in (*found.modules, *found.outputs)} == {0.0}
    assert [output.agreement for output in found.outputs] == [1.0]
    assert "nothing departs: the largest difference is 0.0e+00" in found.headline()


@pytest.mark.parametrize("name", ["backbone.conv1", "backbone.layer2.0.conv2", "head"], ids=["first", "middle", "last"])
def test_the_module_whose_weights_were_changed_is_named(name: str) -> None:
    model = network()
    found = compared(model, altered(model, name))
    assert found.departing is not None and found.departing.name == name
    assert found.departing.kind == "Conv2d"
    assert found.departing.largest == pytest.approx(1e-3, rel=0.05)
    place = found.modules.index(found.departing)
    assert all(difference.largest == 0 for difference in found.modules[:place])
    assert found.headline().startswith(f"{name} is the first that departs: it differs by 1.0e-03; ")
    assert f"around {name}, as they run" in found.table()


@pytest.mark.parametrize("task", NETWORKS)
def test_modules_come_in_the_order_in_which_they_run_and_outputs_by_name(task: str) -> None:
    name = NETWORKS[task]
    model, order = network(name), []
    image = torch.from_numpy(photos(1)[0]).permute(2, 0, 1)[None]
    with watched(model, lambda module, kind, tensor: order.append(module)), torch.inference_mode():
        outputs = model(image / 255)
    found = compare_outputs(backend(model, name), backend(model, name), photos(1), names=NAMES)
    assert [difference.name for difference in found.modules] == order
    assert [difference.name for difference in found.outputs] == sorted(outputs)
    logits = {output.name for output in found.outputs if output.agreement == 1.0}
    assert logits == {output for output in outputs if output.endswith("logits")}


def test_bfloat16_is_within_its_own_tolerance_and_far_beyond_that_of_float32() -> None:
    model = network()
    one, other = backend(model), backend(model, precision="bf16")
    found = compare_outputs(one, other, photos(), names=NAMES)
    assert found.tolerance == module.TOLERANCES["bf16"] and found.departing is None
    (output,) = found.outputs
    assert 1e-4 < output.rms < 0.1 and output.agreement is not None and 0.8 < output.agreement < 1
    strict = compare_outputs(one, other, photos(), names=NAMES, tolerance=1e-5)
    assert strict.departing is not None and strict.departing.kind == "Conv2d"  # the first one: before it is nothing
    assert strict.departing == next(difference for difference in strict.modules if difference.kind == "Conv2d")


def test_a_module_that_departs_is_found_above_the_noise_of_those_before() -> None:
    def line(name: str, largest: float) -> Difference:
        return Difference(name=name, kind="Conv2d", shapes=((1,), (1,)), largest=largest, rms=largest)

    growing = tuple(line(f"m{i}", 1e-7 * 2**i) for i in range(12))
    found = OutputComparison(
        names=NAMES, images=1, tolerance=1e-5, modules=growing, outputs=(line("mask_logits", 2e-4),)
    )
    assert found.departing is None  # each module has twice the difference of the one before
    assert "differences grow from module to module, to 2.0e-04 of m11; m7 is the first above" in found.headline()
    jumped = replace(found, modules=(*growing[:6], line("faulty", 1e-3), *growing[6:]))
    assert jumped.departing is not None and jumped.departing.name == "faulty"
    assert "it differs by 1.0e-03; all that ran before it differs by at most 3.2e-06" in jumped.headline()
    outside = replace(found, modules=growing[:3], outputs=(line("mask_logits", 1e-3),))
    assert outside.departing is not None and outside.departing.name == "mask_logits"


def test_what_is_no_number_in_one_of_both_departs_and_json_has_no_infinity() -> None:
    model = network()
    found = compared(model, broken(model))
    assert found.departing is not None and found.departing.name == "head"
    assert math.isinf(found.departing.largest)
    content = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert content["departing"] == "head"
    assert next(m for m in content["modules"] if m["name"] == "head")["largest"] is None


def broken(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter("head.weight")[0] = math.nan
    return other


def test_equal_infinities_and_equal_gaps_are_no_difference() -> None:
    running = Running("m", "ReLU")
    values = torch.tensor([math.inf, -math.inf, math.nan, 2.0])
    running.update(Kept.of(values), Kept.of(values + torch.tensor([0, 0, 0, 0.5])))
    assert (running.result().largest, running.result().rms) == (0.25, 0.25)


def test_another_network_is_compared_by_its_outputs_alone() -> None:
    one, other = backend(network()), backend(network("refinenet_tiny"), "refinenet_tiny")
    found = compare_outputs(one, other, photos(), names=NAMES)
    assert found.modules == () and [output.name for output in found.outputs] == ["mask_logits"]
    assert found.why_none == "deeplabv3plus_tiny and refinenet_tiny have different modules"
    assert "outputs alone (deeplabv3plus_tiny and refinenet_tiny have different modules)" in found.table()


def test_another_backend_is_compared_by_its_outputs_alone() -> None:
    found = compare_outputs(StubBackend(), StubBackend(blind_to=2), photos(), names=NAMES)
    assert found.why_none == "not both are PyTorch" and found.modules == ()
    (output,) = found.outputs
    assert output.agreement is not None and 0 < output.agreement < 1 and output.largest == 1
    assert found.departing == output


def test_outputs_of_no_common_name_are_refused() -> None:
    classifier = backend(network("resnest_tiny"), "resnest_tiny")
    with pytest.raises(ValueError, match="A gives the outputs mask_logits, B class_logits: none of one name"):
        compare_outputs(backend(network()), classifier, photos(), names=NAMES)


def test_outputs_of_other_shapes_depart_and_both_shapes_are_told() -> None:
    class Small(StubBackend):
        def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
            return {"mask_logits": super().__call__(images)["mask_logits"][..., ::2, ::2]}

    found = compare_outputs(StubBackend(), Small(), photos(), names=NAMES)
    assert found.departing is not None and found.departing.agreement is None
    assert "1x3x64x80 | 1x3x32x40" in found.table()


def test_large_tensors_are_kept_in_part_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALUES", 1000)
    kept = Kept.of(torch.arange(64 * 32 * 32.0).reshape(1, 64, 32, 32))
    assert len(kept.values) <= 1000 and not kept.whole
    columns, channels = kept.values % 32, kept.values // 1024
    assert len(columns.unique()) == 32 and len(channels.unique()) == 64  # of every column and every channel some
    model = network()
    found = compared(model, altered(model, "backbone.layer2.0.conv2"))
    assert found.departing is not None and found.departing.name == "backbone.layer2.0.conv2"
    assert found.sampled > 10 and f"of {found.sampled} modules at most " in found.table()


def test_of_both_networks_no_more_is_kept_than_the_modules_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    class Counted(Kept):
        def __post_init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(module, "Kept", Counted)
    model = network()
    found = compared(model, model)
    assert most <= len(found.modules) + 2


def test_the_memory_of_a_module_that_changes_its_input_is_not_shared() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Conv2d(3, 3, 1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            x = self.scale(images)
            before = x.clone()
            return {"mask_logits": x.zero_() + before}

    torch.manual_seed(0)
    one = InPlace()
    found = compared(one, altered(one, "scale", 0.1))
    assert found.departing is not None and found.departing.name == "scale"


def test_a_module_that_runs_twice_and_gives_several_tensors_has_a_line_for_each() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return x, {"half": x / 2}

    model, seen = nn.Sequential(Pair()), []
    shared = model[0]
    with watched(model, lambda name, kind, tensor: seen.append((name, kind))):
        shared(torch.zeros(1))
        shared(torch.zeros(1))
    assert seen == [("0[0]", "Pair"), ("0[1][half]", "Pair"), ("0[0]#2", "Pair"), ("0[1][half]#2", "Pair")]
    assert not shared._forward_hooks


def test_of_large_images_the_middle_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIDE", 32)
    found = compare_outputs(StubBackend(), StubBackend(), photos(1, (100, 24)), names=NAMES)
    assert found.outputs[0].shapes[0] == (1, 3, 32, 24)
