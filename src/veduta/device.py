"""Devices: the only file that names cuda, npu and mps. Choice, collectives, precision, seeds, memory, threads."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import resource
import sys
from pathlib import Path

import torch
from torch import nn

KINDS = ("cuda", "npu", "mps")  # accelerators, in the order in which "auto" looks for them

_COLLECTIVES = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}  # what moves tensors from process to process

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def why_not(kind: str) -> str | None:
    """Why there is no device of this kind here, in words after a colon; None where there is one."""
    return {"cuda": _why_not_cuda, "npu": _why_not_npu, "mps": _why_not_mps}[kind]()


def _why_not_cuda() -> str | None:
    if torch.cuda.is_available():
        return None
    built_for = torch.version.cuda or torch.version.hip
    if built_for is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    return f"PyTorch is built for CUDA {built_for}, but finds no GPU or no driver that is new enough"


def _why_not_mps() -> str | None:
    if torch.backends.mps.is_available():
        return None
    return "macOS finds no GPU for it" if torch.backends.mps.is_built() else "this PyTorch is built without it"


def _why_not_npu() -> str | None:
    if importlib.util.find_spec("torch_npu") is None:
        return "the package torch_npu is not installed"
    if fault := _fault_of_torch_npu():
        return (
            f"the package torch_npu is installed, but cannot be imported: {fault} (PyTorch starts without "
            "it where TORCH_DEVICE_BACKEND_AUTOLOAD=0 is set)"
        )
    if torch.npu.is_available():  # type: ignore[attr-defined]
        return None
    shown = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    hidden = "" if shown is None else f", with ASCEND_RT_VISIBLE_DEVICES={shown}"
    return f"the package torch_npu is installed, but its driver shows no NPU{hidden}"


@functools.cache
def _fault_of_torch_npu() -> str | None:
    """Why it cannot be imported: mostly a library of CANN is not found. PyTorch itself may have imported it before."""
    try:
        import torch_npu  # noqa: F401  # type: ignore[import-not-found]
    except (Exception, SystemExit) as error:  # some of its versions end the process
        return (str(error) or type(error).__name__).splitlines()[0]
    return None if hasattr(torch, "npu") else "it has registered no device"


def _available(kind: str) -> bool:
    return why_not(kind) is None


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
            f"device '{name}' is not available on this machine: {why_not(kind)}. Use auto or cpu; `veduta doctor` says "
            "what is missing."
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


def make_current(device: torch.device) -> None:
    """From now on tensors and libraries of this process that name no index mean this device."""
    if device.type in ("cuda", "npu") and device.index is not None:
        torch.get_device_module(device).set_device(device)
    if device.type == "npu":
        # As CANN advises for inputs of many sizes: take kernels that are compiled already. The default of newer chips.
        torch.npu.set_compile_mode(jit_compile=False)  # type: ignore[attr-defined]


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The same model on the device, which becomes the current one, in the layout that convolutions prefer there."""
    make_current(device)
    if device.type == "npu":  # its tensors are contiguous always; it refuses to make others
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


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
    if device.type == "npu" and precision != "fp32":
        known = torch.npu.get_amp_supported_dtype()  # type: ignore[attr-defined]
        if _DTYPES[precision] not in known:  # torch.autocast would only warn, and compute in fp32
            able = [name for name, dtype in _DTYPES.items() if dtype in known]
            raise ValueError(f"precision {precision} is not one of this NPU. Use {' or '.join(['fp32', *able])}.")


def loss_scaler(device: torch.device, *, scale: float, enabled: bool) -> torch.amp.GradScaler:
    """What scales losses so that small gradients do not become 0 in fp16. scale: the first factor."""
    if device.type == "npu":  # its own sees overflows that older chips saturate, so that no number is infinite
        own: torch.amp.GradScaler = torch.npu.amp.GradScaler(  # type: ignore[attr-defined]
            init_scale=scale, enabled=enabled
        )
        return own
    return torch.amp.GradScaler(device.type, init_scale=scale, enabled=enabled)


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


def has_fused_optimizers(device: torch.device) -> bool:
    """Whether PyTorch's fused optimizers run there, with a scaled loss too: one kernel for all parameters."""
    return device.type in ("cpu", "cuda", "mps")


def peak_memory(device: torch.device) -> int:
    """Largest memory use so far in bytes: of the device, or of this process on a CPU."""
    if device.type in ("cuda", "npu"):
        return int(torch.get_device_module(device).max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> dict[str, str]:
    """What environment.json and `veduta doctor` say about the devices: of a missing one, why."""
    return {
        "cpu": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        **{kind: _describe(kind) if _available(kind) else f"not available: {why_not(kind)}" for kind in KINDS},
    }


def _describe(kind: str) -> str:
    if kind == "mps":
        return "available"
    module = torch.get_device_module(kind)
    return f"{module.device_count()} x {module.get_device_name()}, {_software(kind)}"


def _software(kind: str) -> str:
    if kind == "npu":
        import torch_npu

        return f"torch_npu {torch_npu.__version__}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device, or that this process may still take on a CPU."""
    if device.type in ("cuda", "npu"):
        module = torch.get_device_module(device)
        kept = module.memory_reserved(device) - module.memory_allocated(device)  # freed, and held for the next tensors
        return int(module.mem_get_info(device)[0]) + int(kept)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # see keep_freed_memory
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # all: on macOS
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):  # Linux only, and more exact: what files occupy can be had as well
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    for limit in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            free = min(free, int(Path(limit).read_text()))
    return free
