"""Exporting: trace, write under a temporary name, open again, prove; only then the file gets its name."""

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veduta.backends import open_model
from veduta.backends.probes import Probe, departures, make_probes, probes_path, read_probes, save_probes
from veduta.backends.runtime import exported_of, shape_words
from veduta.backends.torch import TorchBackend
from veduta.data.fit import Pixels
from veduta.engine.compare_outputs import spread
from veduta.engine.evaluate import check_classes
from veduta.engine.predictor import Predictor
from veduta.engine.progress import ProgressLine
from veduta.engine.protocols import averages_logits
from veduta.errors import RunStopped
from veduta.export import TARGETS, Graph
from veduta.export.candidates import candidates
from veduta.export.proof import prove
from veduta.export.request import Labelled, Request, check_request, files_of
from veduta.export.scores import Scored, score
from veduta.export.table import first_broken, headline, table, to_rows
from veduta.files import sync_folder
from veduta.model_info import WEIGHTS, Bounds, Departure, Exported, ModelInfo, find_model
from veduta.tasks.evaluation import Evaluation


class BrokenExport(RunStopped):
    """The exported file does not say what the network says. Nothing of it is left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was made, and its proof. size: bytes of the network's files. scored: where there was data for it."""

    request: Request
    info: ModelInfo
    departures: tuple[Departure, ...]
    scored: Scored | None
    size: int
    seconds: float

    def table(self) -> str:
        return "\n\n".join([table(self.departures), *([self.scored.table()] if self.scored else [])])

    def headline(self) -> str:
        kept = len(exported_of(self.info).kept)
        left = f"; {kept} of its layers stay in float" if kept else ""
        return headline(self.departures, exported_of(self.info).bounds) + left

    def to_json(self, environment: Mapping[str, Any]) -> str:
        exported = exported_of(self.info)
        content = {
            "headline": self.headline(),
            "target": self.request.target,
            "file": str(self.request.out),
            "bytes": self.size,
            "weights_sha256": self.info.weights_sha256,
            "contents_sha256": exported.contents_sha256,
            "images": exported.images,
            "outputs": exported.outputs,
            "precision": exported.precision,
            "kept": exported.kept,
            "bounds": dataclasses.asdict(exported.bounds),
            "departures": to_rows(self.departures),
            "scores": self.scored.to_json() if self.scored else None,
            "seconds": self.seconds,
            "environment": dict(environment),
        }
        return json.dumps(content, indent=1) + "\n"


def open_reference(model: Path, changes: Sequence[str]) -> TorchBackend:
    """The network that is exported, on the CPU. Raises ValueError for what is no model file that holds weights."""
    path = find_model(model)
    if path.suffix != WEIGHTS:
        raise ValueError(
            f"{path}: an exported file is not exported again. Give the run folder or the {WEIGHTS} that it was made of."
        )
    backend = open_model(path, device="cpu", changes=[*changes, "loss_scale=0", "precision=fp32"])
    assert isinstance(backend, TorchBackend)
    return backend


def export(reference: TorchBackend, request: Request, line: ProgressLine, *, data: Labelled | None = None) -> Report:
    """Make what a checked request asks for, and prove it: on generated images, and on the data, where there is some.

    Raises BrokenExport where a bound is broken, with the output, what it was asked and the difference; ValueError or
    OSError for mistakes. Then nothing is left.
    """
    started, target = time.perf_counter(), TARGETS[request.target]
    _check_together(reference, request, data)
    with _workshop(request.out) as folder:
        path = folder / (request.out.name if target.ending else "model.onnx")
        graph, info, proof, scored = _proven(reference, request, line, data, path)
        line.update(f"writing {request.out.name} with its proof and its probes")
        probes = make_probes(reference, exported_of(info))
        sha256 = _save_new(probes_path(path), probes, probes_path(request.out))
        bounds = _bounds(proof, request)
        proven = dataclasses.replace(exported_of(info), bounds=bounds, proof=proof, probes_sha256=sha256)
        info = target.write(graph, dataclasses.replace(info, exported=proven), path)
        finished = open_model(path, device="cpu", backend=target.format)
        _refuse_broken(tuple(departures(finished, read_probes(path, proven))), bounds, request)
        size = sum(file.stat().st_size for file in folder.iterdir() if file != probes_path(path))
        _publish(request, info, path)
    return Report(
        request=request,
        info=info,
        departures=proof,
        scored=scored,
        size=size,
        seconds=time.perf_counter() - started,
    )


