"""From arrays under a source's names to our network with these weights, every tensor accounted for."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from veduta.config import ProtocolName, TaskName, nearest
from veduta.legacy.errors import CheckpointError
from veduta.legacy.mapping import Array, Row, convert, explain
from veduta.legacy.sources import IMPORTS, Family, importable_from
from veduta.models import build_loaded, build_skeleton, checked_options

COUNTERS = "num_batches_tracked"  # of BatchNorm: only PyTorch counts, and nothing that we use depends on it
MOST_NAMED = 8  # in one error
LEAST_RIGHT = 10  # a network is recognised where one in so many of its tensors is there


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A network in eval mode, and the table of how it came about."""

    model: nn.Module
    name: str  # of MODELS
    options: dict[str, Any]
    num_classes: int
    task: TaskName
    protocol: ProtocolName
    source: str  # of IMPORTS
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well arrays fit one candidate: names that find a partner of their shape, and names on either side without."""

    source: str
    family: Family
    name: str
    options: dict[str, Any]
    num_classes: int
    right: int
    wrong: int


def from_arrays(model: str, arrays: Mapping[str, Array], *, source: str, **model_args: Any) -> nn.Module:
    """The network `model` of MODELS with the values of `arrays`, in eval mode.

    arrays: the source's own names and layouts. source: one of IMPORTS. model_args: num_classes (else read off the head)
    and options of the model, such as output_stride. Raises ValueError for an unknown model or source, CheckpointError
    for tensors that are missing, left over or of another shape.
    """
    return import_arrays(model, arrays, source=source, **model_args).model


def import_arrays(model: str, arrays: Mapping[str, Array], *, source: str, **model_args: Any) -> Imported:
    """As `from_arrays`, with the table."""
    if source not in IMPORTS:
        raise ValueError(f"There is no source {source!r}.{nearest(source, IMPORTS)}")
    model_args = checked_options(model, model_args)
    sources = importable_from(model)
    if source not in sources:
        raise ValueError(
            f"Source {source!r} never published model {model!r}. "
            + (f"These did: {', '.join(sources)}." if sources else "No source did: it is ours.")
        )
    arrays = {str(name): np.asarray(array) for name, array in arrays.items()}
    fit = best_fit(arrays, sources=[source], model=model, options=model_args)
    rows, targets = explain(arrays, fit.family.rules)
    values = convert(arrays, targets)
    # Everything is checked against a network without values: a damaged head may claim any number of classes.
    expected = build_skeleton(model, fit.num_classes, **fit.options).state_dict()
    absent = [name for name in expected if name not in values and _optional(name, fit.family.zeros)]
    places = {target: " + ".join(name for name, _ in sources) for target, sources in targets.items()}
    unexplained = sorted(set(arrays) - {row.source for row in rows})
    fault = next(_faults(fit, unexplained, values, expected, absent, places), None)
    if fault is not None:
        raise CheckpointError(fault + _looks_like(arrays, fit))
    state = {name: torch.zeros(expected[name].shape, dtype=expected[name].dtype) for name in absent}
    state |= {name: torch.from_numpy(_as_ours(value)) for name, value in values.items()}
    network = build_loaded(model, fit.num_classes, state, **fit.options)
    return Imported(
        model=network.eval(),
        name=model,
        options=fit.options,
        num_classes=fit.num_classes,
        task=fit.family.task,
        protocol=fit.family.protocol,
        source=source,
        rows=[
            *(_with_type(row, arrays) for row in rows),
            *(
                Row(source="", target=name, what="zeros: the source has no such tensor")
                for name in absent
                if not name.endswith(COUNTERS)
            ),
        ],
    )


def _faults(
    fit: Fit,
    unexplained: Sequence[str],
    values: Mapping[str, Array],
    expected: Mapping[str, Tensor],
    absent: Sequence[str],
    places: Mapping[str, str],
) -> Iterator[str]:
    """What is wrong, if anything, the plainest first. places: the source's names of each of our tensors."""
    model = fit.name
    if unexplained:
        yield f"no part of {model}, as '{fit.source}' names them, is {_some(unexplained)}."
    if missing := sorted(set(expected) - set(values) - set(absent)):
        yield (
            f"no tensor for {len(missing):,} of the {len(expected):,} parts of {model}: {_some(missing)}. Is it only a "
            "part of the network?"
        )
    if foreign := sorted(places[target] for target in set(values) - set(expected)):
        yield f"no place in {model} for {_some(foreign)}."
    shapes = {target: value.shape for target, value in expected.items() if target in values}
    if other := [t for t, shape in shapes.items() if values[t].shape != shape]:
        wrong = [f"{places[t]}: {list(values[t].shape)}, expected {list(shapes[t])}" for t in other]
        yield f"shapes (in PyTorch's order) do not fit {model} with {fit.num_classes} classes: {_some(wrong)}."
    weights = {target: value for target, value in values.items() if not target.endswith(COUNTERS)}
    if kinds := [f"{places[t]}: {value.dtype}" for t, value in weights.items() if value.dtype.kind != "f"]:
        yield f"weights must be floating-point numbers, found {_some(kinds)}. Quantised weights?"
    if broken := [places[t] for t, value in weights.items() if not np.isfinite(_float32(value)).all()]:
        yield (
            f"values that are no finite numbers in {_some(broken)}: the training had failed. Take an earlier "
            "checkpoint."
        )


