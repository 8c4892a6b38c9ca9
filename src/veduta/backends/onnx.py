"""ONNX Runtime: runs an ONNX file of `veduta export` on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from veduta.backends.onnx_file import read_onnx
from veduta.backends.runtime import (
    IMAGES,
    check_cpu,
    check_images,
    check_ports,
    exported_of,
    in_words,
    num_threads,
    shape_words,
    with_changes,
)
from veduta.data.fit import unit_range
from veduta.errors import is_out_of_memory
from veduta.model_info import ModelInfo, OpenShape

_ONLY_ERRORS = 3  # of ONNX Runtime's levels of what it writes to stderr


class OnnxBackend:
    """A network in ONNX Runtime. It may be called from several threads."""

    device = "cpu"

    def __init__(self, session: Any, info: ModelInfo) -> None:
        self.session, self.info, self.runtime = session, info, in_words("onnx")

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        check_images(self.info, images.shape)
        try:
            outputs: list[NDArray[Any]] = self.session.run(None, {IMAGES: unit_range(images)})
        except Exception as error:  # its own exceptions have no common type
            if is_out_of_memory(error):
                raise MemoryError(_first_line(error)) from error
            raise ValueError(
                f"ONNX Runtime failed on images of {shape_words(images.shape)} ({_first_line(error)}). Try smaller "
                "batches or images."
            ) from error
        return dict(zip(exported_of(self.info).outputs, outputs, strict=True))


def open_onnx(path: Path, *, device: str, changes: Sequence[str]) -> OnnxBackend:
    """Raises ValueError or FileNotFoundError: see `read_onnx`, and for files that hold other than they tell."""
    check_cpu(path, device, "ONNX Runtime")
    data, info = read_onnx(path)
    info = with_changes(info, changes, source=path)
    session = _session(data, path)
    kinds = ("float", "int64", "uint8") if exported_of(info).full else ("float",)
    inputs, outputs = _ports(session.get_inputs(), ("float",), path), _ports(session.get_outputs(), kinds, path)
    check_ports(info, path, inputs=inputs, outputs=outputs)
    return OnnxBackend(session, info)


def open_session(data: bytes) -> Any:
    """A session of ONNX Runtime on the CPU that tells nobody of it. Raises what ONNX Runtime raises."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = _ONLY_ERRORS
    # It would print what fails to stdout, and try the same again.
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _session(data: bytes, path: Path) -> Any:
    try:
        return open_session(data)
    except ImportError as error:
        raise ValueError(f"{path}: needs ONNX Runtime: pip install 'veduta[runtime]'.") from error
    except Exception as error:
        raise ValueError(
            f"{path}: ONNX Runtime cannot open it ({_first_line(error)}). Export the model again."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _ports(values: Sequence[Any], kinds: Sequence[str], path: Path) -> dict[str, OpenShape]:
    """Names and shapes of inputs or outputs, in order. Raises ValueError where one is of another type."""
    for value in values:
        if value.type not in [f"tensor({kind})" for kind in kinds]:
            raise ValueError(
                f"{path}: '{value.name}' is a {value.type}; expected a tensor of {' or '.join(kinds)}. Export the "
                "model again."
            )
    return {v.name: tuple(n if isinstance(n, int) else None for n in v.shape) for v in values}
