"""Promises of a resumed evaluation: whatever stopped it, it gives the same bits, and nothing counts twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crew import run_ranks
from test_evaluate_tasks import TASK_NAMES, Listed, Scripted, contents, some_samples

from veduta.config import TaskName
from veduta.data.sample import Sample
from veduta.engine import kept_counts
from veduta.engine.evaluate import evaluate
from veduta.engine.kept_counts import remove_folder
from veduta.engine.predictor import Predictor
from veduta.errors import RunStopped
from veduta.tasks.evaluation import Evaluation

COUNT = 23


class Stopping:
    """Progress that stops after so many images."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, done: int, total: int) -> None:
        if self.after <= done < total:
            raise RunStopped("told to stop", exit_code=143)


class Watched(Listed):
    """Counts how often each sample is read."""

    def __init__(self, samples: list[Sample | None]) -> None:
        super().__init__(samples)
        self.reads = [0] * len(samples)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        return super().__getitem__(index)


def score(
    task: TaskName,
    dataset: Listed,
    resume: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **changes: Any,
) -> Evaluation:
    given: dict[str, Any] = {"name": "ours", "split": "val", "batch_size": 3, **changes}
    return evaluate(Predictor(Scripted(task)), dataset, progress=progress, resume=resume, **given)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """All that an evaluation says, to the bit, but for the time."""
    content: dict[str, Any] = json.loads(evaluation.to_json())
    del content["seconds"]
    return {**content, "order": evaluation.order, "state": contents(evaluation.metric)}


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("after", [1, 4, 11, 18])  # some samples cannot be read, 4, 11 and 18
def test_a_stopped_evaluation_goes_on_to_the_same_bits_and_reads_no_counted_image_again(
    task: TaskName, after: int, tmp_path: Path
) -> None:
    samples, folder = some_samples(task, COUNT), tmp_path / "counts"
    expected = figures(score(task, Listed(samples)))
    with pytest.raises(RunStopped):
        score(task, Listed(samples), folder, Stopping(after))
    position = json.loads(np.load(folder / "share-0.npz")["rest"].tobytes())["position"]
    assert after <= position < COUNT
    dataset = Watched(samples)
    assert figures(score(task, dataset, folder)) == expected
    assert dataset.reads == [int(index >= position) for index in range(COUNT)]


def test_it_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    samples, folder = some_samples("detect_segment", COUNT), tmp_path / "counts"
    for after in range(1, 20, 4):
        with pytest.raises(RunStopped):
            score("detect_segment", Listed(samples), folder, Stopping(after))
    expected = figures(score("detect_segment", Listed(samples)))
    assert figures(score("detect_segment", Listed(samples), folder)) == expected


def test_what_was_finished_is_not_counted_again_before_the_folder_is_removed(tmp_path: Path) -> None:
    samples, folder = some_samples("segment", COUNT), tmp_path / "counts"
    first = score("segment", Listed(samples), folder)
    dataset = Watched(samples)
    again = score("segment", dataset, folder)
    assert not any(dataset.reads) and figures(again) == figures(first)
    remove_folder(folder)
    assert not folder.exists()


def test_what_was_refused_is_refused_again(tmp_path: Path) -> None:
    samples = some_samples("classify", 4)
    samples[3] = Sample(image=np.zeros((24, 32, 3), np.uint8), name="bare")
    for _ in range(2):
        with pytest.raises(ValueError, match="bare of split 'val' has no scene class"):
            score("classify", Listed(samples), tmp_path / "counts")


