"""Exports of large networks compute what the networks compute, on images of every size and in batches of any number.

Those of small ones are traced once for both runtimes, in test_openvino.py.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exports import SIZES, TINY_SIZES, Size, differences, export_onnx, lively
from golden_data import Golden
from test_openvino import NETWORKS
from torch import nn

from veduta.backends import open_model
from veduta.legacy import from_arrays
from veduta.models import MODELS

OTHERS: dict[str, dict[str, Any]] = {  # one of each kind that is built of other parts
    "resnet18": {},
    "resnet50": {},
    "mobilenet_v2": {},
    "resnest14": {},
    "resnest50_fast_2s2x40d": {},
    "resnest50_fast_1s4x24d": {},
    "deeplabv3_mobilenet_v2": {},
    "deeplabv3_resnest50": {"pool_window": 7},
    "deeplabv3plus_small": {},
    "deeplabv3plus_mobilenet_v2": {"output_stride": 8},
    "deeplabv3plus_xception41": {},
    "refinenet_resnet50": {"same_pool": True, "output_resize": "legacy"},
    "blitznet_small": {},
}
MOST_DIFFERENT = 1e-4  # of an output's range; a file keeps to 1e-3
LEAST_AGREEMENT = 0.9999


def check(model: nn.Module, name: str, path: Path, sizes: tuple[Size, ...]) -> str:
    """Raises AssertionError, or tells the largest difference, the least agreement and how long it all took."""
    started = time.perf_counter()
    export_onnx(model, name, path)
    found = list(differences(model, open_model(path, backend="onnx"), sizes))
    for difference in found:
        assert difference.largest < MOST_DIFFERENT and difference.agreement > LEAST_AGREEMENT, difference
    largest, agreement = max(d.largest for d in found), min(d.agreement for d in found)
    return f"{name}: {largest:.1e}, {agreement:.6f}, {time.perf_counter() - started:.0f} s"


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_all_parts_compute_the_same_on_every_size(name: str, tmp_path: Path) -> None:
    check(lively(name, **OTHERS[name]), name, tmp_path / "model.onnx", SIZES + TINY_SIZES)


def recorded(recording: str, model: str, source: str, **options: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return from_arrays(model, Golden(recording).weights(), source=source, **options).eval()

    return build


SYSTEMS = {
    "resnest50": (recorded("resnest50", "resnest50", "zhanghang"), (Size(2, 224, 224), Size(1, 160, 321))),
    "deeplabv3_resnest50": (
        recorded("deeplabv3_resnest50_citys", "deeplabv3_resnest50", "encoding"),
        (Size(1, 193, 385), Size(2, 128, 128)),
    ),
    "deeplabv3plus_xception65": (
        recorded("deeplabv3plus_xception65_os16_129", "deeplabv3plus_xception65", "tensorflow", output_stride=16),
        (Size(1, 257, 257), Size(2, 129, 193)),
    ),
    "refinenet_resnet101": (
        recorded("refinenet101_voc", "refinenet_resnet101", "drsleep"),
        (Size(1, 256, 256), Size(2, 129, 193)),
    ),
    "blitznet300": (
        recorded("blitznet300_resnet50_x4", "blitznet300", "tensorflow", stride4=True),
        (Size(1, 300, 300), Size(2, 241, 375)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_five_systems_compute_the_same(name: str, tmp_path: Path) -> None:
    build, sizes = SYSTEMS[name]
    print(check(build(), name, tmp_path / "model.onnx", (*sizes, Size(1, 33, 47))))


def test_every_network_is_a_kind_that_is_exported_here() -> None:
    """By the files that the networks are built of."""
    kinds = {name.split("_")[0].rstrip("0123456789") for name in (*NETWORKS, *OTHERS, *SYSTEMS)}
    assert {name.split("_")[0].rstrip("0123456789") for name in MODELS} <= kinds
