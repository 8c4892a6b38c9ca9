"""`veduta evaluate` as its users meet it: processes of their own, signals, several of them, files that are written."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import expect_mistake, veduta
from layouts import TINY, paint, save, write_folder
from test_sweep import write_run
from typer.testing import CliRunner, Result

from veduta.checkpoint import load_model, save_model
from veduta.cli import app

# The command line that sends itself signals (see stopping_command.py), and keeps its counts after every batch.
STOPPING = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from veduta.engine import kept_counts
kept_counts.EVERY = 0.0
from stopping_command import app
app()
"""
ONE_BY_ONE = ("--set", "data.batch_size=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images to score."""
    root = write_folder(tmp_path_factory.mktemp("evaluate") / "data")
    for i in range(4):
        image, train_ids = paint(100 + i, TINY.num_classes)
        save(root / f"images/val/n{i}.png", image)
        save(root / f"masks/val/n{i}.png", TINY.decode(train_ids))
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    return write_run(root.parent / "run", root)


@pytest.fixture(scope="module")
def expected(run: Path) -> dict[str, Any]:
    """What an evaluation says that nothing stopped."""
    file = run.parent / "expected.json"
    result = veduta("evaluate", run, *ONE_BY_ONE, "--json", file, guard=run.parent)
    assert result.returncode == 0, result.stderr
    return figures(file)


def figures(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return {name: value for name, value in content.items() if name not in ("seconds", "environment")}


def inside(*arguments: str | Path) -> Result:
    """The command line in this process: it starts faster."""
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: ") == 1
    for word in words:
        assert word in result.stderr


def stopped(moment: str, names: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STOPPING, moment, names, "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_stopped_evaluation_goes_on_with_the_same_command_to_the_same_bits(
    name: str, code: int, run: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    folder, file = tmp_path / "counts", tmp_path / "all.json"
    command = (run, *ONE_BY_ONE, "--resume", folder, "--json", file)
    result = stopped("evaluating 3/7", f"rank 0,{name}", *command)
    assert result.returncode == code, result.stderr
    assert not file.exists() and result.stdout == "" and "Traceback" not in result.stderr
    if name != "SIGKILL":
        assert f"stopped at evaluating 3/7: what was counted is kept in {folder}" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "share-0.npz"]
    result = veduta("evaluate", *command)
    assert result.returncode == 0, result.stderr
    assert figures(file) == expected
    assert not folder.exists()


def test_without_a_folder_a_stopped_one_says_that_nothing_is_kept(run: Path) -> None:
    result = stopped("evaluating 3/7", "rank 0,SIGTERM", run, *ONE_BY_ONE)
    assert result.returncode == 143
    assert "stopped at evaluating 3/7: nothing is kept; with --resume FOLDER it would be." in result.stderr


def test_several_processes_print_once_and_give_the_figures_of_one(
    run: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "all.json"
    result = veduta("evaluate", run, *ONE_BY_ONE, "--json", file, "--devices", "2", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert figures(file) == expected and result.stdout.count("each once") == 1
    assert json.loads(file.read_text())["environment"]["processes"] == 2


def test_several_processes_that_are_told_to_stop_keep_their_counts_and_go_on(
    run: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    folder, file = tmp_path / "counts", tmp_path / "all.json"
    command = ("--devices", "2", "--device", "cpu", run, *ONE_BY_ONE, "--resume", folder, "--json", file)
    start = "import sys; from veduta.engine.launch import launch; sys.exit(launch(sys.argv[1:], 2))"
    ranks = [sys.executable, "-c", STOPPING, "evaluating, process 1 of 2: 2/", "rank 1,SIGTERM", "evaluate"]
    result = subprocess.run(
        [sys.executable, "-c", start, *ranks, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0 and "Traceback" not in result.stderr, result.stderr
    assert {path.name for path in folder.glob("share-*")} == {"share-0.npz", "share-1.npz"}
    result = veduta("evaluate", *command)
    assert result.returncode == 0, result.stderr
    assert figures(file) == expected


def test_a_mistake_is_said_once_by_several_processes(run: Path, root: Path, tmp_path: Path) -> None:
    several = ("--devices", "2", "--device", "cpu")
    expect_mistake(veduta("evaluate", run, *several, "--split", "nowhere"), "nowhere")
    expect_mistake(veduta("evaluate", run, *several, "--sort", "size"), "--sort size", "iou")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optim.lr=0.1", ["optim.lr", "changes no score", "protocol, precision, model_options"]),
        ("data.augment.flip=0", ["changes no score"]),
        ("data={}", ["changes no score"]),
        ("steps=3", ["changes no score"]),
        ("data.val_split=test", ["--split"]),
        ("data.root=elsewhere", ["--data"]),
        ("device=cpu", ["--device"]),
        ("protcol=mirrored", ["no field 'protcol'", "protocol"]),
        ("model_options.output_strid=8", ["output_strid"]),
        ("protocol=coco", ["coco", "segment"]),
    ],
)
def test_what_changes_no_score_cannot_be_set(assignment: str, words: list[str], run: Path) -> None:
    refused(inside(run, "--set", assignment), *words)


def test_the_options_of_a_sweep_and_those_of_one_checkpoint_do_not_mix(run: Path, tmp_path: Path) -> None:
    refused(inside(run, "--curve", tmp_path / "a.png"), "--curve", "--sweep")
    refused(inside(run, "--sweep", "--report", tmp_path / "a.html"), "--report", "one checkpoint")
    refused(inside(run, "--sweep", "--sort", "iou"), "--sort", "one checkpoint")
    refused(inside(run, "--sweep", "--out", tmp_path / "a.pt"), "NAME.safetensors")
    same = tmp_path / "same.json"
    refused(inside(run, "--json", same, "--report", same), "the same file")


def test_a_sweep_prints_its_table_writes_what_it_is_asked_for_and_can_be_resumed(run: Path, tmp_path: Path) -> None:
    curve, out, file, folder = (tmp_path / name for name in ("c.png", "average.safetensors", "a.json", "counts"))
    command = (run, "--sweep", *ONE_BY_ONE, "--resume", folder, "--json", file, "--curve", curve, "--out", out)
    result = stopped("evaluating step 200 4/7", "rank 0,SIGKILL", *command)
    assert result.returncode == -signal.SIGKILL
    assert (folder / "step-100" / "share-0.npz").is_file() and not file.exists()
    result = veduta("evaluate", *command, guard=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "warning: 'val' has chosen best.safetensors in training" in result.stderr
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert names[:5] == ["checkpoint", "step 100", "step 200", "step 1,300", "average of 3"]
    assert curve.stat().st_size > 1000 and load_model(out)[1].step == 1300
    assert len(json.loads(file.read_text())["checkpoints"]) == 4 and not folder.exists()
    assert sorted(path.name for path in (run / "checkpoints").iterdir())[0] == "best.safetensors"  # nothing written


def test_predictions_in_a_folder_score_as_the_model_that_made_them(run: Path, root: Path, tmp_path: Path) -> None:
    written = tmp_path / "predicted"
    assert CliRunner().invoke(app, ["predict", *map(str, (run, root / "images/val", "--out", written))]).exit_code == 0
    files = tmp_path / "model.json", tmp_path / "files.json"
    for given, file in ((run, files[0]), (written, files[1])):
        result = inside(given, "--data", root, "--split", "val", "--json", file)
        assert result.exit_code == 0, result.output
    assert figures(files[0])["confusion"] == figures(files[1])["confusion"]


def test_predictions_need_data_and_have_nothing_to_set(run: Path, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("name,class\n")
    refused(inside(table), "--data PATH")
    refused(inside(table, "--data", root, "--set", "protocol=mirrored"), "--set protocol=mirrored")


def test_a_model_is_scored_on_the_layout_that_a_folder_fits(run: Path, root: Path, tmp_path: Path) -> None:
    """An imported model knows no layout; its recipe names one nevertheless."""
    weights, info = load_model(run / "checkpoints/best.safetensors")
    recipe = replace(info.recipe, data=replace(info.recipe.data, dataset="camvid", root=""))
    save_model(tmp_path / "model.safetensors", weights, replace(info, recipe=recipe))
    result = inside(tmp_path / "model.safetensors", "--data", root, "--split", "val")
    assert result.exit_code == 0 and "folder val: 7 of 7 images" in result.stdout, result.output


def test_images_that_fail_stop_every_process_with_1_and_are_listed_once(run: Path, root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(root, data)
    (data / "images/val/n3.png").write_bytes(b"broken")
    result = veduta("evaluate", run, "--data", data, "--devices", "2", "--device", "cpu")
    assert result.returncode == 1 and "6 of 7 images, 1 failed" in result.stdout
    assert result.stderr.count("1 images failed") == 1 and result.stderr.count("n3.png") == 1
    allowed = inside(run, "--data", data, "--allow-failed")
    assert allowed.exit_code == 0 and "6 of 7 images, 1 failed" in allowed.stdout
