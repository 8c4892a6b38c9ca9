"""Promises of the folder for Ascend: the network that ATC gets is the one that was proven; its scripts are sound."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_files import traced, write_onnx
from model_files import random_backend, write_model
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper
from prediction_files import data_of, scored
from small_runs import small_recipe
from test_offline import evaluated, expect_same_score, prepared, run
from test_triton import parse

from veduta.config import Recipe
from veduta.engine.offline import Form
from veduta.engine.score import open_predictions
from veduta.errors import RunStopped
from veduta.export import ascend, runner
from veduta.export.ascend import fixed_shape, write_ascend
from veduta.export.ascend_graph import for_atc
from veduta.export.opset import OPSET, lower_opset
from veduta.ops.arrays import interpolate

SEED = 3
MODELS = {  # with the side of their images
    "resnest_tiny": ("classify", 64),
    "deeplabv3plus_tiny": ("segment", 65),
    "refinenet_tiny": ("segment", 65),
    "blitznet_tiny": ("detect_segment", 128),
}


def network(name: str, tmp_path: Path) -> tuple[Recipe, onnx.ModelProto]:
    task, side = MODELS[name]
    recipe = dataclasses.replace(small_recipe(task, tmp_path), model=name)
    labels = data_of("imagenet" if task == "classify" else "voc", tmp_path / "data").labels
    return recipe, traced(recipe, labels, (1, 3, side, side), SEED)


@pytest.mark.parametrize("name", MODELS)
def test_the_old_opset_says_the_same(name: str, tmp_path: Path) -> None:
    recipe, proto = network(name, tmp_path)
    images = np.random.default_rng(0).random((1, 3, *[MODELS[name][1]] * 2), np.float32)
    expected = ascend._outputs(proto, images)
    lowered = lower_opset(proto)
    assert [each.version for each in lowered.opset_import] == [OPSET]
    for output, values in ascend._outputs(lowered, images).items():
        assert np.array_equal(values, expected[output]), output
    adapted = for_atc(proto, recipe.task)
    found = ascend._outputs(adapted, images)
    assert found.keys() == expected.keys() - {"priors"}
    assert [node.name for node in adapted.graph.node if node.output[0] in found and node.name not in found] == []
    for output, values in found.items():
        whole = expected[output]
        at_size = interpolate(values, whole.shape[2:], "legacy") if values.shape != whole.shape else values
        assert_allclose(at_size, whole, atol=2e-6 * float(np.ptp(whole)), err_msg=output)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_left_that_atc_lacks(name: str, tmp_path: Path) -> None:
    recipe, proto = network(name, tmp_path)
    graph = for_atc(proto, recipe.task).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    attributes = {node.name: {a.name: helper.get_attribute_value(a) for a in node.attribute} for node in graph.node}
    for node in graph.node:
        of = attributes[node.name]
        if node.op_type == "Pad":
            assert of.get("mode", b"constant") == b"constant"
            assert len(node.input) == 2 or constants[node.input[2]] == 0
        elif node.op_type == "AveragePool":
            assert not of.get("count_include_pad")
        elif node.op_type == "Resize":
            assert node.input[3] in constants and of["mode"] == b"linear"
        elif node.op_type in ("Reshape", "Expand", "Slice", "Gather"):
            assert node.input[1] in constants
    assert all(output.name not in constants for output in graph.output)
    assert len({node.name for node in graph.node}) == len(graph.node)


def model_of(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 5])
    target = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "g", [value], [target])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_a_soft_max_stays_one_over_a_single_axis(axis: int) -> None:
    model = model_of(helper.make_node("Softmax", ["x"], ["y"], name="s", axis=axis))
    x = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    assert_allclose(ascend._outputs(lower_opset(model), x)["y"], ascend._outputs(model, x)["y"], atol=1e-6)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Mish", ["x"], ["y"], name="m"), "operator Mish: how it is written"),
        (helper.make_node("HardSwish", ["x"], ["y"], name="m"), "operator HardSwish: how it is written in opset 11"),
        (
            helper.make_node("Resize", ["x", "", "s"], ["y"], name="m", antialias=1),
            "Resize with antialias = 1 does not",
        ),
        (helper.make_node("ReduceMean", ["x", "s"], ["y"], name="m"), "ReduceMean m: s is computed; opset 11 wants"),
    ],
)
def test_operators_that_are_not_known_are_refused(node: onnx.NodeProto, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lower_opset(model_of(node))


def test_open_shapes_are_refused(tmp_path: Path) -> None:
    recipe = small_recipe("segment", tmp_path)
    labels = data_of("voc", tmp_path / "data").labels
    with pytest.raises(ValueError, match="ATC compiles for one shape"):
        for_atc(traced(recipe, labels, (None, 3, None, None), SEED), "segment")


def test_the_size_is_that_of_the_protocol(tmp_path: Path) -> None:
    labels = data_of("voc", tmp_path / "data").labels

    def shape(task: str, protocol: str, *asked: int | None) -> tuple[int | None, ...]:
        recipe = small_recipe(task, tmp_path, protocol=protocol)
        return fixed_shape(random_backend(recipe, labels, SEED).model, recipe, (asked[0], 3, asked[1], asked[2]))

    assert shape("segment", "deeplab", None, None, None) == (1, 3, 32, 32)
    assert shape("segment", "refinenet", 1, None, None) == (1, 3, 32, 32)
    assert shape("classify", "resnest-mindspore", None, None, None) == (1, 3, 256, 256)
    assert shape("detect_segment", "blitznet-voc12", None, None, None) == (1, 3, 128, 128)
    assert shape("segment", "whole", None, 360, 480) == (1, 3, 360, 480)
    with pytest.raises(ValueError, match="at their own. Give that of your images: --size"):
        shape("segment", "whole", None, None, None)
    with pytest.raises(ValueError, match="--batch 4: on Ascend"):
        shape("segment", "deeplab", 4, None, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of BlitzNet; beside it the data, and the model file it was made of."""
    home = tmp_path_factory.mktemp("ascend it's")
    dataset = data_of("voc", home / "data")
    recipe = dataclasses.replace(small_recipe("detect_segment", home), name="it's $(ours)", protocol="blitznet-voc12")
    model = write_onnx(home / "model.onnx", recipe, dataset.labels, SEED, (1, 3, 128, 128))
    write_ascend(model, random_backend(recipe, dataset.labels, SEED).info, home / "ascend")
    write_model(home / "model.safetensors", recipe, dataset.labels, SEED)
    yield home / "ascend"
    shutil.rmtree(home)


