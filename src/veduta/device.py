"""Devices: the only file that names cuda, npu and mps. Choice, collectives, precision, seeds, memory, threads."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

KINDS = ("cuda", "npu", "mps")  # accelerators, in the order in which "auto" looks for them

_COLLECTIVES = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}  # what moves tensors from process to process

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _available(kind: str) -> bool:
    if kind == "npu":
        with contextlib.suppress(ImportError):
            import torch_npu  # noqa: F401  # type: ignore[import-not-found]
        return hasattr(torch, "npu") and bool(torch.npu.is_available())
    if kind == "mps":
        return torch.backends.mps.is_available()
    return torch.cuda.is_available()


def select_device(name: str, *, process: int = 0, processes: int = 1) -> torch.device:
    """'auto' takes the first accelerator that is there, else the CPU; any other name must be there.

    Of several processes on one machine each takes an accelerator of its own, that with the number `process`.
    Raises ValueError for an unknown or missing device.
    """
    if name == "auto":
        name = next((kind for kind in KINDS if _available(kind)), "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", *KINDS) or (":" in name and not index.isdecimal()):
        raise ValueError(
            f"device '{name}' is not known. Use auto, cpu, {', '.join(KINDS)}, or one with an index: cuda:1."
        )
    if kind == "cpu":
        return torch.device(name)
    if not _available(kind):
        raise ValueError(
            f"device '{name}' is not available on this machine. Use auto or cpu; `veduta doctor` says why."
        )
    if processes > 1:
        if kind not in _COLLECTIVES:
            raise ValueError(f"{kind} devices train in one process, and {processes} were started. Start one.")
        if index:
            raise ValueError(
                f"device '{name}' is one device for {processes} processes. Use {kind}: each takes its own."
            )
        if processes > _count(kind):
            raise ValueError(
                f"{processes} processes were started on this machine, which has {_count(kind)} {kind} devices. Start "
                "as many processes as there are devices."
            )
        return torch.device(kind, process)
    if index and int(index) >= _count(kind):
        raise ValueError(
            f"device '{name}' is not on this machine, which has {_count(kind)}, counted from 0. Choose one of them."
        )
    return torch.device(name)


def _count(kind: str) -> int:
    return 1 if kind == "mps" else torch.get_device_module(kind).device_count()


def collectives(device: torch.device) -> str:
    """Backends of torch.distributed for processes on such devices: for tensors there and for those of the CPU."""
    kinds = dict.fromkeys(("cpu", device.type))
    return ",".join(f"{kind}:{_COLLECTIVES[kind]}" for kind in kinds)


def is_collective_failure(error: RuntimeError) -> bool:
    """Whether one of these backends raised it, because another process is gone or does not answer."""
    words = ("gloo/", "NCCL", "HCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Forward passes inside run in `precision` where that is safe; fp32 changes nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def check_precision(device: torch.device, precision: str) -> None:
    """Raises ValueError where a device cannot train in a precision."""
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 needs an accelerator. On a CPU use fp32 or bf16.")


def seed_everything(seed: int) -> None:
    """Seed PyTorch's global random state; NumPy's generators are made, seeded, where they are used."""
    torch.manual_seed(seed)


def keep_freed_memory() -> None:
    """Let the C allocator keep large freed blocks: on a CPU, activations otherwise page-fault anew at every step.

    Only glibc has the call; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            trim_threshold, mmap_threshold, whole_memory = -1, -3, 2**31 - 1
            libc.mallopt(mmap_threshold, whole_memory)
            libc.mallopt(trim_threshold, whole_memory)


def pins_memory(device: torch.device) -> bool:
    """Whether batches come to the device faster from memory that the system may not move."""
    return device.type in ("cuda", "npu")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation on a device or a CPU failed."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def has_fused_optimizers(device: torch.device) -> bool:
    """Whether PyTorch's fused optimizers run there: one kernel for all parameters instead of several for each."""
    return device.type in ("cpu", "cuda", "mps")


def peak_memory(device: torch.device) -> int:
    """Largest memory use so far in bytes: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "npu":
        return int(torch.npu.max_memory_allocated(device))  # type: ignore[attr-defined]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> dict[str, str]:
    """What `veduta doctor` and environment.json say about the machine."""
    found = {kind: "available" if _available(kind) else "not available" for kind in KINDS}
    if found["cuda"] == "available":
        found["cuda"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return {
        "cpu": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        **found,
    }


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device, or that this process may still take on a CPU."""
    if device.type in ("cuda", "npu"):
        module = torch.get_device_module(device)
        kept = module.memory_reserved(device) - module.memory_allocated(device)  # freed, and held for the next tensors
        return int(module.mem_get_info(device)[0]) + int(kept)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # see keep_freed_memory
    pages, page = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = pages * page
    with contextlib.suppress(OSError):  # Linux only, and more exact: what files occupy can be had as well
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    for limit in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            free = min(free, int(Path(limit).read_text()))
    return free