def test_counts_are_kept_now_and_then_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_counts, "EVERY", 0.0)
    positions = []

    def watch(done: int, total: int) -> None:
        positions.append(json.loads(np.load(tmp_path / "counts/share-0.npz")["rest"].tobytes())["position"])

    score("classify", Listed(some_samples("classify", 9)), tmp_path / "counts", watch)
    assert positions == sorted(positions) and len(set(positions)) >= 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "test"}, "split: val -> test"),
        ({"name": "theirs"}, "data: ours -> theirs"),
        ({"batch_size": 2}, "batch size: 3 -> 2"),
        ({"full": False}, "rules: .*'full': True} -> .*'full': False}"),
        ({"settings": {"--set": ["precision=bf16"]}}, r"--set: nothing -> \['precision=bf16'\]"),
    ],
)
def test_counts_of_another_evaluation_are_refused_in_words(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    dataset = Listed(some_samples("segment", 5))
    score("segment", dataset, tmp_path / "counts")
    with pytest.raises(ValueError, match=rf"--resume .*counts holds the counts of another evaluation \({words}\)"):
        score("segment", dataset, tmp_path / "counts", **change)


def test_counts_of_other_weights_another_protocol_or_other_data_are_refused(tmp_path: Path) -> None:
    dataset, folder = Listed(some_samples("segment", 5)), tmp_path / "counts"
    score("segment", dataset, folder)
    others = Scripted("segment"), Scripted("segment")
    others[0].info = replace(others[0].info, weights_sha256="another")
    others[1].info = replace(others[1].info, recipe=replace(others[1].info.recipe, protocol="mirrored"))
    for backend, words in zip(others, ("0123456789abcdef -> another", "protocol: .*mirror image"), strict=True):
        with pytest.raises(ValueError, match=words):
            evaluate(Predictor(backend), dataset, name="ours", split="val", batch_size=3, resume=folder)
    with pytest.raises(ValueError, match="images: 5 -> 6"):
        score("segment", Listed(some_samples("segment", 6)), folder)


def test_other_files_or_names_of_as_many_samples_are_refused(folder_root: Path, tmp_path: Path) -> None:
    from stub_backend import StubBackend

    from veduta.data.layouts.folder import open_folder

    def run() -> Evaluation:
        dataset = open_folder(folder_root, "val")
        source = Predictor(StubBackend())
        return evaluate(source, dataset, name="f", split="val", batch_size=2, resume=tmp_path / "counts")

    assert figures(run()) == figures(run())
    mask = folder_root / "masks/val/a.png"
    before = mask.read_bytes()
    mask.write_bytes((folder_root / "masks/val/b.png").read_bytes())  # repaired, say
    with pytest.raises(ValueError, match="sha256 of their files: [0-9a-f]{12} -> [0-9a-f]{12}"):
        run()
    mask.write_bytes(before)
    for kind in ("images", "masks"):
        (folder_root / kind / "val" / "a.png").rename(folder_root / kind / "val" / "other.png")
    with pytest.raises(ValueError, match="sha256 of their files: [0-9a-f]{12} -> [0-9a-f]{12}"):
        run()


def test_a_foreign_folder_or_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    dataset = Listed(some_samples("segment", 3))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"no folder of counts, it has files and no evaluation\.json"):
        score("segment", dataset, tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file; a folder"):
        score("segment", dataset, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_what_is_ours_is_removed(tmp_path: Path) -> None:
    score("segment", Listed(some_samples("segment", 3)), tmp_path / "counts")
    (tmp_path / "counts" / "notes.txt").write_text("mine")
    remove_folder(tmp_path / "counts")
    assert [path.name for path in (tmp_path / "counts").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kept", [0, 1, 30, 0.5, 0.9])
def test_a_damaged_file_is_refused_by_name(kept: float, tmp_path: Path) -> None:
    dataset, folder = Listed(some_samples("detect_segment", 5)), tmp_path / "counts"
    score("detect_segment", dataset, folder)
    content = (folder / "share-0.npz").read_bytes()
    (folder / "share-0.npz").write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(ValueError, match=r"share-0\.npz: damaged .*Remove .*counts; the evaluation then starts anew"):
        score("detect_segment", dataset, folder)


def test_a_flipped_byte_is_seen(tmp_path: Path) -> None:
    dataset, folder = Listed(some_samples("segment", 5)), tmp_path / "counts"
    score("segment", dataset, folder)
    content = bytearray((folder / "share-0.npz").read_bytes())
    content[content.index(b"position") + 12] ^= 1
    (folder / "share-0.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"share-0\.npz: damaged"):
        score("segment", dataset, folder)


def test_a_disk_that_takes_nothing_more_stops_it_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(RunStopped, match=r"could not be kept in .*counts: No space left on device\. Make room there"):
        score("segment", Listed(some_samples("segment", 5)), tmp_path / "counts")
    assert [path.name for path in (tmp_path / "counts").iterdir()] == ["evaluation.json"]  # nothing half-written


def resumed(folder: Path) -> dict[str, Any]:
    return figures(score("detect_segment", Listed(some_samples("detect_segment", COUNT)), folder))


def test_several_processes_go_on_each_from_its_own_counts(tmp_path: Path) -> None:
    folder = tmp_path / "counts"
    alone = figures(score("detect_segment", Listed(some_samples("detect_segment", COUNT))))
    assert run_ranks(partial(resumed, folder), 2) == [alone] * 2
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "share-0.npz", "share-1.npz"]
    (folder / "share-1.npz").unlink()  # as of a process that was killed before it had kept anything
    assert run_ranks(partial(resumed, folder), 2) == [alone] * 2
    with pytest.raises(ValueError, match="processes: 2 -> 1"):
        resumed(folder)
