"""Raw outputs: tensors that a network gave in another runtime, in files; read as if it had run here.

A Predictor shows every image as its protocol says, and where the network would run the recorded tensors are read:
so they are held to the shapes that this network gives, and what follows is the same code.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.backends import Backend
from veduta.data.sample import Sample, SampleDataset
from veduta.engine.predictions.names import Named, files_by_key, listed, match, names_of
from veduta.engine.predictions.skeleton import Skeleton, skeleton_of
from veduta.engine.predictions.source import Predictions, Progress, hash_files
from veduta.engine.predictions.tensor_files import ENDINGS, read_tensor
from veduta.engine.predictor import Predictor
from veduta.errors import BadPrediction
from veduta.ops.arrays import interpolate
from veduta.tasks.prediction import Prediction

MIRRORED = "_Flip"  # what MindSpore's ports add to the name of a file that belongs to the mirror image

Outputs = tuple[str, ...]  # of a network, by name, in their order
Pass = Mapping[str, Path]  # the file of every output of one run of the network
Runs = dict[str, dict[tuple[int, bool], Path]]  # of every name: (number of the output, mirrored) -> file


class Recording:
    """A Backend that reads what another one has written. passes: of the image at hand, each run of the network."""

    runtime, device = "another runtime", "cpu"

    def __init__(self, backend: Backend, *, channels_last: bool) -> None:
        self.info, self.channels_last = backend.info, channels_last
        self.skeleton = skeleton_of(backend)
        self.passes: list[Pass] = []

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        if not self.passes or len(images) > 1:
            raise ValueError(
                f"protocol {self.info.recipe.protocol} runs the network more often than its outputs are there. Choose "
                "the one that they were made by: --set protocol=NAME."
            )
        files = self.passes.pop(0)
        outputs = dict(self.skeleton.constants)
        for name, shapes in self.skeleton.shapes((images.shape[2], images.shape[3])).items():
            values = read_tensor(files[name], name, shapes, channels_last=self.channels_last)
            outputs[name] = values if values.shape == shapes[0] else interpolate(values, shapes[0][2:], "legacy")
        return outputs


def open_raw_outputs(
    folder: Path,
    dataset: SampleDataset,
    backend: Backend,
    *,
    order: Outputs,
    channels_last: bool,
    progress: Progress,
) -> Predictions:
    """backend: of the model file that the other runtime's was made of. order: of its outputs, if they are not its own.

    Raises BadPrediction for files that are missing or not of the shapes of this network.
    """
    recording, info = Recording(backend, channels_last=channels_last), backend.info
    names = names_of(dataset, progress)
    runs = _runs(folder, names, recording.skeleton)
    keys, left_over = match(names, runs, info.labels, source=folder)
    order = order or _order(runs[next(iter(keys.values()))], recording.skeleton, folder)
    passes = {name: _passes(runs[key], order, recording.skeleton, f"{folder}, {key}") for name, key in keys.items()}
    files = [path for image in passes.values() for run in image for path in run.values()]
    sha256 = hash_files(files, progress)
    predictor = Predictor(recording)

    def find(sample: Sample) -> Prediction:
        recording.passes = list(passes[sample.name])
        (prediction,) = predictor.predict([sample])
        if recording.passes:
            raise ValueError(
                f"{sample.name} has outputs of its mirror image ({MIRRORED}), and protocol {info.recipe.protocol} does "
                "not look at it. Choose the one that they were made by: --set protocol=NAME."
            )
        return prediction

    return Predictions(
        labels=info.labels,
        task=predictor.task,
        protocol=predictor.protocol,
        rules=predictor.rules,
        proof=f"{len(files):,} raw outputs of {folder.name} for {info.recipe.model}, sha256 {sha256[:12]}",
        sha256=sha256,
        find=find,
        left_over=left_over,
    )


def _runs(folder: Path, names: Sequence[Named], skeleton: Skeleton) -> Runs:
    """The files of every image, by the one way of naming them that most images of the split know."""
    files = files_by_key(folder, ENDINGS)
    wanted = {way[-1] for named in names for way in named.ways}
    ways = [_grouped(files, read) for read in _readers(skeleton)]
    runs = max(ways, key=lambda runs: len(wanted & {PurePath(key).name for key in runs}))
    _refuse_doubles(runs, ways, wanted, folder)
    if not wanted & {PurePath(key).name for key in runs}:
        example = names[0].ways[0][-1]
        raise BadPrediction(
            f"{folder}: none of {len(files):,} files {', '.join(ENDINGS)} is named after an image of the split. "
            f"Expected such as {example}_output_0.bin, {example}_0.txt or {example}_{skeleton.recorded[0]}.npy."
        )
    return runs


def _refuse_doubles(runs: Runs, ways: Sequence[Runs], wanted: set[str], folder: Path) -> None:
    """Raises BadPrediction where an image has outputs under a second kind of names, too."""
    taken = {path for run in runs.values() for path in run.values()}
    for key, run in ((key, run) for way in ways for key, run in way.items() if key in runs):
        others = [path for path in run.values() if path not in taken]
        if others and PurePath(key).name in wanted:
            raise BadPrediction(
                f"{folder}: {others[0].name} and {next(iter(runs[key].values())).name} are both outputs for {key}. "
                "Which one? Take the other away."
            )


Reader = Callable[[str], tuple[str, int, bool] | None]  # a file's name -> image, number of the output, mirrored


def _readers(skeleton: Skeleton) -> list[Reader]:
    """The ways in which files are named: NAME_output_0, NAME_0, NAME_class_logits, or NAME alone where one is all."""
    every = tuple(skeleton.outputs)

    def numbered(pattern: str) -> Reader:
        def read(name: str) -> tuple[str, int, bool] | None:
            found = re.fullmatch(pattern, name)
            return (found["name"], int(found["number"]), MIRRORED in found.groups()) if found else None

        return read

    def named(name: str) -> tuple[str, int, bool] | None:
        found = re.fullmatch(f"(.+)_({'|'.join(every)})({MIRRORED})?", name)
        return (found[1], every.index(found[2]), bool(found[3])) if found else None

    def alone(name: str) -> tuple[str, int, bool]:
        return name.removesuffix(MIRRORED), 0, name.endswith(MIRRORED)

    readers: list[Reader] = [
        numbered(rf"(?P<name>.+?)({MIRRORED})?_output_(?P<number>\d+)({MIRRORED})?"),  # behind the name of the input
        numbered(rf"(?P<name>.+)_(?P<number>\d+)({MIRRORED})?"),
        named,
    ]
    return [*readers, alone] if len(skeleton.recorded) == 1 else readers


def _grouped(files: Mapping[str, Path], read: Reader) -> Runs:
    runs: defaultdict[str, dict[tuple[int, bool], Path]] = defaultdict(dict)
    for key, path in files.items():
        if found := read(PurePath(key).name):
            name, number, mirrored = found
            runs[PurePath(key).with_name(name).as_posix()][number, mirrored] = path
    return dict(runs)


def _order(run: Mapping[tuple[int, bool], Path], skeleton: Skeleton, folder: Path) -> Outputs:
    """Which output a number means: the network's own order, with or without its constants, by how many there are."""
    count = 1 + max(number for number, _ in run)
    for names in (skeleton.recorded, tuple(skeleton.outputs)):
        if len(names) == count:
            return names
    raise BadPrediction(
        f"{folder}: {count} outputs for each image; the network gives {', '.join(skeleton.recorded)}. Say which they "
        "are, in their order: --outputs NAME,NAME."
    )


def _passes(run: Mapping[tuple[int, bool], Path], order: Outputs, skeleton: Skeleton, source: str) -> tuple[Pass, ...]:
    """The files of the image and, where there are any, those of its mirror image."""
    passes = []
    for mirrored in sorted({mirrored for _, mirrored in run} | {False}):
        files = {name: run.get((number, mirrored)) for number, name in enumerate(order)}
        missing = [name for name in skeleton.recorded if files.get(name) is None]
        if missing:
            raise BadPrediction(f"{source}: no file of {listed(missing)}{', mirrored' if mirrored else ''}.")
        passes.append({name: path for name, path in files.items() if path and name in skeleton.recorded})
    return tuple(passes)
