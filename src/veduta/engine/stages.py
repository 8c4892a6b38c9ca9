"""A recipe of several stages: each is a run of its own, which starts from the best weights of the one before."""

from collections.abc import Iterator
from pathlib import Path

from veduta.checkpoint import find_model
from veduta.config import Recipe
from veduta.data import open_dataset
from veduta.engine.progress import ProgressLine
from veduta.engine.run_folder import check_run_folder
from veduta.engine.train import train
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
    for stage in stages[1:]:  # what is wrong with its data should not come out when the one before has run for a day
        for split in (stage.data.train_split, stage.data.val_split):
            open_dataset(stage.data, split)
    for number, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        following = folders[number + 1 : number + 2]
        if resume and following and following[0].exists():
            check_run_folder(folder, stage, resume=True)
            line.say(f"{folder} is done")
            continue
        if number:
            init = find_model(folders[number - 1])
        yield folder, train(stage, folder, line, init=init, resume=resume, tensorboard=tensorboard)
