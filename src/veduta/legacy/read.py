"""Any checkpoint -> arrays by name: the format is recognised by what a file holds, never by how it is called."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.checkpoint import load_weights
from veduta.legacy.contents import Contents
from veduta.legacy.errors import CheckpointError
from veduta.legacy.frozen_graph import read_frozen_graph
from veduta.legacy.mindspore import read_mindspore, read_part
from veduta.legacy.table import MAGIC
from veduta.legacy.tf_bundle import index_file, read_tf_bundle, shard_files
from veduta.legacy.torch_file import OLD_MAGIC, ZIP_MAGIC, read_torch_file, to_numpy, unreadable
from veduta.model_info import METADATA_KEY
from veduta.ops import wire


class Format(StrEnum):
    """What is read; the values are their names for people."""

    TF_BUNDLE = "TensorFlow bundle"
    TF_GRAPH = "TensorFlow graph"
    MINDSPORE = "MindSpore checkpoint"
    TORCH = "PyTorch file"
    SAFETENSORS = "safetensors"


@dataclass(frozen=True)
class Found:
    """path: the file, or of a TensorFlow bundle the prefix, to which `.index` and `.data-…` are added."""

    format: Format
    path: Path

    def files(self) -> list[Path]:
        """All files that belong to it, the index of a TensorFlow bundle first. Raises CheckpointError for damage."""
        if self.format is Format.TF_BUNDLE:
            return [index_file(self.path), *shard_files(self.path)]
        return [self.path]

    def read(self) -> Contents:
        """All arrays, and the names of what else it holds. Raises CheckpointError for damage and without any array."""
        contents = _READERS[self.format](self.path)
        if not contents.arrays:
            others = ", ".join(f"'{name}' ({kind})" for name, kind in list(contents.skipped.items())[:3])
            raise CheckpointError(
                f"{self.path}: a {self.format} without any array{f'; it holds {others}' if others else ''}. Is it the "
                "right file?"
            )
        return contents


_POINTER = re.compile(r'^model_checkpoint_path:\s*"([^"\n]+)"', re.MULTILINE)
_DATA_FILE = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_LONGEST_POINTER = 1 << 20  # bytes; the file `checkpoint` also lists older checkpoints
_SAMPLE = 4096  # bytes of a file that are looked at, besides those that its own lengths lead to


def read_checkpoint(path: Path | str) -> dict[str, NDArray[Any]]:
    """All arrays of a checkpoint of any format, by their names in it.

    Raises FileNotFoundError where there is nothing, CheckpointError for damage, unknown formats and empty checkpoints.
    """
    return recognise(path).read().arrays


def recognise(path: Path | str) -> Found:
    """The format of a file, of the prefix or any file of a TensorFlow bundle, or of a folder that holds one bundle.

    Raises FileNotFoundError where there is nothing, CheckpointError where it is of no known format.
    """
    path = Path(path)
    if path.is_dir():
        return Found(Format.TF_BUNDLE, _bundle_in(path))
    if not path.exists():
        if path.name and index_file(path).is_file():
            return Found(Format.TF_BUNDLE, _prefix(index_file(path)))
        raise FileNotFoundError(
            f"{path} not found, nor {path.name}.index. Expected a checkpoint file, or of a TensorFlow checkpoint the "
            "prefix (model.ckpt-NUMBER) or its folder."
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: neither a file nor a folder. Expected a checkpoint.")
    data_file = _DATA_FILE.fullmatch(path.name)
    if data_file and (index := path.with_name(f"{data_file[1]}.index")).is_file():
        return Found(Format.TF_BUNDLE, _prefix(index))
    if not path.stat().st_size:
        raise CheckpointError(f"{path}: empty (0 bytes). Was it copied completely?")
    if _ends_as_table(path):
        return Found(Format.TF_BUNDLE, _prefix(path))
    return Found(_format_of(path), path)


def _prefix(index: Path) -> Path:
    if not _ends_as_table(index):
        raise CheckpointError(f"{index}: not the index of a TensorFlow bundle, or cut off. Copy it again.")
    prefix = index.name.removesuffix(".index")
    if prefix in (index.name, ""):
        raise CheckpointError(
            f"{index}: the index of a TensorFlow bundle, but not called PREFIX.index, so its data files cannot be "
            "found. Give it the name that its .data files begin with, and .index."
        )
    return index.with_name(prefix)


def _ends_as_table(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - len(MAGIC), 0))
        return file.read() == MAGIC


def _bundle_in(folder: Path) -> Path:
    """The prefix of the newest bundle of a folder by its file `checkpoint`, else of the only one."""
    pointer = folder / "checkpoint"
    if pointer.is_file():
        if pointer.stat().st_size > _LONGEST_POINTER:
            raise CheckpointError(f"{pointer}: too large for the list of checkpoints that TensorFlow writes there.")
        named = _POINTER.search(pointer.read_text("utf-8", errors="replace"))
        if named:
            # Only the last part counts: folders are moved, and a file must not lead out of the one that was given.
            name = re.split(r"[/\\]", named[1])[-1]
            if name not in ("", ".", "..") and "\0" not in name and (folder / f"{name}.index").is_file():
                return _prefix(folder / f"{name}.index")
            raise CheckpointError(
                f"{pointer}: names '{named[1]}', but {folder} holds no '{name}.index'. Copy that checkpoint into the "
                "folder, or give the prefix of another one."
            )
    indexes = sorted(index for index in folder.glob("*.index") if index.is_file() and _ends_as_table(index))
    if len(indexes) == 1:
        return _prefix(indexes[0])
    if indexes:
        listed = ", ".join(str(index).removesuffix(".index") for index in indexes[:10])
        raise CheckpointError(f"{folder}: holds {len(indexes)} TensorFlow bundles; give one of them: {listed}.")
    inner = " Its weights are in the folder variables." if (folder / "variables").is_dir() else ""
    raise CheckpointError(f"{folder}: a folder without a TensorFlow bundle (no *.index). Give a file.{inner}")


def _format_of(path: Path) -> Format:
    data = np.memmap(path, np.uint8, "r").data
    head = bytes(data[:_SAMPLE])
    if head.startswith((ZIP_MAGIC, OLD_MAGIC)):
        return Format.TORCH
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return Format.SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        raise CheckpointError(
            f"{path}: a Python pickle, which can run code when it is opened; it was not. Save the weights alone with "
            "the program that wrote it: torch.save(model.state_dict(), 'weights.pth')."
        )
    if head.startswith(b"\x08\x01\x12"):
        raise CheckpointError(f"{path}: a SavedModel; its weights are beside it. Give the folder 'variables' there.")
    found = _message_format(data)
    if found is None:
        raise CheckpointError(
            f"{path}: of no known format; its first bytes are {head[:8].hex(' ')}. Known are: {', '.join(Format)}."
            f"{_sibling(path)}"
        )
    return found


def _message_format(data: memoryview) -> Format | None:
    """Graph or MindSpore, by the first entry: the second field of a node is a text, of a parameter a message."""
    try:
        first = next(wire.fields(data, ""), None)
        if first is None or first.number != 1 or first.kind != wire.BYTES:
            return None
        entry = wire.message(first, "")
        part = next((field for field in wire.fields(entry, "") if field.number == 2), None)
        if part is None:
            return None
        if re.fullmatch(r"[A-Za-z0-9_.>]+", bytes(wire.message(part, "")[:200]).decode("latin-1")):
            return Format.TF_GRAPH
        return Format.MINDSPORE if read_part(entry, "").type_text else None
    except CheckpointError:
        return None


def _sibling(path: Path) -> str:
    """A hint for those who give one of the other files of a TensorFlow checkpoint, such as PREFIX.meta."""
    data_file = _DATA_FILE.fullmatch(path.name)
    if data_file:
        return f" Called as the data of a TensorFlow bundle, but {data_file[1]}.index is not beside it; copy it there."
    if path.name == "checkpoint":
        return f" Did you mean the folder {path.parent}?"
    prefix = path.with_suffix("")
    return f" Did you mean {prefix}?" if path.suffix and prefix.name and index_file(prefix).is_file() else ""


def _read_safetensors(path: Path) -> Contents:
    try:
        tensors, metadata = load_weights(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if METADATA_KEY in metadata:
        raise CheckpointError(
            f"{path}: already a model file of Veduta; use it as it is, for instance `veduta predict {path} IMAGES "
            "--out FOLDER`."
        )
    contents = Contents()
    for name, tensor in tensors.items():
        where, kind = f"{path}, '{name}'", unreadable(tensor)
        if kind is None:
            contents.add(name, to_numpy(tensor, where), where)
        else:
            contents.skipped[name] = kind
    return contents


_READERS: dict[Format, Callable[[Path], Contents]] = {
    Format.TF_BUNDLE: read_tf_bundle,
    Format.TF_GRAPH: read_frozen_graph,
    Format.MINDSPORE: read_mindspore,
    Format.TORCH: read_torch_file,
    Format.SAFETENSORS: _read_safetensors,
}
