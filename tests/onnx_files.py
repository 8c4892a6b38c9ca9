"""ONNX files of a network of one convolution, honest and hostile, and their signatures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from veduta.data.label_maps import VOC
from veduta.export.onnx import save_onnx
from veduta.model_info import METADATA_KEY, ModelInfo, info_to_json
from veduta.recipes import find_recipe

CLASSES = VOC.num_classes
RECIPE = replace(find_recipe("demo"), task="segment", model="deeplabv3plus_tiny", model_options={})
INFO = ModelInfo(recipe=RECIPE, labels=VOC, step=3)


def small_graph() -> onnx.ModelProto:
    """images -> mask_logits, one logit per class and pixel: a weighted sum of the colours."""
    weights = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weights"], ["mask_logits"], name="conv")],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("mask_logits", TensorProto.FLOAT, ["N", CLASSES, "H", "W"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def write_small(path: Path, proto: onnx.ModelProto | None = None, **said: Any) -> Path:
    """A file whose hash is right, whatever it holds; `said`: fields of Exported that it tells in place of the truth."""
    proto = small_graph() if proto is None else proto
    info = save_onnx(proto, INFO, path)
    if said:
        assert info.exported is not None
        tell(path, replace(info, exported=replace(info.exported, **said)))
    return path


def tell(path: Path, info: ModelInfo) -> None:
    """Let a file say something else of itself; its hash still fits."""
    proto = onnx.load(path, load_external_data=False)
    del proto.metadata_props[:]
    proto.metadata_props.add(key=METADATA_KEY, value=info_to_json(info))
    path.write_bytes(proto.SerializeToString(deterministic=True))
