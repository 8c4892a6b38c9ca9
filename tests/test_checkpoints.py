"""Promises of a run's checkpoints: equal after a round trip, refused when damaged, whole or not there at all."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import TINY
from safetensors.torch import save_file
from stub_backend import RECIPE
from torch import Tensor

from veduta import checkpoint as model_files
from veduta.backends import open_model
from veduta.checkpoint import load_model
from veduta.config import Keep
from veduta.engine.checkpoints import (
    MANIFEST,
    MOST_BYTES,
    Checkpoint,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from veduta.model_info import ModelInfo, find_model
from veduta.models import build_model

FILES = ("model.safetensors", "training.safetensors", "manifest.json")
LAST = Keep()
VALUES: dict[str, Any] = {
    "best": float("inf"),
    "floats": [0.1, 1e-300, -0.0, 2**-1074, 1 / 3],
    "random": {"state": 2**127 + 1, "words": list(range(2**32 - 5, 2**32))},
    "text": "Straße \ud800",
    "nothing": None,
    "done": False,
}


def saved(folder: Path, step: int, *, keep: Keep = LAST, **changed: Any) -> Path:
    """A checkpoint whose every part tells its step."""
    content: dict[str, Any] = {
        "model": {"weight": torch.full((3, 2), float(step)), "count": torch.tensor(step)},
        "tensors": {"momentum": torch.full((4,), -float(step)), "random": torch.arange(7, dtype=torch.uint8)},
        "values": {"step": step},
    }
    info = ModelInfo(recipe=RECIPE, labels=TINY, step=step)
    return save_checkpoint(folder, info=info, keep=keep, **{**content, **changed})


def step_of(checkpoint: Checkpoint | None) -> int | None:
    """Its step, which all of its parts must tell."""
    if checkpoint is None:
        return None
    assert checkpoint.info.step == checkpoint.values["step"] == checkpoint.step
    assert checkpoint.model["weight"].tolist() == [[checkpoint.step] * 2] * 3
    assert checkpoint.tensors["momentum"].tolist() == [-checkpoint.step] * 4
    return checkpoint.step


def newest(folder: Path) -> tuple[int | None, str]:
    """The step of the newest checkpoint, and what was said on the way."""
    lines: list[str] = []
    return step_of(newest_checkpoint(folder, lines.append)), "\n".join(lines)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sign(path: Path, content: dict[str, Any] | str) -> None:
    """Write a manifest whose hash is right, whatever it says."""
    rest = content if isinstance(content, str) else json.dumps(content)[1:]
    path.write_text(f'{{"sha256": "{hashlib.sha256(rest.encode()).hexdigest()}",\n{rest}')


def test_all_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(12.0)
    tensors = {
        "turned": torch.randn(3, 4).T,
        "half": torch.randn(5).to(torch.bfloat16),
        "count": torch.tensor(2**62 + 1),
        "random": torch.get_rng_state(),
        "flags": torch.tensor([True, False]),
        "nothing": torch.zeros(0, 3),
        "nothing_either": torch.zeros(0, 3),
        "tied": shared,
        "tied_too": shared,
        "part": shared[3:6],
        "nan": torch.tensor([float("nan"), -0.0]),
    }
    weight = torch.nn.Parameter(torch.randn(2, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    model: dict[str, Tensor] = {"weight": weight}
    model["tied"] = model["weight"]
    info = ModelInfo(recipe=RECIPE, labels=TINY, step=12, scores={"val_mean_iou": 0.25})
    path = save_checkpoint(tmp_path / "new", model=model, info=info, tensors=tensors, values=VALUES, keep=LAST)

    assert path == tmp_path / "new" / "step-00000012" and names(path) == sorted(FILES)
    found = newest_checkpoint(tmp_path / "new", pytest.fail)
    assert found is not None and found.path == path and found.step == 12
    assert found.values == VALUES and list(found.values) == list(VALUES)
    assert str(found.values["floats"]) == str(VALUES["floats"])  # -0.0 stays negative
    assert found.info == replace(info, weights_sha256=found.info.weights_sha256)
    for before, after in ((model, found.model), (tensors, found.tensors)):
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype and after[name].shape == tensor.shape, name
            assert torch.equal(bits(after[name]), bits(tensor.detach())), name


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_no_tensors_no_values_and_nan_come_back(tmp_path: Path) -> None:
    path = saved(tmp_path, 1, model={}, tensors={}, values={})
    found = read_checkpoint(path)
    assert (found.model, found.tensors, found.values) == ({}, {}, {})
    again = read_checkpoint(saved(tmp_path, 1, values={"best": float("nan")}))
    assert np.isnan(again.values["best"])


def test_the_model_inside_opens_by_itself_and_as_the_runs(tmp_path: Path) -> None:
    path = saved(tmp_path / "checkpoints", 7)
    weights, info = load_model(path / "model.safetensors")
    assert weights["count"] == 7 and info.step == 7
    assert find_model(tmp_path) == path / "model.safetensors"


def test_a_run_that_has_only_a_checkpoint_can_be_opened(tmp_path: Path) -> None:
    weights = build_model(RECIPE.model, TINY.num_classes).state_dict()
    saved(tmp_path / "checkpoints", 7, model=weights)
    assert open_model(tmp_path, device="cpu").info.step == 7


def test_what_was_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, 7)
    found = read_checkpoint(path)
    for file in FILES[:2]:
        with (path / file).open("r+b") as stream:
            stream.write(bytes((path / file).stat().st_size))
    assert step_of(found) == 7


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "missing") == newest(tmp_path) == (None, "")


def test_the_newest_two_and_the_multiples_stay(tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        saved(tmp_path, step, keep=Keep(multiples=30))
    assert names(tmp_path) == ["step-00000030", "step-00000060", "step-00000070"]
    saved(tmp_path, 80, keep=LAST)
    assert names(tmp_path) == ["step-00000070", "step-00000080"]


def test_the_newest_is_found_by_number_and_not_by_spelling(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        saved(tmp_path, step)
    assert newest(tmp_path) == (100_000_000, "")


def test_a_run_that_went_back_keeps_what_it_writes(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        saved(tmp_path, step, keep=Keep(multiples=100))
    for step in (200, 300):
        os.truncate(tmp_path / f"step-00000{step}" / "training.safetensors", 9)
    assert newest(tmp_path)[0] == 100
    saved(tmp_path, 110)
    assert newest(tmp_path)[0] == 110
    saved(tmp_path, 200)
    assert newest(tmp_path)[0] == 200
    assert names(tmp_path) == ["step-00000110", "step-00000200", "step-00000300"]


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_former(tmp_path: Path) -> None:
    saved(tmp_path, 10, values={"step": 10, "try": 1})
    path = saved(tmp_path, 10, values={"step": 10, "try": 2})
    assert read_checkpoint(path).values["try"] == 2
    assert names(tmp_path) == ["step-00000010"]


@pytest.mark.parametrize("name", ["rename", "rmdir"])
def test_old_ones_that_cannot_be_removed_do_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = getattr(os, name)

    def refuse(*paths: Any, **options: Any) -> None:
        if name == "rmdir" or str(paths[1]).endswith(".removed.tmp"):
            raise PermissionError(errno.EACCES, "in use")
        run(*paths, **options)

    for step in (1, 2):
        saved(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        for step in (3, 4):
            saved(tmp_path, step)
    assert newest(tmp_path)[0] == 4 and len(names(tmp_path)) == 4
    saved(tmp_path, 5)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


# A kill between any two file operations. The process of a save ends at once, without cleaning up, before its n-th
# operation, for every n; where the operation writes, also when half of it is written.


def end_before(n: int) -> None:
    """Let this process end before its n-th file operation from here."""
    done = 0

    def counted(run: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done == n:
                os._exit(9)
            done += 1
            return run(*arguments, **options)

        return operation

    def end_inside(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    write_tensors, write_text = save_file, Path.write_text

    def tensors_in_two(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
        write_tensors(tensors, path, **options)
        if done == n:
            end_inside(path)
        counted(lambda: None)()

    def text_in_two(path: Path, text: str, **options: Any) -> None:
        write_text(path, text, **options)
        if done == n:
            end_inside(path)
        counted(lambda: None)()

    operations = [(os, name, getattr(os, name)) for name in ("mkdir", "rmdir", "rename", "replace", "unlink", "fsync")]
    writes = [(model_files, "save_file", tensors_in_two), (Path, "write_text", text_in_two)]
    for owner, name, run in (*operations, (os, "open", os.open), (os, "chmod", os.chmod), *writes):
        setattr(owner, name, counted(run))


def dies(n: int, save: Callable[[], object]) -> bool:
    """Whether `save`, in a process of its own, needs more than n file operations; it dies before the next then."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            end_before(n)
            save()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), "the save failed"
    return status == 9


