"""Recipes: plain values, one file each; the docstring holds command, cost and the number to expect."""

from collections.abc import Callable
from pathlib import Path

from veduta.config import Recipe, nearest, read_recipe
from veduta.recipes.blitznet300_voc07_12 import blitznet300_voc07_12
from veduta.recipes.blitznet300_voc12 import blitznet300_voc12
from veduta.recipes.blitznet512_voc import blitznet512_voc
from veduta.recipes.camvid import camvid
from veduta.recipes.camvid_cpu import camvid_cpu
from veduta.recipes.cifar_cpu import cifar_cpu
from veduta.recipes.deeplabv3plus_xception65_voc import deeplabv3plus_xception65_voc
from veduta.recipes.deeplabv3plus_xception65_voc_train_aug import deeplabv3plus_xception65_voc_train_aug
from veduta.recipes.demo import demo
from veduta.recipes.folder_cpu import folder_cpu
from veduta.recipes.people_cpu import people_cpu
from veduta.recipes.refinenet101_voc import refinenet101_voc
from veduta.recipes.resnest50_deeplabv3_cityscapes import resnest50_deeplabv3_cityscapes
from veduta.recipes.resnest50_deeplabv3_cityscapes_ascend import resnest50_deeplabv3_cityscapes_ascend
from veduta.recipes.resnest50_imagenet import resnest50_imagenet
from veduta.recipes.resnest50_imagenet_mindspore import resnest50_imagenet_mindspore

RECIPES: dict[str, Callable[[], Recipe]] = {
    "camvid": camvid,
    "camvid-cpu": camvid_cpu,
    "cifar-cpu": cifar_cpu,
    "demo": demo,
    "folder-cpu": folder_cpu,
    "people-cpu": people_cpu,
    # As published
    "resnest50-imagenet": resnest50_imagenet,
    "resnest50-imagenet-mindspore": resnest50_imagenet_mindspore,
    "resnest50-deeplabv3-cityscapes": resnest50_deeplabv3_cityscapes,
    "resnest50-deeplabv3-cityscapes-ascend": resnest50_deeplabv3_cityscapes_ascend,
    "deeplabv3plus-xception65-voc": deeplabv3plus_xception65_voc,
    "deeplabv3plus-xception65-voc-train-aug": deeplabv3plus_xception65_voc_train_aug,
    "blitznet300-voc12": blitznet300_voc12,
    "blitznet300-voc07+12": blitznet300_voc07_12,
    "blitznet512-voc": blitznet512_voc,
    "refinenet101-voc": refinenet101_voc,
}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or from the JSON file or the run folder that `name` is the path of."""
    if name in RECIPES:
        return RECIPES[name]()
    if (Path(name) / "recipe.json").is_file():
        return read_recipe(Path(name) / "recipe.json")
    if name.endswith(".json"):
        return read_recipe(Path(name))
    raise ValueError(f"no recipe is called '{name}'.{nearest(name, RECIPES)} A recipe file ends in .json.")
