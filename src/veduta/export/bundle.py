"""Folders around a proven file: its texts and scripts, written from templates."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from veduta.backends.probes import probes_path
from veduta.files import write_text
from veduta.model_info import ModelInfo


def take_in(model: Path, place: Path) -> Path:
    """Move a file of `veduta export`, with its probes, into a folder under another name; returns where it is."""
    place.parent.mkdir(parents=True, exist_ok=True)
    probes_path(model).replace(probes_path(place))
    return model.replace(place)


def write_from_template(template: str, path: Path, **values: Any) -> None:
    """template: of the folder templates/, without its .jinja. Scripts, which end in .sh, may be executed."""
    write_text(path, _environment().get_template(f"{template}.jinja").render(**values))
    if path.suffix == ".sh":
        path.chmod(path.stat().st_mode | 0o111)


def simple_name(info: ModelInfo) -> str:
    """The recipe's name in letters, digits and what else no program minds in a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", info.recipe.name).strip("-") or info.recipe.model


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("veduta", "export/templates"),
        autoescape=False,  # noqa: S701  # texts and scripts, no pages
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment
