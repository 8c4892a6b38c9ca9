"""Programs of PyTorch (.pt2): they compute what the network computes, and a file of others runs nothing."""

import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import OPEN, SIZES, TINY_SIZES, differences, info_of, lively
from torch import nn

from veduta.backends import Backend, open_model
from veduta.backends.program_file import EXAMPLES, INFO, PROGRAM, hash_parts, pack
from veduta.export.program import save_program
from veduta.export.trace import trace
from veduta.model_info import ModelInfo, info_from_json, info_to_json

NAME = "deeplabv3plus_tiny"
WEIGHTS = "data/weights/model_weights_config.json"

Parts = dict[str, bytes]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return lively(NAME)


@pytest.fixture(scope="module")
def path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    save_program(trace(network, OPEN), info_of(NAME), path)
    return path


@pytest.fixture(scope="module")
def backend(path: Path) -> Backend:
    return open_model(path, device="cpu")


def parts_of(path: Path) -> Parts:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def signed(parts: Parts, **said: Any) -> bytes:
    """The archive with a hash that fits what it holds."""
    info = info_from_json(parts[INFO].decode(), source=Path("model.pt2"))
    assert info.exported is not None
    info = replace(info, exported=replace(info.exported, **{"contents_sha256": hash_parts(parts), **said}))
    return pack(parts | {INFO: info_to_json(info).encode()})


def test_a_program_computes_what_the_network_computes_on_every_size(network: nn.Module, backend: Backend) -> None:
    for difference in differences(network, backend, SIZES + TINY_SIZES):
        assert difference.largest < 1e-5 and difference.agreement > 0.9999, difference


def test_what_a_program_tells_of_itself_comes_back(path: Path, backend: Backend) -> None:
    info: ModelInfo = backend.info
    assert replace(info, exported=None) == info_of(NAME)
    assert info.exported is not None and info.exported.format == "torch"
    assert info.exported.images == (None, 3, None, None)
    assert info.exported.outputs == {"mask_logits": (None, 7, None, None)}
    with pytest.raises(ValueError, match=r"model_options\.output_stride=8: .*model\.pt2 is exported"):
        open_model(path, device="cpu", changes=["model_options.output_stride=8"])


def test_pytorch_alone_runs_a_program(path: Path, network: nn.Module) -> None:
    program = torch.export.load(path)
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), dict(network(images)), rtol=1e-4, atol=1e-4)


def test_a_program_tells_nothing_of_the_machine_that_made_it(path: Path) -> None:
    program = parts_of(path)[PROGRAM]
    for word in (b".py", b"stack_trace", b"File ", str(Path(__file__).parent).encode()):
        assert word not in program


def edit(parts: Parts, name: str, change: Callable[[Any], None]) -> None:
    document = json.loads(parts[name])
    change(document)
    parts[name] = json.dumps(document).encode()


