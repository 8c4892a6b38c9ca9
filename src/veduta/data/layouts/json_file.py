"""JSON that somebody else wrote: read within limits, and whatever is wrong with it said with its file."""

import json
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from veduta.data.stored import Stored


def read_json(path: Path, take: Callable[[dict[str, Any]], object] | None = None) -> Any:
    """The content of a JSON file. `take` gets every object as soon as it is parsed and gives what stands for it.

    Raises FileNotFoundError, and ValueError naming the file: not JSON, larger than `MAX_BYTES`, refused by `take`.
    """
    data = Stored(path).read()
    try:
        return json.loads(data, object_hook=take)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}). Cut off, or another file?") from error
    except ValueError as error:  # of `take`, or a number of thousands of digits
        raise ValueError(f"{path}: {error}") from error


def text_at(fields: dict[str, Any], key: str) -> str:
    """A field that names something. Raises ValueError naming the field where it is no printable text."""
    value = fields.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"{key}: expected a name, found {reprlib.repr(value)}.")
    return value


def number_at(fields: dict[str, Any], key: str) -> int:
    """A field that counts something, from 0. Raises ValueError naming the field where it is no such number."""
    value = fields.get(key)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{key}: expected a whole number from 0, found {reprlib.repr(value)}.")
    return value
