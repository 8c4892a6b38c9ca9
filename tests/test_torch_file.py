"""Promises of the reader of PyTorch files: tensors under dotted names, nothing run, nothing that fills the memory."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_writers import same

from veduta.legacy.errors import CheckpointError
from veduta.legacy.read import read_checkpoint, read_contents

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
    with pytest.raises(CheckpointError, match="holds the code object .* nothing of it was run.*save only the weights"):
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
        ({(1,): [3]}, "tuple"),
    ],
)
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(content, tmp_path / "m.pth"))


def test_tensors_that_numpy_does_not_have_are_skipped_and_named(tmp_path: Path) -> None:
    content = {"w": torch.ones(3), "eight": torch.ones(2).to(torch.float8_e4m3fn), "sparse": torch.eye(2).to_sparse()}
    contents = read_contents(save(content, tmp_path / "m.pth"))
    same(contents.arrays, {"w": np.ones(3, np.float32)})
    assert contents.skipped == {
        "eight": "a tensor of torch.float8_e4m3fn",
        "sparse": "a tensor on cpu, torch.sparse_coo, torch.float32",
    }


def test_shapes_that_no_array_can_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'w': 70 dimensions"):
        read_checkpoint(save({"w": torch.ones([1] * 70)}, tmp_path / "m.pth"))
