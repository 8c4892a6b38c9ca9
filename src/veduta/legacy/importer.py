"""`veduta import`: a checkpoint of a published system -> a model file of ours, and the table of what became of it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from veduta.checkpoint import save_model
from veduta.config import Data, Optim, Recipe
from veduta.data.label_maps import BY_COUNT, CITYSCAPES, COCO, numbered
from veduta.files import check_new_file
from veduta.labels import LabelMap, read_label_map
from veduta.legacy.build import MOST_NAMED, Imported, best_fit, import_arrays
from veduta.legacy.errors import CheckpointError
from veduta.legacy.mapping import Array, Row
from veduta.legacy.read import Format, recognise
from veduta.legacy.sources import alike, importable_from
from veduta.model_info import ModelInfo, Origin
from veduta.models import checked_options
from veduta.models.published import PUBLISHED

Weights = Literal["raw", "ema"]

SOURCES = {  # that write each format
    Format.TF_BUNDLE: ["tensorflow"],
    Format.TF_GRAPH: ["tensorflow"],
    Format.MINDSPORE: ["mindspore"],
    Format.TORCH: ["zhanghang", "encoding", "timm", "torchvision", "drsleep"],
    Format.SAFETENSORS: ["zhanghang", "encoding", "timm", "torchvision", "drsleep"],
}

TF_AVERAGE, TIMM_AVERAGE = "/ExponentialMovingAverage", "state_dict_ema."
PIECE = 2**22  # bytes hashed at a time


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `veduta import` did. rows: one per tensor, in the order of the source."""

    info: ModelInfo
    rows: list[Row]
    labels_assumed: bool

    def table(self) -> str:
        """One line per tensor: its name there, its name here, what happened to it."""
        columns = [("source", "veduta", ""), *((row.source or "-", row.target or "-", row.what) for row in self.rows)]
        wide = [max(len(column[i]) for column in columns) for i in (0, 1)]
        return "\n".join(f"{a:{wide[0]}}  {b:{wide[1]}}  {c}".rstrip() for a, b, c in columns)

    def to_json(self) -> str:
        """The table and the origin of the weights."""
        assert self.info.origin is not None
        content = {
            "headline": self.headline(),
            "model": self.info.recipe.model,
            "model_options": self.info.recipe.model_options,
            "classes": list(self.info.labels.names),
            "weights_sha256": self.info.weights_sha256,
            "origin": dataclasses.asdict(self.info.origin),
            "tensors": [dataclasses.asdict(row) for row in self.rows],
        }
        return json.dumps(content, indent=1) + "\n"

    def headline(self) -> str:
        info, origin = self.info, self.info.origin
        assert origin is not None
        mapped = sum(bool(row.source and row.target) for row in self.rows)
        gone = sum(not row.target for row in self.rows)
        assumed = ", assumed from their number" if self.labels_assumed and info.labels.name != "numbered" else ""
        return (
            f"{mapped:,} tensors mapped, {gone:,} dropped on purpose, none left over: {info.recipe.model} from "
            f"'{origin.source}' ({origin.format}), {info.labels.num_classes} classes (label map {info.labels.name}"
            f"{assumed}), weights {info.weights_sha256[:12]}"
        )