def alone(folder: Path) -> int:
    saved(folder, 20)
    return 20


def after_a_kill(folder: Path) -> int:
    for step in (10, 20):
        saved(folder, step)
    shutil.copytree(folder / "step-00000020", folder / ".step-00000025.tmp")
    (folder / ".tmpAb3dE9").write_bytes(b"half of best.safetensors")
    return 20


def nothing(folder: Path) -> None:
    folder.mkdir(parents=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has written outlives it, synced or not; many syncs take long."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("before", "step"), [(nothing, 20), (alone, 20), (after_a_kill, 20), (after_a_kill, 30)])
def test_a_kill_between_any_two_file_operations_leaves_the_former_checkpoint_or_the_new_one(
    tmp_path: Path, before: Callable[[Path], int | None], step: int
) -> None:
    start = tmp_path / "start" / "checkpoints"
    former = before(start)
    seen = set()
    n = 0
    while True:
        run = tmp_path / f"run{n}"
        folder = run / "checkpoints"
        shutil.copytree(start, folder)
        killed = dies(n, lambda folder=folder: saved(folder, step, values={"step": step, "again": True}))  # type: ignore[misc]
        found = newest_checkpoint(folder, lambda line: None)
        assert step_of(found) in (former, step), f"before operation {n}"
        new = found is not None and "again" in found.values
        seen.add(new)
        if found is not None:
            assert find_model(run).parent == found.path
        saved(folder, 40)
        assert newest(folder) == (40, ""), f"before operation {n}"
        assert len(names(folder)) <= 2, f"before operation {n}"
        if not killed:
            break
        n += 1
    assert new and seen == {False, True}
    assert n > 20


@pytest.mark.usefixtures("quick")
def test_two_kills_while_one_checkpoint_is_replaced_lose_nothing(tmp_path: Path) -> None:
    """The second in the save that follows a kill between the two renames, when the former one has its other name."""
    start = tmp_path / "start"
    saved(start, 20).rename(start / "step-00000020.replaced")
    for n in range(100):
        folder = tmp_path / f"run{n}"
        shutil.copytree(start, folder)
        killed = dies(n, lambda folder=folder: saved(folder, 20))  # type: ignore[misc]
        assert newest(folder)[0] == 20, f"before operation {n}"
        if not killed:
            break
    assert n > 20 and names(folder) == ["step-00000020"]


# Damage.


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with two checkpoints; the tests damage that of step 20."""
    for step in (10, 20):
        saved(tmp_path, step)
    return tmp_path


def refused(folder: Path, file: str, found: str = "") -> None:
    """The damaged checkpoint is named by its file, and the one before it is taken."""
    with pytest.raises(ValueError, match=f"^[^ ]*step-00000020/{file}: .*{found}"):
        read_checkpoint(folder / "step-00000020")
    step, said = newest(folder)
    assert step == 10 and re.search(f"step-00000020/{file}: .*{found}", said)


def test_a_flipped_bit_anywhere_is_refused_by_the_name_of_its_file(two: Path) -> None:
    path = two / "step-00000020"
    rng = np.random.default_rng(0)
    tried = 0
    for file in FILES:
        content = (path / file).read_bytes()
        places = range(len(content)) if file == MANIFEST else rng.permutation(len(content))[:300].tolist()
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            (path / file).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"step-00000020/{file}: .* damaged"):
                read_checkpoint(path)
            tried += 1
        (path / file).write_bytes(content)
    assert tried > 700
    assert step_of(read_checkpoint(path)) == 20


@pytest.mark.parametrize("file", FILES)
def test_a_byte_more_or_less_is_refused(two: Path, file: str) -> None:
    path = two / "step-00000020" / file
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[: len(content) // 2], content + b"\n", content + content):
        path.write_bytes(damaged)
        refused(two, file)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(two: Path, file: str) -> None:
    (two / "step-00000020" / file).unlink()
    refused(two, file, "not there")


@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_is_named(two: Path, file: str) -> None:
    path = two / "step-00000020" / file
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever
    refused(two, file, "not there")


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_cannot_be_read_is_named(two: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.open

    def broken(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == two / "step-00000020" / file:
            raise OSError(errno.EIO, "Input/output error")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", broken)
    refused(two, file, "cannot be read")


def test_a_file_in_the_place_of_a_folder_is_passed_over(two: Path) -> None:
    shutil.rmtree(two / "step-00000020")
    (two / "step-00000020").write_bytes(b"?")
    refused(two, MANIFEST, "not there")
    saved(two, 20)
    assert newest(two) == (20, "")


def test_a_manifest_of_a_later_format_is_named(two: Path) -> None:
    sign(two / "step-00000020" / MANIFEST, {"format": 2, "new": []})
    refused(two, MANIFEST, r"of format 2; this Veduta reads 1\. Use the Veduta that wrote it")


@pytest.mark.parametrize(
    "content",
    ["", "}", '"format": 1}', "[" * 100_000, '"a": ' + "[" * 100_000, '"a": ' + "9" * 5000 + "}", '"format": [1]}'],
)
def test_a_strange_manifest_with_a_right_hash_is_refused(two: Path, content: str) -> None:
    sign(two / "step-00000020" / MANIFEST, content)
    refused(two, MANIFEST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "twenty"),
        ("step", -1),
        ("step", None),
        ("model", {}),
        ("model", {"bytes": 1, "sha256": "", "path": "/etc/passwd"}),
        ("values", []),
        ("more", 1),
    ],
)
def test_a_wrong_entry_with_a_right_hash_is_named(two: Path, name: str, value: object) -> None:
    path = two / "step-00000020" / MANIFEST
    content = json.loads(path.read_text())
    del content["sha256"]
    sign(path, {**content, name: value})
    refused(two, MANIFEST, name)


def test_a_huge_manifest_is_refused_before_it_is_understood(two: Path) -> None:
    sign(two / "step-00000020" / MANIFEST, '"a": "' + "a" * MOST_BYTES + '"}')
    refused(two, MANIFEST, f"larger than {MOST_BYTES} bytes")


def test_tensors_with_the_right_hash_and_no_sense_are_refused(two: Path) -> None:
    path = two / "step-00000020"
    content = json.loads((path / MANIFEST).read_text())
    del content["sha256"]
    junk = (1 << 63).to_bytes(8, "little") + b"{}"
    for file, entry in (("training.safetensors", "training"), ("model.safetensors", "model")):
        (path / file).write_bytes(junk)
        content[entry] = {"bytes": len(junk), "sha256": hashlib.sha256(junk).hexdigest()}
        sign(path / MANIFEST, content)
        refused(two, file, "not a readable safetensors file")


def test_a_renamed_checkpoint_is_refused(two: Path) -> None:
    (two / "step-00000020").rename(two / "step-00000030")
    step, said = newest(two)
    assert step == 10 and f"step-00000030/{MANIFEST}: is of step 20" in said


def test_strange_and_unfinished_folders_are_named_and_left_alone(two: Path) -> None:
    strange = ["step-30", "step-0000003x", "notes", ".step-00000030.tmp", ".step-00000005.removed.tmp"]
    for name in strange:
        (two / name).mkdir()
    step, said = newest(two)
    assert step == 20 and len(said.splitlines()) == len(strange)
    for name in strange:
        assert f"{two / name}: skipped" in said
    saved(two, 30)
    assert set(strange) & set(names(two)) == {"step-30", "step-0000003x", "notes"}


def test_where_no_checkpoint_is_whole_nobody_starts_over_by_himself(two: Path) -> None:
    for step in (10, 20):
        os.truncate(two / f"step-000000{step}" / MANIFEST, 50)
    lines: list[str] = []
    with pytest.raises(ValueError, match=r"none of its 2 checkpoints is whole\. Put a copy of one back"):
        newest_checkpoint(two, lines.append)
    assert len(lines) == 2


# Disks that refuse.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("part", ["model", "tensors"])
def test_a_full_disk_ends_the_save_and_leaves_the_older_checkpoint(small_disk: Path, part: str) -> None:
    folder = small_disk / "checkpoints"
    saved(folder, 10)
    large: Any = {"large": torch.zeros(1 << 19)}
    with pytest.raises(OSError, match=r"step 20 could not be written into .*No space left.* older .* Make room"):
        saved(folder, 20, **{part: large})
    assert names(folder) == ["step-00000010"]
    assert newest(folder) == (10, "")


def test_a_disk_with_no_room_for_the_manifest_leaves_the_older_checkpoint(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    saved(folder, 10)
    with pytest.raises(OSError, match=r"could not be written .*No space left.*"):
        saved(folder, 20, values={"large": "x" * (1 << 20)})
    assert names(folder) == ["step-00000010"]


def test_a_read_only_disk_is_told_apart(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    saved(folder, 10)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match=r"step 20 could not be written into .*Read-only.* go on with --resume"):
        saved(folder, 20)
    assert newest(folder) == (10, "")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_any_operation_that_fails_leaves_the_older_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As on a disk that refuses, where none can be mounted: the n-th call of these fails, and all after it."""
    saved(tmp_path, 10)
    operations = ("mkdir", "rename", "replace", "fsync")
    original = {name: getattr(os, name) for name in operations}
    for n in range(100):
        calls = 0

        def failing(name: str, n: int = n) -> Callable[..., Any]:
            def operation(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > n:
                    raise OSError(code, os.strerror(code))
                return original[name](*arguments, **options)

            return operation

        with monkeypatch.context() as patch:
            for name in operations:
                patch.setattr(os, name, failing(name))
            try:
                saved(tmp_path, 20)
            except OSError as error:
                assert f"step 20 could not be written into {tmp_path}: {os.strerror(code)}. The older" in str(error)
            else:
                break
        assert newest(tmp_path)[0] in (10, 20)
        assert {"step-00000010"} <= set(names(tmp_path)) <= {"step-00000010", "step-00000020"}
        shutil.rmtree(tmp_path / "step-00000020", ignore_errors=True)
    assert n > 5
