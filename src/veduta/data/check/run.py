"""The check of a whole data set: what it holds, what is wrong with it, and how that is told."""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from veduta import __version__
from veduta.data.check.cache import Cache, cache_file
from veduta.data.check.card import SplitCard
from veduta.data.check.facts import find_twin
from veduta.data.check.faults import SEVERITIES, Fault, Finding, finding_of, group, visible
from veduta.data.check.survey import Progress, Survey
from veduta.data.layout import FileDataset, Layout
from veduta.data.layouts.shards import verify_shards
from veduta.labels import LabelMap

PICTURES = 12  # samples to be drawn


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What a data set holds and what is wrong with it. pictures: split and index of samples that show its classes."""

    root: Path
    layout: str
    labels: LabelMap | None  # None where no split could be opened
    cards: dict[str, SplitCard]
    datasets: dict[str, FileDataset[Any]]
    faults: list[Fault]
    pictures: list[tuple[str, int]]
    seconds: float

    @property
    def failed(self) -> bool:
        return any(fault.severity == "error" for fault in self.faults)

    @property
    def num_images(self) -> int:
        """An image that lies in several splits counts once."""
        return len({row for card in self.cards.values() for row in card.rows})

    def verdict(self) -> str:
        """`2 errors, 1 warning, 3 notes in 570 images of /data/scenes (folder), checked in 1.2 s`"""
        counts = Counter(fault.severity for fault in self.faults)
        told = ", ".join(f"{counts[s] or 'no'} {s}{'' if counts[s] == 1 else 's'}" for s in SEVERITIES)
        return f"{told} in {self.num_images:,} images of {self.root} ({self.layout}), checked in {self.seconds:.1f} s"

    def text(self) -> str:
        """The splits, a block for each fault, worst last where the eye is, and the verdict."""
        splits = [visible(f"{name}: {_in_words(card)}") for name, card in self.cards.items()]
        faults = (f"{fault.severity}: {fault}" for fault in reversed(self.faults))
        return "\n\n".join(["\n".join(splits), *faults, visible(self.verdict())]).strip()

    def to_json(self) -> str:
        content = {
            "veduta": __version__,
            "root": str(self.root),
            "layout": self.layout,
            "verdict": self.verdict(),
            "images": self.num_images,
            "faults": [{**asdict(fault), "count": len(fault.findings)} for fault in self.faults],
            "splits": {name: card.facts() for name, card in self.cards.items()},
        }
        return json.dumps(content, indent=1) + "\n"


def check(root: Path, layout_name: str, layout: Layout, *, progress: Progress) -> DataCheck:
    """Decode every image and count every mask of every split. A file that has not changed since is not read again."""
    began = time.perf_counter()
    datasets: dict[str, FileDataset[Any]] = {}
    findings: list[Finding] = []
    for split in layout.splits(root) or ("train",):
        try:
            datasets[split] = layout.open(root, split)
            if layout_name == "shards":
                verify_shards(root, split, lambda done, total, split=split: progress(f"hashes of {split}", done, total))  # type: ignore[misc]
        except (ValueError, OSError) as error:
            findings.append(_refused(split, error, opened=split in datasets))
    survey = Survey()
    with Cache(cache_file()) as cache:
        for split, dataset in datasets.items():
            survey.examine(split, dataset, cache, decode=True, progress=progress)
    return DataCheck(
        root=root,
        layout=layout_name,
        labels=next((dataset.labels for dataset in datasets.values()), None),
        cards=survey.cards,
        datasets=datasets,
        faults=group([*findings, *survey.findings(), *survey.between_splits(datasets), *survey.unlisted()]),
        pictures=choose_pictures(survey.cards, PICTURES),
        seconds=time.perf_counter() - began,
    )


def _refused(split: str, error: Exception, *, opened: bool) -> Finding:
    found = finding_of("shard-changed" if opened else "open", split, error)
    missing = isinstance(error, FileNotFoundError) and found.file and not Path(found.file).exists()
    twin = find_twin(Path(found.file)) if missing and "There is" not in found.detail else None
    return replace(found, detail=f"{found.detail} There is {twin.name}: rename it.") if twin else found


def choose_pictures(cards: dict[str, SplitCard], count: int) -> list[tuple[str, int]]:
    """Samples without errors: first those that show classes not shown yet, then some from all over the splits."""
    rows: set[tuple[str, bytes]] = set()  # an image that lies in several splits is drawn once
    usable = []
    for split, card in cards.items():
        for index, (row, classes) in enumerate(zip(card.rows, card.usable, strict=True)):
            if classes is not None and row not in rows:
                usable.append((split, index, classes))
                rows.add(row)
    chosen: list[int] = []
    shown = 0
    while len(chosen) < min(count, len(usable)):
        new = [(classes & ~shown).bit_count() for _, _, classes in usable]
        best = int(np.argmax(new))  # the first of the best
        if not new[best]:
            break
        chosen.append(best)
        shown |= usable[best][2]
    drawn = set(chosen)
    rest = [place for place in range(len(usable)) if place not in drawn]
    more = min(count - len(chosen), len(rest))
    chosen += [rest[len(rest) * step // more] for step in range(more)]
    return [usable[place][:2] for place in sorted(chosen)]


def _in_words(card: SplitCard) -> str:
    parts = [f"{len(card):,} images"]
    if card.sizes:
        (height, width), number = card.sizes.most_common(1)[0]
        among = "" if number == card.sizes.total() else f" and {len(card.sizes) - 1:,} other sizes"
        parts.append(f"{width} x {height}{among}")
    parts.append(f"{int((card.images > 0).sum())} of {card.labels.num_classes} classes")
    if card.masks:
        share = card.void / max(1, card.void + int(card.pixels.sum()))
        parts.append(f"{card.masks:,} masks, {100 * share:.1f} % void")
    if card.boxed:
        parts.append(f"{int(card.boxes.sum()):,} boxes, {int(card.difficult.sum()):,} difficult")
    if card.scenes:
        parts.append(f"{card.scenes:,} scene classes")
    return ", ".join(parts)
