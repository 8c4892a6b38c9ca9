"""Promises of the reader of PyTorch files: tensors under dotted names, nothing run, nothing that fills the memory."""

import argparse
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_writers import same

from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import read_checkpoint, recognise

BOTH = pytest.mark.parametrize("new_format", [True, False])


def save(content: object, path: Path, *, new_format: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    return path


class Runs:
    """Unpickling it writes a file: the sign that code of a checkpoint was run."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.sign,))


@BOTH
def test_a_state_dict_comes_back_and_bfloat16_as_float32(tmp_path: Path, new_format: bool) -> None:
    base = torch.arange(24.0).view(4, 6)
    weights = OrderedDict(a=base, turned=base.T, cut=base[1:3, ::2], half=base.bfloat16(), tied=base, n=torch.tensor(3))
    found = read_checkpoint(save(weights, tmp_path / "m.pth", new_format=new_format))
    same(found, {name: (t.float() if name == "half" else t).contiguous().numpy() for name, t in weights.items()})


@BOTH
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_a_training_checkpoint_is_unwrapped_and_the_rest_gets_dotted_names(
    tmp_path: Path, wrapper: str, new_format: bool
) -> None:
    one = torch.ones(2)
    momentum = {"state": {0: {"momentum_buffer": one, "step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {
        "epoch": 3,
        wrapper: {"conv.weight": one},
        "optimizer": momentum,
        "ema": {"conv.weight": one},
        "x": [one],
    }
    found = read_checkpoint(save(content, tmp_path / "m.pth", new_format=new_format))
    assert set(found) == {"conv.weight", "optimizer.state.0.momentum_buffer", "ema.conv.weight", "x.0"}


@BOTH
@pytest.mark.parametrize("name", ["evil.pth", "evil.ckpt", "evil.safetensors", "evil.index"])
def test_code_in_a_pytorch_file_is_refused_by_name_and_never_run(tmp_path: Path, new_format: bool, name: str) -> None:
    content = {"state_dict": {"w": torch.ones(2)}, "extra": Runs(tmp_path / "sign")}
    path = save(content, tmp_path / name, new_format=new_format)
    function = r"pathlib\.Path\.touch|__builtin__\.getattr|builtins\.getattr"  # by the version of Python
    with pytest.raises(CheckpointError, match=f"the code object ({function}) beside .* was run.*save only the weights"):
        read_checkpoint(path)
    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["evil.pth", "evil.ckpt", "evil.pb"])
def test_a_bare_pickle_is_refused_and_never_run(tmp_path: Path, protocol: int, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Runs(tmp_path / "sign"), protocol))
    with pytest.raises(CheckpointError, match="a Python pickle"):
        read_checkpoint(tmp_path / name)
    assert not (tmp_path / "sign").exists()


def test_whole_models_are_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_checkpoint(save(torch.nn.Linear(1, 1), tmp_path / "m.pth"))


# Numbers of numpy, and what else stands beside weights


@BOTH
@pytest.mark.parametrize("core", ["core", "_core"])
def test_numbers_of_numpy_beside_the_weights_are_let_through(tmp_path: Path, core: str, new_format: bool) -> None:
    numbers = [np.float64(81.03), np.float32(1), np.int64(3), np.bool_(True), np.float16(2), np.uint8(1)]
    content = {"best_pred": numbers[0], "others": numbers, "state_dict": {"w": torch.ones(3)}}
    path = save(content, tmp_path / "m.pth", new_format=new_format)
    written = b"numpy._core.multiarray" if b"numpy._core.multiarray" in path.read_bytes() else b"numpy.core.multiarray"
    rewrite(path, lambda data: data.replace(written, f"numpy.{core}.multiarray".encode()))
    assert f"numpy.{core}.multiarray".encode() in path.read_bytes()
    allowed = torch.serialization.get_safe_globals()
    same(read_checkpoint(path), {"w": np.ones(3, np.float32)})
    assert set(torch.serialization.get_safe_globals()) == set(allowed)


@BOTH
def test_what_training_keeps_beside_weights_is_let_through(tmp_path: Path, new_format: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optim = torch.optim.Adam(model.parameters())
    model(torch.rand(1, 3, 8, 8)).sum().backward()
    optim.step()
    content = {
        "model": model.state_dict(),  # an OrderedDict with an attribute
        "optimizer": optim.state_dict(),
        "schedule": torch.optim.lr_scheduler.MultiStepLR(optim, [3, 5]).state_dict(),  # holds a Counter
        "parameter": next(model.parameters()),
        "rng": torch.get_rng_state(),
        "few": [torch.Size([3, 4]), torch.device("cpu"), torch.float16, b"bytes", None, 0.5, -1, 1 << 40, (1, "a")],
    }
    if new_format:  # of the old one, PyTorch does not read types as new as this
        content["wide"] = torch.ones(2).to(torch.uint16)
    found = read_checkpoint(save(content, tmp_path / "m.pth", new_format=new_format))
    assert found["0.weight"].shape == (4, 3, 3, 3) and ("wide" in found) == new_format
    assert {"1.running_var", "optimizer.state.0.exp_avg", "parameter", "rng"} < set(found)


@BOTH
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (argparse.Namespace(lr=0.1), r"argparse\.Namespace"),
        (bytearray(3), r"__builtin__\.bytearray"),
        (np.ones(3), r"numpy\._?core\.multiarray\._reconstruct"),
        (torch.eye(2).to_sparse(), r"torch\._utils\._rebuild_sparse_tensor"),
    ],
)
def test_objects_that_weights_do_not_need_are_refused_by_name(
    tmp_path: Path, content: object, name: str, new_format: bool
) -> None:
    path = save({"state_dict": {"w": torch.ones(2)}, "extra": content}, tmp_path / "m.pth", new_format=new_format)
    with pytest.raises(CheckpointError, match=f"the code object {name} beside tensors; nothing of it was run"):
        read_checkpoint(path)


@BOTH
def test_an_ordered_dict_as_python_2_wrote_it_is_read(tmp_path: Path, new_format: bool) -> None:
    content = ORDERED + b"(]](" + text("w") + GOOD_TENSOR + b"eatR"
    path = write_pickle(tmp_path / "m.pth", content, new_format=new_format)
    same(read_checkpoint(path), {"extra.w": np.ones(3, np.float32)})


# Small files that ask for much


def name(dotted: str) -> bytes:
    module, _, function = dotted.rpartition(".")
    return f"c{module}\n{function}\n".encode()


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


ENCODE, ORDERED = name("_codecs.encode"), name("collections.OrderedDict")
SCALAR = name("numpy.core.multiarray.scalar")
TENSOR, FLOATS = name("torch._utils._rebuild_tensor_v2"), name("torch.FloatStorage")
STORAGE = b"(" + text("storage") + FLOATS + text("0") + text("cpu") + number(3) + b"tQ"
GOOD_TENSOR = TENSOR + b"(" + STORAGE + b"K\0K\3\x85K\1\x85\x89)tR"
MANY = 100_000
FLOAT64 = name("numpy.dtype") + text("f8") + b"\x89\x88\x87R"

HARMFUL = {  # what is asked for -> (pickle, what the refusal says)
    "bytearray": (name("builtins.bytearray") + number(1_500_000_000) + b"\x85R", r"builtins\.bytearray"),
    "bytearray of Python 2": (name("__builtin__.bytearray") + number(1_500_000_000) + b"\x85R", "bytearray"),
    "tensor": (name("torch.Tensor") + number(1_500_000_000) + b"\x85R", r"torch\.Tensor"),
    "old tensor": (name("torch.FloatTensor") + number(1_500_000_000) + b"\x85R", r"torch\.FloatTensor"),
    "storage": (name("torch.storage.UntypedStorage") + number(1_500_000_000) + b"\x85R", "unusual call"),
    "storage made new": (name("torch.storage.UntypedStorage") + number(1_500_000_000) + b"\x85\x81", "step NEWOBJ"),
    "storage by key": (STORAGE.replace(number(3), number(1 << 30)), "more bytes than the file"),
    "empty quantized tensor": (name("torch._utils._rebuild_qtensor"), "_rebuild_qtensor"),
    "call through another": (name("torch._tensor._rebuild_from_type_v2"), "_rebuild_from_type_v2"),
    "bytes doubled": (ENCODE * 30 + text("a" * 64) + (text("hex_codec") + b"\x86R") * 30, "unusual call of _codecs"),
    "text copied": (
        ENCODE + b"q\0" + text("a" * MANY) + b"q\1" + text("latin1") + b"q\2" + b"h\0h\1h\2\x86R" * MANY,
        "copies the same parts",
    ),
    "sizes copied": (
        name("torch.Size") + b"q\0(" + b"K\1" * MANY + b"t\x85q\1" + b"h\0h\1R" * MANY,
        "copies the same parts",
    ),
    "dict copied": (
        b"](" + b"]K\1aK\1a" * MANY + b"e\x85q\1" + ORDERED + b"q\0" + b"h\0h\1R" * MANY,
        "copies the same parts",
    ),
    "attributes copied": (
        b"}q\1(" + b"".join(number(k) + b"N" for k in range(MANY)) + b"u" + (ORDERED + b")Rh\1b") * 2000,
        "copies the same parts",
    ),
    "tensor of many dimensions": (
        b"(" + b"K\1" * MANY + b"tq\1" + TENSOR + b"q\2" + STORAGE + b"q\3" + b"h\2(h\3K\0h\1h\1\x89NtR" * 1000,
        "copies the same parts",
    ),
    "tensor out of its bytes": (
        TENSOR + b"(" + STORAGE + b"K\0" + number(1 << 30) + b"\x85K\1\x85\x89NtR",
        "reaches out of its bytes",
    ),
    "many steps": (b"](" + b"N" * 2_000_001 + b"e", "more than 2,000,000 steps"),
    "many calls": (b"](" + ORDERED + b"q\1" + b"h\1)R" * 60_001 + b"e", "more than 60,000 calls"),
    "hash of nested tuples": (b"})" + b"q\1h\1\x86" * 60 + b"Ns", "a key is a tuple"),
    "hash of nested tuples in a reference": (b")" + b"q\1h\1\x86" * 60 + b"\x85Q", "leads to no tensor"),
    "numbers that collide": (b"}" + b"\x8a\x09" + ((1 << 61) - 1 << 8).to_bytes(9, "little") + b"Ns", "a key is a int"),
    "number of numpy without bytes": (SCALAR + FLOAT64 + b"\x85R", "unusual call of numpy"),
    "numpy type of any size": (name("numpy.dtype") + text("V1500000000") + b"\x89\x88\x87R", "unusual call of numpy"),
    "state of a numpy type": (
        FLOAT64 + b"(K\3" + text("|") + b"NNN" + number(1 << 30) + number(1) + b"K\0tb",
        "sets the state",
    ),
    "state of numpy's own type": (name("numpy.dtype") + text("f8") + b"\x89\x89\x87R", "unusual call of numpy"),
    "large text": (b"X" + (1 << 31).to_bytes(4, "little"), "pickle is damaged"),
    "huge text": (b"\x8d" + (1 << 40).to_bytes(8, "little"), "pickle is damaged"),
    "huge number": (b"\x8b" + (1 << 30).to_bytes(4, "little"), "pickle is damaged"),
    "global from the stack": (text("os") + text("system") + b"\x93", "step STACK_GLOBAL"),
    "place in the memo": (b"Nr\xff\xff\xff\x7f0", "the step POP"),
}


def write_pickle(path: Path, content: bytes, *, new_format: bool) -> Path:
    """A good file whose pickle is replaced by one that makes a dict of a tensor and of `content`."""
    save({"w": torch.ones(3)}, path, new_format=new_format)
    content = b"\x80\2}(" + text("extra") + content + b"u."
    if new_format:
        rewrite(path, lambda data: content if data.startswith(b"\x80\2}q") else data)
    else:
        data = path.read_bytes()
        content = content.replace(STORAGE, STORAGE[:-2] + b"NtQ")
        start, keys = data.index(b"\x80\2}q\0X\1\0\0\0w"), data.rindex(b"\x80\2]")
        path.write_bytes(data[:start] + content + b"\x80\2]" + text("0") + b"a." + data[data.index(b"a.", keys) + 2 :])
    return path


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change each part of an archive, or the whole of another file."""
    if not zipfile.is_zipfile(path):
        path.write_bytes(change(path.read_bytes()))
        return
    with zipfile.ZipFile(path) as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in parts.items():
            archive.writestr(member, change(data))


@BOTH
@pytest.mark.parametrize("case", HARMFUL)
def test_small_pickles_that_ask_for_all_memory_or_time_are_refused(tmp_path: Path, case: str, new_format: bool) -> None:
    content, message = HARMFUL[case]
    path = write_pickle(tmp_path / "m.pth", content, new_format=new_format)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_the_harmful_pickles_are_refused_for_what_they_hold_and_not_for_their_shape(tmp_path: Path) -> None:
    for new_format in (True, False):
        path = write_pickle(tmp_path / "m.pth", GOOD_TENSOR, new_format=new_format)
        same(read_checkpoint(path), {"extra": np.ones(3, np.float32)})


def test_bytes_of_tensors_that_the_old_format_does_not_bring_are_refused(tmp_path: Path) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "m.pth", new_format=False)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\x80\2]")] + b"\x80\2].")
    with pytest.raises(CheckpointError, match="bytes for other tensors than it speaks of"):
        read_checkpoint(path)


