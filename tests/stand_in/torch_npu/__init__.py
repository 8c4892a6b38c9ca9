"""A stand-in for Huawei's torch_npu: a device "npu" whose tensors lie in the CPU's memory and are computed there.

It is enough to run Veduta's own code on a device that is neither a CPU nor a GPU, and to see what it asks of it: each
call that matters is a line of JSON in the file $NPU_CALLS. What the chip computes, how fast, how much memory it takes
and what its libraries refuse cannot be seen here. Two refusals of the true package are repeated, for Veduta must not
run into them: tensors are contiguous or not made at all, and a collective of HCCL knows no float64, uint8 or bool.

$NPU_COUNT devices are there (default 2); $NPU_DTYPES are what autocast knows (default "float16 bfloat16").
"""

# mypy: disable-error-code="attr-defined, call-arg, override, method-assign, assignment, no-any-return"

import json
import os
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__version__ = "2.13.0.stand-in"


def note(call: str, **values: Any) -> None:
    if path := os.environ.get("NPU_CALLS"):
        line = json.dumps({"call": call, "rank": os.environ.get("RANK", "0"), **values}, default=str)
        with open(path, "a") as file:  # noqa: PTH123
            file.write(line + "\n")


class Device:
    """`torch.npu`."""

    index = 0
    amp = SimpleNamespace()

    def is_available(self) -> bool:
        return self.device_count() > 0

    def device_count(self) -> int:
        return int(os.environ.get("NPU_COUNT", "2"))

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return self.index

    def set_device(self, device: Any) -> None:
        self.index = device.index if isinstance(device, torch.device) else int(device)
        note("set_device", index=self.index)

    def set_compile_mode(self, *, jit_compile: bool) -> None:
        note("set_compile_mode", jit_compile=jit_compile)

    def get_device_name(self, device: Any = None) -> str:
        return "Ascend stand-in"

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [getattr(torch, name) for name in os.environ.get("NPU_DTYPES", "float16 bfloat16").split()]

    def manual_seed_all(self, seed: int) -> None:
        note("manual_seed_all", seed=seed)

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        note("mem_get_info", device=device)
        return 3 << 30, 4 << 30

    def memory_reserved(self, device: Any = None) -> int:
        return 2 << 30

    def memory_allocated(self, device: Any = None) -> int:
        return 1 << 30

    def max_memory_allocated(self, device: Any = None) -> int:
        note("max_memory_allocated", device=device)
        return 5 << 20


class Scaler(torch.amp.GradScaler):
    """`torch.npu.amp.GradScaler`: its state has one value more than PyTorch's."""

    def __init__(self, *, init_scale: float = 2.0**16, enabled: bool = True) -> None:
        super().__init__("npu", init_scale=init_scale, enabled=enabled)
        note("GradScaler", init_scale=init_scale, enabled=enabled)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "dynamic": True} if self.is_enabled() else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.is_enabled():
            assert isinstance(state_dict["dynamic"], bool)
            super().load_state_dict(state_dict)


class Tensor(torch.Tensor):
    """On the device; `raw` is the tensor of the CPU that holds its values.

    All of them say that they lie on npu:0, because PyTorch knows one device alone where it is written in Python.
    """

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "Tensor":
        wrapped: Tensor = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), dtype=raw.dtype, device=torch.device("npu", 0)
        )
        wrapped.raw = raw
        return wrapped

    def __repr__(self) -> str:
        return f"npu({self.raw})"

    def tolist(self) -> Any:
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, *args, **(kwargs or {}))


def on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.raw if isinstance(value, Tensor) else value


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """An operator on the CPU. What it writes to stays the tensor that it was."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    target = kwargs.get("device")
    to_cpu = target is not None and torch.device(target).type == "cpu"
    if not to_cpu and kwargs.get("memory_format") == torch.channels_last:
        raise RuntimeError("Only c10::MemoryFormat::Contiguous is supported for creating a npu tensor")
    given = {id(on_cpu(leaf)): leaf for leaf in leaves}
    own, named = tree_map(on_cpu, (args, kwargs))
    result = op(*own, **named)
    if to_cpu:
        return result
    if target is not None and not leaves:
        note("place", index=torch.device(target).index)

    def back(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return given[id(value)] if id(value) in given else Tensor(value)

    return tree_map(back, result)


def register() -> None:
    module = Device()
    module.amp = SimpleNamespace(GradScaler=Scaler)
    _setup_privateuseone_for_python_backend("npu", backend_module=module)
    LIBRARY.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    ATEN.impl("conv2d", partial(lowered, torch.conv2d), "AutocastPrivateUse1")
    ATEN.impl("linear", partial(lowered, torch.nn.functional.linear), "AutocastPrivateUse1")
    LIBRARY.fallback(run, "PrivateUse1")  # makes tensors from nothing: every other call meets one that is a Tensor
    ATEN.impl("_copy_from", lambda source, target, non_blocking=False: target.raw.copy_(on_cpu(source)), "PrivateUse1")
    dist.Backend.register_backend("hccl", Group, devices=["npu"])
    torch.Tensor.pin_memory = pin_memory


def lowered(operator: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
    """An operator in the precision of autocast; in the true package they are more."""
    dtype = torch.get_autocast_dtype("npu")
    note("autocast", dtype=dtype)
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return operator(*(arg.to(dtype) if isinstance(arg, torch.Tensor) else arg for arg in args))


class Group(dist.ProcessGroup):
    """HCCL's: gloo's on the tensors of the CPU that hold the values."""

    REDUCED = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)

    def __init__(self, store: Any, rank: int, size: int, timeout: Any) -> None:
        super().__init__(rank, size)
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout)
        note("hccl", size=size)

    def getBackendName(self) -> str:  # noqa: N802
        return "hccl"

    def _run(self, name: str, tensors: Any, *others: Any) -> Any:
        own, more = tree_map(on_cpu, (tensors, others))
        on_device = any(isinstance(leaf, Tensor) for leaf in tree_leaves(tensors))
        if on_device and name == "allreduce":
            assert all(tensor.dtype in self.REDUCED for tensor in own), "HCCL reduces no such tensors"
        if on_device:
            note(name)
        getattr(self.gloo, name)(own, *more).wait()
        future: torch.futures.Future[Any] = torch.futures.Future()
        future.set_result(own)
        return torch._C._distributed_c10d._create_work_from_future(future)

    def allreduce(self, tensors: Any, options: Any = None) -> Any:
        return self._run("allreduce", tensors, options or dist.AllreduceOptions())

    def broadcast(self, tensors: Any, options: Any = None) -> Any:
        return self._run("broadcast", tensors, options or dist.BroadcastOptions())

    def allgather(self, outputs: Any, inputs: Any, options: Any = None) -> Any:
        return self._run("allgather", outputs, inputs, options or dist.AllgatherOptions())


def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    note("pin_memory")
    return tensor


LIBRARY, ATEN = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
register()
