"""Promises of the choice of a runtime: proven, then fastest; said, remembered, and chosen anew where that matters."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_files import OPEN, traced
from layouts import TINY
from model_files import random_backend
from numpy.typing import NDArray
from small_runs import small_recipe

from veduta.backends import Backend, open_model
from veduta.backends.choose import choose
from veduta.backends.onnx import OnnxBackend, open_onnx
from veduta.backends.probes import make_probes, probes_path, save_probes
from veduta.export.onnx import save_onnx

Open = Callable[[], Backend]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for masks as ONNX, with probes, old enough to be remembered."""
    folder = tmp_path_factory.mktemp("exported")
    recipe, path = small_recipe("segment", folder), folder / "model.onnx"
    backend, proto = random_backend(recipe, TINY, 1), traced(recipe, TINY, OPEN, 1)
    exported = save_onnx(proto, backend.info, path).exported
    assert exported is not None
    sha256 = save_probes(probes_path(path), make_probes(backend, exported))
    save_onnx(
        proto, dataclasses.replace(backend.info, exported=dataclasses.replace(exported, probes_sha256=sha256)), path
    )
    deadline = time.monotonic() + 10
    while time.time() - path.stat().st_ctime < 2.1:  # no clock tells an older change from a younger one before
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return path


class Slow(OnnxBackend):
    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        time.sleep(0.2)
        return super().__call__(images)


class Wrong(OnnxBackend):
    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {name: array[:, ::-1] for name, array in super().__call__(images).items()}


def opening(file: Path, kind: type[OnnxBackend], counts: list[str] | None = None, name: str = "") -> Open:
    def opened() -> Backend:
        if counts is not None:
            counts.append(name)
        plain = open_onnx(file, device="cpu", changes=())
        return kind(plain.session, plain.info)

    return opened


def both(file: Path, onnx: type[OnnxBackend], openvino: type[OnnxBackend], counts: list[str]) -> Mapping[str, Open]:
    each = partial(opening, file, counts=counts)
    return {"onnx": each(kind=onnx, name="onnx"), "openvino": each(kind=openvino, name="openvino")}


def test_the_fastest_is_chosen_and_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert type(choose(file, both(file, Slow, OnnxBackend, []))) is OnnxBackend
    said = capsys.readouterr().err
    assert "model.onnx runs in OpenVINO (ONNX Runtime " in said and " ms" in said


def test_a_choice_is_remembered(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    choose(file, both(file, Slow, OnnxBackend, opened))
    capsys.readouterr()
    choose(file, both(file, Slow, OnnxBackend, opened))
    assert opened == ["onnx", "openvino", "openvino"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("changed", ["file", "probes", "versions", "threads"])
def test_a_choice_is_made_anew_where_what_it_depends_on_changed(
    file: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    choose(file, both(file, Slow, OnnxBackend, opened))
    if changed == "versions":
        monkeypatch.setattr("veduta.backends.runtime.version", lambda package: "99.9")
    elif changed == "threads":
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
    else:
        os.utime(file if changed == "file" else probes_path(file), ns=(0, 10**15 + len(opened)))
    choose(file, both(file, Slow, OnnxBackend, opened))
    assert opened == ["onnx", "openvino"] * 2


def test_a_runtime_that_says_something_else_is_not_chosen_however_fast(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type(choose(file, both(file, Wrong, Slow, []))) is Slow
    assert "not in ONNX Runtime" in (said := capsys.readouterr().err) and "'mask_logits'" in said


def test_where_all_say_something_else_nothing_is_opened(file: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx: no installed runtime says what its probes expect: in ONNX Run"):
        choose(file, both(file, Wrong, Wrong, []))


def test_without_probes_the_first_is_taken_and_that_is_said(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(file.read_bytes())
    assert type(choose(alone, both(alone, Slow, OnnxBackend, []))) is Slow
    assert "alone.probes.npz, which would prove it, is missing" in capsys.readouterr().err


def test_what_is_not_installed_is_not_chosen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("veduta.backends.choose.installed", lambda name: name == "openvino")
    choose(file, both(file, OnnxBackend, OnnxBackend, opened))
    assert opened == ["openvino"]


def test_a_user_without_a_home_is_answered_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert type(choose(file, both(file, Slow, OnnxBackend, []))) is OnnxBackend


def test_auto_opens_a_file_in_a_real_runtime(file: Path) -> None:
    backend = open_model(file)
    outputs = backend(np.zeros((1, 3, 32, 32), np.uint8))
    assert outputs["mask_logits"].shape == (1, TINY.num_classes, 32, 32)
