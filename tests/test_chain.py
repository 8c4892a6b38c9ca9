"""The five systems at full size on real pictures: a checkpoint of the reference is imported, evaluated, exported, run
by a stand-in for another runtime, and what that wrote scores as evaluated, to the last digit.

The weights are those of the recordings, so the networks have learned nothing. 22 minutes on one core: `pytest -m slow`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import rule
import torch
from checkpoint_writers import Arrays, write_mindspore, write_tf_bundle
from command import veduta
from golden_data import Golden
from real_sets import needs, unpack
from test_offline import run

PICTURES = 12  # of the split that is scored

pytestmark = pytest.mark.slow


def write_pytorch(path: Path, arrays: Arrays) -> None:
    torch.save({"state_dict": {name: torch.from_numpy(array) for name, array in arrays.items()}}, path)


@dataclass(frozen=True)
class Pictures:
    """A data set in shared/data. listed: the files that list the pictures of its split; else they lie in folders."""

    archive: str
    root: str
    split: str
    listed: str = ""

    def open(self, folder: Path) -> Path:
        """Unpacked, with the first pictures of the split alone."""
        unpack(self.archive, folder)
        root = folder / self.root
        if self.listed:
            for path in root.glob(self.listed):
                path.write_text("".join(path.read_text().splitlines(keepends=True)[:PICTURES]))
        else:
            for of_class in (root / self.split).iterdir():
                for path in sorted(of_class.iterdir())[2:]:
                    path.unlink()
        return root


CIFAR = Pictures("cifar10-mini.zip", "cifar10-mini", "test")
CAMVID = Pictures("camvid11.zip", "CamVid", "test", "test.txt")
VOC = Pictures("coco-voc20.zip", "VOCdevkit/VOC2017", "val", "ImageSets/*/val.txt")


@dataclass(frozen=True, kw_only=True)
class System:
    """golden: the recording whose weights the checkpoint holds. classes: how many classes it has. write: in the form
    of its framework. options: of every command that shows pictures to the network."""

    golden: str
    classes: int
    checkpoint: str
    write: Callable[[Path, Arrays], None]
    pictures: Pictures
    options: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    run: tuple[str, ...]

    def weights(self, num_classes: int) -> Arrays:
        """By the rule of the recordings, for as many classes as the pictures have."""
        golden = Golden(self.golden)
        return {
            name: rule.fill(
                name, [num_classes if n == self.classes else n for n in shape], gain=golden.meta.get("gain", 1.0)
            )
            for name, shape in golden.meta["parameters"]
        }


SYSTEMS = {
    "resnest50": System(
        golden="resnest50",
        classes=1000,
        checkpoint="resnest50.pth",
        write=write_pytorch,
        pictures=CIFAR,
        prepare=("--dtype", "uint8", "--layout", "nhwc"),
        run=("--form", "npy"),
    ),
    "resnest50-mindspore": System(
        golden="ms_resnest50",
        classes=1000,
        checkpoint="resnest50.ckpt",
        write=write_mindspore,
        pictures=CIFAR,
        run=("--form", "310"),
    ),
    "deeplabv3_resnest50": System(
        golden="deeplabv3_resnest50_citys",
        classes=19,
        checkpoint="deeplab_resnest50.pth",
        write=write_pytorch,
        pictures=CAMVID,
        options=("--set", "protocol=whole"),  # its own shows pictures in pieces
        run=("--form", "npy"),
    ),
    "deeplabv3plus_xception65": System(
        golden="deeplabv3plus_xception65_os16_513",
        classes=21,
        checkpoint="model.ckpt-30000",
        write=write_tf_bundle,
        pictures=VOC,
        prepare=("--layout", "nhwc"),
        run=("--form", "msame"),
    ),
    "refinenet_resnet101": System(
        golden="ms_refinenet101_129",
        classes=21,
        checkpoint="refinenet.ckpt",
        write=write_mindspore,
        pictures=VOC,
        run=("--form", "310"),
    ),
    "blitznet300": System(
        golden="blitznet300_resnet50_x4",
        classes=21,
        checkpoint="model.ckpt-40000",
        write=write_tf_bundle,
        pictures=VOC,
        run=("--form", "msame"),
    ),
}


def said(*arguments: str | Path) -> str:
    done = veduta(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def headline(printed: str) -> str:
    """What is said of the score, without where it comes from."""
    return printed.split("(")[0].strip()


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs(each.pictures.archive)) for n, each in SYSTEMS.items()])
def test_what_is_imported_exported_and_run_elsewhere_scores_as_evaluated(name: str, tmp_path: Path) -> None:
    system = SYSTEMS[name]
    split = system.pictures.split
    root = system.pictures.open(tmp_path / "data")
    said("data", "check", root, "--out", tmp_path / "checked")
    labels = tmp_path / "checked" / "labels.json"
    system.write(tmp_path / system.checkpoint, system.weights(len(json.loads(labels.read_text())["classes"])))
    model, exported = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    said("import", tmp_path / system.checkpoint, "--out", model, "--labels", labels)
    of: tuple[str | Path, ...] = ("--data", root, "--split", split, *system.options)
    evaluated = said("evaluate", model, *of)
    said("export", model, "--to", "onnx", "--out", exported)
    said("offline", "prepare", exported, "--out", tmp_path / "prepared", *of, *system.prepare)
    outputs = run(exported, tmp_path / "prepared", tmp_path / "outputs", *system.run)
    assert headline(said("score", outputs, "--model", exported, *of)) == headline(evaluated)
