"""Recipes: plain values, one file each; the docstring holds command, cost and the number to expect."""

from collections.abc import Callable
from pathlib import Path

from veduta.config import Recipe, nearest, read_recipe
from veduta.recipes.camvid import camvid
from veduta.recipes.camvid_cpu import camvid_cpu
from veduta.recipes.demo import demo
from veduta.recipes.folder_cpu import folder_cpu

RECIPES: dict[str, Callable[[], Recipe]] = {
    "camvid": camvid,
    "camvid-cpu": camvid_cpu,
    "demo": demo,
    "folder-cpu": folder_cpu,
}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or from the JSON file that `name` is the path of."""
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith(".json"):
        return read_recipe(Path(name))
    raise ValueError(f"no recipe is called '{name}'.{nearest(name, RECIPES)} A recipe file ends in .json.")
