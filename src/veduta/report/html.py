"""What every page is made of: a template that escapes, pictures inside of the text, and a size that it keeps."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray
from PIL import Image

from veduta.files import write_text
from veduta.tasks.evaluation import in_cell, percent

MAX_BYTES = 5_000_000  # of a page


@dataclass(frozen=True)
class Detail:
    """How fine the pictures of a page are. side: pixels, the longer one; quality: of JPEG, 1 to 95."""

    side: int
    quality: int


DETAILS = (Detail(720, 85), Detail(720, 70), Detail(560, 60), Detail(400, 50), Detail(280, 40), Detail(160, 30))


def write_page(path: Path, render: Callable[[Detail], str]) -> None:
    """Write the page in the finest detail that keeps it below MAX_BYTES."""
    for detail in DETAILS:
        page = render(detail).encode(errors="replace").decode()  # file names may hold bytes that are not UTF-8
        if len(page.encode()) <= MAX_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


@cache
def load_template(name: str, *, quality: int) -> Template:
    """A page of this folder; it escapes everything that comes from data. quality: of the JPEGs in it, 1 to 95."""
    environment = Environment(
        loader=PackageLoader("veduta", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["cell"] = in_cell
    environment.filters["jpeg"] = partial(to_jpeg, quality=quality)
    environment.filters["png"] = to_png
    return environment.get_template(name)


def to_jpeg(pixels: NDArray[np.uint8], *, quality: int) -> str:
    """(H, W, 3) uint8 RGB -> data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)  # 0: sharp borders of colour
    return data_uri("image/jpeg", buffer.getvalue())


def to_png(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 4) uint8 RGBA of few colours -> data URI."""
    colors, indices = np.unique(pixels.view(np.uint32), return_inverse=True)
    image = Image.fromarray(pixels)
    if len(colors) <= 256:  # a palette takes a third of the bytes
        entries = colors.view(np.uint8).reshape(-1, 4)
        image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
        image.putpalette(entries[:, :3].tobytes())
        image.info["transparency"] = entries[:, 3].tobytes()
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return data_uri("image/png", buffer.getvalue())


def data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
