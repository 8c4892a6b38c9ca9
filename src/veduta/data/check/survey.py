"""What the samples of all splits show together: threads examine them, one place adds up and compares."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from veduta.data.check.cache import Cache
from veduta.data.check.card import SplitCard, judge_labels, judge_values
from veduta.data.check.examine import Examined, examine
from veduta.data.check.faults import Finding
from veduta.data.layout import FileDataset
from veduta.data.layouts.folder import IMAGE_ENDINGS

BLOCK = 2048  # samples that wait for a thread; an interrupted check has no more to forget
PLAIN = re.compile(r"(|.*[^a-z])(train|val|valid|validation|dev|test)\d*")  # such a split shares nothing with another

Progress = Callable[[str, int, int], None]  # split, done, total


class Survey:
    """Gathers what the samples of all splits show together."""

    def __init__(self) -> None:
        self.cards: dict[str, SplitCard] = {}
        self.found: list[Finding] = []
        self.values: Counter[int] = Counter()
        self.foreign: list[tuple[str, str, dict[int, int]]] = []
        self.listed: dict[Path, set[str]] = {}  # the files that samples name, by folder
        self.image_folders: set[Path] = set()

    def examine(self, split: str, dataset: FileDataset[Any], cache: Cache, *, decode: bool, progress: Progress) -> None:
        card = self.cards[split] = SplitCard(split, dataset.labels)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for first in range(0, len(dataset), BLOCK):
                    block = range(first, min(first + BLOCK, len(dataset)))
                    for sample in pool.map(lambda i: examine(dataset, i, split, cache, decode=decode), block):
                        self._add(card, sample)
                        progress(split, len(card), len(dataset))
            except BaseException:  # an interrupt does not wait for what has not begun
                pool.shutdown(cancel_futures=True)
                raise

    def _add(self, card: SplitCard, sample: Examined) -> None:
        card.add(sample)
        self.found += sample.findings
        self.values.update(sample.values)
        if sample.foreign:
            self.foreign.append((card.name, str(sample.mask), sample.foreign))
        for file in (sample.source, sample.mask):
            if file and not file.part:
                self.listed.setdefault(file.path.parent, set()).add(file.path.name)
        if sample.source and not sample.source.part and sample.image and not sample.image.problem:
            self.image_folders.add(sample.source.path.parent)

    def findings(self) -> Iterator[Finding]:
        yield from self.found
        for card in self.cards.values():
            yield from card.findings()
        for labels in [card.labels for card in self.cards.values()][:1]:  # one label map for all splits
            yield from judge_labels(labels)
            yield from judge_values(labels, self.values, self.foreign)

    def between_splits(self, datasets: dict[str, FileDataset[Any]]) -> Iterator[Finding]:
        """The same image twice, in a split and in two."""

        def file(split: str, index: int) -> str:
            return str(datasets[split].record(index).image)

        firsts: dict[str, dict[bytes, int]] = {}
        for split, card in self.cards.items():
            places = firsts[split] = {}
            for index, (_, digest) in enumerate(card.rows):
                if digest and places.setdefault(digest, index) != index:
                    told = f"is {file(split, places[digest])}"
                    yield Finding("duplicate", split, file(split, index), told)
        splits = list(firsts)
        for place, one in enumerate(splits):
            for other in splits[place + 1 :]:
                yield from self._between(one, other, firsts, file)

    def _between(
        self, one: str, other: str, firsts: dict[str, dict[bytes, int]], file: Callable[[str, int], str]
    ) -> Iterator[Finding]:
        kinds = [PLAIN.fullmatch(split) for split in (one, other)]
        if kinds[0] and kinds[1] and kinds[0][1] == kinds[1][1]:
            for digest in (digest for digest in firsts[one] if digest in firsts[other]):
                told = f"is {file(one, firsts[one][digest])} of {one}"
                where = f"splits {one} and {other}"
                yield Finding("leak", other, file(other, firsts[other][digest]), told, where)
        names = dict(self.cards[one].rows)
        same = [name for name, digest in self.cards[other].rows if digest and names.get(name, digest) != digest]
        if same:
            yield Finding("same-name", other, "", f"{len(same):,} of {one}, such as {same[0]}")

    def unlisted(self) -> Iterator[Finding]:
        for folder in sorted(self.image_folders):
            there = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
            left = [name for name in there if name not in self.listed[folder]]
            if left:
                yield Finding("unlisted", "", str(folder), f"{len(left):,} of {len(there):,}, such as {left[0]}")
