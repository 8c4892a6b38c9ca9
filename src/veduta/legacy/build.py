"""From arrays under a source's names to our network with these weights, every tensor accounted for."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from veduta.config import nearest
from veduta.legacy.errors import CheckpointError
from veduta.legacy.mapping import Array, Row, convert, explain
from veduta.legacy.sources import IMPORTS, Family, importable_from
from veduta.models import build_model, build_skeleton, checked_options

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
    task: Literal["classify", "segment", "detect_segment"]
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
    fit = best_fit(arrays, sources=[source], model=model, options=model_args)
    rows, targets = explain(arrays, fit.family.rules)
    unexplained = sorted(set(arrays) - {row.source for row in rows})
    if unexplained:
        raise CheckpointError(
            f"{_some(unexplained)} belong to no part of {model} as '{source}' names them.{_looks_like(arrays, fit)}"
        )
    values = convert(arrays, targets)
    # Everything is checked against a network without values: a damaged head may claim any number of classes.
    expected = build_skeleton(model, fit.num_classes, **fit.options).state_dict()
    state, added = _complete(values, expected, fit.family.zeros)
    missing = sorted(set(expected) - set(state))
    if missing:
        raise CheckpointError(
            f"{_some(missing)} of {model} find no tensor in the checkpoint.{_looks_like(arrays, fit)}"
        )
    foreign = sorted(name for target in set(state) - set(expected) for name, _ in targets[target])
    if foreign:
        raise CheckpointError(f"{_some(foreign)} have no place in {model}.{_looks_like(arrays, fit)}")
    names = {target: " + ".join(name for name, _ in sources) for target, sources in targets.items()}
    other_shapes = [
        f"{names[target]}: {list(state[target].shape)}, expected {list(value.shape)}"
        for target, value in expected.items()
        if state[target].shape != value.shape
    ]
    if other_shapes:
        raise CheckpointError(
            f"shapes (in PyTorch's order) do not fit {model} with {fit.num_classes} classes: "
            f"{_some(other_shapes)}.{_looks_like(arrays, fit)}"
        )
    weights = [name for name in targets if not name.endswith(COUNTERS)]
    if kinds := [f"{names[name]}: {state[name].dtype}" for name in weights if not state[name].is_floating_point()]:
        raise CheckpointError(f"weights must be floating-point numbers, found {_some(kinds)}. Quantised weights?")
    if broken := [names[name] for name in weights if not state[name].isfinite().all()]:
        raise CheckpointError(
            f"{_some(broken)} hold values that are no finite numbers: the training had failed. "
            "Take an earlier checkpoint."
        )
    network = build_model(model, fit.num_classes, **fit.options)
    network.load_state_dict(state)
    return Imported(
        model=network.eval(),
        name=model,
        options=fit.options,
        num_classes=fit.num_classes,
        task=fit.family.task,
        source=source,
        rows=[*rows, *added],
    )


def _complete(
    values: Mapping[str, Array], expected: Mapping[str, Tensor], zeros: str | None
) -> tuple[dict[str, Tensor], list[Row]]:
    """Tensors for every converted value, and for those that the source does not have on purpose."""
    state = {name: torch.from_numpy(np.array(value, order="C")) for name, value in values.items()}
    rows = []
    for name, value in expected.items():
        if name in state:
            continue
        if name.endswith(COUNTERS):
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
        elif zeros is not None and re.fullmatch(zeros, name):
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
            rows.append(Row(source="", target=name, what="zeros: the source has no such tensor"))
    return state, rows


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