def import_checkpoint(
    path: Path,
    out: Path,
    *,
    model: str | None = None,
    weights: Weights | None = None,
    labels: Path | None = None,
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Read, recognise, map, and write the model file `out`.

    model: of MODELS, where the best fit is not meant. weights: must be given where the checkpoint holds moving averages
    beside the weights. labels: a label map file. options: of the model. say: told what takes long.
    Raises CheckpointError, ValueError or OSError; then nothing is written.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: a model file ends in .safetensors; give it such a name.")
    check_new_file(out)
    if model is not None:
        checked_options(model, options or {})
    found = recognise(path)
    sources = SOURCES[found.format]
    if model is not None and not set(sources) & set(importable_from(model)):
        known = ", ".join(importable_from(model)) or "no source: it is ours"
        raise CheckpointError(f"{path} is a {found.format}, as {', '.join(sources)} write; {model} comes from {known}.")
    files = found.files()
    size = sum(file.stat().st_size for file in files)
    say(f"reading {found.path}: {found.format}, {size / 1e6:,.1f} MB")
    contents = found.read()
    try:
        arrays, averaged = choose(contents.arrays, weights)
        if model is None:
            fit = best_fit(arrays, sources=sources)
            model, source = fit.name, fit.source
        else:
            source = next(s for s in sources if s in importable_from(model))
        options = checked_options(model, options or {})
        say(f"building {model} from '{source}'")
        imported = import_arrays(model, arrays, source=source, **options)
    except CheckpointError as error:
        skipped = ", ".join(f"{name} ({kind})" for name, kind in list(contents.skipped.items())[:MOST_NAMED])
        also = f" Besides, the file holds what was not read: {skipped}." if skipped else ""
        raise CheckpointError(f"{found.path}: {error}{also}") from error
    label_map = _label_map(imported, labels)
    state: dict[str, Tensor] = imported.model.state_dict()
    recipe = imported_recipe(imported)
    origin = Origin(
        source=" or ".join(alike(model, source)),
        format=str(found.format),
        files=tuple(os.fsencode(file.name).decode(errors="replace") for file in files),
        sha256=_hash_files(files),
        preprocessing=_preprocessing(imported),
    )
    info = ModelInfo(recipe=recipe, labels=label_map, step=_step(contents.arrays), origin=origin)
    info = save_model(out, state, info)
    rows = [dataclasses.replace(row, source=averaged.get(row.source, row.source)) for row in imported.rows]
    rows += [Row(source=name, target="", what="dropped: raw weights; the averages were asked for") for name in averaged]
    rows += [Row(source=name, target="", what=f"dropped: {kind}") for name, kind in contents.skipped.items()]
    return Report(info=info, rows=rows, labels_assumed=labels is None)


def choose(arrays: dict[str, Array], weights: Weights | None) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays with raw weights or with their moving averages in place of them.

    Returns them under the names of the raw weights and, for each one replaced, the name of its average. Raises
    CheckpointError where there are averages and nobody chose, or where none are and they were asked for.
    """
    averages = {name: _raw_name(name) for name in arrays if _raw_name(name) != name}
    if averages and weights is None:
        raise CheckpointError(
            f"it holds raw weights and moving averages of {len(averages)} of them (such as {next(iter(averages))}). "
            "Say which: --weights ema for the averages, which usually score better, or --weights raw."
        )
    if not averages and weights == "ema":
        raise CheckpointError("--weights ema: it holds no moving averages. Leave the option out.")
    if weights != "ema":
        return arrays, {}
    chosen = {name: array for name, array in arrays.items() if name not in averages}
    chosen.update({raw: arrays[name] for name, raw in averages.items()})
    return chosen, {raw: name for name, raw in averages.items() if raw in arrays}


def _raw_name(name: str) -> str:
    return name.removesuffix(TF_AVERAGE).removeprefix(TIMM_AVERAGE)


def _label_map(imported: Imported, path: Path | None) -> LabelMap:
    images = imported.task == "classify"
    if path is None:
        known = None if images else BY_COUNT.get(imported.num_classes)
        return known or numbered(imported.num_classes, images=images)
    labels = read_label_map(path, of="images" if images else "pixels")
    # The network's outputs are in the order of their ids, whatever the order of the rows.
    labels = LabelMap(
        name=labels.name,
        classes=tuple(sorted(labels.classes, key=lambda label: label.file_id)),
        void_ids=labels.void_ids,
        of=labels.of,
    )
    if labels.num_classes != imported.num_classes:
        raise ValueError(
            f"{path}: {labels.num_classes} classes (void not counted), the checkpoint has {imported.num_classes}."
        )
    return labels


def imported_recipe(imported: Imported) -> Recipe:
    """A recipe that never ran: which network it is, and how its source shows images to it and scores them."""
    side = Data(dataset="folder").crop_size[0]  # DeepLab's and RefineNet's
    if imported.task == "classify":
        side = PUBLISHED[imported.name].size
    elif imported.source == "encoding":
        side = 768 if imported.num_classes == CITYSCAPES.num_classes else 480
    boxes_of_coco = imported.task == "detect_segment" and imported.num_classes == COCO.num_classes
    return Recipe(
        name=f"{imported.name}-imported",
        model=imported.name,
        task=imported.task,
        model_options=imported.options,
        data=Data(dataset="folder", crop_size=(side, side)),
        optim=Optim(lr=0.001),
        steps=1,
        protocol="coco" if boxes_of_coco else imported.protocol,
    )


def _preprocessing(imported: Imported) -> str:
    normalize: Any = imported.model.normalize
    mean, std = (", ".join(f"{v:.6g}" for v in part.flatten().tolist()) for part in (normalize.mean, normalize.std))
    return f"(RGB - ({mean})) / ({std}), inside the network"


def _step(arrays: Mapping[str, Array]) -> int:
    step = arrays.get("global_step")  # of shape [] or [1]
    return max(0, int(step.item())) if step is not None and step.size == 1 and step.dtype.kind in "iu" else 0


def _hash_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()
