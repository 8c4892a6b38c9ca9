"""Ascend: a folder from which ATC compiles a network for a chip, and in which its outputs are made and scored."""

from pathlib import Path

import numpy as np
import onnx
from torch import nn

from veduta.backends.onnx import open_session
from veduta.config import Recipe
from veduta.engine.offline import usual_size
from veduta.errors import RunStopped
from veduta.export import runner
from veduta.export.ascend_graph import for_atc
from veduta.export.bundle import simple_name, take_in, write_from_template
from veduta.export.trace import Shape
from veduta.files import write_text
from veduta.model_info import ModelInfo, info_to_json
from veduta.models.blitznet import BlitzNet
from veduta.ops.arrays import Array, interpolate

MODEL, FOR_ATC = "model.onnx", "ascend.onnx"

CHIPS = {  # --soc_version -> the products that have it
    "Ascend310": "Atlas 200, 300, 500",
    "Ascend310P3": "Atlas 300I Pro, 300V Pro",
    "Ascend910A": "Atlas 800",
    "Ascend910B4": "Atlas 800I A2, 800T A2",
}

MOST_DIFFERENCE = 1e-4  # of the outputs of the two files, as a share of an output's range


def fixed_shape(network: nn.Module, recipe: Recipe, shape: Shape) -> Shape:
    """One image of one size: BlitzNet's own or that of the protocol, where none is given.

    Raises ValueError where none of them says one.
    """
    batch, channels, height, width = shape
    if batch not in (None, 1):
        raise ValueError(f"--batch {batch}: on Ascend the files of a split hold one image each. Leave --batch out.")
    usual = usual_size(recipe)
    if height and width:
        return 1, channels, height, width
    if isinstance(network, BlitzNet):
        return 1, channels, network.image_size, network.image_size
    if usual is None:
        raise ValueError(
            f"ATC compiles for one size, and protocol '{recipe.protocol}' shows images at their own. Give that of "
            "your images: --size HEIGHTxWIDTH; or a protocol of one size, such as --set protocol=deeplab."
        )
    return 1, channels, *usual


def write_ascend(model: Path, info: ModelInfo, folder: Path) -> None:
    """Move a proven ONNX file into a new folder, with what ATC, msame and `veduta score` need.

    Raises RunStopped where the network that ATC gets does not say what the proven file says.
    """
    model = take_in(model, folder / MODEL)
    proven = onnx.load(model, load_external_data=False)
    adapted = for_atc(proven, info.recipe.task)
    _compare(proven, adapted)
    del adapted.metadata_props[:]  # they are those of the proven file, which it is no more
    onnx.save(adapted, folder / FOR_ATC)
    (images,) = adapted.graph.input
    _, _, height, width = (dim.dim_value for dim in images.type.tensor_type.shape.dim)
    outputs = [
        (output.name, " x ".join(str(dim.dim_value) for dim in output.type.tensor_type.shape.dim))
        for output in adapted.graph.output
    ]
    values = {
        "info": info,
        "name": simple_name(info),
        "model": MODEL,
        "for_atc": FOR_ATC,
        "height": height,
        "width": width,
        "outputs": outputs,
        "chips": CHIPS,
        "bytes": 3 * height * width,
        "on_grid": info.recipe.task == "detect_segment",
    }
    for template in ("aipp.cfg", "atc.sh", "run.sh", "README.md", "README.zh.md"):
        write_from_template(f"ascend.{template}", folder / template, **values)
    write_text(folder / "labels.txt", info.labels.listed)
    write_text(folder / "model.json", info_to_json(info) + "\n")
    write_text(folder / "runner.py", Path(runner.__file__).read_text(encoding="utf-8"))


def _compare(proven: onnx.ModelProto, adapted: onnx.ModelProto) -> None:
    """Ask both networks of two images: noise, which shows every pixel, and black."""
    lengths = [dim.dim_value for dim in proven.graph.input[0].type.tensor_type.shape.dim]
    noise = np.random.default_rng(0).random(lengths, dtype=np.float32)
    for images in (noise, np.zeros_like(noise)):
        expected, found = _outputs(proven, images), _outputs(adapted, images)
        for name, values in found.items():
            whole = expected[name]
            at_size = interpolate(values, whole.shape[2:], "legacy") if values.shape != whole.shape else values
            difference = float(np.abs(at_size - whole).max() / max(np.ptp(whole), np.finfo(np.float32).tiny))
            if not difference <= MOST_DIFFERENCE:
                raise RunStopped(
                    f"{FOR_ATC} is not written: in opset 11 {name} differs by {difference:.1e} of its range, of which "
                    f"{MOST_DIFFERENCE:.0e} are allowed. Report it, with the name of the model."
                )


def _outputs(model: onnx.ModelProto, images: Array) -> dict[str, Array]:
    session = open_session(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))