@pytest.mark.parametrize("renamed", ["data/a", "data/A", "data/0/../0", "DATA/0"])
def test_parts_that_could_be_found_under_many_names_are_refused(tmp_path: Path, renamed: str) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "m.pth")
    with zipfile.ZipFile(path) as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in parts.items():
            archive.writestr(member.replace("data/0", renamed) if member.endswith("data/0") else member, data)
        if renamed == "DATA/0":
            archive.writestr("m/data/0", parts["m/data/0"])
    with pytest.raises(CheckpointError, match=r"not one of torch\.save"):
        read_checkpoint(path)


def test_an_archive_with_something_behind_its_directory_is_refused(tmp_path: Path) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "m.pth")
    good = path.read_bytes()
    for data in (good + b"more", b"PK\3\4" + good, good[:-2] + b"\1\0x"):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="directory is not at its end"):
            read_checkpoint(path)


def test_torchscript_archives_are_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"m/{name}", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(tmp_path / "m.pt")


def test_a_zip_bomb_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(1 << 22))
    with pytest.raises(CheckpointError, match="'m/data.pkl' is compressed.*nothing was opened"):
        read_checkpoint(tmp_path / "m.pth")


def test_a_zip_that_claims_more_than_it_holds_is_not_opened(tmp_path: Path) -> None:
    path = save({"w": torch.ones(3)}, tmp_path / "m.pth")
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\1\2")
    data[central + 20 : central + 28] = (1 << 30).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Nothing was opened|damaged zip"):
        read_checkpoint(path)


