"""`veduta doctor`: it ends well whatever is missing or broken, and names the reason and the remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import expect_mistake, veduta

from veduta.engine import doctor
from veduta.engine.doctor import Examination, Finding, examine, in_words, to_json

STAND_IN = Path(__file__).parent / "stand_in"

START = """
from veduta.cli import app
app()
"""
WITHOUT_TORCH = (
    """
import importlib.metadata, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnxruntime", "openvino"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Refuse())
def version(name, known=importlib.metadata.version):
    if name in ("torch", "onnxruntime", "openvino"):
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
importlib.util.find_spec = lambda name: None
"""
    + START
)


def run(*arguments: str, path: Path | None = None, **environment: str) -> str:
    """What Python prints in a process of its own, with a folder in front of its path."""
    around = os.environ | {"PYTHONPATH": str(path or "")} | environment
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=around, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def why_no_npu(path: Path, **environment: str) -> str:
    return run("-c", "from veduta.device import why_not; print(why_not('npu'))", path=path, **environment)


def look(path: Path | None = None, start: str = START, **environment: str) -> dict[str, Finding]:
    """What `veduta doctor` finds, by name."""
    printed = run("-c", start, "doctor", path=path, **environment)
    lines = [line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  ")]
    return {
        name: Finding(name, not text.startswith("missing: "), text.removeprefix("missing: ")) for name, text in lines
    }


def by_name(examination: Examination) -> dict[str, Finding]:
    return {finding.name: finding for findings in examination.values() for finding in findings}


@pytest.fixture(autouse=True)
def _no_ascend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*doctor.CANN, "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("raise ImportError('libhccl.so: cannot open\\nmore')", "cannot be imported: libhccl.so: cannot open (PyTorch"),
        ("import sys; sys.exit(1)", "cannot be imported: 1"),
        ("", "cannot be imported: it has registered no device"),
    ],
)
def test_a_package_for_npus_that_does_not_start_is_told_with_its_reason(
    tmp_path: Path, package: str, reason: str
) -> None:
    (tmp_path / "torch_npu.py").write_text(package)
    assert reason in why_no_npu(tmp_path)


def test_npus_that_are_hidden_are_told_apart_from_a_missing_package() -> None:
    found = why_no_npu(STAND_IN, NPU_COUNT="0", ASCEND_RT_VISIBLE_DEVICES="3,1")
    assert "its driver shows no NPU, with ASCEND_RT_VISIBLE_DEVICES=3,1" in found


def test_npus_that_are_there_are_counted_and_named() -> None:
    found = look(STAND_IN, NPU_COUNT="8")["npu"]
    assert found.found
    assert found.text.startswith("8 x Ascend stand-in, torch_npu ")


def test_where_pytorch_itself_stumbles_over_the_package_the_doctor_goes_on_and_other_verbs_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libascendcl.so: no such file')")
    package = tmp_path / "torch_npu-2.13.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.13.0\n")
    (package / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    found = look(tmp_path)
    assert found["torch"].found
    assert "libascendcl.so: no such file (PyTorch starts without it where TORCH_DEV" in found["npu"].text
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    listed = veduta("list", "models")
    assert listed.returncode == 1
    assert listed.stderr.startswith("error: PyTorch does not start")
    assert "Traceback" not in listed.stderr


def test_a_machine_without_pytorch_and_runtimes_is_told_how_to_get_them() -> None:
    found = look(start=WITHOUT_TORCH)
    assert {"cpu", "cuda", "npu"}.isdisjoint(found)
    for name, part in {"torch": "train", "onnxruntime": "runtime", "openvino": "openvino"}.items():
        assert not found[name].found
        assert f"pip install 'veduta[{part}]'" in found[name].text
    assert found["memory"].text.endswith("GiB")


def test_tools_and_libraries_of_ascend_are_found_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = by_name(examine())
    assert not any(before[name].found for name in ("CANN", "libhccl.so", "npu-smi", "atc", "msame"))
    for name in ("npu-smi", "atc", "msame", "lib64/libhccl.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    after = by_name(examine())
    assert all(after[name].found for name in ("CANN", "libhccl.so", "npu-smi", "atc", "msame"))
    assert after["atc"].text == str(tmp_path / "atc")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "gone"))
    assert by_name(examine())["CANN"].text.endswith("gone, where there is no folder")


def test_runtimes_say_what_they_run_on_and_a_broken_one_why_it_does_not() -> None:
    onnxruntime = by_name(examine())["onnxruntime"]
    assert onnxruntime.found
    assert onnxruntime.text.endswith("CPU")
    broken = doctor._runtime("onnxruntime", "runtime", lambda package: [package.no_such_thing])
    assert not broken.found
    assert "no_such_thing" in broken.text


@pytest.mark.parametrize(
    ("line", "instructions"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_tile", ["AVX2", "AVX-512", "VNNI", "AMX"]),
        ("Features\t: fp asimd asimddp i8mm bf16", ["bfloat16", "NEON", "dot product", "int8 matrices"]),
        ("model name\t: unknown", []),
    ],
)
def test_instructions_that_make_networks_faster_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, instructions: list[str]
) -> None:
    monkeypatch.setattr(doctor, "CPUINFO", tmp_path / "cpuinfo")
    assert doctor._instructions() == []
    doctor.CPUINFO.write_text(f"processor\t: 0\n{line}\n")
    assert doctor._instructions() == instructions


def test_words_and_json_hold_the_same() -> None:
    examination = {"devices": [Finding("cpu", True, "2 cores"), Finding("gpu", False, "no driver")], "empty": []}
    assert in_words(examination) == "devices\n  cpu  2 cores\n  gpu  missing: no driver"
    assert json.loads(to_json(examination))["devices"]["gpu"] == {"found": False, "text": "no driver"}


def test_the_json_goes_into_a_file_that_is_new(tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    assert veduta("doctor", "--json", path).returncode == 0
    assert json.loads(path.read_text())["software"]["torch"]["found"]
    expect_mistake(veduta("doctor", "--json", path), str(path), "exists")
