"""A recipe of several stages: each is a run of its own, which starts from the best weights of the one before."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from veduta.config import Recipe
from veduta.engine.before import check_next_stage
from veduta.engine.progress import ProgressLine
from veduta.engine.train import train
from veduta.files import check_new_folder
from veduta.model_info import find_model, step_folders
from veduta.ranks import joined, on_first
from veduta.tasks.evaluation import Evaluation


def train_stages(
    recipe: Recipe, out: Path, line: ProgressLine, *, init: Path | None, resume: bool, tensorboard: bool
) -> Iterator[tuple[Path, Evaluation]]:
    """Train every stage of `recipe`; gives each run folder with the evaluation of its best checkpoint.

    A single stage is trained into `out`, several into out/stage-1, out/stage-2, ... With `resume`, stages that have a
    next one already are done. Raises what `train` raises.
    """
    stages = recipe.stages
    folders = [out] if len(stages) == 1 else [out / f"stage-{n}" for n in range(1, len(stages) + 1)]
    if len(stages) > 1:
        if not resume:
            check_new_folder(out)
        elif out.exists() and not folders[0].exists() and any(out.iterdir()):
            raise ValueError(f"--resume: {out} is no run of several stages; it has no stage-1. Choose another --out.")
        with joined(recipe.device) as device:
            for stage in stages[1:]:
                on_first(partial(check_next_stage, stage, device))
    for number, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        following = folders[number + 1 : number + 2]
        if resume and following and following[0].exists():
            continue  # it is done: there is a next one
        if number and not step_folders(folder / "checkpoints"):
            init = find_model(folders[number - 1])
        yield folder, train(stage, folder, line, init=init, resume=resume, tensorboard=tensorboard)
