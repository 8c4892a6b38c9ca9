"""BlitzNet512 on PASCAL VOC 2007 and 2012, as dvornikita/blitznet configures it."""

from dataclasses import replace

from veduta.config import Recipe
from veduta.recipes.blitznet300_voc07_12 import blitznet300_voc07_12


def blitznet512_voc() -> Recipe:
    """BlitzNet512 at stride 8 on VOC 2007 trainval and 2012 train_aug, Adam, 65,000 steps of 32.

    veduta train blitznet512-voc --data VOCdevkit --init trunk.safetensors --out runs/blitznet512
    Like blitznet300-voc07+12 at 512 pixels and, as published, without the level at stride 4. The README gives the
    command of BlitzNet300 only: steps and rates are taken from there, the batch is the code's default. 27.2 GMACs an
    image, 1.7 times those of BlitzNet300; time and score were not at hand when this was written.
    """
    recipe = blitznet300_voc07_12()
    return replace(
        recipe,
        name="blitznet512-voc",
        model="blitznet512",
        data=replace(recipe.data, crop_size=(512, 512)),
    )
