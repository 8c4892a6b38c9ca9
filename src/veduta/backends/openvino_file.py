"""OpenVINO's pair of files, .xml and .bin: checked before OpenVINO sees them; the .xml holds the ModelInfo.

The info stands in the .xml as OpenVINO's own tools put it there, as `rt_info` "veduta". It is taken out and put in as
text, so that whatever else the file holds hashes to the same with it and without.
"""

import hashlib
import re
from html import unescape
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from veduta.backends.runtime import check_format
from veduta.model_info import METADATA_KEY, ModelInfo, info_from_json, info_to_json

LARGEST_XML = 64 << 20  # bytes; that of a network of a thousand layers has one
LARGEST_WEIGHTS = 16 << 30  # bytes

_INFO = re.compile(rb"\t\t<" + METADATA_KEY.encode() + rb' value=("[^"<]*"|\'[^\'<]*\') />\n')
_PLACE = b"\t</rt_info>\n</net>"


class OpenVinoFile(NamedTuple):
    """The files as they were checked; OpenVINO gets these bytes, and no path."""

    xml: bytes
    weights: bytes
    info: ModelInfo


def weights_path(path: Path) -> Path:
    """Where the weights of a .xml lie; the file itself does not say."""
    return path.with_suffix(".bin")


def hash_pair(xml: bytes, weights: bytes) -> str:
    """sha256 of the .xml without its info, and of the weights."""
    digest = hashlib.sha256(f"{len(xml)} {len(weights)}\n".encode())
    digest.update(xml)
    digest.update(weights)
    return digest.hexdigest()


def with_info(xml: bytes, info: ModelInfo) -> bytes:
    """A .xml as OpenVINO writes it -> the same with the info inside."""
    start = xml.rindex(_PLACE)
    return xml[:start] + f"\t\t<{METADATA_KEY} value={quoteattr(info_to_json(info))} />\n".encode() + xml[start:]


def read_pair(path: Path) -> OpenVinoFile:
    """The pair of files of `veduta export`, of which `path` is the .xml. Raises ValueError or FileNotFoundError."""
    weights = weights_path(path)
    for file in (path, weights):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} not found. A network for OpenVINO is two files of one name: copy both, {path.name} and "
                f"{weights.name}."
            )
    xml = _read(path, LARGEST_XML)
    if b"<!" in xml:  # of a document type, and of entities, which could grow without end
        raise ValueError(f"{path}: holds XML declarations, which no file of `veduta export` does. Refused.")
    found = list(_INFO.finditer(xml))
    if len(found) != 1:
        raise ValueError(
            f"{path}: a file for OpenVINO without recipe and label map, so nobody can say what it predicts. Open one "
            "that `veduta export --to openvino` wrote."
        )
    try:
        text = unescape(found[0][1][1:-1].decode())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is no text at byte {found[0].start() + error.start:,}. Damaged? Copy it again."
        ) from error
    info = info_from_json(text, source=path)
    exported = check_format(info, "openvino", path)
    xml = xml[: found[0].start()] + xml[found[0].end() :]
    content = _read(weights, LARGEST_WEIGHTS)
    hashed, said = hash_pair(xml, content), exported.contents_sha256
    if hashed != said:
        raise ValueError(
            f"{path}: it and {weights.name} hash to {hashed[:12]}, the file says {said[:12]}. One of the two is "
            "damaged, or they are not of one export; copy both again, or export the model again."
        )
    return OpenVinoFile(xml, content, info)


def _read(path: Path, largest: int) -> bytes:
    if path.stat().st_size > largest:  # read(largest) would ask for as much memory at once
        raise ValueError(f"{path}: larger than {largest:,} bytes, which no file of `veduta export` is.")
    return path.read_bytes()
