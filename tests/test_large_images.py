"""Promises of large images: 12,000 x 12,000 evaluate and 20,000 x 20,000 are predicted in less than 2 GB."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_files import assembled, encode_part, put
from layouts import LEVELS, TINY
from PIL import Image
from pydantic import TypeAdapter

from veduta.labels import LabelMap

MOST = 2_000_000  # kB
TILE = 512

# A network that reads the class of a pixel off its red, by protocol "windows", in a process of its own.
START = """
import json, sys
from dataclasses import replace
from pathlib import Path

import torch
from stub_backend import RECIPE, TINY

from veduta.backends.torch import TorchBackend
from veduta.model_info import ModelInfo
from veduta.engine.predictor import Predictor


class Red(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)
        red, level = torch.tensor([0.0, 1.0, 2.0]), 20 / 255
        self.conv.weight.data.zero_()[:, 0, 0, 0] = 2 * red / level  # the largest is that of the nearest level
        self.conv.bias.data = -(red**2)

    def forward(self, images):
        return {"mask_logits": self.conv(images)}


recipe = replace(RECIPE, protocol="windows", data=replace(RECIPE.data, root=sys.argv[1]))
info = ModelInfo(recipe=recipe, labels=TINY, step=0)
predictor = Predictor(TorchBackend(Red(), info, torch.device("cpu")))
"""
END = """
# The peak of this program alone; that of getrusage begins with what the one that started it had.
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(json.dumps([said, int(peak)]))
"""
EVALUATE = """
from veduta.data import open_dataset
from veduta.engine.evaluate import evaluate, with_examples

dataset = open_dataset(recipe.data, "val")
evaluation = evaluate(predictor, dataset, name="folder", split="val", batch_size=8)
said = [evaluation.headline(), len(with_examples(evaluation, predictor, dataset).worst)]
"""
PREDICT = """
from veduta.engine.predict import predict
from veduta.engine.progress import ProgressLine

said = [str(why) for why in predict(predictor, {"a": Path(sys.argv[1])}, Path(sys.argv[2]), ProgressLine())]
"""


def run(script: str, *arguments: Path) -> tuple[list[object], int]:
    """What the script says, and the most memory that it had, in kB."""
    command = [sys.executable, "-c", START + script + END, *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, peak = json.loads(done.stdout)
    return said, peak


def write_tiff(path: Path, side: int) -> Path:
    """Tiles of all classes, one after the other; the file is small, since tiles of a class lie in one place."""
    kinds = []
    for number in range(TINY.num_classes):
        tile = np.full((TILE, TILE, 3), 200, np.uint8)
        tile[..., 0] = LEVELS * number
        kinds.append(encode_part(tile, "tiff_adobe_deflate"))
    count = -(-side // TILE)
    tiles = [kinds[i % len(kinds)][0] for i in range(count * count)]
    return put(path, assembled(kinds[0][1], (side, side), (TILE, TILE), tiles))


def check_prediction(tmp_path: Path, side: int) -> None:
    said, peak = run(PREDICT, write_tiff(tmp_path / "a.tif", side), tmp_path / "out")
    assert said == [] and peak < MOST
    count = -(-side // TILE)
    tiles = np.arange(count * count).reshape(count, count) % TINY.num_classes
    expected = TINY.decode(tiles.astype(np.uint8)).repeat(TILE, axis=0).repeat(TILE, axis=1)[:side, :side]
    image, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert (np.asarray(mask) == expected).all()
    Image.MAX_IMAGE_PIXELS = image
    with Image.open(tmp_path / "out/overlays/a.jpg") as overlay:
        assert overlay.width * overlay.height <= 1 << 24


def test_an_image_of_4500_x_4500_is_predicted_by_bands(tmp_path: Path) -> None:
    check_prediction(tmp_path, 4500)


@pytest.mark.slow
def test_an_image_of_20000_x_20000_is_predicted_in_less_than_2_gb(tmp_path: Path) -> None:
    check_prediction(tmp_path, 20_000)


@pytest.mark.slow
def test_an_image_of_12000_x_12000_evaluates_in_less_than_2_gb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, TINY.num_classes, (120, 120), np.uint8).repeat(100, axis=0).repeat(100, axis=1)
    image = rng.integers(0, 30, (100, 12_000, 3), np.uint8).repeat(120, axis=0)  # blue, green, red
    image[..., 2] = LEVELS * ids
    for kind, pixels in (("images", image), ("masks", TINY.decode(ids))):
        (tmp_path / kind / "val").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / kind / "val/a.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (tmp_path / "labels.json").write_bytes(TypeAdapter(LabelMap).dump_json(TINY))
    (headline, examples), peak = run(EVALUATE, tmp_path)
    assert str(headline).startswith("mIoU 100.00") and "windows of 513 x 513" in str(headline) and examples == 1
    assert peak < MOST