def test_other_zip_archives_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", w=np.ones(3))
    with pytest.raises(CheckpointError, match=r"not one of torch.save \(it holds w.npy\)"):
        read_checkpoint(tmp_path / "m.npz")


def test_a_flipped_byte_in_a_pytorch_tensor_is_refused(tmp_path: Path) -> None:
    path = save({"w": torch.full((9,), 7.0)}, tmp_path / "m.pth")
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(7).tobytes() * 9)] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum of its part .*data/0"):
        read_checkpoint(path)


@BOTH
def test_a_tensor_that_claims_more_than_its_values_is_refused(tmp_path: Path, new_format: bool) -> None:
    path = save({"w": torch.ones(1).expand(1 << 20, 1 << 18)}, tmp_path / "m.pth", new_format=new_format)
    with pytest.raises(CheckpointError, match="'w': .*larger than its stored values"):
        read_checkpoint(path)


@BOTH
def test_lists_that_hold_one_another_many_times_end(tmp_path: Path, new_format: bool) -> None:
    laughs: list[Any] = [torch.ones(1)]
    for _ in range(40):
        laughs = [laughs, laughs]
    with pytest.raises(CheckpointError, match="far larger|dicts, lists and tensors"):
        read_checkpoint(save(laughs, tmp_path / "m.pth", new_format=new_format))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(1), "without a name"),
        (3, "holds a int"),
        ({"epoch": 3}, "without any array"),
        ({(1,): [3]}, "a key is a tuple, expected texts or numbers"),
    ],
)
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(content, tmp_path / "m.pth"))


def test_tensors_that_numpy_does_not_have_are_skipped_and_named(tmp_path: Path) -> None:
    content = {"w": torch.ones(3), "eight": torch.ones(2).to(torch.float8_e4m3fn)}
    contents = recognise(save(content, tmp_path / "m.pth")).read()
    same(contents.arrays, {"w": np.ones(3, np.float32)})
    assert contents.skipped == {"eight": "a tensor of torch.float8_e4m3fn"}


def test_shapes_that_no_array_can_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'w': 70 dimensions"):
        read_checkpoint(save({"w": torch.ones([1] * 70)}, tmp_path / "m.pth"))