def _float32(value: Array) -> Array:
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which is refused
        return value.astype(np.float32, copy=False)


def _as_ours(value: Array) -> Array:
    """A copy in C order, as float32 or int64, in this machine's order of bytes."""
    return np.array(value, np.float32 if value.dtype.kind == "f" else np.int64, order="C")


def _with_type(row: Row, arrays: Mapping[str, Array]) -> Row:
    if not row.target or row.target.endswith(COUNTERS) or arrays[row.source].dtype == np.float32:
        return row
    return dataclasses.replace(row, what=f"{row.what}; {arrays[row.source].dtype} to float32")


def best_fit(
    arrays: Mapping[str, Array],
    *,
    sources: Sequence[str],
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Fit:
    """The candidate whose names and shapes agree best with the arrays. Raises CheckpointError where no rule applies."""
    fits = []
    for fit in _fits(arrays, sources, model, options or {}):
        if not fit.wrong:
            return fit
        fits.append(fit)
    if not fits:
        raise CheckpointError(
            f"no network that Veduta imports has tensors such as {_some(sorted(arrays))}. "
            f"Known sources: {', '.join(sources)}."
        )
    return min(fits, key=lambda fit: (fit.wrong, -fit.right))


def _fits(
    arrays: Mapping[str, Array], sources: Sequence[str], model: str | None, options: Mapping[str, Any]
) -> Iterator[Fit]:
    for source in sources:
        for family in IMPORTS[source]:
            rows, targets = explain(arrays, family.rules)
            if 2 * len(rows) < len(arrays) and model is None:
                continue
            try:
                shapes = {name: value.shape for name, value in convert(arrays, targets).items()}
            except CheckpointError:
                if model is None:
                    continue
                shapes = {}
            for name, variant in family.candidates:
                if model not in (None, name) or any(options.get(key, value) != value for key, value in variant.items()):
                    continue
                chosen = {**family.options, **variant, **options}
                num_classes = chosen.pop("num_classes", None) or max(1, (shapes.get(family.head) or (1,))[0])
                expected = build_skeleton(name, num_classes, **chosen).state_dict()
                needed = {k: v.shape for k, v in expected.items() if not _optional(k, family.zeros)}
                right = sum(shapes.get(k) == shape for k, shape in needed.items())
                if model is None and LEAST_RIGHT * right < len(needed):
                    continue
                yield Fit(
                    source=source,
                    family=family,
                    name=name,
                    options=chosen,
                    num_classes=num_classes,
                    right=right,
                    wrong=len(arrays) - len(rows) + len(needed) - right + sum(k not in expected for k in shapes),
                )


def _optional(name: str, zeros: str | None) -> bool:
    return name.endswith(COUNTERS) or (zeros is not None and re.fullmatch(zeros, name) is not None)


def _looks_like(arrays: Mapping[str, Array], tried: Fit) -> str:
    """' It looks like ...' where another candidate fits better than the one that was tried."""
    try:
        fit = best_fit(arrays, sources=list(IMPORTS))
    except CheckpointError:
        return ""
    if fit.wrong >= tried.wrong or (fit.source, fit.name) == (tried.source, tried.name):
        return ""
    return f" The checkpoint looks like {fit.name} from '{fit.source}' with {fit.num_classes} classes."


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