def test_the_chain_scores_as_evaluated(folder: Path, tmp_path: Path) -> None:
    """Images stretched by the host, masks from the grid of the network: nothing is resized twice."""
    dataset = data_of("voc", tmp_path / "data")
    recipe = dataclasses.replace(small_recipe("detect_segment", tmp_path), protocol="blitznet-voc12")
    model = folder.parent / "model.safetensors"
    images = prepared(model, dataset, tmp_path / "prepared", Form(size=(128, 128)))
    outputs = run(folder / "ascend.onnx", images, tmp_path / "outputs")
    assert len(list(outputs.iterdir())) == 3 * len(dataset)
    found = scored(open_predictions(outputs, dataset=dataset, model=model), dataset)
    expect_same_score(found, evaluated(recipe, dataset))


MSAME = """#!{python}
# Reads the files of one folder and names its outputs, in a folder of their own, as msame does.
import argparse, pathlib, subprocess, sys, tempfile
parser = argparse.ArgumentParser()
for name in ("--model", "--input", "--output", "--outfmt"):
    parser.add_argument(name, required=True)
a = parser.parse_args()
files = sorted(pathlib.Path(a.input).iterdir())
assert a.outfmt == "BIN" and files and all(file.suffix == ".bin" for file in files), files
made = pathlib.Path(a.output) / "20210304_120000"
size = ["--size", "128x128"]
sys.exit(subprocess.run([sys.executable, {runner!r}, a.model, a.input, str(made), "--threads", "1", *size]).returncode)
"""


