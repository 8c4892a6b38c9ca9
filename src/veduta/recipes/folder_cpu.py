"""Your own folder of images and masks on two CPU cores."""

from dataclasses import replace

from veduta.config import Recipe
from veduta.recipes.camvid_cpu import camvid_cpu


def folder_cpu() -> Recipe:
    """The network and the schedule of camvid-cpu on a folder of images/ and masks/ (see data/layouts/folder.py).

    veduta train folder-cpu --data my-scenes --out runs/mine
    """
    recipe = camvid_cpu()
    data = replace(recipe.data, dataset="folder", batch_size=12, in_memory=False)
    return replace(recipe, name="folder-cpu", data=data)
