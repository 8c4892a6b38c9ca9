"""Start a training from weights that are there: of the same network, of another data set, or of the backbone alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from veduta.checkpoint import load_model, load_weights
from veduta.config import Recipe
from veduta.data.label_maps import numbered
from veduta.labels import LabelMap
from veduta.model_info import METADATA_KEY, find_model
from veduta.models import build_skeleton

BACKBONE = "backbone."  # what the names of a backbone's tensors begin with inside of a network
COUNTER = "num_batches_tracked"  # of BatchNorm: nothing depends on it, and other programs do not have it
MOST_NAMED = 12  # classes in one sentence


def load_init(model: nn.Module, recipe: Recipe, labels: LabelMap, init: Path) -> str:
    """Take what fits from a run folder or any safetensors file; returns a sentence on what was taken.

    Tensors are matched by name and shape; a classifier fits the backbone of a network, and the other way round. Of the
    tensors that depend on the classes, those of classes with the same name are taken, whatever their place. A file that
    does not say its classes is taken to have them in the same order if it has as many.
    Raises ValueError where neither all of the backbone nor half of all tensors is found, or where the file's backbone
    is deeper or shallower: that is another network. FileNotFoundError: there is no file.
    """
    path = find_model(init)
    weights, metadata = load_weights(path)
    names: tuple[str, ...] | None = None  # of the file's classes
    if METADATA_KEY in metadata:
        weights, info = load_model(path)
        if info.labels.names != numbered(info.labels.num_classes, images=info.labels.of == "images").names:
            names = info.labels.names

    own: dict[str, Tensor] = model.state_dict()
    weights = _with_names_of(own, weights)
    heads = _class_tensors(recipe, labels)
    theirs = names if names != labels.names else None  # where they are others
    taken = {name: t for name, t in weights.items() if _fits(t, own.get(name)) and not (theirs and name in heads)}
    _check_network(path, own, weights, taken, heads)

    said = f"{_count(taken)} of {_count(own)} tensors from {path}"
    if theirs:
        by_class = [name for name in heads if _fits_by_class(weights, own, name, len(theirs), labels)]
        common = [name for name in labels.names if name in theirs]
        if common:
            taken |= {name: _with_rows_of(own[name], weights[name], labels.names, theirs) for name in by_class}
        if by_class:
            others = [name for name in labels.names if name not in theirs]
            said += f"; of its {len(theirs)} classes, by their names: {_some(common)}"
            said += f"; classes from scratch: {_some(others)}" if others else ""
    elif names is None and not taken.keys().isdisjoint(heads):
        said += "; its classes, which it does not name, in their order"
    model.load_state_dict({**own, **taken})
    fresh = _fresh_parts(own, taken)
    return f"{said}; from scratch: {', '.join(fresh)}" if fresh else said


def _with_names_of(own: Mapping[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that fit best: as they are, as those of a backbone, or as a backbone's own."""
    inside = {f"{BACKBONE}{name}": tensor for name, tensor in weights.items()}
    alone = {name.removeprefix(BACKBONE): t for name, t in weights.items() if name.startswith(BACKBONE)}
    return max(weights, inside, alone, key=lambda named: sum(_fits(t, own.get(n)) for n, t in named.items()))


def _fits(tensor: Tensor, own: Tensor | None) -> bool:
    return own is not None and own.shape == tensor.shape and own.is_floating_point() == tensor.is_floating_point()


def _class_tensors(recipe: Recipe, labels: LabelMap) -> list[str]:
    """Names of the tensors whose first axis holds the classes, once or, last running fastest, several times."""
    one, another = (
        build_skeleton(recipe.model, labels.num_classes + more, **recipe.model_options).state_dict() for more in (0, 1)
    )
    return [name for name in one if one[name].shape != another[name].shape]


def _fits_by_class(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, num_theirs: int, labels: LabelMap
) -> bool:
    """Whether a tensor is there, and of the same shape but for the number of classes."""
    if name not in weights:
        return False
    found, expected = weights[name].shape, own[name].shape
    return found[1:] == expected[1:] and found[0] * labels.num_classes == expected[0] * num_theirs


def _with_rows_of(own: Tensor, other: Tensor, names: Sequence[str], other_names: Sequence[str]) -> Tensor:
    """`own` with the rows of `other` for the classes that both have."""
    common = [name for name in names if name in other_names]
    rows = own.clone().unflatten(0, (-1, len(names)))
    found = other.to(rows).unflatten(0, (-1, len(other_names)))
    rows[:, [names.index(name) for name in common]] = found[:, [other_names.index(name) for name in common]]
    return rows.flatten(0, 1)


def _check_network(
    path: Path,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    taken: Mapping[str, Tensor],
    heads: Sequence[str],
) -> None:
    wanted = [name for name in own if not name.endswith(COUNTER)]
    backbone = [n for n in wanted if n.startswith(BACKBONE)] or [n for n in wanted if n not in heads]
    missing = [name for name in wanted if name not in taken]
    if not all(name in taken for name in backbone) and 2 * len(missing) > len(wanted):
        raise ValueError(
            f"--init {path}: only {_count(taken)} of the model's {len(wanted)} tensors are in it by name and shape; "
            f"it belongs to another network. The model wants, for one, {missing[0]} {tuple(own[missing[0]].shape)}."
        )
    parts = {_part(name) for name in backbone}
    beyond = [n for n in weights if n not in own and _part(n) in parts and not n.endswith(COUNTER)]
    if 10 * len(beyond) > len(weights):  # a classifier may have a last layer that the backbone goes without
        raise ValueError(
            f"--init {path}: it belongs to another network, a deeper one: {len(beyond)} tensors of its backbone have "
            f"no place here; for one, {beyond[0]} {tuple(weights[beyond[0]].shape)}."
        )
    begun = {_part(name) for name in backbone if name in taken}
    lacking = [name for name in backbone if name not in taken and _part(name) in begun]
    if 10 * len(lacking) > len(backbone):
        raise ValueError(
            f"--init {path}: it belongs to another network, a shallower one: {len(lacking)} tensors of the model's "
            f"backbone are not in it by name and shape; for one, {lacking[0]} {tuple(own[lacking[0]].shape)}."
        )


def _fresh_parts(own: Mapping[str, Tensor], taken: Mapping[str, Tensor]) -> list[str]:
    begun = {name.split(".")[0] for name in taken}
    fresh = dict.fromkeys(name.split(".")[0] for name in own if name not in taken and not name.endswith(COUNTER))
    return [f"some of {part}" if part in begun else part for part in fresh]


def _part(name: str) -> str:
    """backbone.layer1.0.conv1.weight -> backbone.layer1; layer1.0.conv1.weight -> layer1."""
    inside = name.startswith(BACKBONE)
    return (BACKBONE if inside else "") + name.removeprefix(BACKBONE).split(".")[0]


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(not name.endswith(COUNTER) for name in tensors)


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return (", ".join(names[:MOST_NAMED]) or "none") + (f" and {more} more" if more > 0 else "")
