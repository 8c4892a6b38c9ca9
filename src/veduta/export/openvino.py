"""OpenVINO: an ONNX graph as the two files that OpenVINO opens fastest, .xml and .bin."""

import dataclasses
import tempfile
from pathlib import Path

import onnx

from veduta.backends.openvino import load_openvino, mend, open_core, ports
from veduta.backends.openvino_file import hash_pair, weights_path, with_info
from veduta.backends.runtime import IMAGES
from veduta.files import replacing
from veduta.model_info import Exported, ModelInfo


def save_openvino(proto: onnx.ModelProto, info: ModelInfo, path: Path) -> ModelInfo:
    """Write `path`, a .xml, and the .bin beside it; returns the info that went into the .xml.

    info.exported may tell all else of the file; its shapes and the hash of its contents are the file's own. The .bin
    gets its name first: a .xml that can be seen is that of a whole pair, and tells a strange .bin by its hash.
    Raises ValueError where OpenVINO is not installed.
    """
    openvino = load_openvino(path)
    model = open_core(openvino).read_model(proto.SerializeToString())
    mend(model)
    exported = info.exported or Exported(format="openvino", images=(), outputs={})
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        fresh = Path(folder) / "model.xml"
        openvino.save_model(model, fresh, compress_to_fp16=False)
        xml = fresh.read_bytes()
        exported = dataclasses.replace(
            exported,
            images=ports(model.inputs, [IMAGES], path)[IMAGES],
            outputs=ports(model.outputs, [value.name for value in proto.graph.output], path),
            contents_sha256=hash_pair(xml, weights_path(fresh).read_bytes()),
        )
        info = dataclasses.replace(info, exported=exported)
        with replacing(weights_path(path)) as temporary:
            weights_path(fresh).replace(temporary)
        with replacing(path) as temporary:
            temporary.write_bytes(with_info(xml, info))
    return info
