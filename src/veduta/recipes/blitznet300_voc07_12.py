"""BlitzNet300 on PASCAL VOC 2007 and 2012: the command in the README of dvornikita/blitznet."""

from dataclasses import replace

from veduta.config import Recipe
from veduta.recipes.blitznet300_voc12 import blitznet300_voc12


def blitznet300_voc07_12() -> Recipe:
    """BlitzNet300 at stride 4 on VOC 2007 trainval (5011) and 2012 train_aug (10,582), Adam, 65,000 steps of 32.

    veduta train blitznet300-voc07+12 --data VOCdevkit --init trunk.safetensors --out runs/blitznet300-0712
    VOCdevkit holds VOC2007 and VOC2012; trunk.safetensors and devices as for blitznet300-voc12.
    Cost: 65,000 steps at the port's 0.35 s make 6.3 hours. The README tests boxes on VOC 2007 test (veduta evaluate
    --split 2007/main-test --set protocol=blitznet-voc07: its AP has 11 points); its figures were not at hand when this
    was written.
    """
    recipe = blitznet300_voc12()
    return replace(
        recipe,
        name="blitznet300-voc07+12",
        data=replace(recipe.data, train_split="2007/main-trainval+2012/train_aug", val_split="2012/val"),
        optim=replace(recipe.optim, milestones=(40_000, 50_000)),
        steps=65_000,
    )
