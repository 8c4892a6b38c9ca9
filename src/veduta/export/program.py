"""A traced network as PyTorch keeps it (`.pt2`): any program with PyTorch runs it, without Veduta."""

import copy
import dataclasses
import io
import zipfile
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from veduta.backends.program import shapes_of
from veduta.backends.program_file import EXAMPLES, INFO, hash_parts, is_part, pack
from veduta.files import replacing
from veduta.model_info import Exported, ModelInfo, info_to_json


def save_program(program: ExportedProgram, info: ModelInfo, path: Path) -> ModelInfo:
    """Write a .pt2 file; returns the info that went into it, with the file's own shapes and the hash of its contents.

    info.exported may tell all else of the file.
    """
    images, outputs = shapes_of(program)
    buffer = io.BytesIO()
    torch.export.save(_bare(program), buffer)
    with zipfile.ZipFile(buffer) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    parts = {name: data for name, data in parts.items() if is_part(name)} | {EXAMPLES: b""}
    exported = info.exported or Exported(format="torch", images=images, outputs=outputs)
    exported = dataclasses.replace(exported, images=images, outputs=outputs, contents_sha256=hash_parts(parts))
    info = dataclasses.replace(info, exported=exported)
    with replacing(path) as temporary:
        temporary.write_bytes(pack(parts | {INFO: info_to_json(info).encode()}))
    return info


def _bare(program: ExportedProgram) -> ExportedProgram:
    """The program without what it tells of the machine that traced it, and without guesses about open lengths.

    Tracing takes it for granted that maps which are larger than one pixel always are. The operators do not care.
    """
    bare = copy.copy(program)
    bare._graph_module = copy.deepcopy(program.graph_module)
    bare._guards_code = []
    bare._range_constraints = {name: ValueRanges(1, r.upper) for name, r in program.range_constraints.items()}
    for node in bare.graph.nodes:
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
    return bare
