"""Runs in a process where the stand-in for torch_npu is installed: one check after the other, all found as JSON."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_npu  # noqa: F401  # the stand-in
from small_runs import small_recipe, write_data

from veduta import device
from veduta.data.label_maps import VOC
from veduta.engine.step import Step
from veduta.errors import is_out_of_memory
from veduta.models import build_model
from veduta.tasks import TASKS

NPU = torch.device("npu", 1)


def said(call: Callable[[], object]) -> str:
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def choice() -> dict[str, Any]:
    return {
        "auto": str(device.select_device("auto")),
        "ranks": [str(device.select_device("npu", process=rank, processes=2)) for rank in range(2)],
        "missing": said(lambda: device.select_device("npu:2")),
        "pins memory": device.pins_memory(NPU),
        "fused": device.has_fused_optimizers(NPU),
    }


def precision() -> dict[str, Any]:
    found = {}
    for name in ("fp16", "bf16"):
        with device.autocast(NPU, name):
            found[name] = [torch.is_autocast_enabled("npu"), str(torch.get_autocast_dtype("npu"))]
    module = torch.npu  # type: ignore[attr-defined]
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.float32]
    found["old chip"] = [said(partial(device.check_precision, NPU, name)) for name in ("fp32", "fp16", "bf16")]
    del module.get_amp_supported_dtype
    return found


def memory() -> dict[str, Any]:
    full = RuntimeError("NPU out of memory. Tried to allocate 138.00 MiB (NPU 0; 28.50 GiB total capacity)")
    return {
        "free": device.free_memory(NPU),
        "peak": device.peak_memory(NPU),
        "full": is_out_of_memory(full),
        "other": is_out_of_memory(RuntimeError("aclnnConvolution failed")),
    }


def placement() -> dict[str, Any]:
    """A network there says what it says on the CPU, in tensors that are contiguous."""
    model = build_model("blitznet_tiny", 5).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
    device.place(model, NPU)
    with torch.inference_mode():
        found = model(images.to(NPU))
    return {
        "places": sorted({value.device.type for value in found.values()}),
        "departs by": max(float((found[name].cpu() - expected[name]).abs().max()) for name in expected),
        "refused": said(lambda: images.to(NPU, memory_format=torch.channels_last)),
    }


def moved(folder: Path) -> dict[str, Any]:
    """What a GPU's run saved goes on here: its optimizer was fused, its scaler knew less."""
    recipe = small_recipe("segment", write_data(folder), precision="fp16")
    task = TASKS["segment"](VOC, recipe.loss)
    step = Step(build_model(recipe.model, VOC.num_classes), task, recipe, NPU)
    tensors, values = step.state()
    for group in values["optimizer"]["groups"]:
        group["fused"] = True
    del values["scaler"]["dynamic"]
    values["scaler"]["scale"] = 8.0
    step.restore(step.scored.state_dict(), tensors, values)
    return {"fused": [group["fused"] for group in step.optimizer.param_groups], "scale": step.scaler.get_scale()}


def main(folder: Path) -> None:
    parts = {"choice": choice(), "precision": precision(), "memory": memory(), "placement": placement()}
    print(json.dumps({**parts, "moved": moved(folder), "described": device.describe()["npu"]}))


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]))
