"""Promises of memory: an evaluation keeps small numbers of its images, however many they are."""

import subprocess
import sys
from pathlib import Path

import pytest

# Evaluates so many generated images with their masks, and says by how many MB memory grew in the second half.
EVALUATE = """
import sys
import tracemalloc
import numpy as np
from layouts import LEVELS, TINY
from stub_backend import StubBackend
from veduta.data.sample import Sample
from veduta.engine.evaluate import evaluate
from veduta.engine.predictor import Predictor

count, side = map(int, sys.argv[1:])
tracemalloc.start()

class Generated:
    labels = TINY

    def __len__(self):
        return count

    def __getitem__(self, index):
        mask = np.full((side, side), index % 3, np.uint8)
        mask[: index % side] = 1
        image = np.zeros((side, side, 3), np.uint8)
        image[..., 0] = LEVELS * mask
        return Sample(image=image, name=f"generated-{index:06}", mask=mask)

def peak():
    # Of what Python and NumPy asked for; what the system counts also grows as it pages libraries in.
    return tracemalloc.get_traced_memory()[1] // 2**20

early = 0

def progress(done, total):
    global early
    if not early and done >= total // 2:
        early = peak()

source = Predictor(StubBackend(blind_to=2))
evaluation = evaluate(source, Generated(), name="generated", split="val", batch_size=4, progress=progress)
assert evaluation.images_counted == count and evaluation.proved
print(peak() - early)
"""


def growth(count: int, side: int) -> int:
    """In MB."""
    command = [sys.executable, "-c", EVALUATE, str(count), str(side)]
    tests = Path(__file__).parent
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tests)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def test_memory_does_not_grow_with_the_images() -> None:
    """In the second half of them 400 of 48 kB, with masks of 16 kB: 26 MB in all."""
    assert growth(800, 128) < 4


@pytest.mark.slow
def test_memory_does_not_grow_with_ten_thousand_images() -> None:
    """In the second half 5,000 of 48 kB, with masks of 16 kB: 320 MB in all."""
    assert growth(10_000, 128) < 40
