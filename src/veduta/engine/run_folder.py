"""The run folder: made once, recognised again by `--resume`."""

import json
import os
from pathlib import Path

from veduta.config import Recipe, differing_fields, read_recipe, recipe_to_json
from veduta.data.check.quick import SplitSummary
from veduta.engine.environment import environment
from veduta.files import check_new_folder, sync_folder, write_text
from veduta.labels import LabelMap

MAY_DIFFER = {  # when a run goes on: fields that change where and how fast it runs, and what it keeps
    "data.root",
    "data.workers",
    "data.in_memory",
    "data.batch_size",  # with accumulate, for another number of processes; the run then says that it is not exact
    "accumulate",
    "device",
    "keep.every",
    "keep.multiples",
    "data.unreadable",  # these two make no difference to a healthy step
    "not_finite",
}


def check_run_folder(out: Path, recipe: Recipe, *, resume: bool) -> None:
    """Raises an OSError where `out` can hold no new run, or a ValueError where with `resume` it holds another one."""
    started = out / "recipe.json"
    if not resume:
        if started.is_file():
            raise FileExistsError(
                f"--out {out} is a run. --resume goes on with it; for another one choose another --out."
            )
        check_new_folder(out)
    elif started.is_file():
        if not os.access(out, os.W_OK):
            raise PermissionError(f"--resume: no permission to write into {out}. Make it writable.")
        other = read_recipe(started)
        differing = [name for name in differing_fields(recipe, other) if name not in MAY_DIFFER]
        if differing:
            raise ValueError(
                f"--resume: {out} was started by a recipe with another {', '.join(differing)}. Give the same recipe "
                f"({started} is it), or choose another --out."
            )
    elif out.exists() and not (out.is_dir() and all(path.name.startswith(".") for path in out.iterdir())):
        raise ValueError(f"--resume: {out} is no run folder; it has no recipe.json. Choose another --out.")
    elif not out.exists():
        check_new_folder(out)


def make_run_folder(out: Path, recipe: Recipe, labels: LabelMap, summary: dict[str, SplitSummary]) -> None:
    """Recipe, environment and data card. The recipe comes first: by it the folder is known as a run."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "recipe.json", recipe_to_json(recipe))
    (out / "checkpoints").mkdir(exist_ok=True)
    write_text(out / "environment.json", json.dumps(environment(), indent=1) + "\n")
    content = {
        name: {
            "samples": split.num_samples,
            "void_pixels": split.void,
            "pixels": dict(zip(labels.names, split.pixels.tolist(), strict=True)),
        }
        for name, split in summary.items()
    }
    write_text(out / "data.json", json.dumps(content, indent=1) + "\n")
    for folder in (out, out.parent):  # so that a power cut takes neither
        sync_folder(folder)
