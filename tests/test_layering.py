"""The house rules that a machine can read: imports go downwards, files stay short, one file knows the devices."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import veduta

SOURCE = Path(veduta.__file__).parent
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

ROWS = (  # as in the design: each imports from the rows above it, never sideways
    ("ops", "config", "labels", "files", "errors", "device"),
    ("models", "data", "recipes", "ranks", "model_info"),
    ("tasks", "checkpoint"),
    ("backends", "legacy"),
    ("engine", "report"),
    ("export",),
    ("serve",),
    ("cli",),
)
LEVELS = {part: level for level, row in enumerate(ROWS) for part in row}

DEVICE_WORDS = {"cuda", "npu", "mps", "hccl", "nccl", "gloo", "torch_npu"}
NOT_IN_THE_CORE = {"torchvision", "timm"}
ALLOWED = {"models/timm_backbone.py": {"timm"}}  # the optional extra: imported late, and only where it is asked for
MOST_LINES = 400


def tree(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text(encoding="utf-8"), filename=file)


def imported(module: ast.Module) -> Iterator[str]:
    """Dotted names of everything imported, inside functions too; `from a import b` gives a and a.b."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: relative import; write veduta.…"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(dotted: str) -> str:
    """veduta.data.sample.Sample -> data; '' for the package itself and what it defines, such as __version__."""
    part = (dotted.split(".") + [""])[1]
    return "" if part.startswith("__") else part


def parts_imported(file: str) -> set[str]:
    return {part_of(name) for name in imported(tree(file)) if name.split(".")[0] == "veduta"} - {""}


def strings_of_code(module: ast.Module) -> Iterator[str]:
    """String literals that are not alone in their line, as docstrings are."""
    alone = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def device_words(module: ast.Module) -> set[str]:
    """Devices and their libraries as an attribute (torch.cuda), an import, or a whole literal ("npu", "cuda:1").

    Running text, such as the help of a `--device` option, may name them.
    """
    literals = {text.split(":")[0] for text in strings_of_code(module)}
    attributes = {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}
    modules = {word for name in imported(module) for word in name.split(".")}
    return (literals | attributes | modules) & DEVICE_WORDS


@pytest.mark.parametrize("file", FILES)
def test_imports_go_only_downwards(file: str) -> None:
    own = file.split("/")[0].removesuffix(".py")
    found = parts_imported(file)
    if own == "__init__":
        assert not found, "the package itself imports nothing"
        return
    assert {own, *found} <= LEVELS.keys(), "a part that is not in the design: give it a row"
    wrong = {part for part in found - {own} if LEVELS[part] >= LEVELS[own]}
    assert not wrong, f"{own} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("recipes/")])
def test_recipes_import_only_config(file: str) -> None:
    assert parts_imported(file) <= {"config", "recipes"}


@pytest.mark.parametrize("file", FILES)
def test_a_file_stays_short(file: str) -> None:
    lines = len((SOURCE / file).read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES


@pytest.mark.parametrize("file", FILES)
def test_a_file_says_what_it_is_for(file: str) -> None:
    assert ast.get_docstring(tree(file))


@pytest.mark.parametrize("file", [file for file in FILES if file != "device.py"])
def test_only_the_device_file_names_devices(file: str) -> None:
    assert device_words(tree(file)) == set()


@pytest.mark.parametrize("file", FILES)
def test_the_core_needs_neither_torchvision_nor_timm(file: str) -> None:
    found = NOT_IN_THE_CORE & {name.split(".")[0] for name in imported(tree(file))}
    assert found <= ALLOWED.get(file, set())


@pytest.mark.parametrize("file", ALLOWED)
def test_what_is_optional_is_imported_late(file: str) -> None:
    module = tree(file)
    module.body = [node for node in module.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert not NOT_IN_THE_CORE & {name.split(".")[0] for name in imported(module)}


@pytest.mark.parametrize("file", FILES)
def test_nothing_depends_on_the_workshop(file: str) -> None:
    assert "shared/" not in (SOURCE / file).read_text(encoding="utf-8")


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, veduta.cli, veduta.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('x = "cuda:1"', {"cuda"}),
        ("torch.cuda.synchronize()", {"cuda"}),
        ("def f():\n    import torch_npu", {"torch_npu"}),
        ('init_process_group("nccl")', {"nccl"}),
        ('"""cuda"""\nhelp = "auto, cpu or cuda"  # npu', set()),
    ],
)
def test_the_device_rule_sees_code_and_not_text(code: str, words: set[str]) -> None:
    assert device_words(ast.parse(code)) == words


def test_the_import_rule_sees_late_imports() -> None:
    late = ast.parse("def f():\n    from veduta import cli\n    import veduta.data.sample")
    assert {part_of(name) for name in imported(late)} == {"", "cli", "data"}
