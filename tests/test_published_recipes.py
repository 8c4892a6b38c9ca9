"""Every published recipe starts, validates, stops on a signal and goes on, at its true crop and with its true network.

Ten steps each, of one or two generated pictures in the true layout, on the CPU: `pytest -m slow` and most of an hour.
"""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import published_data
import pytest

from veduta.checkpoint import load_model
from veduta.model_info import find_model
from veduta.recipes import find_recipe

pytestmark = pytest.mark.slow

STEPS = 10
PATIENCE = 1800  # seconds until the first checkpoint

# BatchNorm of a channel's mean needs two images, where its statistics are those of the batch.
BATCH_SIZE = {
    "resnest50-imagenet": 2,
    "resnest50-imagenet-mindspore": 2,
    "resnest50-deeplabv3-cityscapes": 2,
    "resnest50-deeplabv3-cityscapes-ascend": 2,
    "deeplabv3plus-xception65-voc": 1,
    "deeplabv3plus-xception65-voc-train-aug": 2,
    "blitznet300-voc12": 2,
    "blitznet300-voc07+12": 2,
    "blitznet512-voc": 2,
    "refinenet101-voc": 1,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_data.write(tmp_path_factory.mktemp("published"))


def command(name: str, root: Path, out: Path) -> list[str]:
    """The published command, but for fewer and smaller batches, in float32 on the CPU."""
    small = {
        "steps": STEPS,
        "data.batch_size": BATCH_SIZE[name],
        "data.workers": 0,
        "device": "cpu",
        "precision": "fp32",
        "loss_scale": 0,
        "validate_every": STEPS // 2,
        "keep": json.dumps({"every": 1, "multiples": 0}),
    }
    folders = published_data.FOLDERS[name]
    stages = ["then." * number for number in range(len(folders))]
    settings = [f"--set={stage}{field}={value}" for stage in stages for field, value in small.items()]
    data = [f"--data={root / folder}" for folder in folders]
    return [sys.executable, "-m", "veduta.cli", "train", name, *data, *settings, "--out", str(out), "--resume"]


@pytest.mark.parametrize("name", published_data.FOLDERS)
def test_a_published_recipe_trains_validates_stops_and_goes_on(name: str, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stages = find_recipe(name).stages
    runs = [out] if len(stages) == 1 else [out / f"stage-{number}" for number in range(1, len(stages) + 1)]
    start = command(name, root, out)

    for run in runs:  # each stage is stopped once
        process = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            until = time.monotonic() + PATIENCE
            while not list((run / "checkpoints").glob("step-*")) and process.poll() is None:
                assert time.monotonic() < until, "no checkpoint was written"
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == 128 + signal.SIGTERM, said
        assert "Traceback" not in said
        assert load_model(newest(run))[1].step == trained_steps(run)[-1] < STEPS  # what was trained is saved

    result = subprocess.run(start, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for run, stage in zip(runs, stages, strict=True):
        assert trained_steps(run) == list(range(1, STEPS + 1))  # it went on where it was stopped
        assert all(math.isfinite(row["loss"]) for row in rows_of(run) if "loss" in row)
        assert any(key.startswith("val_") for row in rows_of(run) for key in row)
        assert load_model(newest(run))[1].step == STEPS
        info = load_model(find_model(run))[1]
        assert info.recipe.model == stage.model and info.recipe.data.crop_size == stage.data.crop_size
        assert (run / "report.html").is_file()


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def trained_steps(run: Path) -> list[int]:
    return [row["step"] for row in rows_of(run) if "loss" in row]


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*")) / "model.safetensors"
