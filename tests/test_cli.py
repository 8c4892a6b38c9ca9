"""The command line as its users meet it: a process of its own, real files, exit codes, no traceback, no network."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command import expect_mistake, veduta
from layouts import save, write_folder
from PIL import Image

SMALL = ["--set", "model=deeplabv3plus_tiny", "--set", "steps=2", "--set", "data.batch_size=2"]
SMALL += ["--set", "data.crop_size=[40,48]", "--set", "validate_every=0", "--set", "loss.auxiliary=0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cli") / "data")


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    """A run folder, trained by the command line, without a socket and without a write elsewhere."""
    out = root.parent / "run"
    result = veduta("train", "folder-cpu", "--data", root, "--out", out, *SMALL, guard=root.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "mIoU" in result.stdout
    return out


def test_help_answers_within_a_second() -> None:
    seconds = []
    for _ in range(3):  # the best of three: this is about what help imports, not about a busy machine
        started = time.perf_counter()
        assert veduta("--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1


def test_help_does_not_import_torch() -> None:
    code = "import sys; from typer.testing import CliRunner; from veduta.cli import app\n"
    code += "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_train_writes_a_run_folder_with_a_report(run: Path) -> None:
    for name in ("recipe.json", "metrics.csv", "metrics.jsonl", "first_batch.png", "curves.png", "report.html"):
        assert (run / name).stat().st_size > 0


def test_evaluate_prints_a_headline_that_proves_itself_and_writes_json_and_a_page(run: Path, root: Path) -> None:
    file, page = root.parent / "val.json", root.parent / "val.html"
    result = veduta("evaluate", run, "--data", root, "--json", file, "--report", page, guard=root.parent)
    assert result.returncode == 0, result.stderr
    assert "3 of 3 images, each once, 0 failed; 3 of 3 classes present" in result.stdout
    content = json.loads(file.read_text())
    assert content["sha256"][:12] in result.stdout
    assert [c["name"] for c in content["classes"]] == ["sky", "road", "car"]
    assert page.read_text().startswith("<!doctype html>")


def test_evaluate_counts_an_unreadable_image_as_failed_and_exits_1(run: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (root / "images" / "val" / "a.png").write_bytes(b"no image")
    result = veduta("evaluate", run, "--data", root)
    assert result.returncode == 1
    assert "2 of 3 images, 1 failed" in result.stdout
    assert "a.png" in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_takes_files_folders_and_globs_and_keeps_names(run: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    for name in ("one.png", "album/two.jpg", "album/deep/three.png", "more/four.png"):
        save(tmp_path / name, image)
    arguments = [tmp_path / "one.png", tmp_path / "album", tmp_path / "mor?" / "*.png"]
    result = veduta("predict", run, *arguments, "--out", tmp_path / "out", guard=tmp_path)
    assert result.returncode == 0, result.stderr
    names = ["deep/three", "four", "one", "two"]
    masks = sorted(
        p.relative_to(tmp_path / "out/masks").with_suffix("").as_posix()
        for p in (tmp_path / "out/masks").rglob("*.png")
    )
    assert masks == names
    with Image.open(tmp_path / "out" / "masks" / "one.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (51, 37)
        assert set(np.unique(np.asarray(mask))) <= {0, 7, 10}  # file ids, not train ids
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert sorted(row["name"] for row in rows) == names
    assert all((tmp_path / "out" / "overlays" / f"{name}.jpg").is_file() for name in names)


def test_predict_names_the_image_it_cannot_read_does_the_others_and_exits_1(run: Path, tmp_path: Path) -> None:
    save(tmp_path / "good.png", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = veduta("predict", run, tmp_path / "good.png", tmp_path / "bad.png", "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "bad.png" in result.stderr
    assert (tmp_path / "out" / "masks" / "good.png").is_file()


def test_a_recipe_of_a_run_folder_trains_again(run: Path, tmp_path: Path) -> None:
    result = veduta("train", run / "recipe.json", "--out", tmp_path / "again", "--init", run)
    assert result.returncode == 0, result.stderr


def test_list_and_doctor_say_what_there_is() -> None:
    listed = veduta("list")
    assert listed.returncode == 0
    assert all(word in listed.stdout for word in ("camvid-cpu", "folder-cpu", "resnest50", "scenes"))
    doctor = veduta("doctor")
    assert doctor.returncode == 0
    assert "torch" in doctor.stdout


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    expect_mistake(veduta("train", "camvd-cpu", "--out", tmp_path / "run"), "camvd-cpu", "Did you mean camvid-cpu")


def test_a_misspelt_set_names_the_nearest(tmp_path: Path) -> None:
    result = veduta("train", "camvid-cpu", "--out", tmp_path / "run", "--set", "optim.lrr=1")
    expect_mistake(result, "optim.lrr", "Did you mean lr")


def test_a_model_of_another_task_is_refused(root: Path, tmp_path: Path) -> None:
    result = veduta("train", "folder-cpu", "--data", root, "--out", tmp_path / "run", "--set", "model=resnet18")
    expect_mistake(result, "resnet18", "class_logits", "mask_logits")


def test_an_output_folder_that_exists_is_refused(root: Path, tmp_path: Path) -> None:
    expect_mistake(veduta("train", "folder-cpu", "--data", root, "--out", tmp_path), str(tmp_path), "exists")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(run: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    expect_mistake(veduta("train", "folder-cpu", "--data", root, "--out", out), str(out), "is no folder")
    expect_mistake(veduta("predict", run, root / "images", "--out", out), str(out), "is no folder")
    for option, target in (("--json", tmp_path / "missing" / "val.json"), ("--report", tmp_path)):
        result = veduta("evaluate", run, "--data", root, option, target)
        expect_mistake(result, str(target), "folder")
        assert "mIoU" not in result.stdout


def test_an_image_that_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    expect_mistake(veduta("predict", run, tmp_path / "nope.jpg", "--out", tmp_path / "out"), "nope.jpg not found")


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    result = veduta("train", "folder-cpu", "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
    expect_mistake(result, str(tmp_path / "nowhere"), "images/ and masks/")


def test_a_missing_file_of_a_list_is_named(root: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    (data / "masks" / "train" / "a.png").unlink()
    expect_mistake(veduta("train", "folder-cpu", "--data", data, "--out", tmp_path / "run"), "a.png not found")


@pytest.mark.parametrize("fault", ["foreign value", "other size", "unreadable image"])
def test_bad_data_is_one_error_before_the_first_step(fault: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    mask, image = data / "masks" / "train" / "a.png", data / "images" / "train" / "a.png"
    if fault == "foreign value":
        words = [str(mask), "value 99", "768 pixels", "tiny"]
        save(mask, np.full((24, 32), 99, np.uint8))
    elif fault == "other size":
        words = [str(mask), "10 x 20", "32 x 24"]
        save(mask, np.zeros((20, 10), np.uint8))
    else:
        words = [str(image), "broken or cut off"]
        image.write_bytes(image.read_bytes()[:200])
    result = veduta("train", "folder-cpu", "--data", data, "--out", tmp_path / "run", *SMALL)
    expect_mistake(result, *words)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    expect_mistake(veduta("evaluate", tmp_path), str(tmp_path), "best.safetensors")


def test_a_damaged_model_file_is_refused(run: Path, root: Path, tmp_path: Path) -> None:
    content = bytearray((run / "checkpoints" / "best.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "broken.safetensors").write_bytes(content)
    expect_mistake(veduta("evaluate", tmp_path / "broken.safetensors", "--data", root), "broken.safetensors", "damaged")


def test_a_missing_device_is_refused(run: Path, root: Path) -> None:
    expect_mistake(veduta("evaluate", run, "--data", root, "--device", "abacus"), "abacus", "auto")
