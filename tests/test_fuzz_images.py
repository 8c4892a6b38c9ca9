"""A short run of the fuzz harness, in this process: damage of a file brings an array or a ValueError, nothing else."""

from pathlib import Path

import pytest
from fuzz_images import make_seeds, try_case

SEEDS = make_seeds()


@pytest.mark.filterwarnings("ignore:::PIL")  # pytest takes the filter of veduta.data.images away
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_images_and_masks_give_arrays_or_a_value_error(kind: str, tmp_path: Path) -> None:
    readable = sum(try_case(kind, SEEDS[kind], tmp_path / "image", case, run=0) for case in range(50))
    assert readable < 50  # the damage is seen
    assert readable > 0 or "animated" in kind or kind in ("apng", "tiff_pages")  # those are refused whole
