"""A rehearsal: what goes wrong in a run's life is found, and the forecast is the sum of what was measured."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command import expect_mistake, veduta

from veduta.config import Data, Keep, Optim, Recipe
from veduta.data.scenes import Scenes
from veduta.engine import rehearse as module
from veduta.engine.checkpoints import save_checkpoint
from veduta.engine.forecast import Forecast
from veduta.engine.progress import ProgressLine
from veduta.engine.rehearse import Act, Failure, Rehearsal, Scoring, rehearse
from veduta.model_info import ModelInfo
from veduta.recipes.demo import demo


class Trained:
    """Stands in for `veduta train`: writes checkpoints of one weight, which is the number of the step."""

    exit_code = 143
    wrong_by = 0.0  # the weight of a run that went on
    starts_over = False

    def __init__(self, out: Path, recipe: Recipe, *, resume: bool, devices: int) -> None:
        self.out, self.recipe, self.resume, self.batch_size = out, recipe, resume, devices * recipe.data.batch_size
        self.checkpoints = out / "checkpoints"
        self.step = max([int(path.name[5:]) for path in self.checkpoints.glob("step-*")], default=0) if resume else 0
        if not resume or self.starts_over:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            (out / "first_batch.png").write_text(str(time.time()))

    def wait(self, condition: Callable[[], bool], patience: float) -> None:
        assert patience > 1
        while not condition():
            self.step += 1
            with (self.out / "metrics.jsonl").open("a") as file:
                row = {"step": self.step, "lr": 1, "images_per_second": self.batch_size / 0.25, "data_wait": 0.1}
                file.write(json.dumps({**row, "memory_mb": 100 + self.step}) + "\n")
            if self.step % self.recipe.keep.every == 0:
                self.save()
            if self.recipe.validate_every and self.step % self.recipe.validate_every == 0:
                (self.checkpoints / "best.safetensors").touch()

    def save(self) -> None:
        weight = torch.tensor([self.step + (self.wrong_by if self.resume else 0.0)])
        save_checkpoint(
            self.checkpoints,
            model={"weight": weight},
            info=ModelInfo(recipe=self.recipe, labels=Scenes.labels, step=self.step),
            tensors={"optimizer/0/exp_avg": weight / 2},
            values={},
            keep=self.recipe.keep,
        )

    def terminate(self, patience: float) -> int:
        return self.exit_code

    def kill(self) -> None:
        pass

    def lines(self) -> list[str]:
        return ["scenes", "warning: a class is rare"]

    def last_words(self) -> str:
        return "error: its last words"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Trained]]:
    class Fake(Trained):
        pass

    @contextlib.contextmanager
    def train(life: Any, out: Path, keep: Keep, validate_every: int, *, resume: bool = False) -> Iterator[Trained]:
        recipe = dataclasses.replace(life.recipe, keep=keep, validate_every=validate_every)
        yield Fake(out, recipe, resume=resume, devices=life.devices)

    def score(life: Any) -> Scoring:
        life.act = "validation"
        return Scoring(images=10, total=40, seconds=2.0, scores={}, unreadable=None)

    monkeypatch.setattr(module._Life, "_train", train)
    monkeypatch.setattr(module._Life, "_score", score)
    yield Fake


def run(folder: Path, recipe: Recipe | None = None, *, devices: int = 1) -> Rehearsal:
    return rehearse(recipe or demo(), folder, ProgressLine(silent=True), init=None, devices=devices)


def outcome(found: Rehearsal) -> dict[str, bool]:
    return {act.name: act.passed for act in found.acts}


def test_a_run_without_faults_passes_every_act(tmp_path: Path, trained: type[Trained]) -> None:
    found = run(tmp_path, devices=2)
    assert found.passed and list(outcome(found)) == [
        *("start", "kill -9", "resume", "SIGTERM", "uninterrupted run", "validation in the run", "same weights")
    ]
    said = {act.name: act.found for act in found.acts}
    assert said["start"].endswith("warnings: 1, the first: warning: a class is rare")
    assert said["kill -9"] == "during step 13 of 20"
    assert said["resume"].startswith("from step 12 to 20")
    assert "all 2 tensors of model and optimizer equal bit by bit" in said["same weights"]
    forecast = found.forecasts[0]
    assert [forecast.step, forecast.waited] == pytest.approx([0.25, 0.1]) and forecast.memory_mb == 120
    assert found.text().endswith("All passed: the run can start.")


def test_a_run_that_starts_over_is_found_though_its_weights_are_right(tmp_path: Path, trained: type[Trained]) -> None:
    trained.starts_over = True
    found = run(tmp_path)
    assert outcome(found) == {"start": True, "kill -9": True, "resume": False}
    assert "it did not go on from its checkpoint" in found.acts[-1].found and not found.forecasts


def test_weights_that_differ_after_a_resume_are_found_on_a_cpu(tmp_path: Path, trained: type[Trained]) -> None:
    trained.wrong_by = 1e-4
    found = run(tmp_path)
    assert not found.passed and found.acts[-1].name == "same weights"
    assert "2 of 2 tensors differ, by up to 5." in found.acts[-1].found
    assert found.text().endswith("1 of 7 acts FAILED: do not start the run yet.")
    found = run(tmp_path / "bf16", dataclasses.replace(demo(), precision="bf16"))
    assert found.passed and found.acts[-1].found.endswith("cpu in bf16 does not promise equal bits")


def test_another_exit_code_after_sigterm_is_found(tmp_path: Path, trained: type[Trained]) -> None:
    trained.exit_code = 1
    found = run(tmp_path)
    assert outcome(found)["SIGTERM"] is False
    assert found.acts[-1].found == "exit code 1, expected 143. error: its last words"


def test_a_validation_that_takes_too_long_is_not_made_but_forecast(
    tmp_path: Path, trained: type[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Scoring(images=10, total=5000, seconds=2.0, scores={}, unreadable=None)
    monkeypatch.setattr(module._Life, "_score", lambda life: slow)
    found = run(tmp_path)
    assert "validation in the run" not in outcome(found)
    assert found.forecasts[0].validation == 1000 and "from 10 of 5,000 images" in found.text()
    assert not (tmp_path / "whole/checkpoints/best.safetensors").exists()


def test_slow_steps_make_a_shorter_rehearsal_that_says_so(
    tmp_path: Path, trained: type[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_KILL", 0.0)
    monkeypatch.setattr(module, "SECONDS_OF_STEPS", 2.0)  # eight steps of 0.25 s
    found = run(tmp_path)
    assert found.passed
    assert found.acts[1].found == "during step 3 of 6; 20 would take too long here, so it is 6"


def test_every_stage_is_rehearsed_and_starts_from_the_one_before(tmp_path: Path, trained: type[Trained]) -> None:
    second = dataclasses.replace(demo(), name="second", steps=60)
    found = run(tmp_path, dataclasses.replace(demo(), then=second))
    assert found.passed and [forecast.recipe.name for forecast in found.forecasts] == ["demo", "second"]
    assert {act.name.split(": ")[0] for act in found.acts} == {"stage 1", "stage 2"}
    assert "all stages: " in found.text()


def test_a_recipe_shorter_than_a_rehearsal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="demo has 20 steps: that is no longer than a rehearsal"):
        run(tmp_path / "new", dataclasses.replace(demo(), steps=20))
    assert not (tmp_path / "new").exists()


def process(tmp_path: Path, code: str) -> module._Process:
    return module._Process([sys.executable, "-S", "-c", code], tmp_path / "log", lambda: None)


def test_a_run_that_ends_too_early_fails_with_its_own_error(tmp_path: Path) -> None:
    failing = process(tmp_path, "print('checking'); print('error: no data\\nGive some.'); raise SystemExit(2)")
    with pytest.raises(Failure, match=r"^exit code 2: error: no data\nGive some\.$"):
        failing.wait(lambda: False, 60)


def test_a_run_that_stands_still_or_does_not_end_is_killed_with_all_its_workers(tmp_path: Path) -> None:
    code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); "
    code += f"open({str(tmp_path)!r} + '/' + str(os.getpid()) + '.pid', 'w'); time.sleep(60)"
    still = process(tmp_path, code)
    still.wait(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 60)
    with pytest.raises(Failure, match="stands still: not done after 0:00"):
        still.wait(lambda: False, 0.1)
    with pytest.raises(Failure, match="still there 0:00 after SIGTERM"):
        still.terminate(0.1)
    still.kill()
    numbers = [path.stem for path in tmp_path.glob("*.pid")]
    for _ in range(100):  # an orphan is buried a moment later
        states = [Path(f"/proc/{number}/stat") for number in numbers]
        alive = [path for path in states if path.exists() and ") Z " not in path.read_text()]
        if not alive:
            return
        time.sleep(0.05)
    pytest.fail(f"{alive} still run")


def make_forecast(recipe: Recipe) -> Forecast:
    return Forecast(
        recipe=recipe,
        device="cpu",
        devices=1,
        start=10,
        step=0.5,
        waited=0.25,
        memory_mb=2048,
        validation=60,
        scored=(10, 40),
        save=2,
        checkpoint_bytes=3 * 10**9,
        model_bytes=10**9,
        free_bytes=10**12,
    )


def test_a_forecast_counts_validations_checkpoints_and_disk() -> None:
    recipe = Recipe(
        name="long",
        model="m",
        data=Data(dataset="scenes", batch_size=8),
        optim=Optim(lr=1),
        steps=1050,
        accumulate=2,
        validate_every=200,
        keep=Keep(every=100, multiples=500),
    )
    forecast = make_forecast(recipe)
    assert forecast.validated_after == {200, 400, 600, 800, 1000, 1050}
    assert len(forecast.saved_after) == 11  # every 100, and the end
    assert forecast.whole == 10 + 525 + 6 * 60 + 11 * 2
    assert forecast.disk_bytes == (3 + 1) * 3 * 10**9 + 10**9  # 500, 1000, 1050, and one that is being written
    text = forecast.text()
    assert "0.5 s, 32 images/s per device; 25 % of it waiting for data" in text
    assert "whole run    15:17" in text and "from 10 of 40 images" in text
    shortest = make_forecast(dataclasses.replace(recipe, validate_every=0, keep=Keep()))
    assert shortest.saved_after == {1050} and shortest.disk_bytes == 7 * 10**9


def test_errors_of_several_lines_stay_in_their_column() -> None:
    found = Rehearsal((Act("start", True, "fine"), Act("kill -9", False, "error: one\ntwo")), ())
    assert found.text().splitlines()[:3] == ["passed  start    fine", "FAILED  kill -9  error: one", " " * 17 + "two"]


def test_a_rehearsal_of_what_cannot_start_exits_1_and_shows_the_error(tmp_path: Path) -> None:
    out = tmp_path / "kept"
    result = veduta("rehearse", "camvid-cpu", "--set", "device=cpu", "--out", out, guard=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "FAILED  start  exit code 2: error: dataset camvid needs --data PATH" in result.stdout
    assert (out / "killed.log").is_file()
    expect_mistake(veduta("rehearse", "camvid-cpu", "--out", out), "kept exists")


@pytest.mark.slow
def test_the_demonstration_passes_its_rehearsal(tmp_path: Path) -> None:
    result = veduta("rehearse", "demo", "--out", tmp_path / "kept")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "tensors of model and optimizer equal bit by bit" in result.stdout
    assert "forecast for demo on cpu, fp32" in result.stdout
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"killed", "whole", "killed-resumed.log"}