def first_node(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"][0]


def call_system(parts: Parts) -> None:
    edit(parts, PROGRAM, lambda program: first_node(program).update(target="torch.os.system"))


def write_files(parts: Parts) -> None:
    edit(parts, PROGRAM, lambda program: first_node(program).update(target="torch.ops.aten.from_file.default"))


def name_with_code(parts: Parts) -> None:
    edit(parts, PROGRAM, lambda program: first_node(program).update(name="a); import os; f("))


def guard_with_code(parts: Parts) -> None:
    edit(parts, PROGRAM, lambda program: program.update(guards_code=["__import__('os').abort()"]))


def expression_with_code(parts: Parts) -> None:
    values = {"n": {"as_expr": {"expr_str": "__import__('os').abort()", "hint": {"as_int": 2}}}}
    edit(parts, PROGRAM, lambda program: program["graph_module"]["graph"].update(sym_int_values=values))


def expression_without_end(parts: Parts) -> None:
    values = {"n": {"as_expr": {"expr_str": "Add(" * 2000, "hint": {"as_int": 2}}}}
    edit(parts, PROGRAM, lambda program: program["graph_module"]["graph"].update(sym_int_values=values))


def tree_of_other_types(parts: Parts) -> None:
    context = '{\\"__enum__\\": true, \\"fqn\\": \\"os:a\\"}'
    tree = f'[1, {{"type": "builtins.dict", "context": "{context}", "children_spec": []}}]'

    def change(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = tree

    edit(parts, PROGRAM, change)


def other_device(parts: Parts) -> None:
    def change(program: Any) -> None:
        next(iter(program["graph_module"]["graph"]["tensor_values"].values()))["device"]["type"] = "meta"

    edit(parts, PROGRAM, change)


def pickled_weight(parts: Parts) -> None:
    edit(parts, WEIGHTS, lambda weights: next(iter(weights["config"].values())).update(use_pickle=True))


def weight_larger_than_its_bytes(parts: Parts) -> None:
    def change(weights: Any) -> None:
        next(iter(weights["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]

    edit(parts, WEIGHTS, change)


def weight_elsewhere(parts: Parts) -> None:
    edit(parts, WEIGHTS, lambda weights: next(iter(weights["config"].values())).update(path_name="../../secret"))


def pickled_examples(parts: Parts) -> None:
    parts[EXAMPLES] = pickle.dumps([1])


def library(parts: Parts) -> None:
    parts["data/aotinductor/model/a.so"] = b"\x7fELF"


def old_weights(parts: Parts) -> None:
    parts["data/weights/model.pt"] = pickle.dumps([1])


HARMFUL = (
    *(call_system, write_files, name_with_code, guard_with_code, expression_with_code, expression_without_end),
    *(tree_of_other_types, other_device, pickled_weight, weight_larger_than_its_bytes, weight_elsewhere),
    *(pickled_examples, library, old_weights),
)


@pytest.mark.parametrize("harm", HARMFUL)
def test_what_pytorch_would_run_is_refused_before_it_sees_it(
    harm: Callable[[Parts], None], path: Path, tmp_path: Path
) -> None:
    parts = parts_of(path)
    harm(parts)
    (tmp_path / "harm.pt2").write_bytes(signed(parts))
    with pytest.raises(ValueError, match=r"harm\.pt2: .*(refused|damaged)"):
        open_model(tmp_path / "harm.pt2", device="cpu")


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"outputs": {"class_logits": (None, 7)}}, "its program says 'out_spec'"),
        ({"outputs": {"mask_logits": (None, 9, None, None)}}, r"any x 9 x any x any.* holds .*any x 7 x any x any"),
        ({"images": (1, 3, 64, 64)}, r"1 x 3 x 64 x 64.* holds .*any x 3 x any x any"),
        ({"format": "onnx"}, r"not that of a \.pt2 file"),
        ({"contents_sha256": "0" * 64}, "the file says 000000000000"),
    ],
)
def test_a_program_that_is_other_than_it_tells_is_refused(
    lie: dict[str, Any], words: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "lie.pt2").write_bytes(signed(parts_of(path), **lie))
    with pytest.raises(ValueError, match=words):
        open_model(tmp_path / "lie.pt2", device="cpu")


def test_files_of_pytorch_that_are_none_of_ours_are_refused(path: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt2")
    with pytest.raises(ValueError, match="no sound archive of `veduta export`"):
        open_model(tmp_path / "weights.pt2", device="cpu")
    parts = parts_of(path)
    del parts[INFO]
    (tmp_path / "bare.pt2").write_bytes(pack(parts))
    with pytest.raises(ValueError, match="without recipe and label map"):
        open_model(tmp_path / "bare.pt2", device="cpu")


def test_compressed_archives_are_refused(path: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts_of(path).items():
            archive.writestr("model/" + name, data)
    (tmp_path / "packed.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="compressed; refused"):
        open_model(tmp_path / "packed.pt2", device="cpu")


def test_damaged_programs_are_refused(path: Path, tmp_path: Path) -> None:
    data, rng, damaged = path.read_bytes(), random.Random(0), tmp_path / "damaged.pt2"
    for end in range(0, len(data), len(data) // 20):
        damaged.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"damaged\.pt2"):
            open_model(damaged, device="cpu")
    size = len(data) - len(parts_of(path)[INFO]) - 40_000  # the info and the directory at the end are not hashed
    for _ in range(50):
        changed = bytearray(data)
        for place in rng.choices(range(size), k=8):
            changed[place] ^= 0x55
        damaged.write_bytes(bytes(changed))
        with pytest.raises(ValueError, match=r"damaged\.pt2"):
            open_model(damaged, device="cpu")
