"""OpenVINO: runs files of `veduta export`, its own and ONNX, on the CPU."""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from veduta.backends.onnx_file import read_onnx
from veduta.backends.openvino_file import read_pair
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

# Kept of the kernels that are made for each size of images, some hundred for one: those of a handful of sizes. More is
# its own choice, and then memory grows with every size that comes.
_MOST_KERNELS = 1000


class OpenVinoBackend:
    """A network in OpenVINO. Threads that call it at the same time wait for each other."""

    device = "cpu"

    def __init__(self, compiled: Any, info: ModelInfo) -> None:
        self.compiled, self.info, self.runtime = compiled, info, in_words("openvino")

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        check_images(self.info, images.shape)
        # Nobody else writes to the outputs of a request of their own, so they need no copy. Not `infer`: with a single
        # thread it keeps errors to itself, and leaves behind what the next request would stumble over.
        request = self.compiled.create_infer_request()
        try:
            request.start_async({0: unit_range(images)}, share_inputs=True)
            request.wait()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError(_last_line(error)) from error
            raise ValueError(
                f"OpenVINO failed on images of {shape_words(images.shape)} ({_last_line(error)}). Try smaller batches "
                "or other images."
            ) from error
        names = exported_of(self.info).outputs
        return {name: request.get_output_tensor(place).data for place, name in enumerate(names)}


def open_openvino(path: Path, *, device: str, changes: Sequence[str]) -> OpenVinoBackend:
    """Open a .xml with the .bin beside it, or a .onnx.

    Raises ValueError or FileNotFoundError: see `read_pair` and `read_onnx`, and for files that hold other than they
    tell.
    """
    check_cpu(path, device, "OpenVINO")
    weights = None
    if path.suffix == ".onnx":
        network, info = read_onnx(path)
    else:
        network, weights, info = read_pair(path)
    info = with_changes(info, changes, source=path)
    core = open_core(load_openvino(path))
    try:
        model = core.read_model(network) if weights is None else core.read_model(network, weights)
        mend(model)
        settings = {
            "INFERENCE_NUM_THREADS": num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, on processors that have it
            "PERFORMANCE_HINT": "LATENCY",
            "CPU_RUNTIME_CACHE_CAPACITY": _MOST_KERNELS,
        }
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ValueError(f"{path}: OpenVINO cannot open it ({_last_line(error)}). Export the model again.") from error
    outputs = ports(model.outputs, list(exported_of(info).outputs), path)
    check_ports(info, path, inputs=ports(model.inputs, [IMAGES], path), outputs=outputs)
    return OpenVinoBackend(compiled, info)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1][:300]


def load_openvino(path: Path) -> ModuleType:
    """The package. Raises ValueError where it is not installed."""
    # Its import reports to its makers that it was imported, by another package, and does not where that is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ValueError(f"{path}: needs OpenVINO: pip install 'veduta[openvino]'.") from error
    return openvino


@cache
def open_core(openvino: ModuleType) -> Any:
    """The one core of this process.

    The plug-in of each core lays a stack of its own beneath the handlers of signals, and the one before back when it
    goes. Of two, the one that goes first takes away what the other one lays back: the next signal ends the process.
    """
    return openvino.Core()


def mend(model: Any) -> None:
    """Have a graph that was read from ONNX do what ONNX promises.

    Of equals the one that comes first is sorted first. A pool whose windows lie side by side, and whose size is rounded
    up, takes maps that are smaller than a window: it is padded, by pixels that do not count, in place of the rounding.
    """
    for operator in model.get_ops():
        kind, said = operator.get_type_name(), operator.get_attributes()
        if kind == "TopK" and said["sort"] == "value":
            operator.set_attribute("stable", True)
        elif kind == "AvgPool" and _is_rounded_up_side_by_side(said):
            operator.set_attribute("pads_end", [length - 1 for length in said["kernel"]])
            operator.set_attribute("rounding_type", "floor")
    model.validate_nodes_and_infer_types()


def _is_rounded_up_side_by_side(pool: Mapping[str, Any]) -> bool:
    padded = any([*pool["pads_begin"], *pool["pads_end"]]) or not pool["exclude-pad"]
    return pool["rounding_type"] != "floor" and pool["kernel"] == pool["strides"] and not padded


def ports(found: Sequence[Any], names: Sequence[str], path: Path) -> dict[str, OpenShape]:
    """Names and shapes of a model's inputs or outputs, in order; of a port that has several names one of `names`.

    Raises ValueError where one is no tensor of numbers.
    """
    shapes: dict[str, OpenShape] = {}
    for port in found:
        name = next((each for each in names if each in port.names), port.any_name)
        if port.element_type.to_string() not in ("f32", "i64", "u8") or port.partial_shape.rank.is_dynamic:
            raise ValueError(f"{path}: '{name}' is a {port.element_type}, which no exported network takes or gives.")
        shapes[name] = tuple(n.get_length() if n.is_static else None for n in port.partial_shape)
    return shapes