@pytest.mark.parametrize("nested", [False, True])
def test_run_sh_runs_folder_after_folder(folder: Path, tmp_path: Path, nested: bool) -> None:
    home = tmp_path / "a b"
    home.mkdir()
    msame = home / "msame"
    msame.write_text(MSAME.format(python=sys.executable, runner=runner.__file__))
    msame.chmod(0o755)
    names = ["x/1", "x/2", "x/y/1", "0"] if nested else ["1", "2"]
    for name in names:
        path = home / "prepared/images" / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.zeros((3, 128, 128), np.float32).tofile(path)
    command: list[str | Path] = ["sh", folder / "run.sh", folder / "ascend.onnx", home / "prepared", home / "outputs"]
    done = subprocess.run(command, env={"MSAME": str(msame), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {path.relative_to(home / "outputs").as_posix() for path in (home / "outputs").rglob("*.bin")}
    assert found == {f"{name}_output_{number}.bin" for name in names for number in range(3)}
    assert sorted(path.name for path in home.iterdir()) == ["msame", "outputs", "prepared"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "exists; nothing is overwritten" in again.stderr


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_atc_is_called_with_what_it_needs(folder: Path, tmp_path: Path, dtype: str) -> None:
    atc = tmp_path / "atc"
    atc.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\n" "$each"; done > "$OUT"\npwd >> "$OUT"\n')
    atc.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUT": str(tmp_path / "arguments")}
    command: list[str | Path] = ["sh", folder / "atc.sh", "Ascend310P3", dtype, "--precision_mode=allow_fp32_to_fp16"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *arguments, where = (tmp_path / "arguments").read_text().splitlines()
    given = dict(argument.split("=", 1) for argument in arguments)
    assert Path(where) == folder.resolve() and (folder / given["--model"]).is_file()
    assert given["--framework"] == "5" and given["--soc_version"] == "Ascend310P3"
    assert given["--input_shape"] == "images:1,3,128,128" and given["--input_format"] == "NCHW"
    assert given["--out_nodes"] == "class_logits:0;box_deltas:0;mask_logits:0"
    assert given["--output"] == f"it-s-ours_Ascend310P3_{dtype}"
    assert given.get("--insert_op_conf") == ("aipp.cfg" if dtype == "uint8" else None)
    assert given["--precision_mode"] == "allow_fp32_to_fp16"
    nodes = {node.name for node in onnx.load(folder / "ascend.onnx").graph.node}
    assert {name.split(":")[0] for name in given["--out_nodes"].split(";")} <= nodes
    usage = subprocess.run(["sh", folder / "atc.sh"], capture_output=True, text=True)
    assert usage.returncode == 2 and "usage: sh atc.sh CHIP" in usage.stderr


def test_aipp_divides_by_255_and_does_nothing_else(folder: Path) -> None:
    (values,) = parse((folder / "aipp.cfg").read_text().replace("0.003921568627451", '"1/255"').replace("0.0", "0"))[
        "aipp_op"
    ]
    assert values["input_format"] == ["RGB888_U8"] and values["aipp_mode"] == ["static"]
    assert (values["src_image_size_w"], values["src_image_size_h"]) == ([128], [128])
    for channel in range(3):
        assert values[f"mean_chn_{channel}"] == values[f"min_chn_{channel}"] == [0]
        assert values[f"var_reci_chn_{channel}"] == ["1/255"]
    assert values["csc_switch"] == values["rbuv_swap_switch"] == values["crop"] == ["false"]


def test_both_readmes_tell_the_same_commands(folder: Path) -> None:
    english, chinese = ((folder / name).read_text() for name in ("README.md", "README.zh.md"))

    def commands(text: str) -> list[str]:
        blocks = text.split("```")[1::2]
        return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()[1:]]

    assert commands(english) == commands(chinese) and len(commands(english)) == 6
    assert "196,608 bytes" in english and "196,608 字节" in chinese
    assert "mask_logits`, 1 x 21 x 32 x 32" in english and "not tried on one" in english


def test_a_network_that_says_something_else_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proven = onnx.load(folder / "model.onnx")
    wrong = onnx.load(folder / "ascend.onnx")
    weights = next(tensor for tensor in wrong.graph.initializer if tensor.data_type == 1 and len(tensor.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.1, weights.name))
    with pytest.raises(RunStopped, match=r"ascend.onnx is not written: in opset 11 \w+ differs by"):
        ascend._compare(proven, wrong)
