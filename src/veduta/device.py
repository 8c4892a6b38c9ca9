"""Devices: the only file that names cuda, npu and mps. Choice, precision, seeds, memory, threads."""

import contextlib
import ctypes
import os
import resource
import sys

import torch

KINDS = ("cuda", "npu", "mps")  # accelerators, in the order in which "auto" looks for them

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _available(kind: str) -> bool:
    if kind == "npu":
        with contextlib.suppress(ImportError):
            import torch_npu  # noqa: F401  # type: ignore[import-not-found]
        return hasattr(torch, "npu") and bool(torch.npu.is_available())
    if kind == "mps":
        return torch.backends.mps.is_available()
    return torch.cuda.is_available()


def select_device(name: str) -> torch.device:
    """'auto' takes the first accelerator that is there, else the CPU; any other name must be there.

    Raises ValueError for an unknown or missing device.
    """
    if name == "auto":
        return torch.device(next((kind for kind in KINDS if _available(kind)), "cpu"))
    kind = name.split(":")[0]
    if kind != "cpu" and kind not in KINDS:
        raise ValueError(
            f"device '{name}' is not known. Use auto, cpu, {', '.join(KINDS)}, or one with an index: cuda:1."
        )
    if kind != "cpu" and not _available(kind):
        raise ValueError(
            f"device '{name}' is not available on this machine. Use auto or cpu; `veduta doctor` says why."
        )
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Forward passes inside run in `precision` where that is safe; fp32 changes nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaling for fp16, whose small gradients would vanish; a no-op for the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


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
