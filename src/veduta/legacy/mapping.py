"""Rename rules: a source's tensors by their own names -> ours, each one explained, none left over in silence.

A rule is literal: a pattern over the whole name, a template for our name, and how the values change on the way.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from veduta.legacy.errors import CheckpointError

Array = NDArray[np.generic]


def copied(array: Array) -> Array:
    return array


def grouped(array: Array) -> Array:
    """One group of a grouped convolution, stored group by group: all of them are joined along the first axis."""
    return array


def hwio(array: Array) -> Array:
    """TensorFlow's convolution kernel [h, w, in, out] -> [out, in, h, w]."""
    return array.transpose(3, 2, 0, 1)


def hwim(array: Array) -> Array:
    """TensorFlow's depthwise kernel [h, w, channels, 1] -> [channels, 1, h, w]."""
    return array.transpose(2, 3, 0, 1)


def hwio_bgr(array: Array) -> Array:
    """The first convolution of a network that reads BGR: as `hwio`, and its input channels reversed to RGB."""
    return hwio(array)[:, ::-1]


def hwio_pool_last(array: Array) -> Array:
    """As `hwio`, for the projection of a pyramid that starts with its pooling branch; ours ends with it.

    Every branch is as wide as the projection's output.
    """
    return np.roll(hwio(array), -array.shape[3], axis=1)


WORDS: dict[Callable[[Array], Array], str] = {  # what the table says of a change
    copied: "copied",
    grouped: "merged, one tensor per group before",
    hwio: "transposed, HWIO to OIHW",
    hwim: "transposed, HWIM to OIHW",
    hwio_bgr: "transposed, HWIO to OIHW; BGR to RGB",
    hwio_pool_last: "transposed, HWIO to OIHW; pooling branch moved to the end",
}


@dataclass(frozen=True)
class Rule:
    """Tensors whose whole name matches `pattern` become `target`, or are dropped for `why`.

    `target` is a template: `\\1` is a group, `<\\1-1>` and `<\\1+1>` are the number in it less or more one.
    """

    pattern: str
    target: str = ""
    change: Callable[[Array], Array] = copied
    why: str = ""


def dropped(pattern: str, why: str) -> Rule:
    return Rule(pattern, why=why)


def tf_conv(
    scope: str, conv: str, norm: str = "", *, change: Callable[[Array], Array] = hwio, kernel: str = "weights"
) -> list[Rule]:
    """A convolution of tf.slim under `scope`: its kernel, bias, and BatchNorm under `norm`."""
    parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    rules = [Rule(f"{scope}/{kernel}", f"{conv}.weight", change), Rule(f"{scope}/biases", f"{conv}.bias")]
    if norm:
        rules += [Rule(f"{scope}/BatchNorm/{part}", f"{norm}.{name}") for part, name in parts.items()]
    return rules


# A depthwise convolution of tf.slim, whose kernel has a name and a layout of its own.
tf_depthwise = partial(tf_conv, change=hwim, kernel="depthwise_weights")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the mapping table. Either name may be empty: a tensor dropped, or one that the source lacks."""

    source: str
    target: str
    what: str


def explain(names: Iterable[str], rules: Sequence[Rule]) -> tuple[list[Row], dict[str, list[tuple[str, Rule]]]]:
    """Apply rules to names alone. A name that no rule knows gets no row.

    Returns the rows and, by target, its sources in order with the rule of each. Raises CheckpointError where two names
    would become one.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    rows: list[Row] = []
    targets: dict[str, list[tuple[str, Rule]]] = {}
    for name in sorted(names, key=_by_number):
        for pattern, rule in compiled:
            match = pattern.fullmatch(name.removeprefix("module."))  # what DataParallel puts before every name
            if match is None:
                continue
            target = _fill(rule.target, match)
            if target:
                targets.setdefault(target, []).append((name, rule))
            rows.append(Row(source=name, target=target, what=rule.why or WORDS[rule.change]))
            break
    for target, sources in targets.items():
        if len(sources) > 1 and any(rule.change is not grouped for _, rule in sources):
            raise CheckpointError(f"{' and '.join(name for name, _ in sources)} would both become {target}.")
    return rows, targets


def convert(arrays: Mapping[str, Array], targets: Mapping[str, list[tuple[str, Rule]]]) -> dict[str, Array]:
    """The values of every target, in our layout. Raises CheckpointError where a tensor has the wrong rank."""
    converted = {}
    for target, sources in targets.items():
        parts = []
        for name, rule in sources:
            try:
                parts.append(rule.change(arrays[name]))
            except (ValueError, IndexError) as error:
                raise CheckpointError(
                    f"{name}: shape {list(arrays[name].shape)} cannot be {WORDS[rule.change]} for {target} ({error})."
                ) from error
        converted[target] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return converted


def _fill(template: str, match: re.Match[str]) -> str:
    filled = match.expand(re.sub(r"<\\(\d)([+-]1)>", r"<\\g<\1>\2>", template)) if template else ""
    return re.sub(r"<(\d+)([+-]1)>", lambda found: str(int(found[1]) + int(found[2])), filled)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts unit_2 before unit_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name)]