def _check_together(reference: TorchBackend, request: Request, data: Labelled | None) -> None:
    """Raises ValueError where the network, the request and the data do not go together."""
    predictor, recipe = Predictor(reference), reference.info.recipe
    if request.full and averages_logits(predictor.show):
        raise ValueError(
            f"--full: the file is to decode its logits itself, and protocol '{recipe.protocol}' averages them over "
            "views of an image. Leave --full out, or add --set protocol=whole."
        )
    if data is None:
        return
    check_classes(reference.info.labels, data.samples)
    first = data.samples[0]
    shown = predictor.shown_size(first.image)
    asked = TARGETS[request.target].shape(reference.model, recipe, request.shape)[2:]
    if not predictor.by_bands and any(length not in (None, own) for length, own in zip(asked, shown, strict=True)):
        raise ValueError(
            f"{first.name} is shown to the network as {shown[0]} x {shown[1]} by protocol '{recipe.protocol}', and the "
            f"file is to take {shape_words(asked)} alone (height x width). Leave --size out, or give one that fits."
        )


def _proven(
    reference: TorchBackend, request: Request, line: ProgressLine, data: Labelled | None, path: Path
) -> tuple[Graph, ModelInfo, tuple[Departure, ...], Scored | None]:
    """The first candidate that says what the network says and, where there is data, scores as it does.

    It is written to `path`. With its info, its proof and its score. Raises BrokenExport where there is none.
    """
    target, photos = TARGETS[request.target], [] if data is None else list(_photos(data))
    network: Evaluation | None = None
    refused: list[tuple[Scored, str]] = []
    for graph in candidates(reference, request, line, None if data is None else data.calibration):
        line.update(f"writing {request.out.name}")
        info = target.write(graph, dataclasses.replace(reference.info, exported=_first_words(request, graph)), path)
        fresh = open_model(path, device="cpu", backend=target.format)
        proof = tuple(prove(reference, fresh, photos, lambda case: line.update(f"comparing both: {case}")))
        _refuse_broken(proof, _bounds(proof, request), request)
        if data is None:
            return graph, info, proof, None
        network = network or score("network", reference, data, line)
        scored = Scored(network, score("exported file", fresh, data, line))
        why = scored.broken(request.max_drop if request.int8 else None)
        if not why:
            return graph, info, proof, scored
        line.say(why)
        refused.append((scored, why))
    scored, why = max(refused, key=lambda each: min(each[0].points().values()))
    raise BrokenExport(f"{request.out} is not written: {why}.\n\n{scored.table()}")


def _first_words(request: Request, graph: Graph) -> Exported:
    """What a file says of itself before it is proven; its shapes and its hash are added when it is written."""
    return Exported(
        format=TARGETS[request.target].format,
        precision="int8" if request.int8 else "fp32",
        kept=graph.kept,
        full=request.full,
        images=(),
        outputs={},
    )


def _bounds(proof: Sequence[Departure], request: Request) -> Bounds:
    if not request.int8:
        return Bounds()
    from veduta.export.sensitivity import measured_bounds

    return measured_bounds(proof)


def _save_new(path: Path, probes: Sequence[Probe], named: Path) -> str:
    """Write probes; returns their sha256. Where there are some of that name, of another target, they must be the same.

    Raises FileExistsError where they are not.
    """
    sha256 = save_probes(path, probes)
    if named.exists() and hashlib.sha256(named.read_bytes()).hexdigest() != sha256:
        raise FileExistsError(
            f"{named} exists, and belongs to another file; nothing is overwritten. Choose another name for --out."
        )
    return sha256


def _photos(data: Labelled) -> Iterator[tuple[str, Pixels]]:
    """Some of a split, spread evenly, by name."""
    for index in spread(len(data.samples)):
        sample = data.samples[index]
        yield f"{data.name} {sample.name}", sample.image


def _refuse_broken(found: Sequence[Departure], bounds: Bounds, request: Request) -> None:
    if why := first_broken(found, bounds):
        raise BrokenExport(
            f"{request.out} is not written: {why}.\n\n{table(found)}\n\n"
            "The file that was made does not say what the network says. Choose another --to, or another release of "
            "PyTorch or of the runtime; and report it, with the name of the model."
        )


def _publish(request: Request, info: ModelInfo, path: Path) -> None:
    """Give what lies in the workshop its name."""
    bundle, out = TARGETS[request.target].bundle, request.out
    check_request(request)  # once more: another export may have written it meanwhile
    if bundle is None:
        for file in files_of(request):
            (path.parent / file.name).replace(file)
    else:
        folder = path.parent / "bundle"
        bundle(path, info, folder)
        folder.replace(out)
    sync_folder(out.absolute().parent)


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """A folder beside `out` in which everything is made; in the end, and after an error, it is gone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
