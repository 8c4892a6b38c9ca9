"""Programs of PyTorch (`.pt2`): an archive whose parts are checked, and packed anew, before PyTorch opens them.

PyTorch's reader runs what a file brings: pickles, expressions, source code that it makes of names, libraries. So only
parts, operators and words pass that `veduta export` writes; there is no pickle among them.
"""

import hashlib
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from veduta.backends.runtime import check_contents, check_format
from veduta.model_info import IMPORT_HINT, METADATA_KEY, ModelInfo, info_from_json

INFO = f"extra/{METADATA_KEY}"
PROGRAM = "models/model.json"
EXAMPLES = "data/sample_inputs/model.pt"  # PyTorch's reader wants it; empty, as it would be a pickle
PAYLOADS = {
    "data/weights/model_weights_config.json": "data/weights/",
    "data/constants/model_constants_config.json": "data/constants/",
}
_PART = re.compile(
    "|".join(
        [
            *map(re.escape, (INFO, PROGRAM, EXAMPLES, *PAYLOADS)),
            "archive_format|archive_version|byteorder",
            r"\.data/version|data/weights/weight_[0-9]{1,6}|data/constants/tensor_[0-9]{1,6}",
        ]
    )
)
_ROOT = "model/"
_MOST_PARTS = 100_000
_LARGEST_TEXT = 256 << 20  # bytes of a part that is text

# All that the networks of MODELS are made of, as versions of PyTorch write it. None touches files or makes code.
_OF_ATEN = """
_assert_tensor_metadata.default adaptive_avg_pool2d.default add.Tensor add_.Tensor arange.default avg_pool2d.default
batch_norm.default cat.default chunk.default clamp.default conv2d.default div.Tensor dropout.default expand.default
feature_dropout.default flatten.using_ints floor.default hardtanh.default hardtanh_.default index_select.default
linear.default max_pool2d.default mean.dim mul.Tensor pad.default permute.default relu.default relu_.default
reshape.default scalar_tensor.default sigmoid.default slice.Tensor softmax.int sub.Tensor sum.dim_IntList sym_size.int
to.dtype transpose.int unflatten.int upsample_bilinear2d.vec view.default
"""
_OF_PYTHON = ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
_OPERATORS = {
    *("torch.sym_max", "torch.sym_min"),
    *(f"torch.ops.aten.{name}" for name in _OF_ATEN.split()),
    *(f"_operator.{name}" for name in _OF_PYTHON),
}
_WORD = re.compile(r"(?!__|.*\.__)[A-Za-z0-9_.:+-]*", re.ASCII)
_EXPRESSION = re.compile(
    r"(?:(?:Add|Mul|Max|Min|FloorDiv|CeilDiv|Mod|PythonMod|Integer)\("
    r"|Symbol\('s[0-9]{1,6}', positive=True, integer=True\)|-?[0-9]{1,12}|\)|, )*"
)
_LONGEST_EXPRESSION = 4000


def read_program(path: Path) -> tuple[io.BytesIO, ModelInfo]:
    """The archive for PyTorch's reader, and the info. Raises ValueError or FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. Expected a .pt2 file of `veduta export`.")
    parts = _parts(path)
    if INFO not in parts:
        raise ValueError(
            f"{path}: a program without recipe and label map, so nobody can say what it predicts. Open one that "
            f"`veduta export` wrote. {IMPORT_HINT}"
        )
    info = info_from_json(_text(parts, INFO, path), source=path)
    exported = check_format(info, "torch", path)
    check_contents(exported, hash_parts(parts), path)
    _check_program(_json(parts, PROGRAM, path), tuple(exported.outputs), path)
    for config, folder in PAYLOADS.items():
        _check_payloads(_json(parts, config, path), folder, parts, path)
    if parts[EXAMPLES]:
        raise ValueError(f"{path}: holds example images, which are a pickle; refused. Export the model again.")
    return io.BytesIO(pack(parts)), info


def hash_parts(parts: Mapping[str, bytes]) -> str:
    """sha256 over names, lengths and bytes of all parts but the info, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        if name != INFO:
            digest.update(f"{name} {len(parts[name])}\n".encode())
            digest.update(parts[name])
    return digest.hexdigest()


