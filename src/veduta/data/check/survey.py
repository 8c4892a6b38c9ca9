"""What the samples of all splits show together: threads examine them, one place adds up and compares."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from veduta.data.check.cache import Cache
from veduta.data.check.card import SplitCard, compare_labels, judge_labels, judge_values
from veduta.data.check.examine import Examined, examine
from veduta.data.check.faults import Finding
from veduta.data.images import IMAGE_ENDINGS
from veduta.data.layout import FileDataset

BLOCK = 2048  # samples that wait for a thread; an interrupted check has no more to forget
MOST_THREADS = 32
PLAIN = re.compile(  # such a split shares nothing with another
    r"(|.*[^a-z])(train(?:ing)?|val|valid|validation|dev|test(?:ing)?)\d*", re.IGNORECASE
)

Progress = Callable[[str, int, int], None]  # split, done, total


class Survey:
    """Gathers what the samples of all splits show together."""

    def __init__(self) -> None:
        self.cards: dict[str, SplitCard] = {}
        self.found: list[Finding] = []
        self.values: Counter[int] = Counter()
        self.foreign: list[tuple[str, str, dict[int, int], int]] = []
        self.listed: dict[str, set[str]] = {}  # the files that samples name, by folder
        self.image_folders: set[str] = set()
        self.unknown = False  # whether there are samples whose files are not known, since their annotation is broken

    def examine(self, split: str, dataset: FileDataset[Any], cache: Cache, *, decode: bool, progress: Progress) -> None:
        card = self.cards[split] = SplitCard(split, dataset.labels)
        with ThreadPoolExecutor(min(count_cores(), MOST_THREADS)) as pool:
            try:
                for first in range(0, len(dataset), BLOCK):
                    block = range(first, min(first + BLOCK, len(dataset)))
                    for sample in pool.map(lambda i: examine(dataset, i, split, cache, decode=decode), block):
                        self._add(card, sample)
                        if decode:
                            self._list(sample)
                        progress(split, len(card), len(dataset))
            except BaseException:  # an interrupt does not wait for what has not begun
                pool.shutdown(cancel_futures=True)
                raise

    def _add(self, card: SplitCard, sample: Examined) -> None:
        card.add(sample)
        self.found += sample.findings
        self.values.update(sample.values)
        if sample.foreign:
            self.foreign.append((card.name, str(sample.mask), sample.foreign, sum(sample.values.values())))

    def _list(self, sample: Examined) -> None:
        self.unknown |= sample.source is None
        for file in (sample.source, sample.mask):
            if file and not file.part:
                folder, name = os.path.split(file.path)  # a tenth of the time of Path.parent
                self.listed.setdefault(folder, set()).add(name)
        if sample.source and not sample.source.part and sample.image and not sample.image.problem:
            self.image_folders.add(os.path.split(sample.source.path)[0])

    def findings(self) -> Iterator[Finding]:
        yield from self.found
        for card in self.cards.values():
            yield from card.findings()
        for labels in [card.labels for card in self.cards.values()][:1]:  # one label map for all splits
            yield from compare_labels(self.cards.values())
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
        """Images that no split names; they cannot be told where annotations are broken, which may name them."""
        for folder in sorted(self.image_folders) if not self.unknown else ():
            try:
                images = (path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
                there = sorted(path.name for path in images if not path.name.startswith("."))
            except OSError:  # it was there a moment ago; what was found in it still holds
                continue
            left = [name for name in there if name not in self.listed[folder]]
            if left:
                yield Finding("unlisted", "", str(Path(folder)), f"{len(left):,} of {len(there):,}, such as {left[0]}")


def count_cores() -> int:
    """Those that this process may use: schedulers of clusters give some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
