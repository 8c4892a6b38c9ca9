"""A short run of the fuzz harness, in this process: no damage of a file brings anything but arrays or a refusal."""

from pathlib import Path

import pytest
from fuzz_readers import READERS, make_seed, try_case


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_give_arrays_or_a_checkpoint_error(reader: str, tmp_path: Path) -> None:
    seed = make_seed(reader, tmp_path)
    readable = sum(try_case(reader, seed, tmp_path, case, run=0) for case in range(300))
    assert 0 < readable < 300  # the damage is neither always nor never seen