def pack(parts: Mapping[str, bytes]) -> bytes:
    """The parts as an archive; the same parts give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(_ROOT + name), data)
    return buffer.getvalue()


def is_part(name: str) -> bool:
    """Whether an archive of `veduta export` may have a part of this name, without its first folder."""
    return _PART.fullmatch(name) is not None


def _parts(path: Path) -> dict[str, bytes]:
    """All parts by name, without the folder that holds them; bounded by the size of the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename.partition("/")[2] for member in members]
            strange = next((name for name in names if not is_part(name)), None)
            if strange is not None:
                raise ValueError(f"its part '{strange[:80]}' is none that `veduta export` writes; refused")
            if len(set(names)) < len(names) or len(names) > _MOST_PARTS:
                raise ValueError(f"{len(names):,} parts, or one of them twice; made to harm?")
            total, size = sum(member.file_size for member in members), path.stat().st_size
            if total > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError(f"its parts claim {total:,} bytes, the file has {size:,}, or are compressed; refused")
            parts = {name: archive.read(member) for name, member in zip(names, members, strict=True)}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: no sound archive of `veduta export` ({error}). Copy the file again.") from error
    missing = [name for name in (PROGRAM, EXAMPLES, *PAYLOADS) if name not in parts]
    if missing:
        raise ValueError(f"{path}: an archive without {', '.join(missing)}, so no program that PyTorch exported.")
    return parts


def _text(parts: Mapping[str, bytes], name: str, path: Path) -> str:
    if len(parts[name]) > _LARGEST_TEXT:
        raise ValueError(f"{path}: its part '{name}' has {len(parts[name]):,} bytes. Damaged, or made to harm.")
    try:
        return parts[name].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: its part '{name}' is no text ({error}). Copy the file again.") from error


def _json(parts: Mapping[str, bytes], name: str, path: Path) -> Any:
    try:
        return json.loads(_text(parts, name, path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: its part '{name}' is no JSON ({error}). Copy the file again.") from error


def _check_program(program: Any, outputs: tuple[str, ...], path: Path) -> None:
    """Raises ValueError for what PyTorch would run, beyond the operators of networks."""
    trees = _trees(outputs)
    for key, value in _entries(program):
        if not _is_sound(key, value, trees) or _WORD.fullmatch(key) is None:
            raise ValueError(
                f"{path}: its program says {key[:80]!r}: {str(value)[:200]!r}, which `veduta export` does not write; "
                "refused. Export the model again."
            )


def _is_sound(key: str, value: Any, trees: Mapping[str, str]) -> bool:
    """Whether a value may stand under a key. All texts end in expressions and source code, so each is checked."""
    if not isinstance(value, str):
        return not value or key not in ("guards_code", "metadata", "treespec_namedtuple_fields")
    if key in trees:
        return value == trees[key]
    if key == "expr_str":
        return len(value) <= _LONGEST_EXPRESSION and _EXPRESSION.fullmatch(value) is not None
    if key == "target":
        return value in _OPERATORS
    if key == "type":  # of a device
        return value == "cpu"
    return _WORD.fullmatch(value) is not None


def _trees(outputs: tuple[str, ...]) -> dict[str, str]:
    """How PyTorch writes that a program takes one tensor and gives a dict of these."""
    leaf: Any = {"type": None, "context": None, "children_spec": []}

    def tree(kind: str, context: Any, *children: Any) -> Any:
        return {"type": f"builtins.{kind}", "context": json.dumps(context), "children_spec": children}

    arguments = tree("tuple", None, tree("tuple", None, leaf), tree("dict", []))
    result = tree("dict", list(outputs), *[leaf] * len(outputs))
    return {"in_spec": json.dumps([1, arguments]), "out_spec": json.dumps([1, result])}


def _check_payloads(payloads: Any, folder: str, parts: Mapping[str, bytes], path: Path) -> None:
    """Raises ValueError where tensors are pickles, or larger than the bytes that are there."""
    try:
        for name, entry in payloads["config"].items():
            sizes = [size["as_int"] for size in entry["tensor_meta"]["sizes"]]
            data = parts[folder + entry["path_name"]]
            sound = entry["use_pickle"] is False and 0 < math.prod(sizes) <= len(data) and min(sizes, default=1) > 0
            if not sound or entry["tensor_meta"]["device"]["type"] != "cpu":
                raise ValueError(f"{path}: its tensor '{name[:80]}' is a pickle, or larger than its bytes; refused.")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its list of tensors in {folder} is damaged ({error!r}). Copy it again.") from error


def _entries(root: Any) -> Iterator[tuple[str, Any]]:
    """Every value in a JSON document with the key that it stands under, those in lists too."""
    waiting = [("", root)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, part) for part in value]
