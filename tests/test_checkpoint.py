"""Promises of model files: equal after a round trip, refused when damaged, never half written."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import TINY
from safetensors.torch import save_file
from stub_backend import RECIPE
from torch import Tensor

from veduta import __version__
from veduta.checkpoint import hash_weights, load_model, load_weights, save_model
from veduta.files import replacing, write_text
from veduta.model_info import METADATA_KEY, ModelInfo, find_model

INFO = ModelInfo(
    recipe=replace(RECIPE, model_options={"output_stride": 8, "rate": 1.0, "aux": True, "kind": "8"}),
    labels=TINY,
    step=7,
    scores={"val_mean_iou": 1 / 3, "val_pixel_accuracy": 1.0},
)


def weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=rng).contiguous(memory_format=torch.channels_last),
        "conv.half": torch.randn(5, generator=rng).to(torch.bfloat16),
        "conv.turned": torch.randn(3, 4, generator=rng).T,
        "norm.count": torch.tensor(12),
        "nothing": torch.zeros(0, 3),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "a.safetensors", weights(), INFO)
    return tmp_path / "a.safetensors"


def temporaries(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


def test_a_model_comes_back_bit_for_bit_with_an_equal_info(tmp_path: Path) -> None:
    written = save_model(tmp_path / "a.safetensors", weights(), INFO)
    found, info = load_model(tmp_path / "a.safetensors")
    assert info == written == replace(INFO, weights_sha256=hash_weights(weights()))
    assert info.veduta == __version__
    assert found.keys() == weights().keys()
    for name, tensor in weights().items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_parameters_that_want_gradients_can_be_saved(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", dict(torch.nn.Linear(3, 2).named_parameters()), INFO)
    found, _ = load_model(tmp_path / "a.safetensors")
    assert not found["weight"].requires_grad


def test_the_hash_sees_names_types_shapes_and_bytes_but_not_order_or_layout() -> None:
    base = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    others: list[dict[str, Tensor]] = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].view(3, 2), "b": base["b"]},
        {"a": base["a"].view(torch.int32), "b": base["b"]},
        {"a": base["a"].nextafter(torch.tensor(9.0)), "b": base["b"]},
        {"a": base["a"]},
    ]
    hashes = {hash_weights(w) for w in (base, *others)}
    assert len(hashes) == 6
    assert hash_weights({"b": base["b"], "a": base["a"].T.contiguous().T}) == hash_weights(base)


def test_a_flipped_bit_anywhere_in_the_tensors_is_refused_by_file(saved: Path) -> None:
    content = saved.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    size = sum(t.numel() * t.element_size() for t in weights().values())
    assert len(content) == start + size
    for place in range(start, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors: the weights hash to \w{12}, the file says \w{12}"):
            load_model(saved)


def test_a_damaged_header_never_raises_anything_but_a_users_error(saved: Path) -> None:
    content = saved.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for place in (*range(10), *rng.integers(0, start, 60).tolist()):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        saved.write_bytes(damaged)
        try:
            load_model(saved)
        except ValueError as error:
            assert "a.safetensors" in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused_by_name(saved: Path, share: float) -> None:
    os.truncate(saved, int(share * saved.stat().st_size))
    with pytest.raises(ValueError, match=r"a\.safetensors: not a readable safetensors file"):
        load_model(saved)


def test_weights_without_a_recipe_are_refused_as_a_model_but_read_as_weights(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"foreign\.safetensors: holds weights but no recipe.*--init FILE"):
        load_model(path)
    found, metadata = load_weights(path)
    assert found["a"].tolist() == [1, 1] and metadata == {"format": "pt"}


@pytest.mark.parametrize("info", ["{", "{}", '{"unknown": 1}'])
def test_an_unreadable_model_info_is_refused_by_file(tmp_path: Path, info: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: info})
    with pytest.raises(ValueError, match=r"a\.safetensors: what it says of itself cannot be read by Veduta .*: "):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("load", [load_model, load_weights])
def test_a_missing_file_is_named(tmp_path: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors not found\. Expected a model file"):
        load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(saved: Path, failure: BaseException) -> None:
    before = saved.read_bytes()

    with pytest.raises(type(failure)), replacing(saved) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    assert saved.read_bytes() == before
    assert temporaries(saved.parent) == []


def test_a_crash_before_the_rename_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(saved, {"a": torch.zeros(3)}, INFO)
    assert saved.read_bytes() == before and temporaries(saved.parent) == []


def test_an_old_file_is_replaced_and_no_temporary_stays(saved: Path) -> None:
    save_model(saved, {"a": torch.zeros(3)}, INFO)
    assert load_model(saved)[0].keys() == {"a"}
    write_text(saved.with_name("notes.txt"), "Straße\n")
    assert saved.with_name("notes.txt").read_bytes() == "Straße\n".encode()
    assert temporaries(saved.parent) == []


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_run_folder_gives_its_best_checkpoint_else_its_newest(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-00000300").mkdir()  # without a model
    with pytest.raises(FileNotFoundError, match=r"run holds no checkpoints/best\.safetensors and no .*no run that has"):
        find_model(tmp_path / "run")
    for name in (
        "step-00000099.replaced/model.safetensors",
        "step-00000099/model.safetensors",
        "step-00000200.replaced/model.safetensors",
        "step-100000000/model.safetensors",
        "best.safetensors",
    ):
        assert touch(folder / name) == find_model(folder / name) == find_model(tmp_path / "run")
    touch(folder / "step-00000100" / "model.safetensors")
    assert find_model(tmp_path / "run") == folder / "best.safetensors"


def test_a_run_in_stages_gives_the_model_of_the_last_that_has_one(tmp_path: Path) -> None:
    first = touch(tmp_path / "stage-1" / "checkpoints" / "best.safetensors")
    (tmp_path / "stage-10" / "checkpoints").mkdir(parents=True)
    touch(tmp_path / "stage-notes" / "checkpoints" / "best.safetensors")
    assert find_model(tmp_path) == first
    for stage in (2, 10):
        newest = touch(tmp_path / f"stage-{stage}" / "checkpoints" / "step-00000010" / "model.safetensors")
        assert find_model(tmp_path) == newest
    assert find_model(tmp_path / "stage-1") == first


def test_tied_weights_are_written_once_each(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    save_model(tmp_path / "a.safetensors", {"a": tied, "b": tied, "part": tied[2:4], "turned": tied.view(2, 3).T}, INFO)
    found, _ = load_model(tmp_path / "a.safetensors")
    assert torch.equal(found["a"], tied) and torch.equal(found["b"], tied) and found["part"].tolist() == [2, 3]
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere not found\. Expected a run folder of `veduta train`"):
        find_model(tmp_path / "nowhere")


def test_an_undefined_score_comes_back_undefined(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", weights(), replace(INFO, scores={"val_mean_iou": float("nan")}))
    _, info = load_model(tmp_path / "a.safetensors")
    assert np.isnan(info.scores["val_mean_iou"])
