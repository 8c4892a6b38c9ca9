"""Promises of the model repository for Triton: it says of the file what the file says of itself, and its queue ends."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_files import OPEN, write_onnx
from model_files import random_backend
from prediction_files import data_of
from small_runs import small_recipe

from veduta.export.trace import Shape
from veduta.export.triton import write_triton

SEED = 3
TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*([A-Za-z_]\w*|"[^"\n]*"|-?\d+|[{}\[\]:,])')


def parse(text: str) -> dict[str, list[Any]]:
    """A message in the text form of protocol buffers: name -> values; what is no such text is refused."""
    tokens, position = [], 0
    while text[position:].strip():
        found = TOKEN.match(text, position)
        assert found, f"no token at {text[position : position + 40]!r}"
        tokens.append(found[1])
        position = found.end()
    message, rest = _message([*tokens, "}"])
    assert not rest
    return message


def _message(tokens: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
    message: dict[str, list[Any]] = {}
    while tokens[0] != "}":
        name, tokens = tokens[0], tokens[1:]
        assert re.fullmatch(r"[a-z_]\w*", name), name
        colon = tokens[0] == ":"
        values, tokens = _value(tokens[1:] if colon else tokens)
        assert colon or all(isinstance(value, dict) for value in values)
        message.setdefault(name, []).extend(values)
    return message, tokens[1:]


def _value(tokens: list[str]) -> tuple[list[Any], list[str]]:
    if tokens[0] == "{":
        found, tokens = _message(tokens[1:])
        return [found], tokens
    if tokens[0] == "[":
        values, tokens = [], tokens[1:]
        while tokens[0] != "]":
            more, tokens = _value(tokens)
            values += more
            if tokens[0] == ",":
                tokens = tokens[1:]
                assert tokens[0] != "]"
        return values, tokens[1:]
    text = tokens[0]
    return [text[1:-1] if text[0] == '"' else int(text) if text.lstrip("-").isdecimal() else text], tokens[1:]


def repository(tmp_path: Path, task: str, shape: Shape = OPEN) -> tuple[Path, dict[str, list[Any]]]:
    dataset = data_of("imagenet" if task == "classify" else "voc", tmp_path / "data")
    recipe = small_recipe(task, tmp_path)
    model = write_onnx(tmp_path / "model.onnx", recipe, dataset.labels, SEED, shape)
    shutil.copy(model, tmp_path / "before.onnx")
    write_triton(model, random_backend(recipe, dataset.labels, SEED).info, tmp_path / "repository")
    home = tmp_path / "repository" / "small"
    assert (home / "1/model.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()
    assert (home / "1/model.probes.npz").is_file() and not model.exists()
    assert (home / "labels.txt").read_text().splitlines() == list(dataset.labels.names)
    return home, parse((home / "config.pbtxt").read_text())


@pytest.mark.parametrize("task", ["segment", "classify", "detect_segment"])
def test_the_configuration_is_that_of_the_file(tmp_path: Path, task: str) -> None:
    home, config = repository(tmp_path, task)
    assert (config["name"], config["platform"]) == ([home.name], ["onnxruntime_onnx"])
    assert config["input"] == [{"name": ["images"], "data_type": ["TYPE_FP32"], "dims": [3, -1, -1]}]
    graph = onnx.load(home / "1/model.onnx").graph
    expected = {
        output.name: [-1 if dim.dim_param else dim.dim_value for dim in output.type.tensor_type.shape.dim][1:]
        for output in graph.output
        if output.name != "priors"
    }
    assert {output["name"][0]: output["dims"] for output in config["output"]} == expected
    assert all(output["data_type"] == ["TYPE_FP32"] for output in config["output"])
    labelled = [output["name"][0] for output in config["output"] if "label_filename" in output]
    assert labelled == (["class_logits"] if task == "classify" else [])
    if task == "detect_segment":
        priors = np.load(home / "priors.npy")
        assert priors.shape[0] == expected["class_logits"][0] and priors.shape[1] == 4


def test_batches_and_the_queue_are_bounded(tmp_path: Path) -> None:
    _, config = repository(tmp_path, "segment")
    (most,), (batching,) = config["max_batch_size"], config["dynamic_batching"]
    assert most > 1 and max(batching["preferred_batch_size"]) == most
    assert 0 < batching["max_queue_delay_microseconds"][0] <= 10_000
    (policy,) = batching["default_queue_policy"]
    assert policy["timeout_action"] == ["REJECT"] and policy["max_queue_size"][0] > 0
    assert policy["default_timeout_microseconds"][0] > 0


def test_a_fixed_batch_is_the_clients_own(tmp_path: Path) -> None:
    home, config = repository(tmp_path, "segment", (1, 3, 65, 97))
    assert config["max_batch_size"] == [0] and "dynamic_batching" not in config
    assert config["input"][0]["dims"] == [1, 3, 65, 97] and config["output"][0]["dims"] == [1, 21, 65, 97]
    assert "(1, 3, 65, 97), no more and no fewer" in (home.parent / "README.md").read_text()


@pytest.mark.parametrize("text", ["name: x }", "name x", "dims: [ 1, ]", 'name: "a', "input [ 3 ]"])
def test_the_reader_of_these_tests_refuses_what_is_no_such_text(text: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        parse(text)
