"""On an Ascend NPU, as far as a stand-in shows it: Veduta asks the device for the right things, in the right order.

The stand-in (see stand_in/torch_npu) computes on the CPU. So nothing here says that the chip computes these operators,
how exact it is in any precision, what it takes of memory or time, or that HCCL connects real devices.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Watched, losses, small_recipe, write_data

from veduta.config import Keep, Optim, Recipe, recipe_to_json
from veduta.engine.checkpoints import read_checkpoint
from veduta.engine.train import train

HERE = Path(__file__).parent
STEPS = 4

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch knows no devices that are written in Python",
)


def python(*arguments: str | Path, **environment: str) -> str:
    """Output of a process in which `import torch_npu` gives the stand-in."""
    around = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE / "stand_in", HERE))), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=around | environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What on_npu.py saw."""
    return json.loads(python(HERE / "on_npu.py", tmp_path_factory.mktemp("found")).splitlines()[-1])


def test_auto_takes_an_npu_and_each_rank_its_own(found: dict[str, Any]) -> None:
    choice = found["choice"]
    assert choice["auto"] == "npu"
    assert choice["ranks"] == ["npu:0", "npu:1"]
    assert "'npu:2' is not on this machine, which has 2" in choice["missing"]
    assert choice["pins memory"]
    assert not choice["fused"]


def test_autocast_is_the_devices_and_a_precision_that_it_lacks_is_refused(found: dict[str, Any]) -> None:
    assert found["precision"]["fp16"] == [True, "torch.float16"]
    assert found["precision"]["bf16"] == [True, "torch.bfloat16"]
    fine, also_fine, refused = found["precision"]["old chip"]
    assert not fine and not also_fine
    assert refused == "precision bf16 is not one of this NPU. Use fp32 or fp16."


def test_memory_is_the_devices_and_a_full_one_is_recognised(found: dict[str, Any]) -> None:
    memory = found["memory"]
    assert memory == {"free": 4 << 30, "peak": 5 << 20, "full": True, "other": False}  # of it 1 GiB that PyTorch holds


def test_a_network_lies_contiguously_for_the_device_makes_no_other_tensors(found: dict[str, Any]) -> None:
    placement = found["placement"]
    assert "Only c10::MemoryFormat::Contiguous" in placement["refused"]
    assert placement["places"] == ["npu"]
    assert placement["departs by"] < 1e-5


def test_a_run_of_another_kind_of_device_goes_on(found: dict[str, Any]) -> None:
    assert found["moved"] == {"fused": [None, None], "scale": 8.0}


def test_the_device_is_described(found: dict[str, Any]) -> None:
    assert found["described"].startswith("2 x Ascend stand-in, torch_npu ")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def run(recipe: Recipe, folder: Path, *options: str) -> tuple[str, list[dict[str, Any]]]:
    """`veduta train`: what it said, and what it asked of the device."""
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe_to_json(recipe))
    command = ("-m", "veduta.cli", "train", str(folder / "recipe.json"), "--out", str(folder / "run"))
    said = python(*command, *options, NPU_CALLS=str(folder / "calls"), XDG_CACHE_HOME=str(folder / "cache"))
    return said, [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def calls_of(calls: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [call for call in calls if call["call"] == name]


def test_a_run_learns_there_what_it_learns_on_a_cpu(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe("detect_segment", data, steps=STEPS, validate_every=0, optim=Optim(name="adamw", lr=1e-4))
    said, calls = run(replace(recipe, device="npu:1"), tmp_path / "npu")
    assert "on npu:1, from scratch" in said
    assert calls_of(calls, "set_device")[0]["index"] == 1
    assert not calls_of(calls, "set_compile_mode")[0]["jit_compile"]
    assert {call["index"] for call in calls_of(calls, "place")} >= {1}
    assert len(calls_of(calls, "manual_seed_all")) >= 1 + STEPS
    assert len(calls_of(calls, "pin_memory")) == 2 * STEPS  # images and masks; boxes are as short as they are many
    assert not any(call["enabled"] for call in calls_of(calls, "GradScaler"))
    train(recipe, tmp_path / "cpu", Watched())
    assert losses(tmp_path / "npu" / "run") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_two_ranks_take_a_device_each_and_sum_over_hccl(data: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        "classify", data, device="npu", precision="fp16", steps=2, validate_every=0, keep=Keep(every=2)
    )
    said, calls = run(recipe, tmp_path / "npu", "--devices", "2")
    assert "on npu:0 in 2 processes" in said
    for rank in ("0", "1"):
        own = [call for call in calls if call["rank"] == rank]
        names = [call["call"] for call in own]
        assert {call["index"] for call in calls_of(own, "set_device")} == {int(rank)}
        assert names.index("set_device") < names.index("hccl")  # which takes the current device
        assert "allreduce" in names
        assert calls_of(own, "GradScaler")[0]["enabled"]
        assert {call["dtype"] for call in calls_of(own, "autocast")} == {"torch.float16"}
    checkpoint = read_checkpoint(tmp_path / "npu" / "run" / "checkpoints" / "step-00000002")
    assert checkpoint.values["exact_where"]["device"] == "npu"
